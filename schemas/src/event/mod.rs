//! The records on the topics; each has a schema file in `avro/`, and those files are the truth.

mod acks;
mod inboxes;
mod matches;
mod messages;
mod positions;
mod registry;

pub use acks::{AckKind, EntriesAcknowledged};
pub use inboxes::{
    Entry, EntryAdded, MatchArrived, MessageArrived, ReceiptArrived, ReceiptKind, SystemNotice,
};
pub use matches::{Crossing, RuleMatched};
pub use messages::MessageSent;
pub use positions::{Fix, FixReported};
pub use registry::{
    BehaviourSet, Circle, Geometry, HoleAccepted, LogFounded, MultiPolygon, Polygon, RecordSkipped,
    RuleDefined, RuleRemoved, ZoneDefined, ZoneRemoved,
};

macro_rules! events {
    ($($name:ident),+ $(,)?) => {
        /// Any record that Waypost writes to a topic.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "fixes are the many, and must not cost a box each")]
        pub enum Event {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name)),+
        }
        impl Event {
            /// The record's type, as its schema names it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),+ }
            }
        }
        $(impl From<$name> for Event {
            fn from(event: $name) -> Self { Self::$name(event) }
        })+
    };
}

events! {
    MessageSent, EntriesAcknowledged, FixReported, LogFounded, ZoneDefined, ZoneRemoved, RuleDefined, RuleRemoved,
    RuleMatched, EntryAdded, HoleAccepted, RecordSkipped, BehaviourSet,
}

impl Event {
    /// The registry offset up to which the record's maker had read the registry: the view that the record asks
    /// for. -1 is a registry of which nothing had been read; records of no driving topic carry none.
    pub fn registry(&self) -> Option<i64> {
        match self {
            Self::MessageSent(e) => Some(e.registry),
            Self::EntriesAcknowledged(e) => Some(e.registry),
            Self::FixReported(e) => Some(e.registry),
            Self::RuleMatched(e) => Some(e.registry),
            _ => None,
        }
    }
}
