use serde::{Deserialize, Serialize};

use crate::{
    event::{Crossing, Fix},
    id::{ConversationId, DeviceId, DeviceName, RuleId, UserId, ZoneId},
};

/// An entry was added to a user's inbox; on `inboxes`, keyed by user. Its offset is its cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryAdded {
    /// Whose inbox.
    pub user: UserId,
    /// What arrived.
    pub entry: Entry,
}

/// What can arrive in an inbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A message of a conversation.
    MessageArrived(MessageArrived),
    /// Another member got or read messages.
    ReceiptArrived(ReceiptArrived),
    /// A rule fired.
    MatchArrived(MatchArrived),
    /// Waypost has something to say.
    SystemNotice(SystemNotice),
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageArrived {
    /// The conversation.
    pub conversation: ConversationId,
    /// The message's offset in `messages`.
    pub number: i64,
    /// Who said it.
    pub sender: UserId,
    /// On which of the sender's devices.
    pub device: DeviceName,
    /// The sending device's id of it.
    pub client_id: String,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    #[serde(with = "crate::codec::bytes")]
    pub body: Vec<u8>,
    /// The number of the message that this one answers.
    pub reply_to: Option<i64>,
}

/// Delivered (V) or read (VV).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptKind {
    /// V: a device of the user has it.
    Delivered,
    /// VV: the user has read it.
    Read,
}

/// A member has, or has read, a conversation's messages up to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptArrived {
    /// The conversation.
    pub conversation: ConversationId,
    /// Who got or read them.
    pub user: UserId,
    /// Which of the two.
    pub kind: ReceiptKind,
    /// The highest message's number.
    pub upto: i64,
}

/// A rule fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatchArrived {
    /// The rule.
    pub rule: RuleId,
    /// The zone, for rules that watch zones.
    pub zone: Option<ZoneId>,
    /// What happened at the zone's border.
    pub event: Crossing,
    /// Whether this was the device's first fix since the zone was defined.
    pub initial: bool,
    /// The device.
    pub device: DeviceId,
    /// The fix that fired the rule.
    pub fix: Fix,
}

/// Waypost has something to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemNotice {
    /// A stable code, `refused` or `not_taken` for instance.
    pub code: String,
    /// The client id that it is about.
    pub client_id: Option<String>,
    /// A sentence for people.
    pub detail: String,
}
