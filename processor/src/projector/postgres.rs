//! The read models in Postgres: each batch in one transaction with the row that says how far its partition is.

use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use waypost_runtime::{
    broker::Boxed,
    postgres::{self, Pool, Transaction},
};
use waypost_schemas::{time::Micros, topic::TopicPartition};

use super::{
    batch::Batch,
    store::{Failure, Models, Row, Written},
    tables::Trust,
};
use crate::checkpoint::Checkpoint;

/// The read models in one Postgres.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
    /// As many transactions as may be under way at once.
    writers: Semaphore,
}

impl Postgres {
    /// The read models in the Postgres of a pool, written by so many transactions at once.
    pub fn new(pool: Pool, writers_max: usize) -> Self {
        Self { pool, writers: Semaphore::new(writers_max) }
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
}

impl Models for Postgres {
    fn row<'a>(&'a self, partition: TopicPartition, cluster: &'a str) -> Boxed<'a, Result<Row, Failure>> {
        Box::pin(async move { Ok(self.try_row(partition, cluster).await?) })
    }

    fn write<'a>(
        &'a self,
        partition: TopicPartition,
        batch: &'a Batch,
    ) -> Boxed<'a, Result<Written, Failure>> {
        Box::pin(async move {
            match self.try_write(partition, batch, Trust::Newest).await {
                Err(error) if is_there_already(&error) => {
                    Ok(self.try_write(partition, batch, Trust::Nothing).await?)
                }
                written => Ok(written?),
            }
        })
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
