//! Committing a member's offsets, on a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tokio::sync::oneshot;
use waypost_schemas::topic::TopicPartition;

use super::{error, member};
use crate::broker::{self, Boxed, Error};

/// What a member owns, by which client, and whether a commit is under way. The broker fences a generation, not a partition: that a
/// partition which left and came back is committed by its new owner alone, we see to ourselves.
#[derive(Default)]
pub(super) struct Ownership {
    state: Mutex<State>,
    committed: Condvar,
}

#[derive(Default)]
struct State {
    owned: BTreeSet<TopicPartition>,
    /// The client that takes part in the group now.
    consumer: Weak<BaseConsumer<member::Context>>,
    committing: bool,
}

impl Ownership {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, owned: BTreeSet<TopicPartition>) {
        self.lock().owned = owned;
    }

    pub(super) fn owned(&self) -> BTreeSet<TopicPartition> {
        self.lock().owned.clone()
    }

    /// From now on commits go through this client.
    pub(super) fn follow(&self, consumer: &Arc<BaseConsumer<member::Context>>) {
        self.lock().consumer = Arc::downgrade(consumer);
    }

    /// Waits for the commit that is under way, so that it is not sent under the next generation.
    pub(super) fn wait_for_commits(&self, at_most: Duration) {
        drop(self.committed.wait_timeout_while(self.lock(), at_most, |s| s.committing));
    }

    /// Begins a commit of what is still owned, by the client that owns it; names what is not.
    fn begin(
        &self,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Weak<BaseConsumer<member::Context>>, Error> {
        let mut state = self.lock();
        if let Some(partition) = offsets.keys().find(|p| !state.owned.contains(p)) {
            return Err(Error::Fenced { partition: *partition });
        }
        state.committing = true;
        Ok(state.consumer.clone())
    }

    fn end(&self) {
        self.lock().committing = false;
        self.committed.notify_all();
    }
}

struct Commit {
    offsets: BTreeMap<TopicPartition, i64>,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// Starts the thread; it ends with the last handle. Handles that outlive the member do not keep it in the group.
pub(super) fn start(ownership: Arc<Ownership>) -> Result<Arc<dyn broker::Committer>, Error> {
    let (ask, commits) = mpsc::channel::<Commit>();
    let run = move || {
        while let Ok(first) = commits.recv() {
            // What came while the last commit was under way goes together.
            let waiting: Vec<_> = std::iter::once(first).chain(commits.try_iter()).collect();
            commit(&ownership, waiting);
        }
    };
    thread::Builder::new()
        .name("kafka-commit".to_owned())
        .spawn(run)
        .map_err(|e| error::fatal("a thread to commit was not made", e))?;
    Ok(Arc::new(Committer { ask: Mutex::new(ask) }))
}

fn commit(ownership: &Ownership, waiting: Vec<Commit>) {
    let mut offsets = BTreeMap::new();
    let mut consumer = Weak::new();
    let mut answers = Vec::new();
    for commit in waiting {
        match ownership.begin(&commit.offsets) {
            // All have the same: the group changes only when no commit is under way.
            Ok(owner) => {
                consumer = owner;
                offsets.extend(commit.offsets);
                answers.push(commit.answer);
            }
            // Nobody hears it where the asking task is gone, here and below.
            Err(error) => drop(commit.answer.send(Err(error))),
        }
    }
    let result = match offsets.first_key_value() {
        Some((first, _)) => commit_now(&consumer, &offsets, *first),
        None => Ok(()),
    };
    ownership.end();
    for answer in answers {
        let _ = answer.send(result.clone());
    }
}

fn commit_now(
    consumer: &Weak<BaseConsumer<member::Context>>,
    offsets: &BTreeMap<TopicPartition, i64>,
    first: TopicPartition,
) -> Result<(), Error> {
    let list = member::list_of(offsets)?;
    let consumer = consumer.upgrade().ok_or(Error::Fenced { partition: first })?;
    consumer.commit(&list, CommitMode::Sync).map_err(|e| refused(&e, first))
}

fn refused(error: &KafkaError, partition: TopicPartition) -> Error {
    match error.rdkafka_error_code() {
        Some(
            Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::FencedInstanceId
            | Code::StaleMemberEpoch
            | Code::AssignmentLost
            | Code::State
            | Code::Fatal,
        ) => Error::Fenced { partition },
        _ => error::of_request("a commit", error),
    }
}

struct Committer {
    ask: Mutex<mpsc::Sender<Commit>>,
}

impl broker::Committer for Committer {
    fn commit(&self, offsets: BTreeMap<TopicPartition, i64>) -> Boxed<'_, Result<(), Error>> {
        let (answer, answered) = oneshot::channel();
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = offsets.is_empty() || ask.send(Commit { offsets: offsets.clone(), answer }).is_ok();
        drop(ask);
        Box::pin(async move {
            if offsets.is_empty() {
                return Ok(());
            }
            let ended = || Err(Error::Unavailable { what: "a commit: its thread ended".to_owned() });
            if asked { answered.await.unwrap_or_else(|_| ended()) } else { ended() }
        })
    }
}
