//! The partitions that a runner owns: their tasks, and what of them is to be committed.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinError, JoinSet},
};
use waypost_runtime::{broker, clock::Monotonic, watch};
use waypost_schemas::topic::TopicPartition;

use super::{
    Error, Shared,
    fault::Step,
    measures,
    task::{self, Mark, Order},
};
use crate::machine::Machine;

/// How long a last commit may take: whoever waits for the partitions does not wait longer than a session.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// How long a group may say nothing after it refused a commit: many sessions.
const SILENCE: Duration = Duration::from_mins(1);

/// A partition and its task.
struct Held {
    orders: watch::Sender<Order>,
    mark: Arc<Mark>,
    /// What was committed last, as far as this process knows.
    committed: Option<i64>,
    /// And of the partition that it looks at.
    looked: Option<i64>,
    abort: AbortHandle,
}

/// The partitions of the driving topic that a machine can run: it has those of the same number of all its inputs.
fn whole<M: Machine>(assigned: &[TopicPartition]) -> Vec<TopicPartition> {
    let has = |topic, partition| assigned.contains(&TopicPartition::new(topic, partition));
    let driving = assigned.iter().filter(|p| p.topic == M::DRIVES);
    let (whole, halves): (Vec<TopicPartition>, Vec<_>) =
        driving.partition(|p| M::LOOKS_AT.is_none_or(|topic| has(topic, p.partition)));
    if let (Some(looked), Some(half)) = (M::LOOKS_AT, halves.first()) {
        let (machine, partition, partitions) = (M::NAME, half.partition, halves.len());
        tracing::warn!(
            machine,
            partition,
            partitions,
            %looked,
            "the group gave a partition without its like; not folding it: do all members subscribe to the same topics?"
        );
    }
    whole
}

/// The partition of the driving topic with which a partition comes and goes.
fn driving<M: Machine>(of: TopicPartition) -> TopicPartition {
    TopicPartition::new(M::DRIVES, of.partition)
}

pub(super) struct Owned<M> {
    shared: Arc<Shared>,
    held: BTreeMap<TopicPartition, Held>,
    tasks: JoinSet<(TopicPartition, Result<(), Error>)>,
    /// Rings when a mark has moved.
    moved: Arc<Notify>,
    /// Whether it was told that commits do not get through.
    told: bool,
    /// When the group last refused a commit without having said anything since.
    fenced: Option<Monotonic>,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> Owned<M> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (held, tasks, moved) = (BTreeMap::new(), JoinSet::new(), Arc::default());
        Self { shared, held, tasks, moved, told: false, fenced: None, machine: PhantomData }
    }

    /// Begins to own partitions, with what the group has committed of them.
    pub(super) fn take(&mut self, partitions: &[TopicPartition], committed: &BTreeMap<TopicPartition, i64>) {
        self.fenced = None;
        for partition in whole::<M>(partitions) {
            let Entry::Vacant(vacant) = self.held.entry(partition) else { continue };
            let looked = M::LOOKS_AT.map(|topic| TopicPartition::new(topic, partition.partition));
            let looked = looked.and_then(|looked| committed.get(&looked).copied());
            let committed = committed.get(&partition).copied();
            let (orders, ordered) = watch::channel(Order::Run);
            let mark = Arc::new(Mark::new(self.moved.clone()));
            let owner = task::run::<M>(self.shared.clone(), partition, committed, ordered, mark.clone());
            let abort = self.tasks.spawn(async move { (partition, owner.await) });
            vacant.insert(Held { orders, mark, committed, looked, abort });
        }
    }

    /// Stops owning partitions: commits what is durable, unless another owns them already.
    pub(super) async fn let_go(&mut self, partitions: Vec<TopicPartition>, lost: bool) -> Result<(), Error> {
        self.fenced = None;
        // Without the partition that is looked at, that of the driving topic cannot go on.
        let going: BTreeSet<TopicPartition> = partitions.into_iter().map(driving::<M>).collect();
        let going: Vec<TopicPartition> = going.into_iter().filter(|p| self.held.contains_key(p)).collect();
        if lost {
            for partition in going {
                self.drop_task(partition).await?;
            }
            return Ok(());
        }
        self.order(&going, Order::LetGo).await?;
        let offsets = self.due_of(&going);
        self.held.retain(|p, _| !going.contains(p));
        self.commit_last(offsets).await
    }

    /// Stops owning everything, cleanly: every effect durable, a last snapshot, a last commit.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        let all: Vec<TopicPartition> = self.held.keys().copied().collect();
        self.order(&all, Order::Finish).await?;
        let offsets = self.due_of(&all);
        self.commit_last(offsets).await
    }

    /// Waits until a task has failed; a task that ends of its own accord has lost its partition. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<(), Error> {
        match self.tasks.join_next().await {
            Some(ended) => Self::end(ended),
            None => std::future::pending().await,
        }
    }

    /// Rings when there may be something to commit.
    pub(super) fn moved(&self) -> Arc<Notify> {
        self.moved.clone()
    }

    /// What is to be committed, where there is anything.
    pub(super) fn due(&self) -> Option<BTreeMap<TopicPartition, i64>> {
        let all: Vec<TopicPartition> = self.held.keys().copied().collect();
        Some(self.due_of(&all)).filter(|due| !due.is_empty())
    }

    /// Takes note of a commit's outcome.
    pub(super) async fn committed(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
        result: Result<(), broker::Error>,
    ) -> Result<(), Error> {
        match result {
            Ok(()) => {
                self.told = false;
                for (partition, offset) in offsets {
                    if let Some(held) = self.held.get_mut(&driving::<M>(partition)) {
                        let drives = partition.topic == M::DRIVES;
                        *(if drives { &mut held.committed } else { &mut held.looked }) = Some(offset);
                    }
                }
                self.shared.faults.at(Step::Committed)?;
            }
            Err(broker::Error::Unavailable { what }) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(machine = M::NAME, what, "a commit got no answer; trying again");
                }
                self.moved.notify_one();
            }
            Err(broker::Error::Fenced { partition }) => {
                tracing::warn!(machine = M::NAME, %partition, "another owns the partition now; letting it go");
                self.fenced.get_or_insert(self.shared.clock.monotonic());
                self.drop_task(driving::<M>(partition)).await?;
                self.moved.notify_one();
            }
            Err(error) => return Err(self.shared.failed(error)),
        }
        Ok(())
    }

    /// Measures how far each partition is behind. Fails where partitions were fenced and the group, which should
    /// then take them or give them anew, says nothing: nobody would fold them.
    pub(super) async fn measure(&self) -> Result<(), Error> {
        if self.fenced.is_some_and(|at| self.shared.clock.elapsed(at) > SILENCE) {
            let what = format!("{} let partitions be fenced and has said nothing since", self.shared.group);
            return Err(self.shared.failed(broker::Error::Fatal { what }));
        }
        self.measure_lag().await;
        Ok(())
    }

    async fn measure_lag(&self) {
        if self.held.is_empty() {
            return;
        }
        // The next measure comes soon; what the broker does not answer now is no news here.
        let Ok(bounds) = self.shared.broker.bounds(vec![M::DRIVES]).await else { return };
        for (partition, held) in &self.held {
            if let (Some(bounds), Some(at)) = (bounds.get(partition), held.mark.get()) {
                measures::lag(M::NAME, partition.partition, (bounds.high - at).max(0));
            }
        }
    }

    fn due_of(&self, partitions: &[TopicPartition]) -> BTreeMap<TopicPartition, i64> {
        let due = |p: &TopicPartition| {
            let held = self.held.get(p)?;
            let above =
                |mark: Option<i64>, committed: Option<i64>| mark.filter(|offset| Some(*offset) > committed);
            let driving = above(held.mark.get(), held.committed).map(|offset| (*p, offset));
            let looked = above(held.mark.looked(), held.looked).zip(M::LOOKS_AT);
            let looked = looked.map(|(offset, topic)| (TopicPartition::new(topic, p.partition), offset));
            Some(driving.into_iter().chain(looked))
        };
        partitions.iter().filter_map(due).flatten().collect()
    }

    /// Gives tasks an order, and waits until they have ended.
    async fn order(&mut self, partitions: &[TopicPartition], order: Order) -> Result<(), Error> {
        let mut waiting: Vec<AbortHandle> = Vec::new();
        for partition in partitions {
            let Some(held) = self.held.get(partition) else { continue };
            held.orders.send_replace(order);
            waiting.push(held.abort.clone());
        }
        self.ends_of(&waiting).await
    }

    async fn ends_of(&mut self, waiting: &[AbortHandle]) -> Result<(), Error> {
        while waiting.iter().any(|task| !task.is_finished()) {
            let Some(ended) = self.tasks.join_next().await else { break };
            Self::end(ended)?;
        }
        // Those that had finished before are still to be heard.
        while let Some(ended) = self.tasks.try_join_next() {
            Self::end(ended)?;
        }
        Ok(())
    }

    /// Ends a task at once, and waits for that: its feed is closed then.
    async fn drop_task(&mut self, partition: TopicPartition) -> Result<(), Error> {
        let Some(held) = self.held.remove(&partition) else { return Ok(()) };
        held.abort.abort();
        self.ends_of(&[held.abort]).await
    }

    fn end(ended: Result<(TopicPartition, Result<(), Error>), JoinError>) -> Result<(), Error> {
        match ended {
            Ok((_, result)) => result,
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => {
                let panic: Box<dyn Any + Send> = error.into_panic();
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Commits for a last time. What does not get through is only read again by the next owner.
    async fn commit_last(&self, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        let commit = self.shared.committer.commit(offsets);
        match tokio::time::timeout(LAST_COMMIT, commit).await {
            Ok(Err(error @ broker::Error::Fatal { .. })) => Err(self.shared.failed(error)),
            Ok(Err(error)) => {
                tracing::info!(machine = M::NAME, why = %error, "the last commit did not get through");
                Ok(())
            }
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}
