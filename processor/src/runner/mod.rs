//! Drives a machine: shares out its partitions, restores them, folds their records, appends what follows, and commits
//! last.
//!
//! One [`Runner`] a machine and process. It joins the group `waypost.MACHINE`; each partition that the group gives it
//! is owned by a task of its own (`task`), which restores a state (`restore`), folds (`fold`), sends effects and knows
//! up to where they are durable (`window`), and writes snapshots (`publish`). The runner commits for all tasks at
//! once, and only what they say is durable: the zone in which everything may happen twice begins at the committed
//! offset and ends there. Whatever fails stops the process, which then begins again at its committed offsets.

mod admit;
mod error;
mod fault;
mod fold;
mod looked;
mod measures;
mod owned;
mod publish;
mod restore;
mod task;
mod window;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap, marker::PhantomData, ops::RangeInclusive, pin::pin, sync::Arc, time::Duration,
};

use waypost_runtime::{
    broker::{self, Bounds, Boxed, Broker, Committer, GroupSpec, Member, Membership, Producer, Reader},
    clock::Clock,
    config,
    health::Health,
    lifecycle::Lifecycle,
};
use waypost_schemas::topic::{Partitions, Topic, TopicPartition};

pub use self::error::{Error, Refusal};
pub(crate) use self::publish::Places;
use self::{fault::Faults, owned::Owned};
use crate::{
    machine::{self, Machine},
    registry::Registry,
};

/// How long a broker that did not answer is left alone.
const RETRY: Duration = Duration::from_millis(200);
/// How often the lag is measured.
const MEASURE: Duration = Duration::from_secs(5);

/// What a runner needs.
#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) places: Arc<Places>,
    pub(crate) clock: Clock,
    pub(crate) settings: config::Processor,
    /// How often a snapshot is due, at most.
    pub(crate) snapshot_interval: Duration,
    pub(crate) health: Health,
    /// The process's static member id, `processor-1`.
    pub(crate) instance: String,
}

/// Runs one machine on the partitions that its group gives to this process.
pub(crate) struct Runner<M> {
    deps: Deps,
    machine: PhantomData<fn() -> M>,
}

/// What the tasks of a machine share.
struct Shared {
    broker: Arc<dyn Broker>,
    reader: Arc<dyn Reader>,
    producer: Arc<dyn Producer>,
    committer: Arc<dyn Committer>,
    registry: Arc<Registry>,
    places: Arc<Places>,
    clock: Clock,
    snapshot_interval: Duration,
    /// How many records are folded before their effects are sent.
    slice_records: usize,
    machine: &'static str,
    /// The behaviours that this version of the machine has.
    behaviours: RangeInclusive<i32>,
    group: String,
    /// The cluster's id.
    cluster: String,
    /// How many partitions keyed topics have.
    keyed: i32,
    faults: Arc<Faults>,
}

impl<M: Machine> Runner<M> {
    pub(crate) fn new(deps: Deps) -> Self {
        Self { deps, machine: PhantomData }
    }

    /// Runs until the lifecycle stops softly, or the machine cannot go on.
    pub(crate) async fn run(self, lifecycle: Lifecycle) -> Result<(), Error> {
        self.run_with(lifecycle, Arc::default()).await
    }

    async fn run_with(self, lifecycle: Lifecycle, faults: Arc<Faults>) -> Result<(), Error> {
        let health = self.deps.health.check(M::NAME, "the group has not given out partitions yet");
        let commit_interval = self.deps.settings.commit_interval;
        let Some(ready) = until_stopped(&lifecycle, self.prepare(faults)).await else { return Ok(()) };
        let (shared, mut member) = ready?;
        let mut owned = Owned::<M>::new(shared.clone());
        let moved = owned.moved();
        let mut committing: Option<Committing> = None;
        let mut measure = tokio::time::interval(MEASURE);
        // What was set before is each partition's to look at, which may lie beyond it.
        let (registry, read) = (shared.registry.clone(), shared.registry.next() - 1);
        let mut unknown = pin!(registry.unknown_behaviour(M::NAME, read, &shared.behaviours));
        loop {
            tokio::select! {
                biased;
                () = lifecycle.soft_stopped() => return owned.finish().await,
                ended = owned.ended() => ended?,
                number = &mut unknown => return Err(shared.behaviour(number)),
                said = member.next() => match said {
                    Membership::Assigned(partitions) => {
                        let committed = shared.committed();
                        let Some(committed) = until_stopped(&lifecycle, committed).await else { return Ok(()) };
                        owned.take(&partitions, &committed?);
                        health.ready();
                    }
                    Membership::Revoked { partitions, lost, done } => {
                        owned.let_go(partitions, lost).await?;
                        drop(done);
                    }
                    Membership::Failed(error) => return Err(shared.failed(error)),
                },
                (offsets, result) = done(&mut committing) => {
                    committing = None;
                    owned.committed(offsets, result).await?;
                }
                () = moved.notified(), if committing.is_none() => {
                    committing = owned.due().map(|offsets| shared.clone().commit(offsets, commit_interval));
                }
                _ = measure.tick() => owned.measure().await?,
            }
        }
    }

    /// Asks the broker what a machine must know before it joins its group.
    async fn prepare(&self, faults: Arc<Faults>) -> Result<(Arc<Shared>, Box<dyn Member>), Error> {
        let Deps { broker, registry, places, clock, settings, snapshot_interval, instance, .. } =
            self.deps.clone();
        let failed = |source| Error::Broker { machine: M::NAME, source };
        let cluster = retrying(|| broker.cluster_id()).await.map_err(failed)?;
        let topics = retrying(|| broker.topics()).await.map_err(failed)?;
        let count = |topic| topics.iter().find(|t| t.topic == topic).map_or(0, |t| t.partitions);
        let keyed = count(M::DRIVES);
        let other = Topic::ALL.into_iter().filter(|t| t.spec().partitions == Partitions::Keyed);
        if let Some(topic) = other.into_iter().find(|t| count(*t) != keyed || keyed == 0) {
            let what = format!(
                "{topic} has {} partitions and {} has {keyed}, but keyed topics share one number: waypost topics check",
                count(topic),
                M::DRIVES
            );
            return Err(failed(broker::Error::Fatal { what }));
        }
        let (group, behaviours) = (machine::spec::<M>().group(), machine::spec::<M>().behaviours.clone());
        registry.facts().await.map_err(|source| Error::Facts { machine: M::NAME, source })?;
        let topics = std::iter::once(M::DRIVES).chain(M::LOOKS_AT).collect();
        let spec = GroupSpec { group: group.clone(), instance, topics };
        let (reader, producer) = if M::IN_BULK {
            (broker.bulk_reader(), broker.bulk_producer())
        } else {
            (broker.reader(), broker.producer())
        };
        let (reader, producer) = (reader.map_err(failed)?, producer.map_err(failed)?);
        let member = broker.join(spec).map_err(failed)?;
        let shared = Shared {
            reader,
            producer,
            committer: member.committer(),
            broker,
            registry,
            places,
            clock,
            snapshot_interval,
            slice_records: settings.batch_records_max.max(1),
            machine: M::NAME,
            behaviours,
            group,
            cluster,
            keyed,
            faults,
        };
        Ok((Arc::new(shared), member))
    }
}

/// A commit on its way, with what it commits.
type Committing = Boxed<'static, (BTreeMap<TopicPartition, i64>, Result<(), broker::Error>)>;

async fn done(
    committing: &mut Option<Committing>,
) -> (BTreeMap<TopicPartition, i64>, Result<(), broker::Error>) {
    match committing {
        Some(committing) => committing.await,
        None => std::future::pending().await,
    }
}

async fn until_stopped<T>(lifecycle: &Lifecycle, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = lifecycle.soft_stopped() => None,
        done = work => Some(done),
    }
}

/// Asks until the broker answers.
async fn retrying<'a, T>(
    mut ask: impl FnMut() -> Boxed<'a, Result<T, broker::Error>>,
) -> Result<T, broker::Error> {
    let mut told = false;
    loop {
        match ask().await {
            Err(broker::Error::Unavailable { what }) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(what, "the broker does not answer; asking again");
                }
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}

impl Shared {
    fn failed(&self, source: broker::Error) -> Error {
        Error::Broker { machine: self.machine, source }
    }

    fn behaviour(&self, number: i32) -> Error {
        Error::Behaviour { machine: self.machine, number, known: self.behaviours.clone() }
    }

    /// The bounds of a partition.
    async fn bounds(&self, of: TopicPartition) -> Result<Bounds, Error> {
        let bounds = retrying(|| self.broker.bounds(vec![of.topic])).await.map_err(|e| self.failed(e))?;
        let missing = || broker::Error::Fatal { what: format!("{of} does not exist") };
        bounds.get(&of).copied().ok_or_else(missing).map_err(|e| self.failed(e))
    }

    /// What the machine's group has committed.
    async fn committed(&self) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let topics = || Topic::ALL.to_vec();
        let ask = || self.broker.committed(self.group.clone(), topics());
        retrying(ask).await.map_err(|e| self.failed(e))
    }

    /// Commits 0, so that a commit that is missing later says that it was lost. False: a partition is another's.
    async fn commit_zero(&self, of: &[TopicPartition]) -> Result<bool, Error> {
        let zero = || self.committer.commit(of.iter().map(|partition| (*partition, 0)).collect());
        match retrying(zero).await {
            Ok(()) => Ok(true),
            Err(broker::Error::Fenced { .. }) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Commits, and lets no other commit follow before its time.
    fn commit(self: Arc<Self>, offsets: BTreeMap<TopicPartition, i64>, pause: Duration) -> Committing {
        Box::pin(async move {
            let result = self.committer.commit(offsets.clone()).await;
            tokio::time::sleep(pause).await;
            (offsets, result)
        })
    }
}
