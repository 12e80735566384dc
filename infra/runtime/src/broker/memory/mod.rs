//! The deterministic twin: a log in memory that keeps the contract of the seam, and does wrong only when told to.
//!
//! [`Cluster`] is what all processes share, and what a test drives: the log's clock, crashes, lost sessions, late
//! and doubled appends. [`Cluster::connect`] gives one process's [`Broker`]. Nothing happens by itself: what a call
//! sees is a function of the calls before it.

mod connection;
mod group;
mod log;
mod member;
mod producer;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use waypost_schemas::{
    time::Micros,
    topic::{Topic, TopicPartition},
};

pub use self::connection::Broker;
use self::{
    connection::{Connection, Fault},
    group::Group,
    log::Partition,
};
use super::{Error, Incoming, Outgoing};

/// A cluster in memory. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// The cluster and the bell that rings after every change.
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    id: String,
    now: Micros,
    away: bool,
    partitions: BTreeMap<TopicPartition, Partition>,
    groups: BTreeMap<String, Group>,
    connections: BTreeMap<String, Connection>,
    /// The last number given to a member or a producer.
    numbered: u64,
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    fn all_of(&self, topics: &[Topic]) -> BTreeSet<TopicPartition> {
        self.partitions.keys().filter(|p| topics.contains(&p.topic)).copied().collect()
    }

    fn create(&mut self, topic: Topic, keyed: i32) {
        for partition in 0..topic.partitions(keyed) {
            self.partitions.entry(TopicPartition::new(topic, partition)).or_default();
        }
    }

    fn partition(&mut self, of: TopicPartition) -> Result<&mut Partition, Error> {
        self.partitions.get_mut(&of).ok_or_else(|| Error::Fatal {
            what: format!("{of} does not exist; create it with waypost topics apply"),
        })
    }

    /// The answer of a cluster that is away to what cannot wait.
    fn answering(&self, what: &str) -> Result<(), Error> {
        if self.away { Err(Error::Unavailable { what: what.to_owned() }) } else { Ok(()) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere is a failed assertion of the test that drives this; its own message is the news.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes everyone who waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `ready` gives something, looking again after every change.
    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = ready(&mut self.lock()) {
                return result;
            }
            changed.await;
        }
    }
}

impl Cluster {
    /// A cluster without topics, whose clock stands at the epoch.
    pub fn empty() -> Self {
        let state = State {
            id: "memory".to_owned(),
            now: Micros(0),
            away: false,
            partitions: BTreeMap::new(),
            groups: BTreeMap::new(),
            connections: BTreeMap::new(),
            numbered: 0,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A cluster with every topic of the catalogue, keyed ones with `keyed` partitions.
    pub fn new(keyed: i32) -> Self {
        let cluster = Self::empty();
        cluster.shared.change(|s| Topic::ALL.into_iter().for_each(|t| s.create(t, keyed)));
        cluster
    }

    /// The broker as the process `name` sees it; after a crash, as its next life sees it.
    pub fn connect(&self, name: &str) -> Broker {
        let life = self.shared.change(|s| s.connections.entry(name.to_owned()).or_default().life);
        Broker { shared: self.shared.clone(), name: name.into(), life }
    }

    /// Sets the log's clock, which stamps what is appended from now on.
    pub fn set_time(&self, now: Micros) {
        self.shared.change(|s| s.now = now);
    }

    /// Sets the cluster's id, as a new cluster at the same address has another.
    pub fn set_id(&self, id: &str) {
        self.shared.change(|s| id.clone_into(&mut s.id));
    }

    /// Makes the broker go away, or come back. While it is away feeds, deliveries and memberships wait, and
    /// requests are [`Error::Unavailable`].
    pub fn set_away(&self, away: bool) {
        self.shared.change(|s| {
            s.away = away;
            s.land_what_may();
        });
    }

    /// Appends a record from outside, whoever is away; returns its offset.
    pub fn append(&self, record: Outgoing) -> Result<i64, Error> {
        self.shared.change(|s| s.append(record))
    }

    /// The records of a partition that are in the log now.
    pub fn records(&self, of: TopicPartition) -> Vec<Incoming> {
        self.shared.lock().partitions.get(&of).map(|p| p.records().to_vec()).unwrap_or_default()
    }

    /// The next offset to be written to a partition.
    pub fn end(&self, of: TopicPartition) -> i64 {
        self.shared.lock().partitions.get(&of).map_or(0, |p| p.bounds().high)
    }

    /// What a group has committed of a partition.
    pub fn committed(&self, group: &str, of: TopicPartition) -> Option<i64> {
        self.shared.lock().groups.get(group).and_then(|g| g.committed.get(&of).copied())
    }

    /// Who is in a group and what each owns, for the message of a test that failed.
    pub fn members(&self, group: &str) -> String {
        self.shared.lock().groups.get(group).map(Group::told).unwrap_or_default()
    }

    /// How many records of the process `name` are held.
    pub fn held(&self, name: &str) -> usize {
        self.shared.lock().connections.get(name).map_or(0, |c| c.limbo.len())
    }

    /// Removes what lies below `low`, as retention does.
    pub fn cut(&self, of: TopicPartition, low: i64) {
        self.shared.change(|s| {
            if let Some(p) = s.partitions.get_mut(&of) {
                p.cut(low);
            }
        });
    }

    /// Removes what lies at and above `high`, as a log does that lost its end.
    pub fn lose_end(&self, of: TopicPartition, high: i64) {
        self.shared.change(|s| {
            if let Some(p) = s.partitions.get_mut(&of) {
                p.lose_end(high);
            }
        });
    }

    /// Ends the process `name` without a word: its handles hang for ever, what it sent and was held stays in
    /// limbo, and its groups wait for it until [`Cluster::expire`] or its next life joins.
    pub fn crash(&self, name: &str) {
        self.shared.change(|s| {
            let connection = s.connections.entry(name.to_owned()).or_default();
            connection.life += 1;
            connection.suspended = false;
        });
    }

    /// Ends the sessions of the process `name`: its partitions go to others. If it lives it finds them lost when
    /// it next asks, and joins again once it has let go; until then it is a zombie, which can append but not commit.
    pub fn expire(&self, name: &str) {
        self.shared.change(|s| {
            let partitions = s.partitions.keys().copied().collect();
            s.groups.values_mut().for_each(|g| g.expire(name, &partitions));
        });
    }

    /// Keeps the news of its groups from the process `name`, or stops keeping it.
    pub fn set_suspended(&self, name: &str, suspended: bool) {
        self.shared.change(|s| s.connections.entry(name.to_owned()).or_default().suspended = suspended);
    }

    /// Holds in limbo what the process `name` sends from now on, or lands all that is held and holds no more.
    pub fn set_held(&self, name: &str, held: bool) {
        self.shared.change(|s| {
            s.connections.entry(name.to_owned()).or_default().held = held;
            s.land_what_may();
        });
    }

    /// Lands up to `records` of what is held of the process `name` for a partition, oldest first, even if that
    /// process is long dead; returns how many there were.
    pub fn land(&self, name: &str, partition: TopicPartition, records: usize) -> usize {
        self.shared.change(|s| s.land(name, partition, records))
    }

    /// Loses what is held of the process `name`.
    pub fn lose_held(&self, name: &str) {
        self.shared.change(|s| s.connections.entry(name.to_owned()).or_default().limbo.clear());
    }

    /// Lands the next record of the process `name` twice.
    pub fn double_next(&self, name: &str) {
        self.shared
            .change(|s| s.connections.entry(name.to_owned()).or_default().fault = Some(Fault::Doubled));
    }

    /// Refuses the next record of the process `name`, which is fatal to its producer.
    pub fn refuse_next(&self, name: &str) {
        self.shared
            .change(|s| s.connections.entry(name.to_owned()).or_default().fault = Some(Fault::Refused));
    }

    /// Sets what a group has committed of a partition, as an operator can, or removes it.
    pub fn set_committed(&self, group: &str, partition: TopicPartition, offset: Option<i64>) {
        self.shared.change(|s| {
            let committed = &mut s.groups.entry(group.to_owned()).or_default().committed;
            match offset {
                Some(offset) => committed.insert(partition, offset),
                None => committed.remove(&partition),
            };
        });
    }
}
