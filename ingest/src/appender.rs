//! Appends what was admitted, and says so only when the log has it.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use waypost_runtime::{
    broker::{self, Outgoing, Producer},
    clock::Clock,
};
use waypost_schemas::{
    cause::Position,
    codec,
    event::Event,
    partition,
    topic::{Topic, TopicPartition},
};

use crate::{admission::Report, registry::Registry};

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

/// Appends reports to `positions`; a cheap clone.
#[derive(Clone)]
pub struct Appender {
    pub(crate) producer: Arc<dyn Producer>,
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
        let began = self.clock.monotonic();
        let records = self.records(report);
        let fixes = records.len() as u64;
        let positions = bounded(self.timeout, async {
            let delivery = self.producer.send(records).await.map_err(|e| self.fatal.tell(e))?;
            delivery.await.map_err(|e| self.fatal.tell(e))
        })
        .await?;
        metrics::histogram!("waypost_ingest_append_seconds").record(self.clock.elapsed(began).as_secs_f64());
        metrics::counter!("waypost_ingest_fixes_accepted_total").increment(fixes);
        Ok(positions)
    }

    fn records(&self, report: Report) -> Vec<Outgoing> {
        let stamp = self.registry.stamp();
        let key = Bytes::copy_from_slice(report.device.as_str().as_bytes());
        let to = TopicPartition::new(Topic::Positions, partition::of(&key, self.partitions));
        let stamped = report.fixes.into_iter().map(|mut fix| {
            fix.registry = stamp;
            let value = codec::encode(&Event::from(fix));
            Outgoing { to, key: Some(key.clone()), value: Some(value.into()), headers: Vec::new() }
        });
        stamped.collect()
    }
}
