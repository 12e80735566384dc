//! The tasks of a process: named, in stages that stop one after the other, and waited for.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::AbortHandle;

use super::{Cause, Lifecycle, Phase, detach, lock, said};
use crate::watch;

/// How long tasks that are told to stop hard get before they are aborted.
const HARD_GRACE: Duration = Duration::from_millis(500);

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
            biased;
            () = root.soft_stopped() => {}
            () = self.ended(None) => root.stop(Cause::Finished),
        }
        let drained = tokio::select! {
            biased;
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

    /// Ends all tasks at once and without a word, as the death of the process would: for simulations of that.
    pub fn kill(&self) {
        self.abort();
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
