//! Which receipts the acknowledgements should have made: V of a message by the first delivered one at or above it, VV
//! by the first read one of its conversation at or above it, each to its sender and never to oneself.

use std::collections::BTreeMap;

use waypost_schemas::{
    codec,
    event::{
        AckKind, EntriesAcknowledged, Entry, EntryAdded, Event, MessageArrived, ReceiptArrived, ReceiptKind,
    },
    id::{ConversationId, UserId},
    topic::{Topic, TopicPartition},
};

use super::{Derived, Facts, View, position};

/// The messages of a partition's inboxes, by user and offset.
type Inboxes = BTreeMap<(UserId, i64), MessageArrived>;

fn inboxes(view: &View) -> Inboxes {
    let mut inboxes = Inboxes::new();
    for first in &view.firsts {
        let decoded = codec::decode(first.record.value.as_deref().unwrap_or_default());
        if let Ok(Event::EntryAdded(EntryAdded { user, entry: Entry::MessageArrived(message) })) = decoded {
            inboxes.insert((user, first.offset), message);
        }
    }
    inboxes
}

pub(super) fn fold(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>, p: i32, derived: &mut Derived) {
    let of = TopicPartition::new(Topic::Acks, p);
    let inboxes = inboxes(&views[&TopicPartition::new(Topic::Inboxes, p)]);
    let mut before: Vec<EntriesAcknowledged> = Vec::new();
    for record in facts.log.of_partition(Topic::Acks, p) {
        let cause = position(of, record.offset);
        if let Some(code) = facts.junk.get(&(of, record.offset)) {
            derived.dead("inboxes", cause, record, code);
            continue;
        }
        let Ok(Event::EntriesAcknowledged(ack)) = codec::decode(record.value.as_deref().unwrap_or_default())
        else {
            unreachable!("what is no acknowledgement was junk")
        };
        let kind = match ack.kind {
            AckKind::Start => continue,
            AckKind::Delivered => ReceiptKind::Delivered,
            AckKind::Read => ReceiptKind::Read,
        };
        let mut told: BTreeMap<(UserId, ConversationId), i64> = BTreeMap::new();
        let mine = inboxes.range((ack.user.clone(), 0)..=(ack.user.clone(), ack.upto));
        for ((_, offset), message) in mine.filter(|(_, message)| message.sender != ack.user) {
            let covers = |by: &EntriesAcknowledged| covers(&inboxes, by, *offset, message);
            let again = before.iter().any(|by| by.user == ack.user && by.kind == ack.kind && covers(by));
            if covers(&ack) && !again {
                told.insert((message.sender.clone(), message.conversation.clone()), message.number);
            }
        }
        for (ordinal, ((sender, conversation), upto)) in told.into_iter().enumerate() {
            let receipt = ReceiptArrived { conversation, user: ack.user.clone(), kind, upto };
            derived.entry("inboxes", cause, ordinal, &sender, Entry::ReceiptArrived(receipt));
            facts.met.one(if kind == ReceiptKind::Read { "VV" } else { "V" });
        }
        before.push(ack);
    }
}

/// Whether an acknowledgement says that a message in its user's inbox is delivered, or read.
fn covers(inboxes: &Inboxes, by: &EntriesAcknowledged, offset: i64, message: &MessageArrived) -> bool {
    let of_conversation = || {
        let named = inboxes.get(&(by.user.clone(), by.upto));
        named.is_some_and(|named| named.conversation == message.conversation)
    };
    offset <= by.upto && (by.kind != AckKind::Read || of_conversation())
}
