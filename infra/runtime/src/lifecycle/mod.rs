//! How a process runs and stops: soft first (take nothing new, finish what was begun), then hard.
//!
//! Everything holds a clone of one [`Lifecycle`]; the first cause of a stop is kept and told at the end. [`Tasks`]
//! owns what runs: a task that fails or panics stops everything. Tasks stand in stages that stop one after the
//! other, so that what serves requests ends before what those requests need.

mod tasks;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    cell::Cell,
    error::Error as StdError,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use tasks::{Outcome, Tasks};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};

use crate::watch;

/// Why a process stops.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A signal, `SIGTERM`.
    Signal(&'static str),
    /// Someone asked for it, `"--for 30s is over"`.
    Asked(String),
    /// All tasks came to their end.
    Finished,
    /// A task failed.
    Failed {
        /// The task's name.
        task: String,
        /// Its error.
        error: Arc<dyn StdError + Send + Sync>,
    },
    /// A task panicked.
    Panicked {
        /// The task's name.
        task: String,
        /// What the panic said.
        message: String,
    },
}

impl Cause {
    /// Whether the process stops because something went wrong.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Panicked { .. })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::Asked(what) => f.write_str(what),
            Self::Finished => f.write_str("all tasks are done"),
            Self::Failed { task, error } => {
                write!(f, "task {task} failed: {}", crate::telemetry::Chain(&**error))
            }
            Self::Panicked { task, message } => write!(f, "task {task} panicked: {message}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Soft,
    Hard,
}

/// The handle by which everything learns that it should stop, and can ask for it; a cheap clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    root: Arc<Root>,
    /// The stage's own phase, or the root's.
    phase: watch::Receiver<Phase>,
}

#[derive(Debug)]
struct Root {
    phase: watch::Sender<Phase>,
    cause: Mutex<Option<Cause>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A process that runs.
    pub fn new() -> Self {
        let (sender, phase) = watch::channel(Phase::Running);
        Self { root: Arc::new(Root { phase: sender, cause: Mutex::new(None) }), phase }
    }

    /// Asks for a soft stop; the first cause is kept.
    pub fn stop(&self, cause: Cause) {
        self.raise(Phase::Soft, cause);
    }

    /// Asks for a hard stop; a cause that stands already is kept.
    pub fn stop_hard(&self, cause: Cause) {
        self.raise(Phase::Hard, cause);
    }

    /// Resolves when this stage should take nothing new and finish what it has begun; cancel-safe.
    pub async fn soft_stopped(&self) {
        self.reached(Phase::Soft).await;
    }

    /// Resolves when what has been begun should be given up; cancel-safe.
    pub async fn hard_stopped(&self) {
        let mut phase = self.root.phase.subscribe();
        let _ = phase.wait_for(|p| *p >= Phase::Hard).await;
    }

    /// Whether a soft stop has reached this stage.
    pub fn is_soft_stopped(&self) -> bool {
        *self.phase.borrow() >= Phase::Soft || self.is_hard_stopped()
    }

    /// Whether a hard stop was asked for.
    pub fn is_hard_stopped(&self) -> bool {
        *self.root.phase.borrow() >= Phase::Hard
    }

    /// Whether any stop was asked for, also where it has not reached this stage.
    pub fn is_stopping(&self) -> bool {
        *self.root.phase.borrow() >= Phase::Soft
    }

    /// Why it stops, where it does.
    pub fn cause(&self) -> Option<Cause> {
        lock(&self.root.cause).clone()
    }

    async fn reached(&self, wanted: Phase) {
        let mut stage = self.phase.clone();
        tokio::select! {
            biased;
            _ = stage.wait_for(|p| *p >= wanted) => {}
            () = self.hard_stopped() => {}
        }
    }

    fn raise(&self, to: Phase, cause: Cause) {
        lock(&self.root.cause).get_or_insert(cause);
        self.root.phase.send_if_modified(|phase| {
            let raised = to > *phase;
            *phase = to.max(*phase);
            raised
        });
    }
}

/// Stops softly at the first SIGINT or SIGTERM, and hard at the second.
pub fn signals(lifecycle: &Lifecycle) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let lifecycle = lifecycle.clone();
    detach(async move {
        loop {
            let name = tokio::select! {
                biased;
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                () = lifecycle.hard_stopped() => return,
            };
            if lifecycle.is_stopping() {
                tracing::warn!(signal = name, "stopping at once");
                lifecycle.stop_hard(Cause::Signal(name));
            } else {
                tracing::info!(signal = name, "stopping; once more stops at once");
                lifecycle.stop(Cause::Signal(name));
            }
        }
    });
    Ok(())
}

thread_local! {
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Runs what blocks on files or takes long beside the tasks; its panic is the caller's.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that does, so that a simulation can have it in turn"
)]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if IN_TURN.get() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends and takes its threads with it; whoever waits is dropped too.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Lets what this thread gives to [`blocking`] from now on run in its turn: when a thread beside it is done is the
/// kernel's choice, and a simulation has one order of events.
pub fn block_in_turn() {
    IN_TURN.set(true);
}

#[allow(clippy::disallowed_methods, reason = "the one place that spawns; Tasks waits for what it spawned")]
fn detach(future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(future).abort_handle()
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is no text".to_owned())
}

/// A lock whose holders never leave its value half changed, so a panic elsewhere is no reason to panic here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
