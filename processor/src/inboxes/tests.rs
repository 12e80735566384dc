use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use waypost_schemas::{
    cause::Position,
    event::{
        AckKind, EntriesAcknowledged, Entry, EntryAdded, Event, MessageArrived, ReceiptArrived, ReceiptKind,
        RuleRemoved, SystemNotice,
    },
    id::{ConversationId, DeviceName, RuleId, UserId},
    time::Micros,
    topic::Topic,
};

use super::{InboxesMachine, user::UNREAD_MAX};
use crate::{
    machine::{Chunk, Effect, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A message in `of`'s inbox; its number is ten times its offset.
fn message(of: &str, conversation: &str, sender: &str, offset: i64) -> Event {
    let arrived = MessageArrived {
        conversation: ConversationId::new(conversation).unwrap(),
        number: offset * 10,
        sender: user(sender),
        device: DeviceName::new("phone").unwrap(),
        client_id: String::new(),
        content_type: String::new(),
        body: Vec::new(),
        reply_to: None,
    };
    EntryAdded { user: user(of), entry: Entry::MessageArrived(arrived) }.into()
}

fn receipt(of: &str) -> Event {
    let receipt = ReceiptArrived {
        conversation: ConversationId::new("alice~bob").unwrap(),
        user: user("bob"),
        kind: ReceiptKind::Read,
        upto: 1,
    };
    EntryAdded { user: user(of), entry: Entry::ReceiptArrived(receipt) }.into()
}

fn notice(of: &str) -> Event {
    let notice = SystemNotice { code: "not_taken".into(), client_id: None, detail: String::new() };
    EntryAdded { user: user(of), entry: Entry::SystemNotice(notice) }.into()
}

fn ack(of: &str, kind: AckKind, upto: i64) -> Event {
    let device = DeviceName::new("phone").unwrap();
    EntriesAcknowledged { user: user(of), device, session: "s".into(), kind, upto, registry: -1 }.into()
}

fn apply<M: Machine>(machine: &mut M, event: &Event) -> Result<Vec<Effect>, Unfit> {
    let mut effects = Effects::default();
    let position = Position { topic: Topic::Acks, partition: 0, offset: 0 };
    machine.apply(Input { position, append: Micros(0), event, registry: -1 }, &mut effects)?;
    Ok(effects.drain().collect())
}

fn told(effect: &Effect) -> String {
    let Event::EntryAdded(EntryAdded { user: to, entry: Entry::ReceiptArrived(receipt) }) = &effect.event
    else {
        panic!("no receipt: {effect:?}")
    };
    assert_eq!((effect.topic, &effect.key[..]), (Topic::Inboxes, to.as_str().as_bytes()));
    let kind = if receipt.kind == ReceiptKind::Delivered { "V" } else { "VV" };
    format!("{to}: {} {kind} {} {}", receipt.user, receipt.conversation, receipt.upto)
}

/// What happens to a machine: an entry at the next offset, or an acknowledgement and its receipts.
enum Step {
    Entry(Event),
    Ack(Event, Vec<&'static str>),
}
use AckKind::{Delivered, Read, Start};
use Step::{Ack, Entry as At};

fn check(steps: Vec<Step>) {
    let (mut machine, mut offset) = (InboxesMachine::new(), 0);
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Entry(event) => {
                machine.look_at(offset, &event);
                offset += 1;
            }
            Step::Ack(event, expected) => {
                assert!(InboxesMachine::asks(&event).unwrap() < offset, "{number}");
                let receipts: Vec<String> = apply(&mut machine, &event).unwrap().iter().map(told).collect();
                assert_eq!(receipts, expected, "{number}: {event:?}");
            }
        }
    }
}

#[test]
fn delivered_makes_one_v_per_sender_and_conversation_above_the_mark() {
    check(vec![
        At(message("carl", "bob~carl", "bob", 0)),
        At(message("carl", "alice~carl", "alice", 1)),
        At(message("dora", "bob~dora", "bob", 2)),
        At(message("carl", "bob~carl", "bob", 3)),
        At(message("carl", "bob~carl", "bob", 4)),
        Ack(ack("carl", Delivered, 3), vec!["alice: carl V alice~carl 10", "bob: carl V bob~carl 30"]),
        // Another device is behind; the mark is the user's.
        Ack(ack("carl", Delivered, 1), vec![]),
        Ack(ack("carl", Delivered, 3), vec![]),
        Ack(ack("carl", Delivered, 4), vec!["bob: carl V bob~carl 40"]),
        Ack(ack("dora", Delivered, 4), vec!["bob: dora V bob~dora 20"]),
        // A user without an inbox.
        Ack(ack("eve", Delivered, 4), vec![]),
    ]);
}

#[test]
fn start_makes_no_receipt_and_moves_no_mark() {
    check(vec![
        Ack(ack("bob", Start, -1), vec![]),
        At(message("bob", "alice~bob", "alice", 0)),
        Ack(ack("bob", Start, 0), vec![]),
        At(message("bob", "alice~bob", "alice", 1)),
        Ack(ack("bob", Delivered, 1), vec!["alice: bob V alice~bob 10"]),
    ]);
}

#[test]
fn only_messages_of_others_make_receipts() {
    check(vec![
        At(receipt("bob")),
        At(notice("bob")),
        At(message("bob", "alice~bob", "bob", 2)),
        At(message("bob", "bob~bob", "bob", 3)),
        Ack(ack("bob", Delivered, 3), vec![]),
        Ack(ack("bob", Read, 0), vec![]),
        Ack(ack("bob", Read, 1), vec![]),
        Ack(ack("bob", Read, 2), vec![]),
        Ack(ack("bob", Read, 3), vec![]),
    ]);
}

#[test]
fn read_marks_the_conversation_of_its_entry_up_to_it_once() {
    check(vec![
        At(message("carl", "bob~carl", "bob", 0)),
        At(message("carl", "alice~carl", "alice", 1)),
        At(message("carl", "bob~carl", "bob", 2)),
        At(message("carl", "bob~carl", "bob", 3)),
        Ack(ack("carl", Delivered, 3), vec!["alice: carl V alice~carl 10", "bob: carl V bob~carl 30"]),
        Ack(ack("carl", Read, 2), vec!["bob: carl VV bob~carl 20"]),
        Ack(ack("carl", Read, 2), vec![]),
        Ack(ack("carl", Read, 0), vec![]),
        Ack(ack("carl", Read, 3), vec!["bob: carl VV bob~carl 30"]),
        Ack(ack("carl", Read, 1), vec!["alice: carl VV alice~carl 10"]),
    ]);
}

#[test]
fn read_before_delivered_makes_vv_and_v_comes_all_the_same() {
    check(vec![
        At(message("carl", "bob~carl", "bob", 0)),
        At(message("carl", "alice~carl", "alice", 1)),
        At(message("carl", "bob~carl", "bob", 2)),
        Ack(ack("carl", Read, 2), vec!["bob: carl VV bob~carl 20"]),
        Ack(ack("carl", Read, 0), vec![]),
        Ack(ack("carl", Delivered, 2), vec!["alice: carl V alice~carl 10", "bob: carl V bob~carl 20"]),
        Ack(ack("carl", Read, 2), vec![]),
        Ack(ack("carl", Read, 1), vec!["alice: carl VV alice~carl 10"]),
    ]);
}

#[test]
fn who_reads_an_own_message_has_read_what_is_before_it() {
    check(vec![
        At(message("carl", "bob~carl", "bob", 0)),
        At(message("carl", "bob~carl", "carl", 1)),
        Ack(ack("carl", Delivered, 1), vec!["bob: carl V bob~carl 0"]),
        Ack(ack("carl", Read, 1), vec!["bob: carl VV bob~carl 0"]),
    ]);
}

#[test]
fn foreign_entries_are_not_read() {
    check(vec![
        At(message("carl", "bob~carl", "bob", 0)),
        At(message("bob", "bob~carl", "carl", 1)),
        Ack(ack("carl", Delivered, 1), vec!["bob: carl V bob~carl 0"]),
        Ack(ack("carl", Read, 1), vec![]),
        Ack(ack("eve", Read, 1), vec![]),
        Ack(ack("carl", Read, 0), vec!["bob: carl VV bob~carl 0"]),
    ]);
}

#[test]
fn of_a_conversation_the_newest_thousand_are_kept_as_unread() {
    let mut machine = InboxesMachine::new();
    let count = UNREAD_MAX as i64 + 5;
    for offset in 0..count {
        machine.look_at(offset, &message("carl", "bob~carl", "bob", offset));
    }
    apply(&mut machine, &ack("carl", Delivered, count - 1)).unwrap();
    assert_eq!(apply(&mut machine, &ack("carl", Read, 4)).unwrap(), []);
    let read = apply(&mut machine, &ack("carl", Read, 5)).unwrap();
    assert_eq!(read.iter().map(told).collect::<Vec<_>>(), ["bob: carl VV bob~carl 50"]);
}

#[test]
fn what_waits_costs_sixteen_bytes_a_message_and_who_only_sends_costs_nothing() {
    let bytes = |machine: &mut InboxesMachine| -> usize {
        machine.changed_chunks().iter().map(|chunk| chunk.bytes.len()).sum()
    };
    let mut machine = InboxesMachine::new();
    let empty = bytes(&mut machine);
    for offset in 0..1_000 {
        machine.look_at(offset, &message("bob", "bob~carl", "bob", offset));
    }
    assert_eq!(bytes(&mut machine), 0, "nothing changed");
    machine.look_at(1_000, &message("carl", "bob~carl", "bob", 1_000));
    let one = bytes(&mut machine);
    assert!(one < empty, "{one}: of one chunk");
    for offset in 1_001..2_000 {
        machine.look_at(
            offset,
            &message("carl", "bob~carl", if offset % 2 == 0 { "bob" } else { "carl" }, offset),
        );
    }
    assert_eq!(bytes(&mut machine), one + 999 * 16);
}

#[test]
fn what_no_ingest_writes_is_unfit_and_changes_nothing() {
    let mut machine = InboxesMachine::new();
    machine.changed_chunks();
    let unknown = RuleRemoved { rule: RuleId::new("r").unwrap(), by: user("op") };
    for (event, code) in [
        (unknown.into(), "unexpected_record"),
        (ack("bob", Delivered, -1), "bad_offset"),
        (ack("bob", Read, -1), "bad_offset"),
        (ack("bob", Start, -2), "bad_offset"),
        (ack("bob", Delivered, i64::MIN), "bad_offset"),
    ] {
        assert_eq!(apply(&mut machine, &event).unwrap_err().code, code);
    }
    assert_eq!(machine.changed_chunks(), []);
}

/// The log of an inbox partition and of its acknowledgements, and how far the inbox is folded beyond what is asked
/// for before each of them.
#[derive(Debug, Clone)]
struct Log {
    inbox: Vec<Event>,
    acks: Vec<(Event, usize)>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn logs() -> impl Strategy<Value = Log> {
    let inbox = prop::collection::vec((0..4_usize, 0..4_usize, 0..8_u8), 1..80);
    let acks = prop::collection::vec((0..4_usize, 0..5_u8, any::<prop::sample::Index>(), 0..20_usize), 1..60);
    (inbox, acks).prop_map(|(inbox, acks)| {
        let ends = inbox.len();
        let entry = |(offset, (of, other, kind)): (i64, (usize, usize, u8))| {
            let (of, other) = (NAMES[of], NAMES[other]);
            let conversation = ConversationId::direct(&user(of), &user(other));
            match kind {
                0 => receipt(of),
                1 => message(of, conversation.as_str(), of, offset),
                _ => message(of, conversation.as_str(), other, offset),
            }
        };
        let acked = |(of, kind, upto, ahead): (usize, u8, prop::sample::Index, usize)| {
            let kind = match kind {
                0 => Start,
                1 | 2 => Delivered,
                _ => Read,
            };
            (ack(NAMES[of], kind, upto.index(ends) as i64), ahead)
        };
        Log { inbox: (0..).zip(inbox).map(entry).collect(), acks: acks.into_iter().map(acked).collect() }
    })
}

/// What each acknowledgement makes, where the inbox is folded `ahead` of it or exactly as far as it asks; then the
/// state when all is folded.
fn fold<M: Machine>(log: &Log, ahead: bool) -> (Vec<Vec<Effect>>, Vec<Chunk>) {
    let (mut machine, mut next, mut made) = (M::new(), 0, Vec::new());
    let mut look = |machine: &mut M, upto: usize| {
        for offset in next..upto.min(log.inbox.len()) {
            machine.look_at(offset as i64, &log.inbox[offset]);
        }
        next = next.max(upto);
    };
    for (event, more) in &log.acks {
        let asked = M::asks(event).map_or(0, |asked| asked as usize + 1);
        look(&mut machine, if ahead { asked + more } else { asked });
        made.push(apply(&mut machine, event).unwrap());
    }
    look(&mut machine, log.inbox.len());
    (made, machine.changed_chunks())
}

/// A bug: an acknowledgement sees whatever of the inbox is folded.
struct Hasty {
    machine: InboxesMachine,
    last: i64,
}

impl Machine for Hasty {
    const NAME: &'static str = "hasty";
    const DRIVES: Topic = Topic::Acks;
    const LOOKS_AT_REGISTRY: bool = false;
    const LOOKS_AT: Option<Topic> = Some(Topic::Inboxes);
    const FORMAT: u16 = 1;
    fn new() -> Self {
        Self { machine: InboxesMachine::new(), last: -1 }
    }
    fn look(&mut self, _change: &Arc<Change>) {}
    fn asks(event: &Event) -> Option<i64> {
        InboxesMachine::asks(event)
    }
    fn look_at(&mut self, offset: i64, event: &Event) {
        self.last = offset;
        self.machine.look_at(offset, event);
    }
    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let Event::EntriesAcknowledged(acknowledged) = input.event else { unreachable!() };
        let event = EntriesAcknowledged { upto: self.last, ..acknowledged.clone() }.into();
        self.machine.apply(Input { event: &event, ..input }, effects)
    }
    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.machine.changed_chunks()
    }
    fn restore(_: Vec<Chunk>) -> Result<Self, Unreadable> {
        unreachable!()
    }
}

proptest! {
    #[test]
    fn effects_and_state_do_not_depend_on_how_far_the_inbox_is_folded(log in logs()) {
        prop_assert_eq!(fold::<InboxesMachine>(&log, true), fold::<InboxesMachine>(&log, false));
    }

    #[test]
    fn everyone_is_told_of_everything_that_is_acknowledged(log in logs()) {
        // The plain words: V of a message by the first delivered one at or above it, VV by the first read one of its
        // conversation at or above it.
        let (made, _) = fold::<InboxesMachine>(&log, true);
        for (at, (event, _)) in log.acks.iter().enumerate() {
            let Event::EntriesAcknowledged(now) = event else { unreachable!() };
            let mine = |offset: i64| match &log.inbox[offset as usize] {
                Event::EntryAdded(EntryAdded { user, entry: Entry::MessageArrived(m) }) if *user == now.user => Some(m),
                _ => None,
            };
            let kind = match now.kind {
                Start => None,
                Delivered => Some(ReceiptKind::Delivered),
                Read => Some(ReceiptKind::Read),
            };
            let conversation = mine(now.upto).map(|m| &m.conversation);
            let covers = |acked: &EntriesAcknowledged, offset: i64, m: &MessageArrived| {
                let of = if acked.upto < log.inbox.len() as i64 { mine(acked.upto) } else { None };
                acked.user == now.user
                    && acked.kind == now.kind
                    && offset <= acked.upto
                    && (acked.kind == Delivered || of.is_some_and(|of| of.conversation == m.conversation))
            };
            let mut expected = BTreeMap::new();
            for offset in 0..=now.upto {
                let Some(m) = mine(offset).filter(|m| m.sender != now.user) else { continue };
                let in_it = now.kind == Delivered || conversation == Some(&m.conversation);
                let before = log.acks[..at].iter().any(|(event, _)| {
                    matches!(event, Event::EntriesAcknowledged(acked) if covers(acked, offset, m))
                });
                if in_it && !before {
                    expected.insert((m.sender.clone(), m.conversation.clone()), m.number);
                }
            }
            let expected: Vec<Event> = kind.into_iter().flat_map(|kind| expected.iter().map(move |((to, conversation), upto)| {
                let receipt = ReceiptArrived { conversation: conversation.clone(), user: now.user.clone(), kind, upto: *upto };
                EntryAdded { user: to.clone(), entry: Entry::ReceiptArrived(receipt) }.into()
            })).collect();
            let made: Vec<Event> = made[at].iter().map(|effect| effect.event.clone()).collect();
            prop_assert_eq!(made, expected, "acknowledgement {}", at);
        }
    }

    #[test]
    fn a_restored_machine_goes_on_as_if_nothing_had_been(log in logs(), at in 0..60_usize) {
        let (mut machine, mut chunks) = (InboxesMachine::new(), BTreeMap::new());
        let mut keep = |machine: &mut InboxesMachine| -> Vec<Chunk> {
            chunks.extend(machine.changed_chunks().into_iter().map(|chunk| (chunk.number, chunk)));
            chunks.values().cloned().collect()
        };
        keep(&mut machine);
        for (offset, event) in (0..).zip(&log.inbox) {
            machine.look_at(offset, event);
        }
        let (before, after) = log.acks.split_at(at.min(log.acks.len()));
        let fold = |machine: &mut InboxesMachine, acks: &[(Event, usize)]| -> Vec<Vec<Effect>> {
            acks.iter().map(|(event, _)| apply(machine, event).unwrap()).collect()
        };
        fold(&mut machine, before);
        let whole = keep(&mut machine);
        let mut restored = InboxesMachine::restore(whole.clone()).unwrap();
        prop_assert_eq!(restored.changed_chunks(), whole);
        prop_assert_eq!(fold(&mut restored, after), fold(&mut machine, after));
        let whole = keep(&mut machine);
        prop_assert_eq!(InboxesMachine::restore(whole.clone()).unwrap().changed_chunks(), whole);
    }
}

#[test]
fn the_property_catches_an_acknowledgement_that_sees_whatever_is_folded() {
    let caught = |log: &Log| fold::<Hasty>(log, true) != fold::<Hasty>(log, false);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let found = runner.run(&logs(), |log| {
        prop_assert!(!caught(&log));
        Ok(())
    });
    assert!(matches!(found, Err(proptest::test_runner::TestError::Fail(..))), "{found:?}");
}
