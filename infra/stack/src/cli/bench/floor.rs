//! The floor: what a bare producer of the same settings does with the same bytes on the same broker.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use waypost_runtime::{
    broker::{Broker, Delivery, Incoming, Outgoing},
    clock::Clock,
};
use waypost_schemas::topic::{Topic, TopicPartition};

use super::readback;

/// How many records go to the producer at a time, as with a full request.
const SEND_RECORDS: usize = 1_000;
/// How many of those wait for their acknowledgement, as many as an import has requests in flight.
const SENDS_IN_FLIGHT_MAX: usize = 64;

/// What a bare producer came to.
pub(super) struct Floor {
    /// How many records it appended.
    pub(super) records: usize,
    /// How long that took, from the first to the last acknowledgement.
    pub(super) took: Duration,
}

/// Reads all positions, and appends their bytes to partitions of `dead-letters`, which nobody reads.
pub(super) async fn measure(broker: &dyn Broker, clock: &Clock) -> anyhow::Result<Floor> {
    let positions = positions(broker).await.context("cannot read the positions back")?;
    let records = positions.len();
    let producer = broker.producer()?;
    // The first append makes the connection and asks for a producer id.
    producer.send(positions[..1.min(records)].to_vec()).await?.await?;
    let begun = clock.monotonic();
    let mut sends: VecDeque<Delivery> = VecDeque::new();
    let mut left = positions.into_iter();
    loop {
        let batch: Vec<Outgoing> = left.by_ref().take(SEND_RECORDS).collect();
        if batch.is_empty() {
            break;
        }
        sends.push_back(producer.send(batch).await?);
        if sends.len() >= SENDS_IN_FLIGHT_MAX
            && let Some(oldest) = sends.pop_front()
        {
            oldest.await?;
        }
    }
    for send in sends {
        send.await?;
    }
    Ok(Floor { records, took: clock.elapsed(begun) })
}

/// All positions as records for the same partitions of `dead-letters`, interleaved as they came.
async fn positions(broker: &dyn Broker) -> anyhow::Result<Vec<Outgoing>> {
    let mut positions = readback::records(broker, Topic::Positions).await?;
    positions.sort_by_key(|(from, record)| (record.append, from.partition, record.offset));
    let again = |(from, record): (TopicPartition, Incoming)| {
        readback::again(record, TopicPartition { topic: Topic::DeadLetters, partition: from.partition })
    };
    Ok(positions.into_iter().map(again).collect())
}
