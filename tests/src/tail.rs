//! What `waypost tail --json` printed, and how a test waits for it.

use std::{thread::sleep, time::Duration};

use serde_json::Value;

use crate::stack::{Process, rows};

/// What a test waits for at most: a restart of everything, several times over.
pub const LONG: Duration = Duration::from_mins(2);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for a state; panics where it does not come.
pub fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..LONG.as_millis() / LOOK.as_millis() {
        if done() {
            return;
        }
        sleep(LOOK);
    }
    panic!("waited in vain: {what}");
}

/// The entries that a tail printed with `--json`; a line that it is about to write is none yet.
pub fn entries(tail: &Process) -> Vec<Value> {
    let log = tail.log();
    let whole = log.split_inclusive('\n').filter(|line| line.starts_with('{') && line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("an entry is an object")).collect()
}

/// The bodies of the messages that a tail printed.
pub fn bodies(tail: &Process) -> Vec<String> {
    entries(tail).iter().filter_map(|entry| Some(entry["body"].as_str()?.to_owned())).collect()
}

/// Matches as the rows of `waypost matches --format csv`, sorted.
pub fn as_rows(entries: &[Value]) -> anyhow::Result<Vec<String>> {
    let mut csv = csv::Writer::from_writer(b"head\n".to_vec());
    for entry in entries {
        let fields = [&entry["device"], &entry["fix"]["at"], &entry["zone"], &entry["event"]];
        csv.write_record(fields.map(|field| field.as_str().unwrap_or_default()))?;
    }
    Ok(rows(std::str::from_utf8(&csv.into_inner()?)?))
}
