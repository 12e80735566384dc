//! The fold of `acks`, with a look at `inboxes`.

use std::sync::Arc;

use waypost_schemas::{
    event::{AckKind, EntriesAcknowledged, Entry, EntryAdded, Event, ReceiptArrived, ReceiptKind},
    id::UserId,
    topic::Topic,
};

use super::user::{Covered, User};
use crate::{
    machine::{Chunk, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
    shards::Shards,
};

/// Derives receipts, each an `EntryAdded` in the inbox of the sender whose messages an acknowledgement covers.
#[derive(Debug, Default)]
pub struct InboxesMachine {
    users: Shards<UserId, User>,
}

impl Machine for InboxesMachine {
    const NAME: &'static str = "inboxes";
    const DRIVES: Topic = Topic::Acks;
    const LOOKS_AT_REGISTRY: bool = false;
    const LOOKS_AT: Option<Topic> = Some(Topic::Inboxes);
    // Receipts.
    const IN_BULK: bool = true;
    const FORMAT: u16 = 2;

    fn new() -> Self {
        Self::default()
    }

    fn look(&mut self, _change: &Arc<Change>) {}

    fn asks(event: &Event) -> Option<i64> {
        match event {
            Event::EntriesAcknowledged(acknowledged) => Some(acknowledged.upto),
            _ => None,
        }
    }

    fn look_at(&mut self, offset: i64, event: &Event) {
        let Event::EntryAdded(EntryAdded { user, entry: Entry::MessageArrived(arrived) }) = event else {
            return;
        };
        let conversation = &arrived.conversation;
        if arrived.sender != *user {
            self.users.change(user).arrive(offset, arrived.number, conversation);
        } else if let Some(inbox) = self.users.change_known(user) {
            inbox.arrive_own(offset, conversation);
        }
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let EntriesAcknowledged { user, kind, upto, .. } = fit(input.event)?;
        match kind {
            AckKind::Start => {}
            AckKind::Delivered => {
                let covered = self.users.change(user).deliver(user, *upto);
                emit(user, ReceiptKind::Delivered, covered, effects);
            }
            AckKind::Read => {
                if let Some(inbox) = self.users.change_known(user) {
                    emit(user, ReceiptKind::Read, inbox.read(user, *upto), effects);
                }
            }
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.users.take_changed()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self { users: Shards::read(&chunks)? })
    }
}

/// The acknowledgement of a record, where it is one that ingest may have written: nothing has changed when it is not.
fn fit(event: &Event) -> Result<&EntriesAcknowledged, Unfit> {
    let Event::EntriesAcknowledged(acknowledged) = event else {
        let detail = format!("acks carries EntriesAcknowledged, not {}", event.name());
        return Err(Unfit { code: "unexpected_record", detail });
    };
    // A start before the first entry of all names the offset before it.
    let lowest = if acknowledged.kind == AckKind::Start { -1 } else { 0 };
    if acknowledged.upto < lowest {
        return Err(Unfit { code: "bad_offset", detail: format!("upto is below {lowest}") });
    }
    Ok(acknowledged)
}

fn emit(user: &UserId, kind: ReceiptKind, covered: Covered, effects: &mut Effects) {
    for ((sender, conversation), upto) in covered {
        let receipt = ReceiptArrived { conversation, user: user.clone(), kind, upto };
        let key = bytes::Bytes::copy_from_slice(sender.as_str().as_bytes());
        effects.emit(Topic::Inboxes, key, EntryAdded { user: sender, entry: Entry::ReceiptArrived(receipt) });
    }
}
