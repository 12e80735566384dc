//! The processor's own follower of the registry topic, shared by all partitions of a process.

use std::{
    ops::RangeInclusive,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use waypost_runtime::{
    broker::{self, Broker},
    facts::Facts,
    watch,
};
use waypost_schemas::{
    codec,
    event::Event,
    topic::{Topic, TopicPartition},
};

use super::{Change, What};
use crate::spatial::zone::Zone;

/// How long the follower waits before it asks a broker again that did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// Why the registry cannot be followed to where a record asks for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A record names a registry offset that was never written, or that the registry has lost.
    #[error(
        "a record asks for the registry up to offset {asked}, but the registry ends at {end}: it lost its end, or \
         belongs to another log; put the registry's records back, or start with the right cluster"
    )]
    BeyondEnd {
        /// The offset asked for.
        asked: i64,
        /// The next offset to be written.
        end: i64,
    },
    /// The broker failed.
    #[error("the registry cannot be read")]
    Broker(#[source] broker::Error),
}

/// The registry's changes by offset, each read and decoded once.
///
/// One task drives [`Registry::follow`]; any number of partitions wait and read.
pub struct Registry {
    broker: Arc<dyn Broker>,
    changes: RwLock<Vec<Arc<Change>>>,
    facts: RwLock<Facts>,
    next: watch::Sender<i64>,
}

impl Registry {
    /// A registry of which nothing has been read.
    pub fn new(broker: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            changes: RwLock::default(),
            facts: RwLock::default(),
            next: watch::Sender::new(0),
        })
    }

    /// Reads the registry from its first record and follows it; returns only on failure.
    pub async fn follow(&self) -> Error {
        match self.read_on().await {
            Ok(never) => match never {},
            Err(error) => Error::Broker(error),
        }
    }

    /// The offset of the next record to be read.
    pub fn next(&self) -> i64 {
        *self.next.borrow()
    }

    /// Waits until the record at an offset has been read; at once for -1. Loud where the registry ends before it.
    pub async fn wait_for(&self, offset: i64) -> Result<(), Error> {
        let mut next = self.next.subscribe();
        loop {
            if *next.borrow_and_update() > offset {
                return Ok(());
            }
            // What stamped the record had read the registry up to there, so an end below it is an end that was
            // lost. The end is asked for only here, where the follower is behind.
            match self.end().await {
                Ok(end) => {
                    if offset >= end {
                        return Err(Error::BeyondEnd { asked: offset, end });
                    }
                    let reached = next.wait_for(|next| *next > offset).await;
                    reached.expect("the sender lives as long as self");
                }
                Err(broker::Error::Unavailable { .. }) => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(Error::Broker(error)),
            }
        }
    }

    /// The changes at offsets above `after` up to `upto`, in offset order.
    pub fn changes(&self, after: i64, upto: i64) -> Vec<Arc<Change>> {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        let from = changes.partition_point(|c| c.offset <= after);
        let to = changes.partition_point(|c| c.offset <= upto);
        changes[from..to.max(from)].to_vec()
    }

    /// What operators have said of the log, the registry read up to its end as it stands now.
    pub async fn facts(&self) -> Result<Facts, Error> {
        loop {
            match self.end().await {
                Ok(end) => {
                    let reached = self.next.subscribe().wait_for(|next| *next >= end).await.map(|_| ());
                    reached.expect("the sender lives as long as self");
                    return Ok(self.facts_read());
                }
                Err(broker::Error::Unavailable { .. }) => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(Error::Broker(error)),
            }
        }
    }

    /// Waits until a behaviour is set for a machine, above an offset, that is not among those known; gives its number.
    pub async fn unknown_behaviour(&self, machine: &str, after: i64, known: &RangeInclusive<i32>) -> i32 {
        let mut next = self.next.subscribe();
        loop {
            next.borrow_and_update();
            let set = self.facts_read().behaviours_from(machine, after);
            if let Some(number) = set.into_iter().find(|number| !known.contains(number)) {
                return number;
            }
            next.changed().await.expect("the sender lives as long as self");
        }
    }

    fn facts_read(&self) -> Facts {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The registry's end, asked of the broker now.
    async fn end(&self) -> Result<i64, broker::Error> {
        let bounds = self.broker.bounds(vec![Topic::Registry]).await?;
        Ok(bounds.get(&TopicPartition::new(Topic::Registry, 0)).map_or(0, |b| b.high))
    }

    async fn read_on(&self) -> Result<std::convert::Infallible, broker::Error> {
        let reader = self.broker.reader()?;
        let mut feed = reader.open(TopicPartition::new(Topic::Registry, 0), 0)?;
        loop {
            let batch = feed.next().await?;
            let mut changes = Vec::new();
            for record in &batch.records {
                // What is foreign or broken says nothing here; the projector, which reads every record, makes the dead
                // letters.
                let Ok(event) = codec::decode(record.value.as_deref().unwrap_or_default()) else { continue };
                self.facts.write().unwrap_or_else(PoisonError::into_inner).apply(record.offset, &event);
                changes.extend(change(record.offset, event).map(Arc::new));
            }
            self.changes.write().unwrap_or_else(PoisonError::into_inner).append(&mut changes);
            self.next.send_replace(batch.next);
        }
    }
}

/// What a registry record changes for machines, where it says anything to them.
fn change(offset: i64, event: Event) -> Option<Change> {
    let what = match event {
        Event::ZoneDefined(zone) => What::Zone(Arc::new(Zone::new(zone, offset))),
        Event::ZoneRemoved(zone) => What::NoZone(zone.zone),
        Event::RuleDefined(rule) => What::Rule(Arc::new(rule)),
        Event::RuleRemoved(rule) => What::NoRule(rule.rule),
        _ => return None,
    };
    Some(Change { offset, what })
}
