//! Appending: idempotent, one request in flight, without gaps, and over at the first failure.
//!
//! librdkafka puts one partition's records into a request, so that with one in flight the partitions of a topic wait for
//! each other. A producer therefore is several clients, its lanes: a partition has one of them for good, and keeps its
//! order.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, ProducerContext},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use waypost_schemas::{cause::Position, topic::TopicPartition};

use super::{
    Limits,
    context::{self, Outage},
    error,
    settings::{Favour, Settings},
};
use crate::broker::{self, Boxed, Delivery, Error, Outgoing};

/// How often the thread that hears of deliveries looks whether it should stop; a delivery wakes it. The last millisecond
/// of each such wait it spends spinning, for librdkafka waits in whole ones: so this is not short.
const IDLE: Duration = Duration::from_secs(1);
/// How long a send waits before it offers a record again for which librdkafka had no room, which its permits prevent
/// but for one batch that is larger than all of them.
const NO_ROOM: Duration = Duration::from_millis(5);

/// What the producer and the thread that hears of deliveries share.
#[derive(Default)]
struct Shared {
    failed: OnceLock<Error>,
    /// Batches queued and not yet delivered.
    batches: AtomicUsize,
    idle: Notify,
    stop: AtomicBool,
}

impl Shared {
    fn fail(&self, what: &str, why: impl std::fmt::Display) -> Error {
        self.failed.get_or_init(|| error::fatal(what, why)).clone()
    }

    fn ok(&self) -> Result<(), Error> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

type Answer = Result<Vec<Position>, Error>;

/// The promise of one send, kept by the tickets of its records.
struct Promise {
    shared: Arc<Shared>,
    to: Vec<TopicPartition>,
    offsets: Vec<AtomicI64>,
    missing: AtomicUsize,
    tell: Mutex<Option<oneshot::Sender<Answer>>>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// What librdkafka carries with a record.
struct Ticket {
    promise: Arc<Promise>,
    index: u32,
}

impl Promise {
    fn fulfil(&self, index: u32, offset: i64) {
        self.offsets[index as usize].store(offset, Ordering::Relaxed);
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let position = |(to, offset): (&TopicPartition, &AtomicI64)| Position {
                topic: to.topic,
                partition: to.partition,
                offset: offset.load(Ordering::Relaxed),
            };
            self.answer(Ok(self.to.iter().zip(&self.offsets).map(position).collect()));
        }
    }

    fn answer(&self, answer: Answer) {
        if let Some(tell) = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody hears it where the promise was dropped.
            let _ = tell.send(answer);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.shared.batches.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Hears of deliveries through librdkafka.
struct Context {
    outage: Arc<Outage>,
    shared: Arc<Shared>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        context::error_event(&self.outage, &error, reason);
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.shared.fail("the producer failed", reason);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match result {
            Ok(message) => {
                self.outage.over();
                ticket.promise.fulfil(ticket.index, message.offset());
            }
            Err((e, _)) => {
                let to = ticket.promise.to[ticket.index as usize];
                let error = self.shared.fail(&format!("an append to {to} was refused"), e);
                ticket.promise.answer(Err(error));
            }
        }
    }
}

pub(super) struct Producer {
    lanes: Vec<Arc<BaseProducer<Context>>>,
    shared: Arc<Shared>,
    limits: Limits,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Producer {
    pub(super) fn new(
        settings: &Settings,
        outage: &Arc<Outage>,
        (limits, favour): (Limits, Favour),
    ) -> Result<Self, Error> {
        let shared = Arc::<Shared>::default();
        let config = settings.producer(favour);
        let lanes = (0..limits.send_lanes.max(1)).map(|_| lane(&config, outage.clone(), shared.clone()));
        let lanes = lanes.collect::<Result<_, _>>()?;
        let records = Arc::new(Semaphore::new(limits.send_records_max as usize));
        let bytes = Arc::new(Semaphore::new(limits.send_bytes_max as usize));
        Ok(Self { lanes, shared, limits, records, bytes })
    }

    /// Waits for room for a batch.
    async fn room(&self, records: &[Outgoing]) -> (OwnedSemaphorePermit, OwnedSemaphorePermit) {
        let bytes: usize = records.iter().map(Outgoing::bytes).sum();
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX).min(self.limits.send_records_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limits.send_bytes_max);
        let never_closed = "the semaphores of a producer are never closed";
        (
            self.records.clone().acquire_many_owned(count).await.expect(never_closed),
            self.bytes.clone().acquire_many_owned(bytes).await.expect(never_closed),
        )
    }

    /// The client that has a partition.
    fn lane(&self, of: TopicPartition) -> &BaseProducer<Context> {
        // Partitions of one number of two topics are often busy together.
        let place = of.partition.unsigned_abs() as usize + of.topic as usize;
        &self.lanes[place % self.lanes.len()]
    }

    async fn queue(&self, record: &Outgoing, ticket: Box<Ticket>) -> Result<(), Error> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(&value[..]) });
        }
        let mut next =
            BaseRecord::with_opaque_to(record.to.topic.name(), ticket).partition(record.to.partition);
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.headers = (!record.headers.is_empty()).then_some(headers);
        while let Err((e, back)) = self.lane(record.to).send(next) {
            if e.rdkafka_error_code() != Some(Code::QueueFull) {
                return Err(self.shared.fail(&format!("an append to {} was refused", record.to), e));
            }
            next = back;
            tokio::time::sleep(NO_ROOM).await;
            self.shared.ok()?;
        }
        Ok(())
    }
}

/// A client, and the thread that hears of its deliveries.
fn lane(
    config: &ClientConfig,
    outage: Arc<Outage>,
    shared: Arc<Shared>,
) -> Result<Arc<BaseProducer<Context>>, Error> {
    let context = Context { outage, shared: shared.clone() };
    let lane: BaseProducer<Context> =
        config.create_with_context(context).map_err(|e| error::fatal("a producer was not made", e))?;
    let lane = Arc::new(lane);
    let polled = lane.clone();
    let run = move || {
        while !shared.stop.load(Ordering::Relaxed) {
            polled.poll(IDLE);
        }
    };
    thread::Builder::new()
        .name("kafka-produce".to_owned())
        .spawn(run)
        .map_err(|e| error::fatal("a thread to produce was not made", e))?;
    Ok(lane)
}

impl broker::Producer for Producer {
    fn send(&self, records: Vec<Outgoing>) -> Boxed<'_, Result<Delivery, Error>> {
        Box::pin(async move {
            for record in &records {
                record.fits()?;
            }
            self.shared.ok()?;
            if records.is_empty() {
                return Ok::<Delivery, _>(Box::pin(std::future::ready(Ok(Vec::new()))));
            }
            let room = self.room(&records).await;
            self.shared.ok()?;
            self.shared.batches.fetch_add(1, Ordering::AcqRel);
            let (tell, told) = oneshot::channel();
            let promise = Arc::new(Promise {
                shared: self.shared.clone(),
                to: records.iter().map(|r| r.to).collect(),
                offsets: records.iter().map(|_| AtomicI64::new(-1)).collect(),
                missing: AtomicUsize::new(records.len()),
                tell: Mutex::new(Some(tell)),
                _room: room,
            });
            for (index, record) in (0..).zip(&records) {
                self.queue(record, Box::new(Ticket { promise: promise.clone(), index })).await?;
            }
            drop(promise);
            let shared = self.shared.clone();
            Ok::<Delivery, _>(Box::pin(async move {
                told.await.unwrap_or_else(|_| {
                    shared.ok()?;
                    Err(Error::Fatal {
                        what: "the producer was stopped before its records were in the log".into(),
                    })
                })
            }))
        })
    }

    fn flush(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async {
            loop {
                let idle = self.shared.idle.notified();
                let mut idle = std::pin::pin!(idle);
                idle.as_mut().enable();
                if self.shared.batches.load(Ordering::Acquire) == 0 {
                    return self.shared.ok();
                }
                idle.await;
            }
        })
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // What is still queued is given up; an owner that cares has flushed.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
