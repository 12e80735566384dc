use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waypost_schemas::{
    cause::Position,
    client_id::ClientId,
    event::{Entry, EntryAdded, Event, MessageSent, RuleRemoved},
    id::{ConversationId, DeviceName, RuleId, UserId},
    time::Micros,
    topic::Topic,
};

use super::{ConversationsMachine, device::UNSETTLED_MAX};
use crate::machine::{Effects, Input, Machine, Unfit};

const HOUR: i64 = 3_600_000;

/// The id of a millisecond.
fn id(millis: i64) -> String {
    ClientId::new(Micros::from_millis(1_767_225_600_000 + millis), 0).to_string()
}

fn message(millis: i64, settled: Option<i64>, body: &str) -> MessageSent {
    MessageSent {
        conversation: ConversationId::new("alice~bob").unwrap(),
        sender: UserId::new("alice").unwrap(),
        device: DeviceName::new("phone").unwrap(),
        client_id: id(millis),
        settled: settled.map(id),
        content_type: "text/plain".into(),
        body: body.into(),
        reply_to: None,
        registry: -1,
    }
}

fn apply(machine: &mut ConversationsMachine, offset: i64, event: &Event) -> Result<Vec<String>, Unfit> {
    let mut effects = Effects::default();
    let position = Position { topic: Topic::Messages, partition: 0, offset };
    machine.apply(Input { position, append: Micros(0), event, registry: -1 }, &mut effects)?;
    let told = |effect: crate::machine::Effect| {
        let Event::EntryAdded(EntryAdded { user, entry }) = effect.event else { panic!("no entry") };
        assert_eq!((effect.topic, &effect.key[..]), (Topic::Inboxes, user.as_str().as_bytes()));
        match entry {
            Entry::MessageArrived(m) => {
                format!("{user}: {} {} {}", m.number, m.sender, String::from_utf8_lossy(&m.body))
            }
            Entry::SystemNotice(n) => format!("{user}: {} {}", n.code, n.client_id.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    Ok(effects.drain().map(told).collect())
}

/// Applies messages one after the other; their offsets are their places.
fn check(messages: &[(MessageSent, &[&str])]) {
    let mut machine = ConversationsMachine::new();
    for (offset, (message, expected)) in (0..).zip(messages) {
        let told = apply(&mut machine, offset, &message.clone().into()).unwrap();
        assert_eq!(told, *expected, "{offset}: {message:?}");
    }
}

#[test]
fn a_message_goes_to_each_member_once_in_byte_order() {
    let to = |conversation: &str, sender: &str| MessageSent {
        conversation: ConversationId::new(conversation).unwrap(),
        sender: UserId::new(sender).unwrap(),
        ..message(0, None, "hi")
    };
    check(&[
        (to("alice~bob", "alice"), &["alice: 0 alice hi", "bob: 0 alice hi"]),
        (to("alice~bob", "bob"), &["alice: 1 bob hi", "bob: 1 bob hi"]),
        (to("carl~carl", "carl"), &["carl: 2 carl hi"]),
    ]);
}

#[test]
fn what_is_known_is_dropped_and_what_is_not_taken_is_told() {
    let reused = format!("alice: id_reused {}", id(5));
    let not_taken = |millis| format!("alice: not_taken {}", id(millis));
    check(&[
        (message(5, None, "a"), &["alice: 0 alice a", "bob: 0 alice a"]),
        (message(5, None, "a"), &[]),
        (message(5, None, "b"), &[&reused]),
        (MessageSent { reply_to: Some(0), ..message(5, None, "a") }, &[&reused]),
        (MessageSent { content_type: "text/html".into(), ..message(5, None, "a") }, &[&reused]),
        // Lower than one that was taken, but not settled.
        (message(4, None, "c"), &["alice: 5 alice c", "bob: 5 alice c"]),
    ]);
    check(&[
        (message(5, Some(3), "a"), &["alice: 0 alice a", "bob: 0 alice a"]),
        (message(3, None, "b"), &[&not_taken(3)]),
        (message(2, Some(1), "b"), &[&not_taken(2)]),
        (message(4, Some(1), "b"), &["alice: 3 alice b", "bob: 3 alice b"]),
        // Settles what was taken: it is not known any more.
        (message(7, Some(5), "c"), &["alice: 4 alice c", "bob: 4 alice c"]),
        (message(5, Some(3), "a"), &[&not_taken(5)]),
        (message(7, Some(6), "c"), &[]),
    ]);
}

#[test]
fn devices_have_ids_of_their_own() {
    let tablet = MessageSent { device: DeviceName::new("tablet").unwrap(), ..message(5, Some(4), "b") };
    let bob = MessageSent { sender: UserId::new("bob").unwrap(), ..message(5, None, "c") };
    check(&[
        (message(9, Some(8), "a"), &["alice: 0 alice a", "bob: 0 alice a"]),
        (tablet, &["alice: 1 alice b", "bob: 1 alice b"]),
        (bob, &["alice: 2 bob c", "bob: 2 bob c"]),
    ]);
}

#[test]
fn a_client_that_settles_nothing_settles_what_is_an_hour_older() {
    let not_taken = |millis| format!("alice: not_taken {}", id(millis));
    check(&[
        (message(HOUR, None, "a"), &["alice: 0 alice a", "bob: 0 alice a"]),
        (message(0, None, "b"), &[&not_taken(0)]),
        (message(1, None, "c"), &["alice: 2 alice c", "bob: 2 alice c"]),
        (message(2 * HOUR, None, "d"), &["alice: 3 alice d", "bob: 3 alice d"]),
        (message(HOUR, None, "a"), &[&not_taken(HOUR)]),
        (message(HOUR + 1, None, "e"), &["alice: 5 alice e", "bob: 5 alice e"]),
    ]);
    // An id of the first hour of all.
    let client_id = ClientId::new(Micros(0), 0).to_string();
    check(&[(MessageSent { client_id, ..message(0, None, "a") }, &["alice: 0 alice a", "bob: 0 alice a"])]);
}

#[test]
fn who_is_no_member_is_refused_and_the_id_stays_free() {
    let eve = |conversation: &str| MessageSent {
        sender: UserId::new("eve").unwrap(),
        conversation: ConversationId::new(conversation).unwrap(),
        ..message(5, None, "a")
    };
    let refused = format!("eve: not_a_member {}", id(5));
    check(&[
        (eve("alice~bob"), &[&refused]),
        (eve("alice~bob"), &[&refused]),
        (eve("alice~eve"), &["alice: 2 eve a", "eve: 2 eve a"]),
    ]);
}

#[test]
fn a_device_with_more_than_64_ids_has_the_lowest_settled() {
    let mut machine = ConversationsMachine::new();
    let count = UNSETTLED_MAX as i64 + 2;
    for millis in 0..count {
        assert_eq!(apply(&mut machine, millis, &message(millis, None, "a").into()).unwrap().len(), 2);
    }
    let again = |machine: &mut ConversationsMachine, millis| {
        apply(machine, 100, &message(millis, None, "a").into()).unwrap()
    };
    assert_eq!(again(&mut machine, 0), [format!("alice: not_taken {}", id(0))]);
    assert_eq!(again(&mut machine, 1), [format!("alice: not_taken {}", id(1))]);
    for millis in 2..count {
        assert_eq!(again(&mut machine, millis), [] as [&str; 0]);
    }
}

#[test]
fn what_no_ingest_writes_is_unfit_and_changes_nothing() {
    let mut machine = ConversationsMachine::new();
    machine.changed_chunks();
    let unknown = RuleRemoved { rule: RuleId::new("r").unwrap(), by: UserId::new("op").unwrap() };
    let upper = MessageSent { client_id: id(5).to_uppercase(), ..message(5, None, "a") };
    let v4 =
        MessageSent { client_id: "017f22e2-79b0-4cc3-98c4-dc0c0c07398f".into(), ..message(5, None, "a") };
    let settled = |text: &str| MessageSent { settled: Some(text.into()), ..message(5, None, "a") };
    for (event, code) in [
        (unknown.into(), "unexpected_record"),
        (Event::from(upper), "bad_client_id"),
        (v4.into(), "bad_client_id"),
        (MessageSent { client_id: String::new(), ..message(5, None, "a") }.into(), "bad_client_id"),
        (settled("0").into(), "bad_settled"),
        (settled(&id(5)).into(), "bad_settled"),
        (settled(&id(6)).into(), "bad_settled"),
        (MessageSent { reply_to: Some(-1), ..message(5, None, "a") }.into(), "bad_offset"),
    ] {
        assert_eq!(apply(&mut machine, 0, &event).unwrap_err().code, code);
    }
    assert_eq!(machine.changed_chunks(), []);
}

/// What a device says: which id, whether it settles and how far below, which of two bodies.
fn sends() -> impl Strategy<Value = Vec<(u8, i64, Option<i64>, bool)>> {
    prop::collection::vec(
        (0..3_u8, 0..120_i64, prop::option::of(1..90_i64), prop::bool::weighted(0.1)),
        1..400,
    )
}

fn send((device, millis, below, other): (u8, i64, Option<i64>, bool)) -> MessageSent {
    MessageSent {
        device: DeviceName::new(format!("d{device}")).unwrap(),
        ..message(millis, below.map(|below| millis - below), if other { "other" } else { "one" })
    }
}

proptest! {
    #[test]
    fn nothing_is_taken_twice_and_everything_is_answered(sends in sends()) {
        let mut machine = ConversationsMachine::new();
        let mut taken = BTreeMap::new();
        let mut told = BTreeSet::new();
        for (offset, said) in (0..).zip(sends) {
            let message = send(said);
            let key = (message.device.clone(), message.client_id.clone());
            let entries = apply(&mut machine, offset, &message.clone().into()).unwrap();
            match entries.len() {
                2 => prop_assert!(taken.insert(key, message.body).is_none(), "taken twice: {said:?}"),
                1 => { told.insert(key); }
                // Dropped without a word: it was taken, and said the same.
                _ => prop_assert_eq!(taken.get(&key), Some(&message.body)),
            }
        }
    }

    #[test]
    fn a_restored_machine_goes_on_as_if_nothing_had_been(sends in sends(), at in 0..400_usize) {
        let (mut machine, mut chunks) = (ConversationsMachine::new(), BTreeMap::new());
        let mut keep = |machine: &mut ConversationsMachine| {
            chunks.extend(machine.changed_chunks().into_iter().map(|chunk| (chunk.number, chunk)));
            chunks.values().cloned().collect::<Vec<_>>()
        };
        let (before, after) = sends.split_at(at.min(sends.len()));
        let (first, second) = before.split_at(before.len() / 2);
        let fold = |machine: &mut ConversationsMachine, sends: &[_]| -> Vec<Vec<String>> {
            sends.iter().map(|said| apply(machine, 7, &send(*said).into()).unwrap()).collect()
        };
        fold(&mut machine, first);
        keep(&mut machine);
        fold(&mut machine, second);
        let whole = keep(&mut machine);
        let mut restored = ConversationsMachine::restore(whole.clone()).unwrap();
        prop_assert_eq!(restored.changed_chunks(), whole);
        prop_assert_eq!(fold(&mut restored, after), fold(&mut machine, after));
        let whole = keep(&mut machine);
        prop_assert_eq!(ConversationsMachine::restore(whole.clone()).unwrap().changed_chunks(), whole);
    }
}
