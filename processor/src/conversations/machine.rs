//! The fold of `messages`.

use std::sync::Arc;

use waypost_schemas::{
    client_id::ClientId,
    event::{Entry, EntryAdded, Event, MessageArrived, MessageSent, SystemNotice},
    id::{DeviceId, UserId},
    topic::Topic,
};

use super::device::{Device, Digest8, Known};
use crate::{
    machine::{Chunk, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
    shards::Shards,
};

/// Derives an `EntryAdded` for each member of a message's conversation, in byte order of the users, and a
/// `SystemNotice` to its sender where it is not taken.
#[derive(Debug, Default)]
pub struct ConversationsMachine {
    devices: Shards<DeviceId, Device>,
}

impl Machine for ConversationsMachine {
    const NAME: &'static str = "conversations";
    const DRIVES: Topic = Topic::Messages;
    const LOOKS_AT_REGISTRY: bool = false;
    const FORMAT: u16 = 1;

    fn new() -> Self {
        Self::default()
    }

    fn look(&mut self, _change: &Arc<Change>) {}

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let Fit { message, id, settled } = fit(input.event)?;
        let device = self.devices.change(&DeviceId::of(&message.sender, &message.device));
        device.settle(id, settled);
        let digest = Digest8::of(message);
        match device.known(id, digest) {
            Known::Same => {}
            Known::Other => {
                notify(message, "id_reused", "this id was used for another message before", effects);
            }
            Known::Settled => {
                let detail = "this id is not above what the device has settled: the send was not taken";
                notify(message, "not_taken", detail, effects);
            }
            Known::No => {
                let (a, b) = message.conversation.members();
                if message.sender != a && message.sender != b {
                    let detail = "only its members may write to a conversation";
                    notify(message, "not_a_member", detail, effects);
                    return Ok(());
                }
                device.take(id, digest);
                let second = (a != b).then_some(b);
                for user in std::iter::once(a).chain(second) {
                    add(user, Entry::MessageArrived(arrived(message, input.position.offset)), effects);
                }
            }
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.devices.take_changed()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self { devices: Shards::read(&chunks)? })
    }
}

/// A message that ingest may have written.
struct Fit<'a> {
    message: &'a MessageSent,
    id: ClientId,
    settled: Option<ClientId>,
}

/// Checks a record: nothing has changed when it is unfit.
fn fit(event: &Event) -> Result<Fit<'_>, Unfit> {
    let Event::MessageSent(message) = event else {
        let detail = format!("messages carries MessageSent, not {}", event.name());
        return Err(Unfit { code: "unexpected_record", detail });
    };
    let id = message.client_id.parse::<ClientId>();
    let id = id.map_err(|e| Unfit { code: "bad_client_id", detail: format!("client_id is {e}") })?;
    let bad_settled = |detail| Unfit { code: "bad_settled", detail };
    let settled = message.settled.as_deref().map(str::parse::<ClientId>).transpose();
    let settled = settled.map_err(|e| bad_settled(format!("settled is {e}")))?;
    if settled >= Some(id) {
        return Err(bad_settled("settled is not below client_id".into()));
    }
    if message.reply_to.is_some_and(|number| number < 0) {
        return Err(Unfit { code: "bad_offset", detail: "reply_to is below 0".into() });
    }
    Ok(Fit { message, id, settled })
}

fn arrived(message: &MessageSent, number: i64) -> MessageArrived {
    let MessageSent { conversation, sender, device, client_id, content_type, body, reply_to, .. } =
        message.clone();
    MessageArrived { conversation, number, sender, device, client_id, content_type, body, reply_to }
}

fn notify(message: &MessageSent, code: &str, detail: &str, effects: &mut Effects) {
    let client_id = Some(message.client_id.clone());
    let notice = SystemNotice { code: code.into(), client_id, detail: detail.into() };
    add(message.sender.clone(), Entry::SystemNotice(notice), effects);
}

fn add(user: UserId, entry: Entry, effects: &mut Effects) {
    let key = bytes::Bytes::copy_from_slice(user.as_str().as_bytes());
    effects.emit(Topic::Inboxes, key, EntryAdded { user, entry });
}
