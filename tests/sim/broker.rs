//! The twin as a process of the simulation meets it: slow, deadly, and, where a bug is planted, lying.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use waypost_runtime::broker::{
    self, Batch, Bounds, Boxed, Committer, Delivery, Error, Feed, GroupSpec, Member, Membership, Outgoing,
    Producer, Reader, TopicState, memory,
};
use waypost_schemas::topic::{Topic, TopicPartition};

use crate::{bug::Bug, gate::Gate, journal::Journal};

/// One process's connection; a cheap clone.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) inner: memory::Broker,
    pub(crate) gate: Gate,
    pub(crate) journal: Journal,
    pub(crate) bug: Option<Bug>,
    /// Up to where the process has been handed each partition.
    pub(crate) handed: Arc<Mutex<BTreeMap<TopicPartition, i64>>>,
}

impl Broker {
    pub(crate) fn new(inner: memory::Broker, gate: Gate, journal: Journal, bug: Option<Bug>) -> Self {
        Self { inner, gate, journal, bug, handed: Arc::default() }
    }

    fn asked<'a, T: Send + 'a>(&'a self, answer: Boxed<'a, T>) -> Boxed<'a, T> {
        Box::pin(async move {
            self.gate.pass().await;
            let answer = answer.await;
            self.gate.pass().await;
            answer
        })
    }
}

impl broker::Broker for Broker {
    fn reader(&self) -> Result<Arc<dyn Reader>, Error> {
        Ok(Arc::new(SlowReader { inner: self.inner.reader()?, broker: self.clone() }))
    }

    fn join(&self, group: GroupSpec) -> Result<Box<dyn Member>, Error> {
        let name = group.group.clone();
        let member = self.inner.join(group)?;
        Ok(Box::new(SlowMember { inner: member, broker: self.clone(), group: name, said: None }))
    }

    fn producer(&self) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(SlowProducer { inner: self.inner.producer()?, broker: self.clone() }))
    }

    fn cluster_id(&self) -> Boxed<'_, Result<String, Error>> {
        self.asked(self.inner.cluster_id())
    }

    fn bounds(&self, topics: Vec<Topic>) -> Boxed<'_, Result<BTreeMap<TopicPartition, Bounds>, Error>> {
        self.asked(self.inner.bounds(topics))
    }

    fn committed(
        &self,
        group: String,
        topics: Vec<Topic>,
    ) -> Boxed<'_, Result<BTreeMap<TopicPartition, i64>, Error>> {
        self.asked(broker::Broker::committed(&self.inner, group, topics))
    }

    fn members(&self, group: String) -> Boxed<'_, Result<usize, Error>> {
        self.asked(self.inner.members(group))
    }

    fn topics(&self) -> Boxed<'_, Result<Vec<TopicState>, Error>> {
        self.asked(self.inner.topics())
    }

    fn create(&self, topics: Vec<Topic>, keyed: i32) -> Boxed<'_, Result<(), Error>> {
        self.asked(self.inner.create(topics, keyed))
    }
}

struct SlowReader {
    inner: Arc<dyn Reader>,
    broker: Broker,
}

impl Reader for SlowReader {
    fn open(&self, partition: TopicPartition, offset: i64) -> Result<Box<dyn Feed>, Error> {
        let inner = self.inner.open(partition, offset)?;
        Ok(Box::new(SlowFeed { inner, partition, broker: self.broker.clone(), batch: None }))
    }
}

struct SlowFeed {
    inner: Box<dyn Feed>,
    partition: TopicPartition,
    broker: Broker,
    /// What was fetched and not handed out yet, so that a fetch that is given up loses nothing.
    batch: Option<Result<Batch, Error>>,
}

impl Feed for SlowFeed {
    fn next(&mut self) -> Boxed<'_, Result<Batch, Error>> {
        Box::pin(async {
            if self.batch.is_none() {
                let batch = self.inner.next().await;
                self.batch = Some(batch);
            }
            self.broker.gate.pass().await;
            let batch = self.batch.take().expect("it was fetched, and nobody else takes it");
            if let Ok(batch) = &batch {
                let mut handed = self.broker.handed.lock().unwrap_or_else(PoisonError::into_inner);
                let next = handed.entry(self.partition).or_default();
                *next = batch.next.max(*next);
            }
            batch
        })
    }
}

struct SlowMember {
    inner: Box<dyn Member>,
    broker: Broker,
    group: String,
    said: Option<Membership>,
}

impl Member for SlowMember {
    fn next(&mut self) -> Boxed<'_, Membership> {
        Box::pin(async {
            if self.said.is_none() {
                let said = self.inner.next().await;
                self.said = Some(said);
            }
            self.broker.gate.pass().await;
            self.said.take().expect("it was said, and nobody else takes it")
        })
    }

    fn committer(&self) -> Arc<dyn Committer> {
        let (inner, broker, group) = (self.inner.committer(), self.broker.clone(), self.group.clone());
        Arc::new(SlowCommitter { inner, broker, group })
    }
}

struct SlowCommitter {
    inner: Arc<dyn Committer>,
    broker: Broker,
    group: String,
}

impl Committer for SlowCommitter {
    fn commit(&self, offsets: BTreeMap<TopicPartition, i64>) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async move {
            let broker = &self.broker;
            broker.gate.pass().await;
            let offsets = broker.bug.map_or(offsets.clone(), |bug| bug.committed(broker, offsets));
            let ends = broker.journal.ends();
            let committed = self.inner.commit(offsets.clone()).await;
            if let (Ok(()), Some(machine)) = (&committed, self.group.strip_prefix("waypost.")) {
                for (source, next) in offsets {
                    broker.journal.promise("commit", machine, source, next, &ends);
                }
            }
            broker.gate.pass().await;
            committed
        })
    }
}

struct SlowProducer {
    inner: Arc<dyn Producer>,
    broker: Broker,
}

impl Producer for SlowProducer {
    fn send(&self, records: Vec<Outgoing>) -> Boxed<'_, Result<Delivery, Error>> {
        Box::pin(async move {
            self.broker.gate.pass().await;
            let records = self.broker.bug.map_or(records.clone(), |bug| bug.appended(records));
            let delivery = match self.broker.bug {
                Some(bug) if bug.loses(&self.broker, &records) => Bug::lost(records),
                _ => self.inner.send(records).await?,
            };
            let gate = self.broker.gate.clone();
            gate.pass().await;
            let slow: Delivery = Box::pin(async move {
                let delivered = delivery.await;
                gate.pass().await;
                delivered
            });
            Ok(slow)
        })
    }

    fn flush(&self) -> Boxed<'_, Result<(), Error>> {
        self.broker.asked(self.inner.flush())
    }
}
