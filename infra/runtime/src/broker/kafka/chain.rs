//! A chain of librdkafka and nothing of ours: produce, consume, produce what follows, consume that; with the same
//! settings, for a bench to be held against.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaResult, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use waypost_schemas::topic::Topic;

use super::{
    Config, error,
    settings::{Favour, Settings},
};
use crate::{
    broker::{Error, Headers, Outgoing, topics},
    clock::{Clock, Monotonic},
    pace::Pace,
};

/// The topic that the chain begins with, and the one whose settings it has.
const INPUT: (&str, Topic) = ("waypost-bench-chain-input", Topic::Messages);
/// The topic that it ends with, and the one whose settings it has.
const OUTPUT: (&str, Topic) = ("waypost-bench-chain-output", Topic::Inboxes);
/// How long a consumer waits for a record before it looks whether it should stop.
const POLL: Duration = Duration::from_millis(50);
/// How long the topics may take to be made, and the last record to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a broker is asked again that refuses, and after what time each.
const ASKS_MAX: usize = 100;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One record that is appended, and those that follow from it.
#[derive(Debug, Clone)]
pub struct Link {
    /// The record that begins it; its topic is not looked at.
    pub input: Outgoing,
    /// The records that follow from it.
    pub outputs: Vec<Outgoing>,
    /// Which of them is waited for.
    pub awaited: usize,
}

/// How long a link took since it was due.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// Until what is between the topics had read the input.
    pub read: Duration,
    /// Until the awaited output was read.
    pub whole: Duration,
}

/// The topics of such a chain, which nobody else knows.
pub struct Chain {
    settings: Settings,
    keyed: i32,
}

impl Chain {
    /// Makes the topics, of as many partitions as keyed topics have, unless they are there.
    pub async fn create(config: Config, keyed: i32) -> Result<Self, Error> {
        const WHAT: &str = "the chain's topics were not made";
        let settings = Settings::new(config)?;
        let replication = settings.replication_factor;
        let asked = [INPUT, OUTPUT].map(|(name, like)| (name, topics::settings(like)));
        let asked: Vec<_> = asked
            .iter()
            .map(|(name, settings)| {
                let new = NewTopic::new(name, keyed, TopicReplication::Fixed(replication));
                settings.iter().fold(new, |new, (setting, value)| new.set(setting, value))
            })
            .collect();
        let admin = admin(&settings)?;
        let made = admin.create_topics(&asked, &options()).await.map_err(|e| error::fatal(WHAT, e))?;
        match made.into_iter().find_map(Result::err) {
            None | Some((_, Code::TopicAlreadyExists)) => Ok(Self { settings, keyed }),
            Some((topic, code)) => Err(error::of_code(&format!("the creation of {topic}"), code)),
        }
    }

    /// Appends the inputs evenly at a pace, and says how long each took; blocks.
    ///
    /// It uses one producer, one thread that consumes and produces, and one that consumes the outputs: the least
    /// that such a chain needs.
    pub fn run(&self, links: &[Link], pace: Pace, clock: &Clock) -> Result<Vec<Passed>, Error> {
        let (first, second) = (self.producer()?, self.producer()?);
        let (inputs, outputs) = (self.consumer(INPUT.0)?, self.consumer(OUTPUT.0)?);
        let running = Running {
            links,
            pace,
            clock,
            begun: clock.monotonic(),
            passed: Mutex::new(vec![Passed::default(); links.len()]),
            missing: AtomicUsize::new(links.len()),
            inputs: self.lanes(),
            outputs: self.lanes(),
            stop: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let not_made = |e| error::fatal("a thread of the chain was not made", e);
            let named = |name: &str| thread::Builder::new().name(name.to_owned());
            let process = named("chain-process").spawn_scoped(scope, || running.process(&inputs, &second));
            let collect = named("chain-collect").spawn_scoped(scope, || running.collect(&outputs));
            let came = running.send(&first).and_then(|()| running.wait());
            running.stop.store(true, Ordering::Release);
            for thread in [process, collect] {
                let ended = thread.map_err(not_made)?.join();
                ended.map_err(|_| Error::Fatal { what: "a thread of the chain panicked".into() })??;
            }
            came
        })?;
        Ok(running.passed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes the topics.
    pub async fn remove(self) -> Result<(), Error> {
        const WHAT: &str = "the chain's topics were not removed";
        let admin = admin(&self.settings)?;
        let gone = admin.delete_topics(&[INPUT.0, OUTPUT.0], &options()).await;
        match gone.map_err(|e| error::fatal(WHAT, e))?.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some((topic, code)) => Err(error::of_code(&format!("the removal of {topic}"), code)),
        }
    }

    fn lanes(&self) -> Vec<Lane> {
        (0..self.keyed).map(|_| Lane::default()).collect()
    }

    fn producer(&self) -> Result<ThreadedProducer<Context>, Error> {
        let made: Result<ThreadedProducer<Context>, _> =
            self.settings.producer(Favour::Latency).create_with_context(Context);
        let made = made.map_err(|e| error::fatal("a producer of the chain was not made", e))?;
        // The first append would otherwise ask where its partition is.
        made.client().fetch_metadata(None, PATIENCE).map_err(|e| error::fatal("no metadata", e))?;
        Ok(made)
    }

    fn consumer(&self, topic: &str) -> Result<BaseConsumer, Error> {
        let failed = |e| error::fatal("a consumer of the chain was not made", e);
        let mut config: ClientConfig = self.settings.fetcher(Favour::Latency);
        config.set("enable.partition.eof", "false");
        let made: BaseConsumer = config.create().map_err(failed)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.keyed {
            let end = end(&made, topic, partition).map_err(failed)?;
            list.add_partition_offset(topic, partition, Offset::Offset(end)).map_err(failed)?;
        }
        made.assign(&list).map_err(failed)?;
        Ok(made)
    }
}

/// Where a partition ends, which a broker does not know at once when its topic is new.
fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<i64> {
    for _ in 0..ASKS_MAX {
        if let Ok((_, end)) = consumer.fetch_watermarks(topic, partition, PATIENCE) {
            return Ok(end);
        }
        thread::sleep(ASK_AGAIN);
    }
    consumer.fetch_watermarks(topic, partition, PATIENCE).map(|(_, end)| end)
}

fn admin(settings: &Settings) -> Result<AdminClient<DefaultClientContext>, Error> {
    settings.inquirer(None).create().map_err(|e| error::fatal("a client was not made", e))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// Which link each record of a partition belongs to, in the order of its offsets; `None` for one that nobody awaits.
type Lane = Mutex<VecDeque<Option<usize>>>;

struct Running<'a> {
    links: &'a [Link],
    pace: Pace,
    clock: &'a Clock,
    begun: Monotonic,
    passed: Mutex<Vec<Passed>>,
    missing: AtomicUsize,
    inputs: Vec<Lane>,
    outputs: Vec<Lane>,
    stop: AtomicBool,
}

impl Running<'_> {
    fn send(&self, producer: &ThreadedProducer<Context>) -> Result<(), Error> {
        self.pace.run(self.links.len(), (self.clock, self.begun), |number| {
            produce(producer, INPUT.0, &self.inputs, &self.links[number].input, Some(number))
        })
    }

    fn process(&self, consumer: &BaseConsumer, producer: &ThreadedProducer<Context>) -> Result<(), Error> {
        while let Some(partition) = self.next(consumer)? {
            let Some(number) = lock(&self.inputs[partition]).pop_front().flatten() else { continue };
            lock(&self.passed)[number].read = self.since_due(number);
            let link = &self.links[number];
            for (ordinal, output) in link.outputs.iter().enumerate() {
                let awaited = (ordinal == link.awaited).then_some(number);
                produce(producer, OUTPUT.0, &self.outputs, output, awaited)?;
            }
        }
        Ok(())
    }

    fn collect(&self, consumer: &BaseConsumer) -> Result<(), Error> {
        while let Some(partition) = self.next(consumer)? {
            let Some(number) = lock(&self.outputs[partition]).pop_front().flatten() else { continue };
            lock(&self.passed)[number].whole = self.since_due(number);
            self.missing.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn since_due(&self, number: usize) -> Duration {
        self.clock.elapsed(self.begun).saturating_sub(self.pace.due(number))
    }

    /// The partition of the next record; nothing when the chain stops.
    fn next(&self, consumer: &BaseConsumer) -> Result<Option<usize>, Error> {
        while !self.stop.load(Ordering::Acquire) {
            if let Some(record) = consumer.poll(POLL) {
                let record = record.map_err(|e| error::fatal("the chain cannot read", e))?;
                return Ok(usize::try_from(record.partition()).ok());
            }
        }
        Ok(None)
    }

    fn wait(&self) -> Result<(), Error> {
        let began = self.clock.monotonic();
        while self.missing.load(Ordering::Acquire) > 0 {
            if self.clock.elapsed(began) > PATIENCE {
                return Err(Error::Fatal { what: "the chain's last record did not come".into() });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

fn produce(
    producer: &ThreadedProducer<Context>,
    topic: &str,
    lanes: &[Lane],
    record: &Outgoing,
    number: Option<usize>,
) -> Result<(), Error> {
    let lane = usize::try_from(record.to.partition).ok().and_then(|p| lanes.get(p));
    let missing = || Error::Fatal { what: format!("{} is no partition of the chain", record.to) };
    // Held meanwhile, so that the lane has the order of the partition.
    let mut lane = lock(lane.ok_or_else(missing)?);
    let base = BaseRecord::to(topic).partition(record.to.partition).headers(headers(&record.headers));
    let base = base.key(bytes(record.key.as_ref())).payload(bytes(record.value.as_ref()));
    producer.send(base).map_err(|(e, _)| error::fatal("the chain cannot append", e))?;
    lane.push_back(number);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(part: Option<&Bytes>) -> &[u8] {
    part.map_or(&[], |part| &part[..])
}

fn headers(of: &Headers) -> OwnedHeaders {
    of.iter().fold(OwnedHeaders::new_with_capacity(of.len()), |headers, (name, value)| {
        headers.insert(Header { key: name, value: Some(&value[..]) })
    })
}

/// Stops nothing when a record is refused: a link that never comes says so.
struct Context;

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}
