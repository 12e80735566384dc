//! A stack of a bench's own: this same program in a directory that goes with it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use waypost_runtime::{
    datadir::{Addresses, DataDir, create_private},
    lifecycle::{self, Lifecycle},
};

use crate::{
    cli::status::Status,
    client::{Client, Options},
};

/// How long a stack may take to serve; the first on a machine fetches Kafka.
const START_MAX: Duration = Duration::from_mins(5);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_mins(1);
/// How often it is asked whether it serves.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// What it logs, beside its data.
const LOG: &str = "up.log";
/// Where root's store stands, outside the data directory.
const ROOTS_BASE: &str = "/var/lib/waypost";

/// A running stack. Dropping it tells it to stop, and leaves its files.
pub(super) struct Scratch {
    child: Child,
    dir: PathBuf,
    /// Where its parts are.
    pub(super) addresses: Addresses,
    /// A client with the operator's token.
    pub(super) client: Client,
}

/// Starts one, measures on it, and stops it; `None` where that was interrupted.
pub(super) async fn on_one<T>(
    measure: impl AsyncFnOnce(&Scratch, &Lifecycle) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    eprintln!("starting a stack ...");
    let scratch = tokio::select! {
        scratch = Scratch::start() => scratch?,
        () = stop.soft_stopped() => return Ok(None),
    };
    let measured = tokio::select! {
        measured = measure(&scratch, &stop) => Some(measured),
        () = stop.soft_stopped() => None,
    };
    let (stopped, words) = scratch.stop().await;
    let Some(measured) = measured else { return Ok(None) };
    let measured =
        measured.with_context(|| format!("the stack's log ends with:\n{words}\nnothing was measured"))?;
    // It is worth nothing where the stack did not end well.
    stopped.map(|()| Some(measured))
}

impl Scratch {
    /// Starts it, and waits until it serves.
    async fn start() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("waypost-bench-{}", std::process::id()));
        create_private(&dir)?;
        let started = Self::start_in(&dir).await;
        if started.is_err() {
            let _ = remove(&dir);
        }
        started
    }

    async fn start_in(dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(LOG);
        let output =
            std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut up = Command::new(program);
        up.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir(dir));
        for setting in ["WAYPOST_KAFKA", "WAYPOST_POSTGRES", "WAYPOST_URL", "WAYPOST_TOKEN"] {
            up.env_remove(setting);
        }
        up.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C is for the bench, which ends its stack.
        let mut up = Ending(Some(up.process_group(0).spawn().context("cannot start a stack")?));
        let ready = tokio::time::timeout(START_MAX, up.ready(&data_dir(dir))).await;
        let (addresses, client) = ready
            .context("it did not serve in time")
            .flatten()
            .with_context(|| format!("the stack does not start:\n{}", last_words(dir, 20)))?;
        let child = up.0.take().expect("it is there until here");
        Ok(Self { child, dir: dir.to_owned(), addresses, client })
    }

    /// A file beside the stack's own, which goes with them.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Its process, while it has not ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops it, and removes its files; gives its last words, too.
    async fn stop(mut self) -> (anyhow::Result<()>, String) {
        terminate(&self.child);
        let stopped = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        let words = last_words(&self.dir, 5);
        let stopped = stopped.with_context(|| format!("the stack in {} does not stop", self.dir.display()));
        let removed = stopped.and_then(|ended| Ok(ended?)).and_then(|_| remove(&self.dir));
        (removed, words)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        terminate(&self.child);
    }
}

/// A stack that is told to stop if it is dropped before it serves.
struct Ending(Option<Child>);

impl Ending {
    /// Waits until it serves.
    async fn ready(&mut self, data: &Path) -> anyhow::Result<(Addresses, Client)> {
        let child = self.0.as_mut().expect("it is there until it serves");
        loop {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("it ended with {status}");
            }
            if let Ok(addresses) = DataDir::existing(data).and_then(|dir| Addresses::read(&dir)) {
                let options = Options { url: addresses.url.clone(), token: None, data_dir: data.to_owned() };
                if let Ok(client) = Client::new(&options)
                    && Status::get(&client).await.is_ok()
                {
                    return Ok((addresses, client));
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            terminate(child);
        }
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The last lines of a stack's log.
fn last_words(dir: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

#[derive(Deserialize)]
struct Pointer {
    base: PathBuf,
}

/// Removes the directory, and the store that its data directory points to.
fn remove(dir: &Path) -> anyhow::Result<()> {
    let pointer = std::fs::read(data_dir(dir).join("postgres").join("pointer.json"));
    let pointer = pointer.ok().and_then(|text| serde_json::from_slice::<Pointer>(&text).ok());
    if let Some(Pointer { base }) = pointer.filter(|p| p.base.parent() == Some(Path::new(ROOTS_BASE))) {
        std::fs::remove_dir_all(&base).with_context(|| format!("cannot remove {}", base.display()))?;
    }
    std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}
