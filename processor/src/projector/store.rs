//! What keeps the read models: one row says how far a partition is, and moves only with what it covers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use waypost_runtime::{broker::Boxed, health::Reporter, postgres, telemetry::Chain};
use waypost_schemas::{cause::SeqMap, topic::TopicPartition};

use super::{Error, batch::Batch};
use crate::checkpoint::Checkpoint;

/// The first and the longest pause between two tries while Postgres is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How far a partition has been projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The id of the Kafka cluster whose log was projected.
    pub cluster: String,
    /// The offset of the next record to be projected.
    pub next: i64,
    /// The last number taken of each source, where the topic is derived.
    pub seqs: SeqMap,
    /// The last record that is covered; absent where none is.
    pub checkpoint: Option<Checkpoint>,
}

impl Row {
    /// The row of a partition of which nothing has been projected.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into(), next: 0, seqs: SeqMap::default(), checkpoint: None }
    }
}

/// What came of writing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It stands.
    Done,
    /// Nothing was written: the row is no longer where the batch begins.
    Fenced,
}

/// Why the read models were not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Postgres is away, or refuses.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// What keeps them does not answer now.
    #[error("the read models do not answer")]
    Away,
}

impl Failure {
    /// Whether it passes by itself.
    fn passes(&self) -> bool {
        match self {
            Self::Postgres(error) => error.passes(),
            Self::Away => true,
        }
    }
}

/// Keeps the read models.
pub trait Models: Send + Sync {
    /// The partition's row; it is made where there is none, at the log's beginning.
    fn row<'a>(&'a self, partition: TopicPartition, cluster: &'a str) -> Boxed<'a, Result<Row, Failure>>;
    /// Writes a batch and moves the row from where it begins to where it ends, or nothing at all.
    fn write<'a>(
        &'a self,
        partition: TopicPartition,
        batch: &'a Batch,
    ) -> Boxed<'a, Result<Written, Failure>>;
}

/// Writes batches, waiting while Postgres is away.
pub(super) struct Store {
    models: Arc<dyn Models>,
    outage: Mutex<Outage>,
}

#[derive(Debug)]
struct Outage {
    reporter: Reporter,
    /// The partitions whose last try failed.
    waiting: BTreeSet<TopicPartition>,
}

impl Store {
    pub(super) fn new(models: Arc<dyn Models>, reporter: Reporter) -> Self {
        let outage = Mutex::new(Outage { reporter, waiting: BTreeSet::new() });
        Self { models, outage }
    }

    /// The partition's row; it is made where there is none, at the log's beginning.
    pub(super) async fn row(&self, partition: TopicPartition, cluster: &str) -> Result<Row, Error> {
        let mut pause = PAUSES.0;
        loop {
            match self.models.row(partition, cluster).await {
                Ok(row) => {
                    self.reached(partition);
                    return Ok(row);
                }
                Err(error) => self.missed(partition, error, &mut pause).await?,
            }
        }
    }

    /// Writes a batch and moves the row behind it, or nothing at all.
    pub(super) async fn write(&self, partition: TopicPartition, batch: &Batch) -> Result<Written, Error> {
        let mut pause = PAUSES.0;
        loop {
            match self.models.write(partition, batch).await {
                Ok(written) => {
                    self.reached(partition);
                    return Ok(written);
                }
                Err(error) => self.missed(partition, error, &mut pause).await?,
            }
        }
    }

    /// Postgres answered a partition: once it has answered all that waited for it, the outage is over.
    fn reached(&self, partition: TopicPartition) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if outage.waiting.remove(&partition) && outage.waiting.is_empty() {
            tracing::info!("postgres is back: the read models go on");
        }
        if outage.waiting.is_empty() {
            outage.reporter.ready();
        }
    }

    /// Waits where another try can help; hands on what none will mend.
    async fn missed(
        &self,
        partition: TopicPartition,
        error: Failure,
        pause: &mut Duration,
    ) -> Result<(), Error> {
        if !error.passes() {
            return Err(Error::Postgres { partition, source: error });
        }
        {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            if outage.waiting.is_empty() {
                tracing::warn!(error = %Chain(&error), "postgres is away: the read models wait, nothing else does");
                outage.reporter.not_ready("postgres is away");
            }
            outage.waiting.insert(partition);
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSES.1);
        Ok(())
    }

    /// A partition was given to another, which waits for Postgres in its place.
    pub(super) fn let_go(&self, partition: TopicPartition) {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&partition);
    }
}
