//! CSV to fixes: reads a file line by line on its own thread, checks each line, and writes its fix as JSON text.
//!
//! A record is one line: a quote that is not closed costs its own line, never the rest of the file. Numbers go
//! through as the text that they were, so that a coordinate reaches the log as it stood in the file.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    ops::Range,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use waypost_schemas::{id::DeviceId, place::Place, time::Micros};

use super::fields::Fields;
use crate::cli::file::Source;

/// The longest line that is looked at; a longer one is a bad line.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How much text of the file is read at a time; also how much of it one [`Chunk`] comes from.
const READ_BYTES: usize = 64 * 1024;
/// The longest number that goes through as text; a longer one is written anew.
const NUMBER_BYTES_MAX: usize = 32;

/// The columns that must be there.
const REQUIRED: [&str; 4] = ["device", "timestamp", "lat", "lon"];
/// The columns that may be there, and the fix's fields that they become.
const OPTIONAL: [(&str, &str); 4] = [
    ("accuracy", "accuracy_m"),
    ("speed", "speed_mps"),
    ("heading", "heading_deg"),
    ("altitude", "altitude_m"),
];

/// What came of one stretch of the file.
#[derive(Debug, Default)]
pub(in crate::cli) struct Chunk {
    /// The good lines, in file order.
    pub(in crate::cli) rows: Vec<Row>,
    /// The text that the rows point into.
    pub(in crate::cli) text: Vec<u8>,
    /// The bad lines, in file order.
    pub(in crate::cli) bad: Vec<Bad>,
    /// How many bytes of the file, as it lies on disk, have been read so far.
    pub(in crate::cli) read: u64,
}

/// One good line.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Row {
    /// Its number in the file, from 1; the header is line 1.
    pub(in crate::cli) line: u64,
    device: Range<u32>,
    fix: Range<u32>,
}

/// A line that is no fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Bad {
    /// Its number in the file, from 1.
    pub(in crate::cli) line: u64,
    /// What was wrong with it.
    pub(in crate::cli) why: String,
}

impl Chunk {
    /// A row's device, in its written form.
    pub(in crate::cli) fn device(&self, row: &Row) -> &str {
        let bytes = &self.text[row.device.start as usize..row.device.end as usize];
        std::str::from_utf8(bytes).expect("a device id is ASCII")
    }
    /// A row's fix, as a JSON object.
    pub(in crate::cli) fn fix(&self, row: &Row) -> &[u8] {
        &self.text[row.fix.start as usize..row.fix.end as usize]
    }
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.bad.is_empty()
    }
}

/// Reads to the end, in chunks; an error is the last thing sent. Stops early where nobody listens any more.
///
/// Blocks: it is for a thread of its own. A chunk is sent before the next read could wait, so that what comes
/// through a pipe goes on at once.
pub(in crate::cli) fn read(source: Source, to: &mpsc::Sender<anyhow::Result<Chunk>>) {
    let read = source.counter();
    let mut lines = Lines { reader: BufReader::with_capacity(READ_BYTES, source), number: 0, line: vec![] };
    let mut chunk = Chunk::default();
    let ended = (|| -> anyhow::Result<()> {
        anyhow::ensure!(lines.advance()?, "the file is empty; its first line names the columns");
        let columns = Columns::of(&lines.line)?;
        loop {
            if lines.would_wait() && !chunk.is_empty() {
                chunk.read = read.bytes();
                if to.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
                    return Ok(());
                }
            }
            if !lines.advance()? {
                return Ok(());
            }
            let line = lines.line.trim_ascii();
            if !line.is_empty() {
                let taken = if line.len() > LINE_BYTES_MAX {
                    Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"))
                } else {
                    columns.take(lines.number, line, &mut chunk)
                };
                if let Err(why) = taken {
                    chunk.bad.push(Bad { line: lines.number, why });
                }
            }
        }
    })();
    chunk.read = read.bytes();
    let _ = to.blocking_send(Ok(chunk));
    if let Err(error) = ended {
        let _ = to.blocking_send(Err(error.context(format!("after line {}", lines.number))));
    }
}

/// Lines of a bounded length.
struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Whether the next line is not yet here as a whole.
    fn would_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// Reads the next line, cut off one byte past the longest; `false` at the end.
    fn advance(&mut self) -> std::io::Result<bool> {
        self.line.clear();
        let n = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.line)?;
        if n == 0 {
            return Ok(false);
        }
        self.number += 1;
        if n > LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
            // So that trimming does not make it look short.
            self.line.fill(b'x');
        }
        Ok(true)
    }
}

/// Where the known columns stand in a line.
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    required: [usize; 4],
    optional: Vec<(usize, &'static str, &'static str)>,
}

impl Columns {
    fn of(header: &[u8]) -> anyhow::Result<Self> {
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header).trim_ascii();
        let text = std::str::from_utf8(header).context("the first line is not text; is this a CSV file?")?;
        let mut fields = Fields::default();
        fields.split(text).map_err(|why| anyhow::anyhow!("the first line names the columns, but {why}"))?;
        let names: Vec<String> = fields.iter(text).map(|name| name.trim().to_ascii_lowercase()).collect();
        let at = |name: &str| names.iter().position(|n| n == name);
        let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| at(name).is_none()).collect();
        anyhow::ensure!(
            missing.is_empty(),
            "the first line names the columns, but {} {} not among them; a header is \
             device,timestamp,lat,lon[,accuracy,speed,heading,altitude], in any order",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" },
        );
        let twice = names.iter().enumerate().find(|(i, name)| at(name) != Some(*i) && is_known(name));
        if let Some((_, name)) = twice {
            anyhow::bail!("the first line names the column {name} twice");
        }
        Ok(Self {
            required: REQUIRED.map(|name| at(name).expect("checked above")),
            optional: OPTIONAL
                .into_iter()
                .filter_map(|(name, field)| at(name).or_else(|| at(field)).map(|i| (i, name, field)))
                .collect(),
        })
    }

    /// Checks a line and adds its fix to the chunk.
    fn take(&self, line: u64, bytes: &[u8], chunk: &mut Chunk) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the line is not UTF-8".to_owned())?;
        let mut fields = Fields::default();
        fields.split(text)?;
        let field = |column: usize| fields.get(text, column);
        let [device, at, lat, lon] = self.required;
        let required = |column, name: &str| match field(column) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(format!("{name} is missing")),
        };
        let device = required(device, "device")?;
        DeviceId::new(&*device).map_err(|e| e.to_string())?;
        let at = moment(&required(at, "timestamp")?)?;
        let (lat_text, lon_text) = (required(lat, "lat")?, required(lon, "lon")?);
        let (lat, lon) = (number("lat", &lat_text)?, number("lon", &lon_text)?);
        Place::new(lon, lat).map_err(|e| e.to_string())?;

        let start = chunk.text.len();
        let written = (|| {
            chunk.text.extend_from_slice(device.as_bytes());
            let fix = chunk.text.len();
            chunk.text.extend_from_slice(b"{\"lat\":");
            write_number(&mut chunk.text, &lat_text, lat);
            chunk.text.extend_from_slice(b",\"lon\":");
            write_number(&mut chunk.text, &lon_text, lon);
            let _ = write!(chunk.text, ",\"at\":\"{at}\"");
            for (column, name, json) in &self.optional {
                let Some(value) = field(*column).filter(|value| !value.is_empty()) else { continue };
                let parsed = number(name, &value)?;
                let _ = write!(chunk.text, ",\"{json}\":");
                write_number(&mut chunk.text, &value, parsed);
            }
            chunk.text.push(b'}');
            Ok(fix)
        })();
        match written {
            Ok(fix) => {
                let end = chunk.text.len() as u32;
                chunk.rows.push(Row { line, device: start as u32..fix as u32, fix: fix as u32..end });
                Ok(())
            }
            Err(why) => {
                chunk.text.truncate(start);
                Err(why)
            }
        }
    }
}

fn is_known(name: &str) -> bool {
    REQUIRED.contains(&name) || OPTIONAL.iter().any(|(n, field)| *n == name || *field == name)
}

/// RFC 3339; a space may stand for the T, and a time without an offset is UTC.
fn moment(text: &str) -> Result<Micros, String> {
    if let Ok(at) = Micros::parse(text) {
        return Ok(at);
    }
    let utc = text.parse::<jiff::civil::DateTime>().ok().filter(|_| text.contains(':'));
    utc.and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|t| Micros(t.timestamp().as_microsecond()))
        .ok_or_else(|| "timestamp is not a time such as 2018-07-30T02:00:23Z".to_owned())
}

fn number(name: &str, text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{name} is not a number")),
    }
}

/// Writes the text where JSON takes it as it is, the number otherwise (`+7.5`, `.5`, `07`, `7.`).
fn write_number(out: &mut Vec<u8>, text: &str, value: f64) {
    if text.len() <= NUMBER_BYTES_MAX && is_json_number(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let _ = write!(out, "{value}");
    }
}

/// Whether bytes are a number by RFC 8259, section 6.
fn is_json_number(bytes: &[u8]) -> bool {
    fn digits(bytes: &[u8]) -> (usize, &[u8]) {
        let n = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        (n, &bytes[n..])
    }
    let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (whole, mut rest) = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return false;
    }
    if let [b'.', after @ ..] = rest {
        let (n, left) = digits(after);
        if n == 0 {
            return false;
        }
        rest = left;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after.strip_prefix(b"-").or_else(|| after.strip_prefix(b"+")).unwrap_or(after);
        let (n, left) = digits(after);
        if n == 0 {
            return false;
        }
        rest = left;
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
