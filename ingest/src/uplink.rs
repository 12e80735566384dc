//! The way up for who holds devices' connections: what was admitted is stamped, appended, and then accepted.
//!
//! `append_…` and [`Uplink::acknowledge`] resolve when the log has it. `queue_…` resolve when it stands in line, to
//! what resolves when the log has it: so one connection's messages keep their order while many are on their way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use waypost_runtime::broker::{self, Broker};
use waypost_schemas::{
    cause::Position,
    event::{EntriesAcknowledged, MessageSent},
    partition,
    topic::Topic,
};

pub use crate::appender::{Appending, Error};
use crate::{
    admission::{Limits, Report},
    appender::{self, Appender},
};

/// Appends what devices say; a cheap clone.
#[derive(Clone)]
pub struct Uplink {
    pub(crate) appender: Appender,
    pub(crate) limits: Limits,
    /// One permit for each record that waits for the log: it bounds what is held while the broker is away. Who finds
    /// none waits for one, and its connection with it.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) ends: Arc<Ends>,
}

impl Uplink {
    /// What admission takes at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Appends a message; resolves to its position, whose offset is its number, once it is in the log. After
    /// [`Error::Unavailable`] it may still land: sent again under its client id, it is taken once.
    pub async fn append_message(&self, message: MessageSent) -> Result<Vec<Position>, Error> {
        self.queue_message(message).await?.await
    }

    /// Appends a report; resolves to its fixes' positions, in its order, once all of them are in the log. After
    /// [`Error::Unavailable`] they may still land: sent again, equal fixes change nothing.
    pub async fn append_report(&self, report: Report) -> Result<Vec<Position>, Error> {
        self.queue_report(report).await?.await
    }

    /// Appends an acknowledgement, of any kind; resolves to its position once it is in the log.
    /// [`Error::AckBeyondEnd`] where the user's inbox does not have the offset yet; a start may name the offset
    /// before the first, -1.
    pub async fn acknowledge(&self, ack: EntriesAcknowledged) -> Result<Vec<Position>, Error> {
        self.queue_ack(ack).await?.await
    }

    /// Puts a message in line, behind what was put there before.
    pub async fn queue_message(&self, message: MessageSent) -> Result<Appending, Error> {
        let place = self.enter().await?;
        Ok(held(place, self.appender.queue_message(message).await?))
    }

    /// Puts a report in line, behind what was put there before.
    pub async fn queue_report(&self, report: Report) -> Result<Appending, Error> {
        let place = self.enter().await?;
        Ok(held(place, self.appender.queue_report(report).await?))
    }

    /// Puts an acknowledgement in line, behind what was put there before.
    pub async fn queue_ack(&self, ack: EntriesAcknowledged) -> Result<Appending, Error> {
        let place = self.enter().await?;
        let inbox = partition::of(ack.user.as_str().as_bytes(), self.appender.partitions);
        appender::bounded(self.appender.timeout, async {
            let end = self.ends.beyond(inbox, ack.upto).await;
            let end = end.map_err(|error| self.appender.fatal.tell(error))?;
            if ack.upto < end { Ok(()) } else { Err(Error::AckBeyondEnd { upto: ack.upto, end }) }
        })
        .await?;
        Ok(held(place, self.appender.queue_ack(ack).await?))
    }

    /// Learns from who tails the inboxes that a partition of them reaches up to an offset, the next one to be
    /// written: so the broker is asked less often.
    pub fn inbox_reaches(&self, partition: i32, next: i64) {
        self.ends.heard().learn(partition, next);
    }

    async fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        if !self.appender.registry.is_caught_up() {
            return Err(Error::RegistryBehind);
        }
        let place = tokio::time::timeout(self.appender.timeout, self.places.clone().acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(Error::Overloaded)
    }
}

/// Keeps a place until the log has answered.
fn held(place: OwnedSemaphorePermit, appending: Appending) -> Appending {
    Box::pin(async move {
        let answer = appending.await;
        drop(place);
        answer
    })
}

/// How far each partition of the inboxes is known to reach.
pub(crate) struct Ends {
    broker: Arc<dyn Broker>,
    heard: Mutex<Heard>,
    /// The number of the last question that was answered; held by who asks.
    answered: tokio::sync::Mutex<u64>,
}

#[derive(Default)]
struct Heard {
    /// The next offset to be written, by partition.
    ends: BTreeMap<i32, i64>,
    /// How many questions were begun.
    begun: u64,
}

impl Ends {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, heard: Mutex::default(), answered: tokio::sync::Mutex::default() }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a partition: what was heard of it where that lies beyond an offset, what the broker says
    /// otherwise. Those who wait for an answer share the next one, so that acknowledgements of what is not there
    /// cost the broker one question at a time.
    async fn beyond(&self, partition: i32, offset: i64) -> Result<i64, broker::Error> {
        let (end, came_after) = {
            let heard = self.heard();
            (heard.end(partition), heard.begun)
        };
        if offset < end {
            return Ok(end);
        }
        let mut answered = self.answered.lock().await;
        if *answered <= came_after && offset >= self.heard().end(partition) {
            let question = self.heard().begin();
            let bounds = self.broker.bounds(vec![Topic::Inboxes]).await?;
            let mut heard = self.heard();
            bounds.iter().for_each(|(of, bounds)| heard.learn(of.partition, bounds.high));
            *answered = question;
        }
        Ok(self.heard().end(partition))
    }
}

impl Heard {
    fn end(&self, partition: i32) -> i64 {
        self.ends.get(&partition).copied().unwrap_or(0)
    }

    fn learn(&mut self, partition: i32, next: i64) {
        let end = self.ends.entry(partition).or_insert(next);
        *end = next.max(*end);
    }

    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}
