//! `waypost import`: sends a CSV file's fixes, each device's in file order.

mod fields;
mod lanes;
mod post;
pub(super) mod rows;

use std::{path::PathBuf, process::ExitCode, sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Serialize;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use waypost_runtime::{
    clock::Clock,
    lifecycle::{self, Cause, Lifecycle},
};

use self::{
    lanes::Lanes,
    post::{Answer, Poster},
    rows::{Bad, Chunk},
};
use super::{file::Source, output, progress::Progress};
use crate::client::{self, Client};

/// How many lanes may have a request in flight: enough that small requests do not wait for each other's append.
const LANES_IN_FLIGHT_MAX: usize = 64;
/// How many chunks the reading thread may be ahead.
const CHUNKS_AHEAD_MAX: usize = 4;
/// How often progress is shown, and how long a fix waits for others at most where nothing is in flight.
const TICK: Duration = Duration::from_millis(200);
/// How long requests in flight may take to be answered after Ctrl-C.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The exit code where some lines were bad and all others were taken.
const EXIT_BAD_LINES: u8 = 2;
/// The exit code of an interrupted import, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Import the fixes of a CSV file
///
/// The first line names the columns, in any order: device, timestamp, lat, lon, and where there are any accuracy
/// (metres), speed (metres per second), heading (degrees) and altitude (metres). Others are passed over. A time is
/// RFC 3339, or without an offset UTC. The file may be packed with gzip; `-` reads standard input.
///
/// Each device's fixes are sent in the order of the file, which should be that of their times: a fix that is older
/// than one before it goes to the device's history and fires no rule. While the stack is away, the import waits. It
/// can be repeated: the fixes are appended again, but change neither tracks nor matches.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A bad line is named on standard error and counted, and the rest goes on.

Exit codes: 0 all lines were taken, 2 some were bad and all others were taken,
1 the import could not go on, 130 it was interrupted.

Example:
  waypost import fixes.csv.gz
  zcat old.csv.gz | waypost import -")]
pub(super) struct Args {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// Write the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let source = Source::open(&args.file)?;
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    let progress = Progress::begin(source.bytes, "fixes", Clock::system());
    let (summary, failure) = import(&client, source, &stop, &progress).await;
    progress.end();
    output::line(&if args.json { serde_json::to_string(&summary)? } else { summary.text() })?;
    if let Some(error) = failure {
        return Err(error.context(format!("the import of {} could not go on", args.file.display())));
    }
    Ok(match &summary {
        Summary { interrupted: true, .. } => ExitCode::from(EXIT_INTERRUPTED),
        Summary { bad: 1.., .. } => ExitCode::from(EXIT_BAD_LINES),
        _ => ExitCode::SUCCESS,
    })
}

/// What an import came to.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// How many lines were read, without the header and empty ones.
    pub(super) lines: u64,
    /// How many fixes the stack has taken.
    pub(super) taken: u64,
    /// How many lines were bad, by themselves or by the stack's word.
    pub(super) bad: u64,
    requests: u64,
    retries: u64,
    /// How long it took, in seconds.
    pub(super) seconds: f64,
    fixes_per_second: f64,
    interrupted: bool,
}

impl Summary {
    pub(super) fn text(&self) -> String {
        let count = |n| indicatif::HumanCount(n).to_string();
        let bad = match self.bad {
            0 => String::new(),
            1 => ", 1 bad line".to_owned(),
            n => format!(", {} bad lines", count(n)),
        };
        let left = self.lines - self.taken - self.bad;
        let left = match left {
            0 if self.interrupted => "; interrupted, the same command goes on".to_owned(),
            0 => String::new(),
            n => format!("; {} lines were read and not sent, the same command goes on", count(n)),
        };
        format!(
            "{} fixes taken in {:.1} s ({}/s){bad}{left}",
            count(self.taken),
            self.seconds,
            count(self.fixes_per_second as u64),
        )
    }
}

/// Imports to the end, or until it is stopped or cannot go on; the summary tells what was taken in any case.
pub(super) async fn import(
    client: &Client,
    source: Source,
    stop: &Lifecycle,
    progress: &Progress,
) -> (Summary, Option<anyhow::Error>) {
    let poster = Poster::new(client, stop, progress);
    let mut state =
        State { progress, lanes: Lanes::default(), summary: Summary::default(), read: 0, failure: None };
    let chunks = read_aside(source);
    match chunks {
        Ok(chunks) => state.carry(chunks, &poster, stop).await,
        Err(error) => state.failure = Some(error),
    }
    let mut summary = state.summary;
    summary.requests = poster.requests.load(Ordering::Relaxed);
    summary.retries = poster.retries.load(Ordering::Relaxed);
    summary.seconds = progress.elapsed().as_secs_f64();
    summary.fixes_per_second = (summary.taken as f64 / summary.seconds.max(0.001)).round();
    summary.interrupted = stop.is_stopping() && state.failure.is_none();
    (summary, state.failure)
}

/// Reads on a thread of its own, which ends with the file or when nobody listens. It is not joined: a read of
/// standard input may never return.
fn read_aside(source: Source) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Chunk>>> {
    let (to, from) = mpsc::channel(CHUNKS_AHEAD_MAX);
    std::thread::Builder::new()
        .name("import-reader".to_owned())
        .spawn(move || rows::read(source, &to))
        .context("cannot start a thread")?;
    Ok(from)
}

struct State<'a> {
    progress: &'a Progress,
    lanes: Lanes,
    summary: Summary,
    /// How many bytes of the file were read.
    read: u64,
    failure: Option<anyhow::Error>,
}

impl State<'_> {
    async fn carry(
        &mut self,
        mut chunks: mpsc::Receiver<anyhow::Result<Chunk>>,
        poster: &Poster<'_>,
        stop: &Lifecycle,
    ) {
        let mut in_flight = FuturesUnordered::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut give_up = std::pin::pin!(give_up(stop));
        let (mut reading, mut idle, mut stopping) = (true, false, false);
        while !(in_flight.is_empty() && (stopping || (!reading && self.lanes.is_empty()))) {
            while !stopping && in_flight.len() < LANES_IN_FLIGHT_MAX {
                let hurry = idle || !reading || !self.lanes.has_room();
                let Some(request) = self.lanes.next(hurry) else {
                    idle = false;
                    break;
                };
                in_flight.push(poster.post(request));
            }
            tokio::select! {
                () = stop.soft_stopped(), if !stopping => stopping = true,
                () = &mut give_up => break,
                Some(answer) = in_flight.next(), if !in_flight.is_empty() => self.answered(answer, stop),
                chunk = chunks.recv(), if reading && !stopping && self.lanes.has_room() => match chunk {
                    Some(Ok(chunk)) => self.take(&chunk),
                    Some(Err(error)) => self.failure = Some(error),
                    None => reading = false,
                },
                _ = tick.tick() => {
                    idle = in_flight.is_empty();
                    self.show();
                }
            }
        }
    }

    fn take(&mut self, chunk: &Chunk) {
        self.read = chunk.read;
        self.summary.lines += (chunk.rows.len() + chunk.bad.len()) as u64;
        for row in &chunk.rows {
            self.lanes.push(chunk.device(row), row.line, chunk.fix(row));
        }
        self.report(&chunk.bad);
    }

    fn answered(&mut self, answer: Answer, stop: &Lifecycle) {
        self.lanes.answered(&answer.device);
        self.summary.taken += answer.taken;
        self.report(&answer.refused);
        if let Some(fatal) = answer.fatal {
            stop.stop(Cause::Asked("the stack refuses the import".to_owned()));
            self.failure.get_or_insert(fatal.into());
        }
    }

    fn report(&mut self, bad: &[Bad]) {
        for Bad { line, why } in bad {
            self.progress.say(&format!("line {line}: {why}"));
        }
        self.summary.bad += bad.len() as u64;
    }

    /// Shows as much of the file as done as its lines are: what is read and not yet answered is not.
    fn show(&self) {
        let done = self.summary.taken + self.summary.bad;
        let share = done as f64 / self.summary.lines.max(1) as f64;
        self.progress.at((self.read as f64 * share) as u64, self.summary.taken);
    }
}

/// Resolves when requests in flight have had their time after a stop, or are not to be waited for.
async fn give_up(stop: &Lifecycle) {
    stop.soft_stopped().await;
    tokio::select! {
        () = tokio::time::sleep(STOP_GRACE) => {}
        () = stop.hard_stopped() => {}
    }
}

#[cfg(test)]
mod tests;
