//! The messages of a run as the log has them: where each stood when, and the same bytes for a chain of nothing of ours.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use waypost_runtime::{
    broker::{Broker, Incoming, Outgoing, kafka::chain::Link},
    intake::{Admitted, Intake},
};
use waypost_schemas::{
    cause::SeqMap,
    event::{Entry, Event},
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::{super::readback, pairs};

/// A message's way through the log.
#[derive(Debug, Default)]
struct Way {
    sent: Option<(Micros, Outgoing)>,
    entries: Vec<Outgoing>,
    /// When its recipient's entry was appended, and which of the entries it is.
    arrived: Option<(Micros, usize)>,
}

/// What was read back: of each message, by its number.
pub(super) struct Logged {
    /// The append times of its record in `messages` and of its recipient's entry in `inboxes`.
    pub(super) appended: Vec<(Micros, Micros)>,
    /// Its records, to be sent again.
    pub(super) links: Vec<Link>,
}

/// Reads back the messages from 0 to `count`.
pub(super) async fn read(broker: &dyn Broker, count: usize) -> anyhow::Result<Logged> {
    let mut ways: Vec<Way> = (0..count).map(|_| Way::default()).collect();
    for (from, record, event) in events(broker, Topic::Messages).await? {
        let Event::MessageSent(sent) = event else { continue };
        if let Some(way) = way(&mut ways, &sent.body) {
            way.sent = Some((record.append, readback::again(record, from)));
        }
    }
    for (from, record, event) in events(broker, Topic::Inboxes).await? {
        let Event::EntryAdded(added) = event else { continue };
        let Entry::MessageArrived(arrived) = added.entry else { continue };
        if let Some(way) = way(&mut ways, &arrived.body) {
            if added.user != arrived.sender {
                way.arrived = Some((record.append, way.entries.len()));
            }
            way.entries.push(readback::again(record, from));
        }
    }
    let whole = |way: Way| {
        let ((sent, input), (arrived, awaited)) = way.sent.zip(way.arrived)?;
        Some(((sent, arrived), Link { input, outputs: way.entries, awaited }))
    };
    let whole: Option<(Vec<_>, Vec<_>)> = ways.into_iter().map(whole).collect();
    let (appended, links) = whole.context("a message is not in the log")?;
    ensure!(appended.len() == count, "{} of {count} messages are in the log", appended.len());
    Ok(Logged { appended, links })
}

fn way<'a>(ways: &'a mut [Way], body: &[u8]) -> Option<&'a mut Way> {
    ways.get_mut(pairs::number(std::str::from_utf8(body).ok()?)?)
}

/// The records of a topic that its readers take.
async fn events(broker: &dyn Broker, topic: Topic) -> anyhow::Result<Vec<(TopicPartition, Incoming, Event)>> {
    let mut events = vec![];
    let mut intake: Option<(TopicPartition, Intake)> = None;
    for (from, record) in readback::records(broker, topic).await? {
        let (of, intake) = intake.get_or_insert_with(|| (from, Intake::new(from, SeqMap::default())));
        if *of != from {
            (*of, *intake) = (from, Intake::new(from, SeqMap::default()));
        }
        if let Admitted::Event { event, .. } = intake.admit(&record)? {
            events.push((from, record, event));
        }
    }
    Ok(events)
}

/// How long after another a moment of the log was, which counts in milliseconds; nothing where it was not after it.
pub(super) fn between(earlier: Micros, later: Micros) -> Duration {
    Duration::from_micros(later.0.saturating_sub(earlier.0).max(0) as u64)
}
