//! The topic catalogue: topics are data, and this is the one place that describes them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A topic of Waypost's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What users said, by conversation.
    Messages,
    /// How far devices have acknowledged their inboxes, by user.
    Acks,
    /// GPS fixes, by device.
    Positions,
    /// The small, broadcast facts: zones and rules. One partition.
    Registry,
    /// Rules that fired, by device.
    Matches,
    /// Users' inboxes, by user; their offsets are the cursors.
    Inboxes,
    /// What could not be taken, with why, where and when in headers.
    DeadLetters,
}

/// How many partitions a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// The number that all keyed topics share, for life.
    Keyed,
    /// Exactly one.
    One,
}

/// What stands in the catalogue about a topic.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name on the broker.
    pub name: &'static str,
    /// What its records' keys are.
    pub key: &'static str,
    /// The record types that it carries, by schema name.
    pub records: &'static [&'static str],
    /// How many partitions it has.
    pub partitions: Partitions,
    /// How long the broker keeps records; `None` is for ever.
    pub retention: Option<Duration>,
    /// The largest batch that it takes, in bytes.
    pub message_bytes_max: u32,
    /// Who writes it.
    pub writers: &'static [&'static str],
    /// Who reads it.
    pub readers: &'static [&'static str],
    /// Who turns what it cannot take from this topic into dead letters.
    pub dead_letters_by: Option<&'static str>,
}

const MIB: u32 = 1024 * 1024;
/// The broker's own default for the largest batch, in bytes.
const MESSAGE_BYTES_MAX: u32 = MIB + 12;

/// How long a dead letter is kept: 30 days.
const DEAD_LETTERS_KEPT: Duration = Duration::from_hours(30 * 24);

impl Topic {
    /// Every topic, in the order of the way of the data.
    pub const ALL: [Self; 7] = [
        Self::Messages,
        Self::Acks,
        Self::Positions,
        Self::Registry,
        Self::Matches,
        Self::Inboxes,
        Self::DeadLetters,
    ];

    /// The topic's name on the broker.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The topic of a name on the broker.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The topic's number of partitions where keyed topics have `keyed`.
    pub fn partitions(self, keyed: i32) -> i32 {
        match self.spec().partitions {
            Partitions::Keyed => keyed,
            Partitions::One => 1,
        }
    }

    /// Whether its records are derived by machines, and so carry a seq.
    pub fn is_derived(self) -> bool {
        self != Self::DeadLetters && !self.spec().writers.contains(&"ingest")
    }

    /// The topic's entry in the catalogue.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Messages => &Spec {
                name: "messages",
                key: "conversation",
                records: &["MessageSent"],
                partitions: Partitions::Keyed,
                retention: None,
                message_bytes_max: MESSAGE_BYTES_MAX,
                writers: &["ingest"],
                readers: &["conversations"],
                dead_letters_by: Some("conversations"),
            },
            Self::Acks => &Spec {
                name: "acks",
                key: "user",
                records: &["EntriesAcknowledged"],
                partitions: Partitions::Keyed,
                retention: None,
                message_bytes_max: MESSAGE_BYTES_MAX,
                writers: &["ingest"],
                readers: &["inboxes", "projector", "delivery"],
                dead_letters_by: Some("inboxes"),
            },
            Self::Positions => &Spec {
                name: "positions",
                key: "device",
                records: &["FixReported"],
                partitions: Partitions::Keyed,
                retention: None,
                message_bytes_max: MESSAGE_BYTES_MAX,
                writers: &["ingest"],
                readers: &["spatial", "projector"],
                dead_letters_by: Some("spatial"),
            },
            Self::Registry => &Spec {
                name: "registry",
                key: "subject",
                records: &[
                    "LogFounded",
                    "ZoneDefined",
                    "ZoneRemoved",
                    "RuleDefined",
                    "RuleRemoved",
                    "HoleAccepted",
                    "RecordSkipped",
                    "BehaviourSet",
                ],
                partitions: Partitions::One,
                retention: None,
                message_bytes_max: 4 * MIB,
                writers: &["ingest"],
                readers: &["ingest", "spatial", "projector"],
                dead_letters_by: Some("projector"),
            },
            Self::Matches => &Spec {
                name: "matches",
                key: "device",
                records: &["RuleMatched"],
                partitions: Partitions::Keyed,
                retention: None,
                message_bytes_max: MESSAGE_BYTES_MAX,
                writers: &["spatial"],
                readers: &["alerts", "projector"],
                dead_letters_by: Some("alerts"),
            },
            Self::Inboxes => &Spec {
                name: "inboxes",
                key: "user",
                records: &["EntryAdded"],
                partitions: Partitions::Keyed,
                retention: None,
                message_bytes_max: MESSAGE_BYTES_MAX,
                writers: &["alerts", "conversations", "inboxes"],
                readers: &["inboxes", "projector", "delivery"],
                dead_letters_by: Some("projector"),
            },
            Self::DeadLetters => &Spec {
                name: "dead-letters",
                key: "as the original",
                records: &[],
                partitions: Partitions::Keyed,
                retention: Some(DEAD_LETTERS_KEPT),
                // The largest record of any topic, and the headers that say why it is here.
                message_bytes_max: 4 * MIB + MIB / 16,
                writers: &["spatial", "alerts", "conversations", "inboxes", "projector"],
                readers: &[],
                dead_letters_by: None,
            },
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A topic is written by its name.
impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| de::Error::custom("no such topic"))
    }
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names one partition of a topic.
    pub fn new(topic: Topic, partition: i32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    /// `positions/3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
