//! How far machines and read models have come, beside the ends of the log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;
use tokio::sync::Mutex;
use waypost_runtime::{
    auth::Operator,
    broker::{self, Bounds, Broker, Reader},
    http::{Connections, Problem},
};
use waypost_schemas::{
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::{Error, Reads};
use crate::{
    alerts::AlertsMachine,
    conversations::ConversationsMachine,
    inboxes::InboxesMachine,
    machine::Machine as _,
    projector::{self, Head, Heads},
    spatial::SpatialMachine,
};

/// Every machine, and the topic that drives it. A topic that a machine looks at has no lag of its own: what drives the
/// machine says up to where it is needed, and nothing beyond is unfinished work.
const MACHINES: [(&str, Topic); 4] = [
    (SpatialMachine::NAME, SpatialMachine::DRIVES),
    (AlertsMachine::NAME, AlertsMachine::DRIVES),
    (ConversationsMachine::NAME, ConversationsMachine::DRIVES),
    (InboxesMachine::NAME, InboxesMachine::DRIVES),
];

/// How long reading the oldest records that are not projected may take together.
const TAILS_WAIT: Duration = Duration::from_secs(2);

/// One reading.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    cluster: String,
    topics: Vec<Ends>,
    machines: Vec<Machine>,
    /// Absent while Postgres is away.
    projector: Option<Vec<Projection>>,
    /// How old the oldest record is that is not in Postgres; 0 where all are, absent where that cannot be told.
    freshness_ms: Option<i64>,
    connections: usize,
    /// Whether all committed and next offsets of this reading are the ends.
    idle: bool,
    /// What could not be told, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Ends {
    topic: &'static str,
    partition: i32,
    low: i64,
    high: i64,
}

#[derive(Debug, Serialize)]
struct Machine {
    #[serde(rename = "machine")]
    name: &'static str,
    topic: &'static str,
    partition: i32,
    /// Absent until an owner has taken the partition.
    committed: Option<i64>,
    lag: i64,
}

#[derive(Debug, Serialize)]
struct Projection {
    topic: &'static str,
    partition: i32,
    next: i64,
    lag: i64,
}

pub(super) async fn show(
    State(reads): State<Reads>,
    _: Operator,
    connections: Option<axum::Extension<Connections>>,
) -> Result<Json<Status>, Problem> {
    let connections = connections.map_or(0, |open| open.open());
    let reading = Reading::take(&reads).await?;
    let freshness_ms = match &reading.next {
        Some(next) => freshness_ms(&reads, next, &reading.bounds).await,
        None => None,
    };
    Ok(Json(reading.status(connections, freshness_ms)))
}

/// What was asked of the log and of Postgres.
struct Reading {
    cluster: String,
    /// What each machine's group has committed.
    committed: Vec<BTreeMap<TopicPartition, i64>>,
    /// The projector's next offsets; `None` while Postgres is away.
    next: Option<BTreeMap<TopicPartition, i64>>,
    bounds: BTreeMap<TopicPartition, Bounds>,
}

impl Reading {
    /// Asks for the ends last: what stood at an end that was asked for later stood there then.
    async fn take(reads: &Reads) -> Result<Self, Error> {
        let cluster = reads.broker.cluster_id().await?;
        let asked =
            MACHINES.map(|(name, topic)| reads.broker.committed(format!("waypost.{name}"), vec![topic]));
        let committed = futures_util::future::try_join_all(asked).await?;
        let next = match next_offsets(reads).await {
            Ok(next) => Some(next),
            Err(Error::Postgres(error)) if error.passes() => None,
            Err(error) => return Err(error),
        };
        let bounds = reads.broker.bounds(Topic::ALL.to_vec()).await?;
        Ok(Self { cluster, committed, next, bounds })
    }

    fn status(self, connections: usize, freshness_ms: Option<i64>) -> Status {
        let machines = self.machines();
        let projector = self.next.as_ref().map(|next| self.projections(next));
        let idle = machines.iter().all(|m| m.lag == 0)
            && projector.as_ref().is_some_and(|projector| projector.iter().all(|p| p.lag == 0));
        let detail =
            projector.is_none().then_some("postgres is away: how far the projector is cannot be told");
        let topics = self.bounds.iter().map(|(of, bounds)| Ends {
            topic: of.topic.name(),
            partition: of.partition,
            low: bounds.low,
            high: bounds.high,
        });
        let topics = topics.collect();
        Status { cluster: self.cluster, topics, machines, projector, freshness_ms, connections, idle, detail }
    }

    /// Every partition of every machine, also one that nobody has taken yet.
    fn machines(&self) -> Vec<Machine> {
        let mut machines = Vec::new();
        for ((name, topic), committed) in MACHINES.into_iter().zip(&self.committed) {
            for (of, bounds) in self.bounds.iter().filter(|(of, _)| of.topic == topic) {
                let committed = committed.get(of).copied();
                let lag = bounds.high - committed.unwrap_or(bounds.low);
                let (topic, partition) = (topic.name(), of.partition);
                machines.push(Machine { name, topic, partition, committed, lag });
            }
        }
        machines
    }

    fn projections(&self, next: &BTreeMap<TopicPartition, i64>) -> Vec<Projection> {
        let projected = projector::topics();
        let of_projector = self.bounds.iter().filter(|(of, _)| projected.contains(&of.topic));
        let projection = |(of, bounds): (&TopicPartition, &Bounds)| {
            let next = next.get(of).copied().unwrap_or(0);
            Projection { topic: of.topic.name(), partition: of.partition, next, lag: bounds.high - next }
        };
        of_projector.map(projection).collect()
    }
}

async fn next_offsets(reads: &Reads) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let client = reads.pool.get().await?;
    let select = "SELECT topic, partition, next_offset FROM waypost.projection";
    let rows = client.query(&client.prepare_cached(select).await?, &[]).await?;
    let mut next = BTreeMap::new();
    for row in &rows {
        let topic: &str = row.try_get(0)?;
        if let Some(topic) = Topic::from_name(topic) {
            next.insert(TopicPartition::new(topic, row.try_get(1)?), row.try_get(2)?);
        }
    }
    Ok(next)
}

/// How long ago the oldest record that is not projected was appended.
async fn freshness_ms(
    reads: &Reads,
    next: &BTreeMap<TopicPartition, i64>,
    bounds: &BTreeMap<TopicPartition, Bounds>,
) -> Option<i64> {
    let projected = projector::topics();
    let behind: BTreeMap<TopicPartition, i64> = bounds
        .iter()
        .filter(|(of, _)| projected.contains(&of.topic))
        .map(|(of, bounds)| (*of, next.get(of).copied().unwrap_or(0), bounds.high))
        .filter(|(_, next, high)| next < high)
        .map(|(of, next, _)| (of, next))
        .collect();
    let oldest = tokio::time::timeout(TAILS_WAIT, reads.tails.oldest(behind)).await.ok()?.ok()?;
    let age_us = oldest.map_or(0, |oldest| reads.clock.now().0.saturating_sub(oldest.0));
    Some(age_us.max(0) / 1_000)
}

/// Knows when the oldest records that are not projected were appended.
pub(super) struct Tails {
    broker: Arc<dyn Broker>,
    heads: Heads,
    /// Opened when another process's projector is first asked about; one request at a time reads.
    reader: Mutex<Option<Arc<dyn Reader>>>,
}

impl Tails {
    pub(super) fn new(broker: Arc<dyn Broker>, heads: Heads) -> Self {
        Self { broker, heads, reader: Mutex::new(None) }
    }

    /// The oldest append time of the records at these offsets, each its partition's first that is not projected.
    ///
    /// Of partitions that this process projects its projector knows; the record of another is read.
    async fn oldest(&self, behind: BTreeMap<TopicPartition, i64>) -> Result<Option<Micros>, broker::Error> {
        let mut oldest = None;
        for (partition, offset) in behind {
            let append = match self.heads.of(partition) {
                // It has come after what this process has read: it is as good as new.
                Some(Head::Written) => continue,
                Some(Head::Pending(append)) => append,
                None => self.read(partition, offset).await?,
            };
            oldest = Some(oldest.map_or(append, |o: Micros| o.min(append)));
        }
        Ok(oldest)
    }

    async fn read(&self, partition: TopicPartition, offset: i64) -> Result<Micros, broker::Error> {
        let mut kept = self.reader.lock().await;
        let reader = match &*kept {
            Some(reader) => reader.clone(),
            None => kept.insert(self.broker.reader()?).clone(),
        };
        let mut feed = reader.open(partition, offset)?;
        loop {
            if let Some(first) = feed.next().await?.records.first() {
                return Ok(first.append);
            }
        }
    }
}
