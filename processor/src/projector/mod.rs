//! The projector: fills the read models in Postgres from the log.
//!
//! It joins the group `waypost.projector`, which shares partitions out and keeps nothing: how far a partition is
//! stands in Postgres, in a row that moves in the same transaction as what it covers. So a crash, a second projector
//! that thinks the partition its own, and a commit whose answer was lost all end alike: the row is read again, and
//! says where to go on. While Postgres is away the projector waits, and nothing else does.
//!
//! Start at [`Projector`]; `follow` is one partition's way, `batch` what a transaction covers, `store` what keeps it,
//! `postgres` and `tables` how Postgres does.

mod batch;
mod follow;
mod heads;
mod postgres;
mod store;
mod tables;

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{Mutex, oneshot},
    task::{AbortHandle, JoinSet},
};
use waypost_runtime::{
    broker::{self, Broker, GroupSpec, Member, Membership},
    config,
    health::Health,
    intake::Hole,
    lifecycle::Lifecycle,
};
use waypost_schemas::topic::{Topic, TopicPartition};

pub use self::{
    batch::Batch,
    heads::{Head, Heads},
    postgres::Postgres,
    store::{Failure, Models, Row, Written},
    tables::InboxEntry,
};
use self::{follow::Shared, store::Store};

/// The group whose members share out what is projected.
pub const GROUP: &str = "waypost.projector";

/// Why projecting cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker failed, or the log no longer holds what is to be read.
    #[error("the projector cannot read the log")]
    Broker(#[from] broker::Error),
    /// The log misses records.
    #[error(transparent)]
    Hole(#[from] Hole),
    /// The read models were made from another cluster's log.
    #[error(
        "the read models of {partition} were made from Kafka cluster {stored}, and this is {found}: name the right broker, or empty the read models so that they are rebuilt"
    )]
    OtherCluster {
        /// The partition.
        partition: TopicPartition,
        /// The cluster that they were made from.
        stored: String,
        /// The cluster that was found.
        found: String,
    },
    /// The log ends before what the read models cover.
    #[error(
        "the read models cover {partition} up to offset {next}, and it ends at {high}: the log has lost its end; name the right broker, or empty the read models so that they are rebuilt"
    )]
    LostEnd {
        /// The partition.
        partition: TopicPartition,
        /// The next offset to be projected.
        next: i64,
        /// The partition's end.
        high: i64,
    },
    /// The last record that the read models cover is another one in the log.
    #[error(
        "the record of {partition} at offset {offset} is not the one that the read models were made from: name the right broker, or empty the read models so that they are rebuilt"
    )]
    OtherLog {
        /// The partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
    },
    /// Postgres refuses the rows, and would refuse them again.
    #[error("postgres refuses rows of {partition}")]
    Postgres {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The group gave out a topic of which there is no read model.
    #[error("there is no read model of {partition}")]
    NotProjected {
        /// The partition.
        partition: TopicPartition,
    },
}

/// The topics that the projector reads, by the catalogue.
pub fn topics() -> Vec<Topic> {
    Topic::ALL.into_iter().filter(|topic| topic.spec().readers.contains(&batch::NAME)).collect()
}

/// Fills the read models in Postgres from the log.
pub struct Projector {
    shared: Arc<Shared>,
    instance: String,
}

impl Projector {
    /// Prepares a projector; `instance` is the process's static member id. It asks neither broker nor read models.
    pub fn build(
        broker: Arc<dyn Broker>,
        models: Arc<dyn Models>,
        settings: config::Projector,
        health: &Health,
        instance: impl Into<String>,
    ) -> Result<Self, Error> {
        let reporter = health.check(batch::NAME, "postgres has not answered yet");
        let store = Store::new(models, reporter);
        let (reader, producer) = (broker.bulk_reader()?, broker.bulk_producer()?);
        let (heads, ends) = (Heads::default(), Mutex::default());
        let shared = Shared { broker, reader, producer, store, heads, settings, ends };
        Ok(Self { shared: Arc::new(shared), instance: instance.into() })
    }

    /// How old the records are that are not in Postgres yet, for the status.
    pub fn heads(&self) -> Heads {
        self.shared.heads.clone()
    }

    /// Projects what the group gives it until the lifecycle stops softly, or something cannot go on.
    ///
    /// Stopping needs no last word: what is not committed is read again.
    pub async fn run(self, lifecycle: Lifecycle) -> Result<(), Error> {
        let mut member = self.join()?;
        let mut followers = Followers::new(self.shared.clone());
        loop {
            tokio::select! {
                biased;
                () = lifecycle.soft_stopped() => return Ok(()),
                ended = followers.ended() => ended?,
                said = member.next() => match said {
                    Membership::Assigned(partitions) => followers.take(partitions),
                    Membership::Revoked { partitions, done, .. } => {
                        followers.let_go(partitions).await;
                        drop(done);
                    }
                    Membership::Failed(error) => return Err(error.into()),
                },
            }
        }
    }

    fn join(&self) -> Result<Box<dyn Member>, broker::Error> {
        let (group, instance) = (GROUP.to_owned(), self.instance.clone());
        self.shared.broker.join(GroupSpec { group, instance, topics: topics() })
    }
}

/// The partitions that are being followed, each by a task; dropped, all of them end.
struct Followers {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<(), Error>>,
    /// How to end a task, and what resolves when it has ended.
    running: BTreeMap<TopicPartition, (AbortHandle, oneshot::Receiver<()>)>,
}

impl Followers {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tasks: JoinSet::new(), running: BTreeMap::new() }
    }

    fn take(&mut self, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            if self.running.contains_key(&partition) {
                continue;
            }
            let (gone, ended) = oneshot::channel();
            let following = follow::follow(self.shared.clone(), partition);
            let task = self.tasks.spawn(async move {
                let ended = following.await;
                drop(gone);
                ended
            });
            self.running.insert(partition, (task, ended));
        }
    }

    /// Ends the tasks of some partitions, and waits until they write no more.
    async fn let_go(&mut self, partitions: Vec<TopicPartition>) {
        let leaving: Vec<_> =
            partitions.iter().filter_map(|partition| self.running.remove(partition)).collect();
        for (task, _) in &leaving {
            task.abort();
        }
        for (_, ended) in leaving {
            let _ = ended.await;
        }
    }

    /// Resolves when a task ends by itself, which it does only where it cannot go on; cancel-safe.
    async fn ended(&mut self) -> Result<(), Error> {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => std::future::pending().await,
            }
        }
    }
}
