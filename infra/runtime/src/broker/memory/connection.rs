//! One process's connection to the cluster in memory, and what of its appends has not landed yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use waypost_schemas::topic::{Topic, TopicPartition};

use super::{
    super::{
        self as broker, Bounds, Boxed, Error, GroupSpec, Member, Outgoing, Producer, Reader, TopicState,
    },
    Shared, State,
    group::Seat,
    member,
    producer::{self, Promise},
    reader,
};

/// The cluster as one process sees it.
#[derive(Clone)]
pub struct Broker {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Arc<str>,
    /// Which life of the process this is; a crash ends it.
    pub(super) life: u64,
}

/// What the cluster keeps of a process.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) life: u64,
    pub(super) suspended: bool,
    pub(super) held: bool,
    /// What its next record meets.
    pub(super) fault: Option<Fault>,
    /// What it sent and has not landed, oldest first.
    pub(super) limbo: VecDeque<Unlanded>,
}

/// What can go wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Doubled,
    Refused,
}

/// A record on its way.
pub(super) struct Unlanded {
    pub(super) record: Outgoing,
    /// Its place among the records of its promise.
    pub(super) index: usize,
    pub(super) promise: Arc<Promise>,
}

impl State {
    pub(super) fn append(&mut self, record: Outgoing) -> Result<i64, Error> {
        let now = self.now;
        Ok(self.partition(record.to)?.append(record, now))
    }

    /// Lands what nothing holds back.
    pub(super) fn land_what_may(&mut self) {
        if self.away {
            return;
        }
        let free: Vec<_> =
            self.connections.iter().filter(|(_, c)| !c.held).map(|(name, _)| name.clone()).collect();
        for name in free {
            let limbo = std::mem::take(&mut self.connections.entry(name.clone()).or_default().limbo);
            limbo.into_iter().for_each(|unlanded| self.land_one(&name, unlanded));
        }
    }

    pub(super) fn land(&mut self, name: &str, partition: TopicPartition, records: usize) -> usize {
        let limbo = std::mem::take(&mut self.connections.entry(name.to_owned()).or_default().limbo);
        let mut landed = 0;
        let mut kept = VecDeque::new();
        for unlanded in limbo {
            if unlanded.record.to == partition && landed < records {
                landed += 1;
                self.land_one(name, unlanded);
            } else {
                kept.push_back(unlanded);
            }
        }
        self.connections.entry(name.to_owned()).or_default().limbo = kept;
        landed
    }

    fn land_one(&mut self, name: &str, Unlanded { record, index, promise }: Unlanded) {
        let connection = self.connections.entry(name.to_owned()).or_default();
        let fault = connection.fault.take();
        if fault == Some(Fault::Refused) {
            promise.producer.poison(&format!("an append to {} was refused", record.to));
        }
        if let Some(error) = promise.producer.poisoned() {
            promise.fail(error);
            return;
        }
        let again = (fault == Some(Fault::Doubled)).then(|| record.clone());
        let to = record.to;
        match self.append(record) {
            Ok(offset) => promise.landed(index, to, offset),
            Err(error) => {
                promise.producer.poison(&error.to_string());
                promise.fail(error);
            }
        }
        if let Some(record) = again {
            // The partition took the first copy a moment ago.
            let _ = self.append(record);
        }
    }
}

impl Broker {
    /// Whether this life of the process is over.
    pub(super) fn dead(&self, state: &State) -> bool {
        state.connections.get(&*self.name).is_some_and(|c| c.life != self.life)
    }

    /// Answers a request; a dead process never hears the answer.
    fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        mut answer: impl FnMut(&mut State) -> Result<T, Error> + Send + 'static,
    ) -> Boxed<'_, Result<T, Error>> {
        Box::pin(self.shared.wait(move |s| {
            (!self.dead(s)).then(|| {
                s.answering(what)?;
                answer(s)
            })
        }))
    }
}

impl broker::Broker for Broker {
    fn reader(&self) -> Result<Arc<dyn Reader>, Error> {
        Ok(Arc::new(reader::Reader::new(self.clone())))
    }

    fn join(&self, spec: GroupSpec) -> Result<Box<dyn Member>, Error> {
        let seat = self.shared.change(|s| {
            let seat = Seat { member: s.next_number(), process: (*self.name).to_owned(), spec };
            if !self.dead(s) {
                let all = s.partitions.keys().copied().collect();
                s.groups.entry(seat.spec.group.clone()).or_default().join(seat.clone(), &all);
            }
            seat
        });
        Ok(Box::new(member::Member { broker: self.clone(), seat: Arc::new(seat) }))
    }

    fn producer(&self) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(producer::Producer::new(self.clone())))
    }

    fn cluster_id(&self) -> Boxed<'_, Result<String, Error>> {
        self.request("the cluster's id", |s| Ok(s.id.clone()))
    }

    fn bounds(&self, topics: Vec<Topic>) -> Boxed<'_, Result<BTreeMap<TopicPartition, Bounds>, Error>> {
        self.request("the bounds of topics", move |s| {
            s.missing(&topics)?;
            Ok(s.partitions
                .iter()
                .filter(|(p, _)| topics.contains(&p.topic))
                .map(|(p, l)| (*p, l.bounds()))
                .collect())
        })
    }

    fn committed(
        &self,
        group: String,
        topics: Vec<Topic>,
    ) -> Boxed<'_, Result<BTreeMap<TopicPartition, i64>, Error>> {
        self.request("the offsets of a group", move |s| {
            let committed = s.groups.get(&group).map(|g| g.committed.clone()).unwrap_or_default();
            Ok(committed.into_iter().filter(|(p, _)| topics.contains(&p.topic)).collect())
        })
    }

    fn members(&self, group: String) -> Boxed<'_, Result<usize, Error>> {
        self.request("the members of a group", move |s| {
            Ok(s.groups.get(&group).map_or(0, super::group::Group::members))
        })
    }

    fn topics(&self) -> Boxed<'_, Result<Vec<TopicState>, Error>> {
        self.request("the topics", |s| {
            let exists = |topic| {
                let partitions = s.all_of(&[topic]).len() as i32;
                (partitions > 0).then(|| TopicState {
                    topic,
                    partitions,
                    settings: broker::topics::settings(topic),
                })
            };
            Ok(Topic::ALL.into_iter().filter_map(exists).collect())
        })
    }

    fn create(&self, topics: Vec<Topic>, keyed: i32) -> Boxed<'_, Result<(), Error>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            self.request("the creation of topics", move |s| {
                topics.iter().for_each(|t| s.create(*t, keyed));
                Ok(())
            })
            .await?;
            shared.changed.notify_waiters();
            Ok(())
        })
    }
}

impl State {
    fn missing(&self, topics: &[Topic]) -> Result<(), Error> {
        match topics.iter().find(|t| self.all_of(&[**t]).is_empty()) {
            Some(topic) => Err(broker::topics::missing(*topic)),
            None => Ok(()),
        }
    }
}
