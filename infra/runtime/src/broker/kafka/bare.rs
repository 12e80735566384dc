//! librdkafka's own producer with the same settings, for a check and a bench to be held against.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use waypost_schemas::{partition, topic::Topic};

use super::{
    Config,
    settings::{Favour, Settings},
};

/// How long the producer is polled at a time.
const STEP: Duration = Duration::from_millis(1);

/// Counts deliveries, and keeps which partition each key went to where asked.
#[derive(Default)]
struct Context {
    keep: bool,
    delivered: AtomicUsize,
    partitions: Mutex<Vec<(Vec<u8>, i32)>>,
}

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = result.as_ref().expect("delivered");
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if self.keep {
            let key = message.key().unwrap_or_default().to_vec();
            self.partitions.lock().unwrap_or_else(PoisonError::into_inner).push((key, message.partition()));
        }
    }
}

fn producer(config: Config, keep: bool) -> BaseProducer<Context> {
    let settings = Settings::new(config).expect("settings");
    settings
        .producer(Favour::Latency)
        .create_with_context(Context { keep, ..Context::default() })
        .expect("a producer")
}

/// Checks that keys go to the partitions that [`partition::of`] names, where librdkafka chooses; blocks.
pub fn check_partitioner(config: Config, keyed: i32) {
    const KEYS: usize = 500;
    let producer = producer(config, true);
    for i in 0..KEYS {
        // Every length from 1 to 64, and bytes of every kind.
        let key: Vec<u8> = (0..=i % 64).map(|j| (i * 31 + j * 17) as u8).collect();
        let record = BaseRecord::to(Topic::Acks.name()).key(&key).payload("");
        producer.send(record).map_err(|(error, _)| error).expect("room");
    }
    producer.flush(Duration::from_secs(30)).expect("delivered");
    let context = producer.client().context();
    let partitions = context.partitions.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(partitions.len(), KEYS);
    for (key, chosen) in &*partitions {
        assert_eq!(partition::of(key, keyed), *chosen, "for the key {key:?}");
    }
}

/// Appends `records` values to the partitions of positions in turn, and returns when all are delivered; blocks.
pub fn append(config: Config, value: &[u8], records: usize, keyed: i32) {
    const IN_FLIGHT_MAX: usize = 100_000;
    let producer = producer(config, false);
    let delivered = || producer.client().context().delivered.load(Ordering::Relaxed);
    for (i, partition) in (0..records).zip((0..keyed).cycle()) {
        while i - delivered() >= IN_FLIGHT_MAX {
            producer.poll(STEP);
        }
        let record =
            BaseRecord::to(Topic::Positions.name()).partition(partition).key("stork-17").payload(value);
        producer.send(record).map_err(|(error, _)| error).expect("room");
    }
    while delivered() < records {
        producer.poll(STEP);
    }
}
