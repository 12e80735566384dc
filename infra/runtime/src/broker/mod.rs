//! The seam to the log: what Waypost asks of a broker, in terms that Kafka and a deterministic twin both satisfy.
//!
//! Three handles, each with one owner: a [`Reader`] fetches partitions from given offsets (no group, no commit); a
//! [`Member`] takes part in a group, learns which partitions are its own, and commits; a [`Producer`] appends
//! without gaps. That a group's membership and its fetching are two handles lets an owner restore a partition's
//! state first and then read from the offset which that state names.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod kafka;
pub mod memory;
pub mod topics;

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use waypost_schemas::{
    cause::Position,
    time::Micros,
    topic::{Topic, TopicPartition},
};

/// A future that a seam returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What can go wrong at the broker.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker did not answer in time; trying again may help.
    #[error("the broker did not answer: {what}")]
    Unavailable {
        /// What was asked of it.
        what: String,
    },
    /// This process no longer owns the partition, or its group has moved on.
    #[error("{partition} belongs to another member of the group")]
    Fenced {
        /// The partition.
        partition: TopicPartition,
    },
    /// The offset asked for is not in the log: it was cut off below, or the log lost its end.
    #[error("{partition} has no offset {offset}: it holds {low} to {high}")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// The lowest offset there is.
        low: i64,
        /// The next offset to be written.
        high: i64,
    },
    /// A record is larger than its topic takes; nothing of its batch was queued, and the producer goes on.
    #[error("a record of {bytes} bytes is more than the {bytes_max} that {to} takes")]
    TooLarge {
        /// Where it was to go.
        to: TopicPartition,
        /// Its size with key, headers and what the log adds.
        bytes: usize,
        /// The most that the topic takes.
        bytes_max: usize,
    },
    /// Nothing can be done but to stop: an append was refused, a setting is wrong, a topic is missing.
    #[error("the broker refused: {what}")]
    Fatal {
        /// What, and what to do.
        what: String,
    },
}

/// Header names and values, in the order that they were written.
pub type Headers = Vec<(Box<str>, Bytes)>;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where it stands in its partition.
    pub offset: i64,
    /// The time of its append, which is the log's clock.
    pub append: Micros,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; a foreign record may have none.
    pub value: Option<Bytes>,
    /// Its headers; empty costs nothing.
    pub headers: Headers,
}

impl Incoming {
    /// What it costs to keep, about, in bytes.
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Self>() + length(&self.key) + length(&self.value) + headers
    }

    /// The last header of a name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| &**n == name).map(|(_, v)| &v[..])
    }
}

/// A record to be appended; its partition is chosen by its maker, so that it is part of behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: TopicPartition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
}

impl Outgoing {
    /// What the log adds to a record at most, beside its headers: batch header, lengths, offset and time, in bytes.
    const OVERHEAD_BYTES: usize = 128;

    /// Its size in the log, at most, in bytes.
    pub fn bytes(&self) -> usize {
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        Self::OVERHEAD_BYTES + length(&self.key) + length(&self.value) + headers
    }

    /// Refuses a record that its topic would not take, which would be fatal to the producer.
    fn fits(&self) -> Result<(), Error> {
        let (to, bytes, bytes_max) = (self.to, self.bytes(), self.to.topic.spec().message_bytes_max as usize);
        if bytes > bytes_max { Err(Error::TooLarge { to, bytes, bytes_max }) } else { Ok(()) }
    }
}

/// Records of one partition, in offset order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The records; none where the batch says only that the end is reached.
    pub records: Vec<Incoming>,
    /// The next offset to read after this batch.
    pub next: i64,
    /// Whether the reader had everything there was when it took this batch. A feed that reaches the end says so
    /// once, by an empty batch if need be; a feed that is opened at the end, too.
    pub at_end: bool,
}

/// The bounds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest offset there is.
    pub low: i64,
    /// The next offset to be written.
    pub high: i64,
}

/// Held by a member that was told to let go; dropping it says that it has.
pub struct Release(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Release {
    /// Makes one that calls `on_drop` when it is dropped.
    pub fn new(on_drop: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(on_drop)))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.take() {
            on_drop();
        }
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

/// What a group tells a member. A change of the group revokes everything first, and then assigns anew.
#[derive(Debug)]
pub enum Membership {
    /// The member now owns exactly these; none, where others have them all.
    Assigned(Vec<TopicPartition>),
    /// The member must let these go, which are all that it had. It commits what is durable, then drops `done`;
    /// the group waits for that, at most as long as the session lasts. With `lost` they already belong to another,
    /// and a commit is refused.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether it is too late for a last commit.
        lost: bool,
        /// Dropped when the member has let go.
        done: Release,
    },
    /// The membership cannot go on; the process stops.
    Failed(Error),
}

/// One partition's records, from the offset asked for. Dropping it closes the partition.
///
/// Its queue is bounded: past 80% of the bound fetching pauses, below 30% it resumes.
pub trait Feed: Send {
    /// The next batch; cancel-safe. Waits while the broker is away. After an error no more comes.
    fn next(&mut self) -> Boxed<'_, Result<Batch, Error>>;
}

/// Fetches partitions from given offsets.
pub trait Reader: Send + Sync {
    /// Opens a partition at an offset. An offset outside the log is [`Error::OutOfRange`] at the first batch, never
    /// a silent jump; an offset equal to the end waits for what comes. A partition is open once per reader.
    fn open(&self, partition: TopicPartition, offset: i64) -> Result<Box<dyn Feed>, Error>;
}

/// Takes part in a group. Dropping it ends that: the partitions go to others when the session is over, or back to
/// the same instance if it joins before.
pub trait Member: Send {
    /// What the group says next; cancel-safe.
    fn next(&mut self) -> Boxed<'_, Membership>;
    /// The handle by which tasks commit.
    fn committer(&self) -> Arc<dyn Committer>;
}

/// Commits a member's offsets.
pub trait Committer: Send + Sync {
    /// Commits next offsets to read; [`Error::Fenced`] where the group has given a partition to another.
    fn commit(&self, offsets: BTreeMap<TopicPartition, i64>) -> Boxed<'_, Result<(), Error>>;
}

/// Resolves once all records of one [`Producer::send`] are acknowledged, to their positions in the order sent.
pub type Delivery = Boxed<'static, Result<Vec<Position>, Error>>;

/// Appends records: idempotent, in order per partition, without gaps, waiting as long as the broker is away.
///
/// A failed delivery is [`Error::Fatal`], and every later one of the same producer too: the process stops, and
/// begins again at its committed offset.
pub trait Producer: Send + Sync {
    /// Queues the records in order, waiting while the bounded queue is full, and returns the promise of delivery.
    /// Dropping the promise does not take the records back.
    fn send(&self, records: Vec<Outgoing>) -> Boxed<'_, Result<Delivery, Error>>;
    /// Waits until nothing is in flight.
    fn flush(&self) -> Boxed<'_, Result<(), Error>>;
}

/// What is known of a topic on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// The topic.
    pub topic: Topic,
    /// How many partitions it has.
    pub partitions: i32,
    /// Its settings that the catalogue names, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// A group that a process takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// The group's id, `waypost.spatial`.
    pub group: String,
    /// The process's static member id, `processor-1`.
    pub instance: String,
    /// The topics whose partitions are shared out, by range.
    pub topics: Vec<Topic>,
}

/// A log.
pub trait Broker: Send + Sync {
    /// A reader of its own connection, which has a record as soon as it is in the log.
    fn reader(&self) -> Result<Arc<dyn Reader>, Error>;
    /// A reader of its own connection for whom many records at once are worth a short wait.
    fn bulk_reader(&self) -> Result<Arc<dyn Reader>, Error> {
        self.reader()
    }
    /// Joins a group.
    fn join(&self, group: GroupSpec) -> Result<Box<dyn Member>, Error>;
    /// A producer of its own connection, which sends a record as soon as it can.
    fn producer(&self) -> Result<Arc<dyn Producer>, Error>;
    /// A producer of its own connection for whom a request of many records is worth a short wait.
    fn bulk_producer(&self) -> Result<Arc<dyn Producer>, Error> {
        self.producer()
    }
    /// The cluster's id.
    fn cluster_id(&self) -> Boxed<'_, Result<String, Error>>;
    /// The bounds of every partition of the topics, asked of the broker now.
    fn bounds(&self, topics: Vec<Topic>) -> Boxed<'_, Result<BTreeMap<TopicPartition, Bounds>, Error>>;
    /// What a group has committed; a partition without a commit is absent.
    fn committed(
        &self,
        group: String,
        topics: Vec<Topic>,
    ) -> Boxed<'_, Result<BTreeMap<TopicPartition, i64>, Error>>;
    /// How many members a group has now; one that ended without a word counts until its session is over.
    fn members(&self, group: String) -> Boxed<'_, Result<usize, Error>>;
    /// The topics of the catalogue that exist.
    fn topics(&self) -> Boxed<'_, Result<Vec<TopicState>, Error>>;
    /// Creates topics of the catalogue, with `keyed` partitions where they are keyed.
    fn create(&self, topics: Vec<Topic>, keyed: i32) -> Boxed<'_, Result<(), Error>>;
}

/// The error of a partition that is open already on the same reader.
fn open_already(partition: TopicPartition) -> Error {
    Error::Fatal { what: format!("{partition} is open already; close its feed first") }
}

/// The error of a static member whose id another process has taken.
fn replaced(spec: &GroupSpec) -> Error {
    let GroupSpec { group, instance, .. } = spec;
    Error::Fatal {
        what: format!(
            "another process has joined {group} as {instance}; give each process its own number with --instance"
        ),
    }
}
