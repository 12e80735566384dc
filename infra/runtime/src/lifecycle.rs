//! How a process runs and stops: soft first (take nothing new, finish what was begun), then hard.
//!
//! Everything holds a clone of one [`Lifecycle`]; the first cause of a stop is kept and told at the end. [`Tasks`]
//! owns what runs: a task that fails or panics stops everything. Tasks stand in stages that stop one after the
//! other, so that what serves requests ends before what those requests need.

use std::{
    any::Any,
    collections::BTreeMap,
    error::Error as StdError,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::AbortHandle,
};

/// How long tasks that are told to stop hard get before they are aborted.
const HARD_GRACE: Duration = Duration::from_millis(500);

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

/// The tasks of a process, in stages; a cheap clone that spawns into its own stage.
#[derive(Clone, Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
    stage: usize,
    lifecycle: Lifecycle,
}

#[derive(Debug)]
struct Shared {
    lifecycle: Lifecycle,
    state: Mutex<State>,
    /// Moves at every end of a task.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    stages: Vec<(String, watch::Sender<Phase>)>,
    running: BTreeMap<u64, Running>,
    next: u64,
}

#[derive(Debug)]
struct Running {
    stage: usize,
    name: String,
    abort: Option<AbortHandle>,
}

/// How the tasks of a process ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why the process stopped.
    pub cause: Cause,
    /// The tasks that did not end in time and were aborted.
    pub aborted: Vec<String>,
}

impl Outcome {
    /// Whether all went as it should: no failure, and nothing aborted.
    pub fn is_clean(&self) -> bool {
        !self.cause.is_failure() && self.aborted.is_empty()
    }
}

impl Tasks {
    /// The tasks of a lifecycle, with one stage.
    pub fn new(lifecycle: &Lifecycle) -> Self {
        let shared = Arc::new(Shared {
            lifecycle: lifecycle.clone(),
            state: Mutex::default(),
            ended: watch::channel(0).0,
        });
        Self::add_stage(shared, "main")
    }

    /// A further stage, which is told to stop only when all tasks of the stages before it have ended.
    #[must_use]
    pub fn stage(&self, name: &str) -> Self {
        Self::add_stage(self.shared.clone(), name)
    }

    fn add_stage(shared: Arc<Shared>, name: &str) -> Self {
        let (sender, phase) = watch::channel(Phase::Running);
        let mut state = lock(&shared.state);
        let stage = state.stages.len();
        state.stages.push((name.to_owned(), sender));
        drop(state);
        let lifecycle = Lifecycle { root: shared.lifecycle.root.clone(), phase };
        Self { shared, stage, lifecycle }
    }

    /// The lifecycle as this stage's tasks should see it.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Runs a named task. Its failure or panic stops everything softly, and is the cause.
    pub fn spawn<F, E>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let name = name.into();
        let id = {
            let mut state = lock(&self.shared.state);
            let id = state.next;
            state.next += 1;
            state.running.insert(id, Running { stage: self.stage, name: name.clone(), abort: None });
            id
        };
        let shared = self.shared.clone();
        let abort = detach(async move {
            // Dropped last, and also when the task is aborted.
            let end = End { shared, id };
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error: Arc<dyn StdError + Send + Sync> = Arc::from(error.into());
                    end.stop(Cause::Failed { task: name, error });
                }
                Err(panic) => end.stop(Cause::Panicked { task: name, message: said(&*panic) }),
            }
        });
        if let Some(running) = lock(&self.shared.state).running.get_mut(&id) {
            running.abort = Some(abort);
        }
    }

    /// Waits until all tasks have ended, or a stop was asked for; then stops stage after stage.
    ///
    /// All stages together get `drain` for their soft stop; then comes the hard stop, and what does not end soon
    /// after it is aborted and named.
    pub async fn wait(&self, drain: Duration) -> Outcome {
        let root = &self.shared.lifecycle;
        tokio::select! {
            () = root.soft_stopped() => {}
            () = self.ended(None) => root.stop(Cause::Finished),
        }
        let drained = tokio::select! {
            drained = tokio::time::timeout(drain, self.drain()) => drained.is_ok(),
            () = root.hard_stopped() => false,
        };
        if !drained {
            tracing::warn!(tasks = ?self.names(), "tasks did not finish in time: stopping hard");
        }
        root.stop_hard(Cause::Finished);
        let ended = tokio::time::timeout(HARD_GRACE, self.ended(None)).await.is_ok();
        let aborted = if ended { Vec::new() } else { self.abort() };
        let cause = root.cause().unwrap_or(Cause::Finished);
        Outcome { cause, aborted }
    }

    async fn drain(&self) {
        let mut stage = 0;
        loop {
            // Taken in a statement of its own, or the lock would be held while tasks end, which take it.
            let next = lock(&self.shared.state).stages.get(stage).map(|(_, phase)| phase.clone());
            let Some(phase) = next else { return };
            phase.send_replace(Phase::Soft);
            self.ended(Some(stage)).await;
            stage += 1;
        }
    }

    /// Resolves when no task runs in any stage up to this one; in none at all without one.
    async fn ended(&self, upto: Option<usize>) {
        let mut ended = self.shared.ended.subscribe();
        let runs = |r: &Running| upto.is_none_or(|upto| r.stage <= upto);
        while lock(&self.shared.state).running.values().any(runs) {
            let _ = ended.changed().await;
        }
    }

    fn names(&self) -> Vec<String> {
        lock(&self.shared.state).running.values().map(|r| r.name.clone()).collect()
    }

    fn abort(&self) -> Vec<String> {
        let state = lock(&self.shared.state);
        for running in state.running.values() {
            if let Some(abort) = &running.abort {
                abort.abort();
            }
        }
        state.running.values().map(|r| r.name.clone()).collect()
    }
}

/// Takes a task off the list, however it ends.
struct End {
    shared: Arc<Shared>,
    id: u64,
}

impl End {
    fn stop(&self, cause: Cause) {
        self.shared.lifecycle.stop(cause);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.shared.state).running.remove(&self.id);
        self.shared.ended.send_modify(|n| *n += 1);
    }
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
