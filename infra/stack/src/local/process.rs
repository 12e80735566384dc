//! A program that runs beside Waypost: started, started again when it dies, and ended with it.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use waypost_runtime::{
    clock::Clock,
    datadir::Mark,
    lifecycle::{Lifecycle, Tasks},
    watch,
};

use super::last_lines;

/// Where a log is cut: what was before is kept once, so that a log costs at most twice this.
const LOG_BYTES_MAX: u64 = 16 << 20;
const LOG_CHECK_EVERY: Duration = Duration::from_secs(10);
/// How soon a program that died is started again; doubled at each failure, up to the second.
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A program that ran for this long is not one that cannot start.
const STEADY_AFTER: Duration = Duration::from_mins(1);
/// After this many failures in a row a person should look.
const FAILURES_ODD_MAX: u32 = 5;
const POLL: Duration = Duration::from_millis(50);
/// How long a program gets to end after the hard signal, before it is killed.
const HARD_WAIT: Duration = Duration::from_secs(5);

/// How a program is started and ended.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// What it is called in logs and errors.
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) work_dir: PathBuf,
    /// Whom it runs as, where that is not ourselves: user and group id.
    pub(super) owner: Option<(u32, u32)>,
    /// The file that its output goes to.
    pub(super) log: PathBuf,
    /// The file that says which process it is, for who comes after us.
    pub(super) mark: PathBuf,
    /// A directory outside the data directory that is taken away when the program has ended, where it is empty.
    pub(super) outside: Option<PathBuf>,
    /// The signal that makes it finish in order, and how long that may take.
    pub(super) soft: (Signal, Duration),
    /// The signal that makes it end at once.
    pub(super) hard: Signal,
}

/// What is known of a watched program: the process that it is now, and how often it has ended.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    now: Option<Mark>,
    ends: u32,
    last: Option<ExitStatus>,
}

/// A program that is watched over.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    name: &'static str,
    log: PathBuf,
    state: watch::Receiver<State>,
}

impl Watched {
    /// The process that it is now; `None` between two.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.state.borrow().now
    }

    /// Resolves when it is another process, or none; cancel-safe.
    pub(crate) async fn changed(&self) {
        let was = self.mark();
        let mut state = self.state.clone();
        // The task that watches has ended where this fails: nothing will change any more.
        if state.wait_for(|state| state.now != was).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until `ready` says so; an error when the program ends before, or `limit` is over.
    pub(super) async fn ready(
        &self,
        limit: Duration,
        mut ready: impl AsyncFnMut(Mark) -> bool,
    ) -> anyhow::Result<()> {
        let state = self.state.clone();
        let poll = async {
            loop {
                let mark = state.borrow().now;
                if let Some(mark) = mark
                    && ready(mark).await
                {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let mut ends = self.state.clone();
        let ended = async { ends.wait_for(|state| state.ends > 0).await.ok().and_then(|state| state.last) };
        tokio::select! {
            () = poll => Ok(()),
            last = ended => {
                let status = last.map_or_else(String::new, |status| format!(" ({status})"));
                bail!("{} ended as soon as it was started{status}; {}", self.name, self.quote())
            }
            () = tokio::time::sleep(limit) => {
                bail!("{} was started but did not answer within {} s; {}", self.name, limit.as_secs(), self.quote())
            }
        }
    }

    fn quote(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        format!("the end of {}:\n{}", self.log.display(), last_lines(&text, 12))
    }
}

impl Program {
    /// Ends what a run before this one has left behind, where it is that very process.
    pub(super) async fn end_leftover(&self) -> anyhow::Result<()> {
        let Some(mark) = Mark::read(&self.mark).filter(|mark| mark.is_alive()) else { return Ok(()) };
        tracing::warn!(program = self.name, pid = mark.pid, "ending what a killed run left behind");
        for (signal, limit) in [self.soft, (self.hard, HARD_WAIT), (Signal::KILL, HARD_WAIT)] {
            send(mark.pid, signal);
            let gone = async {
                while mark.is_alive() {
                    tokio::time::sleep(POLL).await;
                }
            };
            if tokio::time::timeout(limit, gone).await.is_ok() {
                let _ = fs::remove_file(&self.mark);
                return Ok(());
            }
        }
        bail!("{} of an earlier run (pid {}) cannot be ended: end it by hand", self.name, mark.pid)
    }

    /// Starts the program, and watches over it as a task until the task's stage is stopped.
    pub(super) fn start(self, tasks: &Tasks, clock: &Clock) -> anyhow::Result<Watched> {
        let running = self.spawn()?;
        let (sender, state) = watch::channel(State { now: running.mark, ..State::default() });
        let watched = Watched { name: self.name, log: self.log.clone(), state };
        let watch = Watch {
            program: self,
            state: sender,
            clock: clock.clone(),
            lifecycle: tasks.lifecycle().clone(),
        };
        tasks.spawn(watch.program.name, async move {
            watch.over(running).await;
            Ok::<(), Infallible>(())
        });
        Ok(watched)
    }

    fn spawn(&self) -> anyhow::Result<Running> {
        let log = || -> std::io::Result<(File, File)> {
            bound(&self.log)?;
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = log().with_context(|| self.log.display().to_string())?;
        let mut command = Command::new(&self.path);
        command.args(&self.args).current_dir(&self.work_dir).stdin(Stdio::null()).stdout(out).stderr(err);
        // In a group of its own: Ctrl-C in the terminal is for us, and we end what we started, in order.
        command.process_group(0).kill_on_drop(true);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        let child = command.spawn().with_context(|| format!("cannot run {}", self.path.display()))?;
        let mark = child.id().and_then(|pid| Mark::of(pid as i32));
        if let Some(mark) = mark {
            mark.write(&self.mark)?;
        }
        Ok(Running { child, mark })
    }
}

struct Running {
    child: Child,
    mark: Option<Mark>,
}

/// The task that watches over a program.
struct Watch {
    program: Program,
    state: watch::Sender<State>,
    clock: Clock,
    lifecycle: Lifecycle,
}

impl Watch {
    async fn over(&self, mut running: Running) {
        let mut failures = 0;
        loop {
            let started = self.clock.monotonic();
            let Some(status) = self.until_end(&mut running).await else { return self.stop(running).await };
            self.state.send_modify(|state| *state = State { now: None, ends: state.ends + 1, last: status });
            failures = if self.clock.elapsed(started) > STEADY_AFTER { 1 } else { failures + 1 };
            self.tell(status, failures);
            let Some(next) = self.again(failures).await else { return };
            running = next;
            self.state.send_modify(|state| state.now = running.mark);
            tracing::info!(
                program = self.program.name,
                pid = running.mark.map(|mark| mark.pid),
                "started again"
            );
        }
    }

    /// Waits for the program's end, keeping its log bounded; `None` when it is to be stopped.
    async fn until_end(&self, running: &mut Running) -> Option<Option<ExitStatus>> {
        loop {
            tokio::select! {
                status = running.child.wait() => return Some(status.ok()),
                () = self.lifecycle.soft_stopped() => return None,
                () = tokio::time::sleep(LOG_CHECK_EVERY) => {
                    if let Err(error) = bound(&self.program.log) {
                        tracing::warn!(%error, log = %self.program.log.display(), "a log cannot be cut");
                    }
                }
            }
        }
    }

    fn tell(&self, status: Option<ExitStatus>, failures: u32) {
        let (program, log) = (self.program.name, self.program.log.display());
        let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        if failures < FAILURES_ODD_MAX {
            tracing::warn!(program, status, failures, %log, "ended by itself; starting it again");
        } else {
            tracing::error!(program, status, failures, %log, "ends again and again; its log says why");
        }
    }

    /// Starts the program again after its back-off; `None` when everything is to stop meanwhile.
    async fn again(&self, failures: u32) -> Option<Running> {
        let mut wait = back_off(failures);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.lifecycle.soft_stopped() => return None,
            }
            match self.program.spawn() {
                Ok(running) => return Some(running),
                Err(error) => {
                    tracing::error!(
                        program = self.program.name,
                        error = format!("{error:#}"),
                        "cannot be started"
                    );
                    wait = BACK_OFF_MAX;
                }
            }
        }
    }

    async fn stop(&self, mut running: Running) {
        let Some(pid) = running.child.id() else { return };
        let (soft, limit) = self.program.soft;
        send(pid as i32, soft);
        let ended = tokio::select! {
            _ = running.child.wait() => true,
            () = tokio::time::sleep(limit) => false,
            () = self.lifecycle.hard_stopped() => false,
        };
        if !ended {
            tracing::warn!(program = self.program.name, "did not end in time: ending it hard");
            send(pid as i32, self.program.hard);
            if tokio::time::timeout(HARD_WAIT, running.child.wait()).await.is_err() {
                let _ = running.child.kill().await;
            }
        }
        let _ = fs::remove_file(&self.program.mark);
        if let Some(outside) = &self.program.outside {
            let _ = fs::remove_dir(outside);
        }
        self.state.send_modify(|state| state.now = None);
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACK_OFF_MAX)
}

/// Sends a signal; that there is no such process any more is what the signal is for.
fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Cuts a log that has grown too long. Its writers append, so they go on at the new end.
fn bound(log: &Path) -> std::io::Result<()> {
    match fs::metadata(log) {
        Ok(file) if file.len() > LOG_BYTES_MAX => {
            fs::copy(log, log.with_added_extension("1"))?;
            OpenOptions::new().write(true).open(log)?.set_len(0)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
