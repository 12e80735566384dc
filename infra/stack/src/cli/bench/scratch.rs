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
use waypost_runtime::datadir::{Addresses, DataDir, create_private};

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

impl Scratch {
    /// Starts it, and waits until it serves.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("waypost-bench-{}", std::process::id()));
        create_private(&dir)?;
        let started = Self::start_in(&dir).await;
        if started.is_err() {
            let _ = remove(&dir);
        }
        started
    }

    async fn start_in(dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join("up.log");
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
        let (addresses, client) = ready.context("it did not serve in time").flatten().with_context(|| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("the stack does not start:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
        })?;
        let child = up.0.take().expect("it is there until here");
        Ok(Self { child, dir: dir.to_owned(), addresses, client })
    }

    /// A file beside the stack's own, which goes with them.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Stops it, and removes its files.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child);
        let stopped = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        stopped.with_context(|| format!("the stack in {} does not stop", self.dir.display()))??;
        remove(&self.dir)
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
