//! What every reader of the log asks of a record first: does it belong on its topic, and was it taken before?

use waypost_schemas::{
    cause::{Cause, Position, Seq, SeqMap, Taken},
    codec,
    event::Event,
    header,
    topic::{Topic, TopicPartition},
};

use crate::broker::Incoming;

/// Why a record cannot be taken: it becomes a dead letter, and the state is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Unfit {
    /// A stable code, `bad_device_time` for instance.
    pub code: &'static str,
    /// A sentence without places, bodies or tokens.
    pub detail: String,
}

/// A record that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// Take it. On a derived topic it names its cause.
    Event {
        /// What it says.
        event: Event,
        /// The record that caused it, where the topic is derived.
        cause: Option<Cause>,
    },
    /// A copy of a record that was taken before: drop it.
    Copy,
    /// It does not belong on its topic: its owner makes it a dead letter.
    Unfit(Unfit),
}

/// Numbers of a derived stream are missing: the log has lost records, and reading on would hide it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{partition} at offset {offset} has seq {seq} where number {expected} should come: records are missing before it. \
     Put the lost records back, or accept the loss: waypost holes accept {partition}/{offset} (where nothing runs that \
     takes it, start waypost up --only ingest first)"
)]
pub struct Hole {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset of the record after the hole.
    pub offset: i64,
    /// The seq that it carries.
    pub seq: Seq,
    /// The number that should have come.
    pub expected: u64,
}

impl Hole {
    /// Where the record after the hole stands.
    pub fn position(&self) -> Position {
        let TopicPartition { topic, partition } = self.partition;
        Position { topic, partition, offset: self.offset }
    }
}

/// A reader's view of one partition: which numbers of its derived streams it has taken.
#[derive(Debug, Clone)]
pub struct Intake {
    partition: TopicPartition,
    seqs: SeqMap,
}

impl Intake {
    /// Goes on from a stored map, or from an empty one at offset 0.
    pub fn new(partition: TopicPartition, seqs: SeqMap) -> Self {
        Self { partition, seqs }
    }

    /// The numbers taken so far, to be stored with the reader's offset.
    pub fn seqs(&self) -> &SeqMap {
        &self.seqs
    }

    /// Looks at a record. A record that does not belong on the topic takes no number; on `Err` nothing changed.
    pub fn admit(&mut self, record: &Incoming) -> Result<Admitted, Hole> {
        let topic = self.partition.topic;
        let event = match decode(topic, record) {
            Ok(event) => event,
            Err(unfit) => return Ok(Admitted::Unfit(unfit)),
        };
        if !topic.is_derived() {
            return Ok(Admitted::Event { event, cause: None });
        }
        let (seq, cause) = match origin(topic, record) {
            Ok(origin) => origin,
            Err(unfit) => return Ok(Admitted::Unfit(unfit)),
        };
        match self.seqs.take(&seq) {
            Taken::Next => Ok(Admitted::Event { event, cause: Some(cause) }),
            Taken::Copy => Ok(Admitted::Copy),
            Taken::Hole { expected } => Err(self.hole(record, seq, expected)),
        }
    }

    /// Passes a hole that was accepted: the record after it, admitted again, is the next of its stream.
    pub fn pass(&mut self, hole: &Hole) {
        self.seqs.pass(&hole.seq);
    }

    /// Passes a record that was taken out of what its reader folds: it is not decoded, and only its number is taken.
    pub fn skip(&mut self, record: &Incoming) -> Result<(), Hole> {
        let topic = self.partition.topic;
        if !topic.is_derived() {
            return Ok(());
        }
        let Ok((seq, _)) = origin(topic, record) else { return Ok(()) };
        match self.seqs.take(&seq) {
            Taken::Next | Taken::Copy => Ok(()),
            Taken::Hole { expected } => Err(self.hole(record, seq, expected)),
        }
    }

    fn hole(&self, record: &Incoming, seq: Seq, expected: u64) -> Hole {
        Hole { partition: self.partition, offset: record.offset, seq, expected }
    }
}

fn decode(topic: Topic, record: &Incoming) -> Result<Event, Unfit> {
    let event = codec::decode(record.value.as_deref().unwrap_or_default())
        .map_err(|error| Unfit { code: error.code(), detail: error.to_string() })?;
    if topic.spec().records.contains(&event.name()) {
        return Ok(event);
    }
    Err(Unfit { code: "wrong_type", detail: format!("a {} does not belong on {topic}", event.name()) })
}

/// The seq and the cause that a derived record carries; only the topic's own writers may have derived it.
fn origin(topic: Topic, record: &Incoming) -> Result<(Seq, Cause), Unfit> {
    let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let seq: Seq = text(header::SEQ).and_then(|t| t.parse().ok()).ok_or_else(|| Unfit {
        code: "no_seq",
        detail: "a derived record carries a header seq: machine/partition/number".into(),
    })?;
    if !topic.spec().writers.contains(&&*seq.machine) {
        return Err(Unfit { code: "foreign_writer", detail: format!("no such machine writes to {topic}") });
    }
    let cause = text(header::ID).and_then(|t| t.parse().ok()).ok_or_else(|| Unfit {
        code: "no_cause",
        detail: "a derived record carries a header ce_id: topic/partition/offset/ordinal".into(),
    })?;
    Ok((seq, cause))
}
