//! A machine with two inputs: what its driving record asks for is folded first, whatever stands in the slice already.

use bytes::Bytes;
use waypost_runtime::broker::Headers;
use waypost_schemas::{
    codec,
    event::{AckKind, EntriesAcknowledged, Entry, EntryAdded, Event, MessageArrived},
    id::{ConversationId, DeviceName, UserId},
    partition,
    topic::{Topic, TopicPartition},
};

use super::world::{KEYED, World};
use crate::inboxes::InboxesMachine;

fn of(topic: Topic, user: &UserId) -> TopicPartition {
    TopicPartition::new(topic, partition::of(user.as_str().as_bytes(), KEYED))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A message of alice in bob's inbox.
fn arrives(world: &World, number: i64) {
    let message = MessageArrived {
        conversation: ConversationId::direct(&user("alice"), &user("bob")),
        number,
        sender: user("alice"),
        device: DeviceName::new("phone").unwrap(),
        client_id: format!("id-{number}"),
        content_type: "text/plain".into(),
        body: Vec::new(),
        reply_to: None,
    };
    let added: Event = EntryAdded { user: user("bob"), entry: Entry::MessageArrived(message) }.into();
    let header = |name: &str, value: String| (name.into(), Bytes::from(value));
    let headers: Headers = vec![
        header("ce_id", format!("messages/0/{number}/0")),
        header("seq", format!("conversations/0/{}", number + 1)),
    ];
    world.append(of(Topic::Inboxes, &user("bob")), "bob", codec::encode(&added), headers);
}

fn acknowledged(world: &World, upto: i64) {
    let ack: Event = EntriesAcknowledged {
        user: user("bob"),
        device: DeviceName::new("phone").unwrap(),
        session: "one".into(),
        kind: AckKind::Delivered,
        upto,
        registry: -1,
    }
    .into();
    world.append(of(Topic::Acks, &user("bob")), "bob", codec::encode(&ack), Vec::new());
}

/// Up to where each receipt in alice's inbox says that bob has her messages.
fn receipts(world: &World) -> Vec<i64> {
    let entries = world.read(of(Topic::Inboxes, &user("alice")));
    let upto = |value: Option<Bytes>| match codec::decode(value.as_deref().unwrap_or_default()).unwrap() {
        Event::EntryAdded(EntryAdded { entry: Entry::ReceiptArrived(receipt), .. }) => Some(receipt.upto),
        _ => None,
    };
    entries.into_iter().filter_map(|(_, record)| upto(record.value)).collect()
}

#[tokio::test]
async fn what_a_record_makes_is_sent_also_where_it_had_to_wait_in_the_middle_of_a_slice() {
    let world = World::new(1);
    // More than the twin gives at once, so that the second acknowledgement waits after the first has made a receipt.
    (0..70).for_each(|number| arrives(&world, number));
    acknowledged(&world, 0);
    acknowledged(&world, 69);
    let mut process = world.start::<InboxesMachine>("a", None);
    world.idle::<InboxesMachine>(&mut process).await.unwrap();
    process.stop().await.unwrap();
    assert_eq!(receipts(&world), [0, 69]);
}
