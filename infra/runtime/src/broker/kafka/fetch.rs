//! The thread that fetches the open partitions of one topic.
//!
//! A partition whose queue is full is unassigned, and assigned again at the next offset that was not queued: that
//! throws away what librdkafka has fetched, as its `pause` does, but says itself where to go on.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{BorrowedMessage, Headers},
};
use waypost_schemas::{
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::{
    context::{Context, Outage},
    error,
    queue::Queue,
    settings::{Favour, Settings},
};
use crate::broker::{Error, Incoming};

/// How long a command may wait for a thread to which no record comes.
const IDLE: Duration = Duration::from_millis(20);
/// How many records the thread takes before it fills the queues and looks at commands.
const ROUND_RECORDS_MAX: usize = 500;
/// How many bytes of a partition it takes in a round, so that a queue is never over its bound by more than one record.
const ROUND_BYTES_MAX: usize = 256 * 1024;
/// How long it asks for a partition's bounds before it asks again.
const BOUNDS_WAIT_MAX: Duration = Duration::from_secs(5);

/// What a reader tells the thread.
pub(super) enum Command {
    Open { partition: i32, offset: i64, queue: Arc<Queue> },
    Resume { partition: i32 },
    Close { partition: i32 },
}

/// Starts the thread of a topic. It ends when all senders of its commands are gone.
pub(super) fn start(
    settings: &Settings,
    outage: Arc<Outage>,
    (topic, favour): (Topic, Favour),
) -> Result<mpsc::Sender<Command>, Error> {
    let consumer = settings
        .fetcher(favour)
        .create_with_context(Context(outage.clone()))
        .map_err(|e| error::fatal("a reader was not made", e))?;
    let (tell, commands) = mpsc::channel();
    let fetcher = Fetcher { consumer, topic, commands, outage, lanes: BTreeMap::new(), in_doubt: false };
    thread::Builder::new()
        .name("kafka-fetch".to_owned())
        .spawn(move || fetcher.run())
        .map_err(|e| error::fatal("a thread to fetch was not made", e))?;
    Ok(tell)
}

struct Fetcher {
    consumer: BaseConsumer<Context>,
    topic: Topic,
    commands: mpsc::Receiver<Command>,
    outage: Arc<Outage>,
    lanes: BTreeMap<i32, Lane>,
    /// librdkafka gave up on a partition, without saying which.
    in_doubt: bool,
}

/// One open partition.
struct Lane {
    queue: Arc<Queue>,
    /// The next offset that is neither queued nor here.
    next: i64,
    /// Records of this round.
    records: Vec<Incoming>,
    bytes: usize,
    /// The end was reached after `next`.
    ended: bool,
    /// Whether there is news for the queue.
    news: bool,
    paused: bool,
}

impl Fetcher {
    fn run(mut self) {
        while self.obey() {
            self.round();
            if self.in_doubt {
                self.settle_doubt();
            }
        }
    }

    /// Does what it was told; `false` when nobody is left to tell.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open { partition, offset, queue }) => self.open(partition, offset, queue),
                Ok(Command::Resume { partition }) => {
                    if let Some(lane) = self.lanes.get_mut(&partition) {
                        lane.paused = false;
                        let next = lane.next;
                        self.assign(partition, next);
                    }
                }
                Ok(Command::Close { partition }) => self.close(partition),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn open(&mut self, partition: i32, offset: i64, queue: Arc<Queue>) {
        if offset < 0 {
            // librdkafka would read it as a name of the beginning or the end.
            queue.fail(out_of_range(self.topic, partition, offset, 0, 0));
            return;
        }
        let lane = Lane {
            queue,
            next: offset,
            records: Vec::new(),
            bytes: 0,
            ended: false,
            news: false,
            paused: false,
        };
        self.lanes.insert(partition, lane);
        self.assign(partition, offset);
    }

    fn close(&mut self, partition: i32) {
        if self.lanes.remove(&partition).is_some_and(|lane| !lane.paused) {
            self.unassign(partition);
        }
    }

    fn fail(&mut self, partition: i32, error: Error) {
        if let Some(lane) = self.lanes.remove(&partition) {
            lane.queue.fail(error);
            if !lane.paused {
                self.unassign(partition);
            }
        }
    }

    fn fail_all(&mut self, error: &Error) {
        for partition in self.partitions() {
            self.fail(partition, error.clone());
        }
    }

    fn partitions(&self) -> Vec<i32> {
        self.lanes.keys().copied().collect()
    }

    fn assign(&mut self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        let added = list
            .add_partition_offset(self.topic.name(), partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.incremental_assign(&list));
        if let Err(e) = added
            && let Some(lane) = self.lanes.remove(&partition)
        {
            lane.queue.fail(error::fatal(&format!("{}/{partition} was not opened", self.topic), e));
        }
    }

    fn unassign(&self, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topic.name(), partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            // What still comes of it finds no lane, or is not the next of one.
            tracing::debug!(%error, topic = %self.topic, partition, "a partition was not let go");
        }
    }

    /// Takes what there is, up to a bound, and fills the queues with it.
    fn round(&mut self) {
        let mut wait = IDLE;
        for _ in 0..ROUND_RECORDS_MAX {
            let full = match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => receive(&mut self.lanes, &message),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(lane) = self.lanes.get_mut(&partition) {
                        (lane.ended, lane.news) = (true, true);
                    }
                    self.outage.over();
                    false
                }
                Some(Err(error)) => {
                    self.hear(&error);
                    false
                }
            };
            if full {
                break;
            }
            wait = Duration::ZERO;
        }
        self.fill();
    }

    fn fill(&mut self) {
        let mut received = false;
        for partition in self.partitions() {
            let Some(lane) = self.lanes.get_mut(&partition).filter(|l| l.news) else { continue };
            (lane.news, lane.bytes) = (false, 0);
            received |= !lane.records.is_empty();
            if lane.queue.push(&mut lane.records, lane.ended) {
                lane.paused = true;
                self.unassign(partition);
            }
        }
        if received {
            self.outage.over();
        }
    }

    fn hear(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(code), _) => {
                self.fail_all(&error::fatal(&format!("reading {} failed", self.topic), code));
            }
            (_, Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)) => {
                self.fail_all(&error::fatal(&format!("reading {} is not allowed", self.topic), error));
            }
            (
                _,
                Some(
                    Code::AutoOffsetReset
                    | Code::OffsetOutOfRange
                    | Code::LogTruncation
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::BadMessage
                    | Code::InvalidMessage,
                ),
            ) => self.in_doubt = true,
            // Of an outage the context hears too; librdkafka goes on by itself.
            _ => {}
        }
    }

    /// Asks which partitions can still be read: those that cannot fail, the others are assigned anew.
    fn settle_doubt(&mut self) {
        for partition in self.partitions() {
            let Some(lane) = self.lanes.get(&partition) else { continue };
            let (next, paused) = (lane.next, lane.paused);
            match self.bounds(partition) {
                Ok((low, high)) if (low..=high).contains(&next) => {
                    if !paused {
                        self.unassign(partition);
                        self.assign(partition, next);
                    }
                }
                Ok((low, high)) => {
                    self.fail(partition, out_of_range(self.topic, partition, next, low, high));
                }
                Err(e) => match error::of_request(&format!("{}/{partition}", self.topic), &e) {
                    Error::Unavailable { .. } => return,
                    error => self.fail(partition, error),
                },
            }
        }
        self.in_doubt = false;
    }

    fn bounds(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        self.consumer.fetch_watermarks(self.topic.name(), partition, BOUNDS_WAIT_MAX)
    }
}

/// Takes a record into its lane; returns whether the round is full.
fn receive(lanes: &mut BTreeMap<i32, Lane>, message: &BorrowedMessage<'_>) -> bool {
    let Some(lane) = lanes.get_mut(&message.partition()) else { return false };
    // A record from before the partition was let go and opened again; it comes, or came, in its turn.
    if message.offset() < lane.next || lane.paused {
        return false;
    }
    let record = incoming(message);
    lane.next = record.offset + 1;
    lane.bytes += record.bytes();
    lane.records.push(record);
    (lane.ended, lane.news) = (false, true);
    lane.bytes > ROUND_BYTES_MAX
}

fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let owned = |h: rdkafka::message::Header<'_, &[u8]>| {
            (Box::from(h.key), h.value.map_or_else(Bytes::new, Bytes::copy_from_slice))
        };
        headers.iter().map(owned).collect()
    });
    Incoming {
        offset: message.offset(),
        append: Micros::from_millis(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

fn out_of_range(topic: Topic, partition: i32, offset: i64, low: i64, high: i64) -> Error {
    Error::OutOfRange { partition: TopicPartition::new(topic, partition), offset, low, high }
}
