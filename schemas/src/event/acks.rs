use serde::{Deserialize, Serialize};

use crate::id::{DeviceName, UserId};

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckKind {
    /// A new device's first offset; makes no receipt.
    Start,
    /// The device has the entries.
    Delivered,
    /// The user has read the conversation of the entry.
    Read,
}

/// A device acknowledged its user's inbox up to an offset; on `acks`, keyed by user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesAcknowledged {
    /// The user whose inbox it is.
    pub user: UserId,
    /// The user's device.
    pub device: DeviceName,
    /// The device's session, as `welcome` named it.
    pub session: String,
    /// What the acknowledgement means.
    pub kind: AckKind,
    /// An entry's offset in `inboxes`.
    pub upto: i64,
    /// The registry offset up to which ingest had read.
    pub registry: i64,
}
