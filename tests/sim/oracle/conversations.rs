//! Which entries the messages should have made.

use std::collections::BTreeMap;

use waypost_schemas::{
    codec,
    event::{Entry, Event, MessageArrived, MessageSent, SystemNotice},
    id::DeviceId,
    topic::{Topic, TopicPartition},
};

use super::{Derived, Facts, position};

/// What a device has sent.
#[derive(Default)]
struct Sent {
    /// It and all lower ones are settled.
    settled: Option<String>,
    /// What was taken, by client id, of all time.
    taken: BTreeMap<String, MessageSent>,
}

pub(super) fn fold(facts: &Facts<'_>, p: i32, derived: &mut Derived) {
    let of = TopicPartition::new(Topic::Messages, p);
    let mut devices: BTreeMap<DeviceId, Sent> = BTreeMap::new();
    for record in facts.log.of_partition(Topic::Messages, p) {
        let cause = position(of, record.offset);
        if let Some(code) = facts.junk.get(&(of, record.offset)) {
            derived.dead("conversations", cause, record, code);
            continue;
        }
        let Ok(Event::MessageSent(m)) = codec::decode(record.value.as_deref().unwrap_or_default()) else {
            unreachable!("what is no message was junk")
        };
        let sent = devices.entry(DeviceId::of(&m.sender, &m.device)).or_default();
        // Texts of ids are in the ids' order. The world's ids are younger than an hour, so that what names nothing
        // settles nothing.
        sent.settled = sent.settled.clone().max(m.settled.clone());
        let settled = sent.settled.as_ref() >= Some(&m.client_id);
        let mut notice = |code: &str, detail: &str| {
            let (code, detail) = (code.to_owned(), detail.to_owned());
            let notice = SystemNotice { code, client_id: Some(m.client_id.clone()), detail };
            derived.entry("conversations", cause, 0, &m.sender, Entry::SystemNotice(notice));
        };
        match sent.taken.get(&m.client_id).filter(|_| !settled) {
            Some(first) if says_the_same(first, &m) => {}
            Some(_) => notice("id_reused", "this id was used for another message before"),
            None if settled => notice(
                "not_taken",
                "this id is not above what the device has settled: the send was not taken",
            ),
            None => {
                let (a, b) = m.conversation.members();
                for (ordinal, user) in std::iter::once(&a).chain((a != b).then_some(&b)).enumerate() {
                    let arrived = MessageArrived {
                        conversation: m.conversation.clone(),
                        number: record.offset,
                        sender: m.sender.clone(),
                        device: m.device.clone(),
                        client_id: m.client_id.clone(),
                        content_type: m.content_type.clone(),
                        body: m.body.clone(),
                        reply_to: m.reply_to,
                    };
                    derived.entry("conversations", cause, ordinal, user, Entry::MessageArrived(arrived));
                }
                sent.taken.insert(m.client_id.clone(), m);
            }
        }
    }
}

fn says_the_same(a: &MessageSent, b: &MessageSent) -> bool {
    (&a.conversation, &a.content_type, &a.body, a.reply_to)
        == (&b.conversation, &b.content_type, &b.body, b.reply_to)
}
