//! The projector's side of Postgres: one row says how far a partition is, and moves only with what it covers.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use waypost_runtime::{
    health::Reporter,
    postgres::{self, Pool, Transaction},
    telemetry::Chain,
};
use waypost_schemas::{cause::SeqMap, time::Micros, topic::TopicPartition};

use super::{Error, batch::Batch, tables::Trust};
use crate::checkpoint::Checkpoint;

/// The first and the longest pause between two tries while Postgres is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How far a partition has been projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cluster: String,
    pub(super) next: i64,
    pub(super) seqs: SeqMap,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// What came of writing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands.
    Done,
    /// Nothing was written: the row is no longer where the batch begins.
    Fenced,
}

/// Writes batches, waiting while Postgres is away.
#[derive(Debug)]
pub(super) struct Store {
    pool: Pool,
    /// As many transactions as may be under way at once.
    writers: Semaphore,
    outage: Mutex<Outage>,
}

#[derive(Debug)]
struct Outage {
    reporter: Reporter,
    /// The partitions whose last try failed.
    waiting: BTreeSet<TopicPartition>,
}

impl Store {
    pub(super) fn new(pool: Pool, writers_max: usize, reporter: Reporter) -> Self {
        let writers = Semaphore::new(writers_max);
        let outage = Mutex::new(Outage { reporter, waiting: BTreeSet::new() });
        Self { pool, writers, outage }
    }

    /// The partition's row; it is made where there is none, at the log's beginning.
    pub(super) async fn row(&self, partition: TopicPartition, cluster: &str) -> Result<Row, Error> {
        let mut pause = PAUSES.0;
        loop {
            match self.try_row(partition, cluster).await {
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
        let (mut pause, mut trust) = (PAUSES.0, Trust::Newest);
        loop {
            match self.try_write(partition, batch, trust).await {
                Ok(written) => {
                    self.reached(partition);
                    return Ok(written);
                }
                Err(error) if trust == Trust::Newest && is_there_already(&error) => trust = Trust::Nothing,
                Err(error) => self.missed(partition, error, &mut pause).await?,
            }
        }
    }

    async fn try_row(&self, partition: TopicPartition, cluster: &str) -> Result<Row, postgres::Error> {
        let _writer = self.writers.acquire().await;
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        let (topic, number) = (partition.topic.name(), partition.partition);
        let make = "INSERT INTO waypost.projection (topic, partition, cluster_id, next_offset, seq_map) \
            VALUES ($1, $2, $3, 0, '{}') ON CONFLICT DO NOTHING";
        tx.execute(&tx.prepare_cached(make).await?, &[&topic, &number, &cluster]).await?;
        let read = "SELECT cluster_id, next_offset, seq_map::text, checkpoint_offset, checkpoint_append_us, \
            checkpoint_hash FROM waypost.projection WHERE topic = $1 AND partition = $2";
        let row = tx.query_one(&tx.prepare_cached(read).await?, &[&topic, &number]).await?;
        tx.commit().await?;
        Ok(read_row(&row)?)
    }

    async fn try_write(
        &self,
        partition: TopicPartition,
        batch: &Batch,
        trust: Trust,
    ) -> Result<Written, postgres::Error> {
        let _writer = self.writers.acquire().await;
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        // All of it can be made again from the log, so a commit need not wait for the disk.
        tx.batch_execute("SET LOCAL synchronous_commit = off").await?;
        if !move_row(&tx, partition, batch).await? {
            tx.rollback().await?;
            return Ok(Written::Fenced);
        }
        batch.rows.write(&tx, trust).await?;
        tx.commit().await?;
        Ok(Written::Done)
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
        error: postgres::Error,
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

/// Moves the row from where the batch begins to where it ends; `false` where it does not stand there.
async fn move_row(
    tx: &Transaction<'_>,
    partition: TopicPartition,
    batch: &Batch,
) -> Result<bool, tokio_postgres::Error> {
    let update = "UPDATE waypost.projection SET next_offset = $4, seq_map = $5::text::jsonb, \
        checkpoint_offset = $6, checkpoint_append_us = $7, checkpoint_hash = $8 \
        WHERE topic = $1 AND partition = $2 AND next_offset = $3";
    let seqs = serde_json::to_string(&batch.seqs).expect("a map of text to numbers is JSON");
    let checkpoint = batch.checkpoint.as_ref();
    let moved = tx
        .execute(
            &tx.prepare_cached(update).await?,
            &[
                &partition.topic.name(),
                &partition.partition,
                &batch.from,
                &batch.next,
                &seqs,
                &checkpoint.map(|c| c.offset),
                &checkpoint.map(|c| c.append.0),
                &checkpoint.map(|c| &c.hash[..]),
            ],
        )
        .await?;
    Ok(moved == 1)
}

fn read_row(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let seqs: String = row.try_get(2)?;
    let offset: Option<i64> = row.try_get(3)?;
    let append: Option<i64> = row.try_get(4)?;
    let hash: Option<Vec<u8>> = row.try_get(5)?;
    // A hash of another length is one that no record has, so the checkpoint is refused as it should be.
    let hash = hash.map(|hash| <[u8; 32]>::try_from(hash).unwrap_or_default());
    let checkpoint = match (offset, append, hash) {
        (Some(offset), Some(append), Some(hash)) => Some(Checkpoint { offset, append: Micros(append), hash }),
        _ => None,
    };
    Ok(Row {
        cluster: row.try_get(0)?,
        next: row.try_get(1)?,
        seqs: serde_json::from_str(&seqs).unwrap_or_default(),
        checkpoint,
    })
}

fn is_there_already(error: &postgres::Error) -> bool {
    matches!(error, postgres::Error::Query(source) if source.code() == Some(&SqlState::UNIQUE_VIOLATION))
}
