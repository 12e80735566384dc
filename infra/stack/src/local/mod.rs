//! The local broker and store: found or fetched, started, watched over, and ended.

pub(crate) mod kafka;
pub(crate) mod postgres;
mod process;

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

pub(crate) use self::process::Watched;

/// How long Postgres, and then Kafka, may take to end in order, and a second each to be ended hard.
pub(crate) const LOCAL_STOP_WITHIN: Duration = Duration::from_secs(42);

/// The process's environment, as an argument.
pub type Environment = BTreeMap<String, String>;

/// The first eight bytes of a text's SHA-256 in hexadecimal: a name for what belongs to the text.
fn short_hash(text: &[u8]) -> String {
    Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a program that ran to its end had to say.
struct Said {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Runs a program to its end; `None` where there is no such program. It is killed if nobody waits any more.
async fn run(command: &mut Command) -> anyhow::Result<Option<Said>> {
    // In a group of its own: Ctrl-C in the terminal is for us, and we end what we started.
    command.kill_on_drop(true).process_group(0).stdin(std::process::Stdio::null());
    match command.output().await {
        Ok(output) => Ok(Some(Said {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("cannot run {}", Path::new(command.as_std().get_program()).display())),
    }
}

/// The last lines of a text, for an error that quotes a program.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests;
