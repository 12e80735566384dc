//! Appends what was admitted, and says so only when the log has it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use waypost_runtime::{
    broker::{self, Boxed, Outgoing, Producer},
    clock::Clock,
    http::{self, codes},
    watch,
};
use waypost_schemas::{
    cause::Position,
    codec,
    event::{AckKind, EntriesAcknowledged, Event, MessageSent},
    frame::Down,
    header,
    id::DeviceId,
    partition,
    topic::{Topic, TopicPartition},
};

use crate::{admission::Report, code::Code, registry::Registry};

/// Who writes, as headers name it.
const WRITER: &str = "ingest";
/// After how many seconds what met a busy or waiting node is sent again.
const RETRY_AFTER_S: u32 = 1;

/// Resolves to the positions of records, in the order that they were given, once all of them are in the log.
pub type Appending = Boxed<'static, Result<Vec<Position>, Error>>;

/// Why nothing is said to be in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// As many requests as may wait for the log do.
    #[error("too many requests are in flight")]
    Overloaded,
    /// The registry has not been read to its end since the start.
    #[error("the registry has not been read to its end yet")]
    RegistryBehind,
    /// The log did not acknowledge in time, or the producer is past use; the records may still land.
    #[error("the log did not acknowledge in time")]
    Unavailable,
    /// The record is larger than its topic takes; nothing was appended.
    #[error("the record has {bytes} bytes, and {bytes_max} are taken")]
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The most that its topic takes, in bytes.
        bytes_max: usize,
    },
    /// Encoding the record panicked; nothing was appended.
    #[error("the record cannot be encoded")]
    Encoding,
    /// The acknowledgement names an offset that the inbox does not have yet; nothing was appended.
    #[error("upto is {upto}, and the inbox ends before {end}")]
    AckBeyondEnd {
        /// The offset that is acknowledged.
        upto: i64,
        /// The next offset to be written.
        end: i64,
    },
}

impl Error {
    /// The refusal's stable code, with its HTTP status and its meaning.
    pub fn row(&self) -> &'static http::Code {
        match self {
            Self::Overloaded => &codes::OVERLOADED,
            Self::RegistryBehind => Code::RegistryBehind.row(),
            Self::Unavailable => Code::LogUnavailable.row(),
            Self::TooLarge { .. } => Code::RecordTooLarge.row(),
            Self::Encoding => &codes::INTERNAL,
            Self::AckBeyondEnd { .. } => Code::AckBeyondEnd.row(),
        }
    }

    /// After how many seconds to send the same again, where that may help.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::RegistryBehind | Self::Unavailable => Some(RETRY_AFTER_S),
            Self::TooLarge { .. } | Self::Encoding | Self::AckBeyondEnd { .. } => None,
        }
    }

    /// The frame that tells a device so, with the device's own id of what was not taken.
    pub fn frame(&self, id: Option<String>) -> Down {
        Down::Refused {
            id,
            code: self.row().code.to_owned(),
            detail: self.to_string(),
            retry_after: self.retry_after_s().map(u64::from),
            time: None,
        }
    }
}

/// Keeps the first error after which a producer is past use, and tells it to whoever runs the process.
#[derive(Clone, Debug)]
pub struct Fatal(watch::Sender<Option<broker::Error>>);

impl Default for Fatal {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Fatal {
    /// Sorts a broker's error into what a request is told, and keeps it where the process must stop.
    pub(crate) fn tell(&self, error: broker::Error) -> Error {
        match error {
            broker::Error::Unavailable { .. } => Error::Unavailable,
            broker::Error::TooLarge { bytes, bytes_max, .. } => Error::TooLarge { bytes, bytes_max },
            error => {
                self.0.send_if_modified(|kept| kept.is_none() && kept.replace(error).is_none());
                Error::Unavailable
            }
        }
    }

    /// Resolves to the first such error.
    pub(crate) async fn told(&self) -> broker::Error {
        let mut kept = self.0.subscribe();
        match kept.wait_for(Option::is_some).await.map(|kept| kept.clone()) {
            Ok(Some(error)) => error,
            // The sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }
}

/// Waits for an answer of the log, at most so long.
pub(crate) async fn bounded<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(timeout, answer).await.unwrap_or(Err(Error::Unavailable))
}

/// Waits for an answer of the broker, until patience ends.
async fn within<T>(
    patience: &mut Pin<Box<Sleep>>,
    fatal: &Fatal,
    answer: impl Future<Output = Result<T, broker::Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        answer = answer => answer.map_err(|e| fatal.tell(e)),
        () = patience => Err(Error::Unavailable),
    }
}

/// Appends reports, messages and acknowledgements; a cheap clone.
#[derive(Clone)]
pub struct Appender {
    pub(crate) producer: Arc<dyn Producer>,
    /// Appends acknowledgements, of which there are more than of anything, by few requests.
    pub(crate) acks: Arc<dyn Producer>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) fatal: Fatal,
    pub(crate) clock: Clock,
    /// How many partitions keyed topics have.
    pub(crate) partitions: i32,
    /// How long a request waits for the log's acknowledgement.
    pub(crate) timeout: Duration,
    /// One permit for each request that may hold a body and wait for the log: it bounds the memory that requests
    /// hold while the broker is away.
    pub(crate) in_flight: Arc<Semaphore>,
}

impl Appender {
    /// Takes one of the places of requests in flight, before the request's body is read.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        if !self.registry.is_caught_up() {
            return Err(Error::RegistryBehind);
        }
        self.in_flight.clone().try_acquire_owned().map_err(|_| Error::Overloaded)
    }

    /// Stamps and appends a report's fixes; resolves to their positions, in the report's order, once all of them are
    /// in the log. After [`Error::Unavailable`] they may still land: sent again, equal fixes change nothing.
    pub async fn append(&self, report: Report) -> Result<Vec<Position>, Error> {
        self.queue_report(report).await?.await
    }

    /// Stamps and appends a message; resolves to its position, whose offset is its number. After
    /// [`Error::Unavailable`] it may still land: sent again under its client id, it is taken once.
    pub async fn append_message(&self, message: MessageSent) -> Result<Vec<Position>, Error> {
        self.queue_message(message).await?.await
    }

    pub(crate) async fn queue_report(&self, report: Report) -> Result<Appending, Error> {
        let stamp = self.registry.stamp();
        let key = Bytes::copy_from_slice(report.device.as_str().as_bytes());
        let to = self.place(Topic::Positions, &key);
        let stamped = report.fixes.into_iter().map(|mut fix| {
            fix.registry = stamp;
            let value = codec::encode(&Event::from(fix));
            Outgoing { to, key: Some(key.clone()), value: Some(value.into()), headers: Vec::new() }
        });
        let records = stamped.collect();
        self.queue(&*self.producer, records, "fixes").await
    }

    pub(crate) async fn queue_message(&self, mut message: MessageSent) -> Result<Appending, Error> {
        message.registry = self.registry.stamp();
        let device = DeviceId::of(&message.sender, &message.device);
        let id = format!("{device}/{}", message.client_id);
        let key = Bytes::copy_from_slice(message.conversation.as_str().as_bytes());
        let record = self.record(Topic::Messages, key, id, &message.into());
        self.queue(&*self.producer, vec![record], "messages").await
    }

    pub(crate) async fn queue_ack(&self, mut ack: EntriesAcknowledged) -> Result<Appending, Error> {
        ack.registry = self.registry.stamp();
        let device = DeviceId::of(&ack.user, &ack.device);
        // A device that begins waits for its start, and acknowledges nothing before.
        let (kind, by) = match ack.kind {
            AckKind::Start => ("start", &*self.producer),
            AckKind::Delivered => ("delivered", &*self.acks),
            AckKind::Read => ("read", &*self.acks),
        };
        let id = format!("{device}/{}/{kind}/{}", ack.session, ack.upto);
        let key = Bytes::copy_from_slice(ack.user.as_str().as_bytes());
        let record = self.record(Topic::Acks, key, id, &ack.into());
        self.queue(by, vec![record], "acks").await
    }

    fn place(&self, topic: Topic, key: &[u8]) -> TopicPartition {
        TopicPartition::new(topic, partition::of(key, self.partitions))
    }

    /// A record under an id that is the same each time that its sender sends it.
    fn record(&self, topic: Topic, key: Bytes, id: String, event: &Event) -> Outgoing {
        let headers = header::original(event, WRITER, id, self.clock.now());
        let headers = headers.into_iter().map(|(name, value)| (name.into(), Bytes::from(value))).collect();
        let value = Some(codec::encode(event).into());
        Outgoing { to: self.place(topic, &key), key: Some(key), value, headers }
    }

    /// Queues records behind those that were queued before; what comes back waits for the log's acknowledgement, and
    /// both together wait at most as long as a request may.
    async fn queue(
        &self,
        by: &dyn Producer,
        records: Vec<Outgoing>,
        what: &'static str,
    ) -> Result<Appending, Error> {
        let began = self.clock.monotonic();
        let count = records.len() as u64;
        let mut patience = Box::pin(sleep(self.timeout));
        let delivery = within(&mut patience, &self.fatal, by.send(records)).await?;
        let (fatal, clock) = (self.fatal.clone(), self.clock.clone());
        Ok(Box::pin(async move {
            let positions = within(&mut patience, &fatal, delivery).await?;
            metrics::histogram!("waypost_ingest_append_seconds", "records" => what)
                .record(clock.elapsed(began).as_secs_f64());
            metrics::counter!("waypost_ingest_accepted_total", "records" => what).increment(count);
            Ok(positions)
        }))
    }
}
