//! One partition's way into Postgres: from where its row stands, batch after batch.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Mutex;
use waypost_runtime::{
    broker::{self, Broker, Feed, Producer, Reader},
    config,
    facts::Facts,
    intake::Hole,
};
use waypost_schemas::topic::TopicPartition;

use super::{
    Error,
    batch::Folding,
    heads::{Head, Heads},
    store::{Row, Store, Written},
};
use crate::checkpoint::Checkpoint;

/// How long to wait before the broker is asked again.
const BROKER_PAUSE: Duration = Duration::from_millis(500);

/// What the partitions of one projector share.
pub(super) struct Shared {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) producer: Arc<dyn Producer>,
    pub(super) store: Store,
    pub(super) heads: Heads,
    pub(super) settings: config::Projector,
    /// Ends of partitions as last asked for; the log only grows.
    pub(super) ends: Mutex<BTreeMap<TopicPartition, i64>>,
}

/// Projects a partition until it is dropped, which may be anywhere: what is not committed is read again.
pub(super) async fn follow(shared: Arc<Shared>, partition: TopicPartition) -> Result<(), Error> {
    let held = Held { shared, partition };
    let cluster = held.shared.cluster().await?;
    let mut facts = Facts::default();
    loop {
        let row = held.shared.store.row(partition, &cluster).await?;
        held.shared.verify(partition, &cluster, &row).await?;
        match go_on(&held.shared, partition, row, &facts).await? {
            Stop::Fenced => {
                tracing::warn!(%partition, "another projector has moved this partition on: reading again how far it is");
            }
            Stop::Hole(hole) => {
                facts = Facts::read(&*held.shared.broker).await?;
                if !facts.accepts(&hole) {
                    return Err(hole.into());
                }
            }
        }
    }
}

/// Why projecting does not go on where it was.
enum Stop {
    /// The row stands elsewhere.
    Fenced,
    /// Records are missing, and what is known of the facts does not accept it.
    Hole(Hole),
}

/// Projects from a row on, until the row turns out to stand elsewhere, or records are missing.
async fn go_on(
    shared: &Shared,
    partition: TopicPartition,
    mut row: Row,
    facts: &Facts,
) -> Result<Stop, Error> {
    let (mut feed, mut ahead) = shared.open(partition, &row).await?;
    loop {
        let Some(mut folding) = Folding::new(partition, &row, facts) else {
            return Err(Error::NotProjected { partition });
        };
        shared.heads.set(partition, Some(Head::Written));
        if let Some(batch) = ahead.take() {
            folding.fold(batch.records, batch.next);
        }
        shared.gather(&mut *feed, partition, &mut folding).await?;
        let mut batch = folding.finish();

        let letters = std::mem::take(&mut batch.letters);
        if !letters.is_empty() {
            metrics::counter!("waypost_projector_dead_letters_total").increment(letters.len() as u64);
            shared.producer.send(letters).await?.await?;
        }
        if batch.next > batch.from && shared.store.write(partition, &batch).await? == Written::Fenced {
            return Ok(Stop::Fenced);
        }
        metrics::counter!("waypost_projector_rows_total", "topic" => partition.topic.name())
            .increment(batch.rows.len() as u64);
        if let Some(hole) = batch.hole {
            return Ok(Stop::Hole(hole));
        }
        row = Row { next: batch.next, seqs: batch.seqs, checkpoint: batch.checkpoint, ..row };
    }
}

impl Shared {
    async fn cluster(&self) -> Result<String, broker::Error> {
        loop {
            match self.broker.cluster_id().await {
                Err(broker::Error::Unavailable { .. }) => tokio::time::sleep(BROKER_PAUSE).await,
                other => return other,
            }
        }
    }

    /// Checks that the log is the row's, as far as can be told without reading it.
    async fn verify(&self, partition: TopicPartition, cluster: &str, row: &Row) -> Result<(), Error> {
        if row.cluster != cluster {
            let (stored, found) = (row.cluster.clone(), cluster.to_owned());
            return Err(Error::OtherCluster { partition, stored, found });
        }
        let mut ends = self.ends.lock().await;
        let known = |ends: &BTreeMap<_, i64>| ends.get(&partition).copied().unwrap_or(0);
        if row.next > known(&ends) {
            *ends = self.ask_ends().await?;
        }
        let (next, high) = (row.next, known(&ends));
        if next > high { Err(Error::LostEnd { partition, next, high }) } else { Ok(()) }
    }

    async fn ask_ends(&self) -> Result<BTreeMap<TopicPartition, i64>, broker::Error> {
        loop {
            match self.broker.bounds(super::topics()).await {
                Err(broker::Error::Unavailable { .. }) => tokio::time::sleep(BROKER_PAUSE).await,
                Err(error) => return Err(error),
                Ok(bounds) => return Ok(bounds.into_iter().map(|(p, bounds)| (p, bounds.high)).collect()),
            }
        }
    }

    /// Opens a partition at the last record that its row covers, and checks that this record is the same.
    async fn open(
        &self,
        partition: TopicPartition,
        row: &Row,
    ) -> Result<(Box<dyn Feed>, Option<broker::Batch>), Error> {
        let Some(checkpoint) = &row.checkpoint else {
            return Ok((self.reader.open(partition, row.next)?, None));
        };
        let mut feed = self.reader.open(partition, checkpoint.offset)?;
        loop {
            let batch = feed.next().await?;
            match batch.records.first() {
                None => {}
                Some(first) if Checkpoint::of(first) == *checkpoint => return Ok((feed, Some(batch))),
                Some(_) => return Err(Error::OtherLog { partition, offset: checkpoint.offset }),
            }
        }
    }

    /// Folds records until there are enough, or none has come for a while.
    async fn gather(
        &self,
        feed: &mut dyn Feed,
        partition: TopicPartition,
        folding: &mut Folding<'_>,
    ) -> Result<(), Error> {
        while folding.is_empty() {
            let batch = feed.next().await?;
            folding.fold(batch.records, batch.next);
        }
        self.heads.set(partition, folding.oldest().map(Head::Pending));
        let mut over = std::pin::pin!(tokio::time::sleep(self.settings.batch_wait));
        while !folding.is_full(self.settings.batch_records_max) {
            tokio::select! {
                biased;
                () = &mut over => break,
                batch = feed.next() => {
                    let batch = batch?;
                    folding.fold(batch.records, batch.next);
                }
            }
        }
        Ok(())
    }
}

/// A partition that this process projects; dropped, nothing is said of it any more.
struct Held {
    shared: Arc<Shared>,
    partition: TopicPartition,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.heads.set(self.partition, None);
        self.shared.store.let_go(self.partition);
    }
}
