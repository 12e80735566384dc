//! What commands write to standard output, also where nobody reads it to its end.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{self, Client};

/// Writes bytes at once; `false` where the reader has gone, as `head` does, and nothing more need be written.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a line.
pub(super) fn line(text: &str) -> anyhow::Result<bool> {
    write(format!("{text}\n").as_bytes())
}

/// Writes JSON for a script, indented.
pub(super) fn json(value: &impl serde::Serialize) -> anyhow::Result<bool> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes what came of a write of the registry: the stack's document, or a line of what `is` so now.
pub(super) fn stands(what: &str, is: &str, answer: &Value, as_json: bool) -> anyhow::Result<bool> {
    if as_json {
        return json(answer);
    }
    let stands = if answer["changed"] == false { format!("was {is} already") } else { format!("is {is}") };
    line(&format!("{what} {stands} (version {})", answer["version"]))
}

/// Writes what the stack lists: its document, or the rows of a table that it is understood as.
pub(super) async fn listed<T: DeserializeOwned, const N: usize>(
    path: &[&str],
    (stack, as_json): (&client::Options, bool),
    heads: [&str; N],
    rows: impl FnOnce(T) -> Vec<[String; N]>,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(stack)?;
    let document: Value = client.get(path, &[]).await?;
    if as_json {
        json(&document)?;
    } else {
        table(heads, &rows(client.understand(&document)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A number of things, in the singular where it is one.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Writes rows under their heads, in columns that are as wide as they need.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> anyhow::Result<bool> {
    write(columns(heads, rows).as_bytes())
}

/// Rows under their heads as a text.
pub(super) fn columns<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let heads = heads.map(str::to_owned);
    let width = |i: usize| {
        std::iter::once(&heads).chain(rows).map(|row| row[i].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows = [["Åland".to_owned(), "7".to_owned()], ["x".to_owned(), String::new()]];
        assert_eq!(columns(["zone", "version"], &rows), "zone   version\nÅland  7\nx\n");
    }
}
