use serde::{Deserialize, Serialize};

use crate::id::{ConversationId, DeviceName, UserId};

/// A user said something; on `messages`, keyed by conversation. Its number is its offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSent {
    /// The conversation.
    pub conversation: ConversationId,
    /// Who said it.
    pub sender: UserId,
    /// On which of the sender's devices.
    pub device: DeviceName,
    /// The device's own id of the send, a `UUIDv7`; one device's ids increase.
    pub client_id: String,
    /// The device's ids up to and with this one are accepted, refused or given up.
    pub settled: Option<String>,
    /// The body's media type.
    pub content_type: String,
    /// The body, at most 64 KiB.
    #[serde(with = "crate::codec::bytes")]
    pub body: Vec<u8>,
    /// The number of the message that this one answers.
    pub reply_to: Option<i64>,
    /// The registry offset up to which ingest had read.
    pub registry: i64,
}
