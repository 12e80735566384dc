//! `waypost bench idle`: what a connection costs that has nothing to say.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};
use waypost_runtime::{clock::Clock, lifecycle::Lifecycle};
use waypost_schemas::{frame::Begin, id::UserId};

use super::{
    count, ended,
    scratch::{self, Scratch},
    sockets,
};
use crate::{
    cli::wait,
    device::{Device, Event},
    up::checks::{RAISE, raise},
};

/// How many connections there are before it is measured, so that every partition is read already.
const WARM: usize = 100;
/// How many connect at once.
const CONNECTING_MAX: usize = 32;
/// How many files this process and the stack each open beside the connections.
const OTHER_FILES: u64 = 1_024;
/// How long the stack may take until it has applied all, and how long the last receipt may take.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// How often its memory is looked at until it stands still, and how often at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOKS_MAX: usize = 30;
/// Two looks that differ by less are the same.
const SAME_BYTES: u64 = 128 << 10;

/// Measure how much memory an idle connection takes
///
/// Starts a stack of its own in a temporary directory, writes a message to each of many users, and then connects a
/// device of each, which gets its entry, acknowledges it, and says nothing more. What counts is by how much the
/// resident memory of the process that serves them has grown; the devices are in this process, and what the kernel
/// holds of a socket is in none.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench idle --connections 5000")]
pub(super) struct Args {
    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..=9_000))]
    connections: u16,
    /// Write the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    connections: usize,
    /// Resident memory before anything was written, with a hundred connections.
    warm_bytes: u64,
    /// When all messages were written and applied.
    written_bytes: u64,
    /// When all had connected and acknowledged.
    connected_bytes: u64,
    /// From the second to the third, by connection.
    connection_bytes: f64,
    /// From the first to the third, by connection: with what the stack keeps of its message, its entry and its receipt.
    with_message_bytes: f64,
}

impl Figures {
    fn new(connections: usize, warm_bytes: u64, written_bytes: u64, connected_bytes: u64) -> Self {
        let each = |before: u64| (connected_bytes as f64 - before as f64) / connections as f64;
        Self {
            connections,
            warm_bytes,
            written_bytes,
            connected_bytes,
            connection_bytes: each(written_bytes),
            with_message_bytes: each(warm_bytes),
        }
    }

    fn text(&self) -> String {
        let kib = |bytes: u64| count(bytes as f64 / 1024.0);
        format!(
            "{} idle connections after one entry each\n\
             resident before   {} KiB\n\
             messages written  {} KiB\n\
             all connected     {} KiB\n\
             by connection     {:.2} KiB ({:.2} KiB with what is kept of its message)",
            count(self.connections as f64),
            kib(self.warm_bytes),
            kib(self.written_bytes),
            kib(self.connected_bytes),
            self.connection_bytes / 1024.0,
            self.with_message_bytes / 1024.0,
        )
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let connections = usize::from(args.connections);
    enough(raise(), connections)?;
    let measure = async |scratch: &Scratch, _: &Lifecycle| measure(connections, scratch).await;
    ended(scratch::on_one(measure).await?.as_ref(), args.json, Figures::text)
}

/// Refuses a limit of open files that is too low.
fn enough(files: Option<u64>, connections: usize) -> anyhow::Result<()> {
    let needed = connections as u64 + WARM as u64 + OTHER_FILES;
    match files {
        Some(files) if files < needed => bail!(
            "{connections} connections need {needed} open files, and this process may have {files}: {RAISE}, or ask for fewer with --connections"
        ),
        _ => Ok(()),
    }
}

async fn measure(connections: usize, scratch: &Scratch) -> anyhow::Result<Figures> {
    let clock = Clock::system();
    let users: Vec<UserId> = (0..WARM + connections)
        .map(|number| UserId::new(format!("idle-{number}")))
        .collect::<Result<_, _>>()?;
    let (first, rest) = users.split_at(WARM);
    let (tell, mut acknowledged) = mpsc::channel(users.len());
    let mut lives = JoinSet::new();
    let writer = sockets::connect(scratch, &UserId::new("writer")?, Begin::New, &clock).await?;

    connect(scratch, first, &mut lives, &clock).await?;
    let warm_bytes = settled(scratch, &clock).await?;
    eprintln!("writing {} messages ...", users.len());
    let (told, mut written) = mpsc::channel(users.len());
    lives.spawn(write(writer, users.clone(), told, tell));
    all(&mut written, users.len(), &mut lives).await?;
    all(&mut acknowledged, WARM, &mut lives).await?;
    let written_bytes = settled(scratch, &clock).await?;
    eprintln!("connecting {connections} devices ...");
    connect(scratch, rest, &mut lives, &clock).await?;
    all(&mut acknowledged, connections, &mut lives).await?;
    let connected_bytes = settled(scratch, &clock).await?;
    if let Some(ended) = lives.try_join_next() {
        ended??;
    }
    Ok(Figures::new(connections, warm_bytes, written_bytes, connected_bytes))
}

type Lives = JoinSet<anyhow::Result<()>>;

/// Connects a device of each user, which stays.
async fn connect(
    scratch: &Scratch,
    users: &[UserId],
    lives: &mut Lives,
    clock: &Clock,
) -> anyhow::Result<()> {
    let connecting = stream::iter(users).map(|user| sockets::connect(scratch, user, Begin::Start, clock));
    let mut connecting = connecting.buffer_unordered(CONNECTING_MAX);
    while let Some(device) = connecting.try_next().await? {
        lives.spawn(live(device));
    }
    Ok(())
}

/// Waits for so many signs.
async fn all(signs: &mut mpsc::Receiver<()>, many: usize, lives: &mut Lives) -> anyhow::Result<()> {
    let came = async {
        for _ in 0..many {
            signs.recv().await.context("the writer is gone")?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        came = tokio::time::timeout(IDLE_MAX, came) => came.context("not all devices have acknowledged in time")?,
        Some(ended) = lives.join_next() => ended?,
    }
}

/// Writes to each user, and tells of each message that is accepted and of each that was acknowledged.
async fn write(
    mut writer: Device,
    users: Vec<UserId>,
    written: mpsc::Sender<()>,
    acknowledged: mpsc::Sender<()>,
) -> anyhow::Result<()> {
    for user in users {
        writer.send(user, "one message")?;
    }
    loop {
        match writer.next().await? {
            Event::Accepted { .. } => written.send(()).await?,
            Event::Entry(entry) => {
                writer.acknowledge(entry.offset);
                if entry.kind == "delivered" {
                    acknowledged.send(()).await?;
                }
            }
            Event::Refused { code, detail, .. } => bail!("the writer was refused: {code}: {detail}"),
            Event::Disconnected { why, .. } => bail!("the writer lost the connection: {why}"),
            Event::Connected { .. } | Event::CaughtUp { .. } => {}
        }
    }
}

/// A device that acknowledges what it gets, and says nothing.
async fn live(mut device: Device) -> anyhow::Result<()> {
    loop {
        match device.next().await? {
            Event::Entry(entry) => device.acknowledge(entry.offset),
            Event::Disconnected { why, .. } => bail!("a device lost the connection: {why}"),
            _ => {}
        }
    }
}

/// The resident memory of a stack that has applied all, once it stands still.
async fn settled(scratch: &Scratch, clock: &Clock) -> anyhow::Result<u64> {
    if let Some(laggard) = wait::idle(&scratch.client, IDLE_MAX, clock).await? {
        bail!("the stack does not become idle: {laggard}");
    }
    let mut before = resident(scratch)?;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = resident(scratch)?;
        if now.abs_diff(before) < SAME_BYTES {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn resident(scratch: &Scratch) -> anyhow::Result<u64> {
    let pid = scratch.pid().context("the stack has ended")?;
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    vm_rss(&status).with_context(|| format!("{path} has no VmRSS"))
}

/// The line `VmRSS` of a process's status, in bytes (proc(5) has it in kB, which are KiB).
fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_read_from_a_status() {
        assert_eq!(vm_rss("Name:\twaypost\nVmRSS:\t  148464 kB\nRssAnon:\t 1 kB\n"), Some(148_464 * 1024));
        for status in ["", "VmRSS:\t12 MB\n", "VmRSS:\tmuch kB\n"] {
            assert_eq!(vm_rss(status), None, "{status}");
        }
    }

    #[test]
    fn too_few_files_are_refused_with_what_is_needed() {
        assert!(enough(None, 5_000).is_ok());
        assert!(enough(Some(20_000), 5_000).is_ok());
        let refused = enough(Some(4_096), 5_000).unwrap_err().to_string();
        assert!(refused.contains("need 6124 open files") && refused.contains("ulimit -n"), "{refused}");
    }

    #[test]
    fn growth_is_by_connection() {
        let figures = Figures::new(1_000, 1_000_000, 2_000_000, 5_000_000);
        let each = (figures.connection_bytes as u64, figures.with_message_bytes as u64);
        assert_eq!(each, (3_000, 4_000));
    }
}
