use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use waypost_runtime::clock::{Clock, Monotonic};
use waypost_schemas::{
    event::AckKind,
    frame::{Begin, Down},
    id::ConversationId,
    time::Micros,
};

use super::*;

const LIMITS: Limits = Limits {
    window_entries_max: 4,
    window_bytes_max: 100,
    ack_interval: Duration::from_millis(100),
    ack_timeout: Duration::from_secs(30),
    silence: Duration::from_mins(2),
};

/// A session, its time, and what it says.
struct Table {
    clock: Clock,
    session: Session,
}

impl Table {
    fn new(cursor: i64, target: i64) -> Self {
        let clock = Clock::manual(Micros(0));
        let session = Session::new(Arc::new(LIMITS), cursor, target, clock.monotonic());
        Self { clock, session }
    }

    fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// What a call makes the session say, a word each.
    fn said(&mut self, call: impl FnOnce(&mut Session, Monotonic, &mut Vec<Out>)) -> Vec<String> {
        let (now, mut out) = (self.now(), Vec::new());
        call(&mut self.session, now, &mut out);
        out.iter().map(word).collect()
    }

    fn offer(&mut self, offsets: &[i64], bytes: usize, through: i64) -> Vec<String> {
        let offers =
            offsets.iter().map(|offset| Offer { offset: *offset, text: "x".repeat(bytes) }).collect();
        self.said(|session, now, out| session.offer(offers, through, now, out))
    }

    fn ack(&mut self, upto: i64) -> Vec<String> {
        self.said(|session, now, out| session.ack(upto, now, out))
    }

    fn read(&mut self, upto: i64, what: Looked) -> Vec<String> {
        let mut said = self.said(|session, _, out| session.read(upto, out));
        said.extend(self.said(|session, now, out| session.looked(upto, what, now, out)));
        said
    }

    fn appended(&mut self, upto: i64, claim: Claim, ended: Result<(), Failure>) -> Vec<String> {
        self.said(|session, now, out| session.appended(vec![(Ack { upto, claim }, ended)], now, out))
    }

    fn after(&mut self, pause: Duration) -> Vec<String> {
        self.clock.advance(pause);
        self.said(Session::tick)
    }

    fn due(&self) -> Duration {
        self.session.due(self.now())
    }
}

fn word(out: &Out) -> String {
    match out {
        Out::Entry(entry) => format!("entry {}", entry.offset),
        Out::Say(Down::CaughtUp { offset }) => format!("caught_up {offset}"),
        Out::Say(Down::Refused { code, .. }) => format!("refused {code}"),
        Out::Say(other) => format!("{other:?}"),
        Out::Ping => "ping".to_owned(),
        Out::Append(acks) => {
            let name = |ack: &Ack| match ack.kind() {
                AckKind::Read => format!(" read {}", ack.upto),
                _ => format!(" delivered {}", ack.upto),
            };
            format!("append{}", acks.iter().map(name).collect::<String>())
        }
        Out::Look(upto) => format!("look {upto}"),
        Out::End(goodbye) => format!("goodbye {}", goodbye.as_str()),
        Out::Drop => "drop".to_owned(),
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_device_begins_at_the_highest_of_what_it_acknowledged_and_what_it_names() {
    let check = |cursor, from, offset, log: Option<&str>, expected| {
        let hello = Hello { from, offset, log: log.map(str::to_owned) };
        let known = Known { log: "l", cursor, end: 90 };
        assert_eq!(begin(&hello, &known), expected, "{hello:?} {cursor:?}");
    };
    let at = |cursor| Beginning::After { cursor, append: None };
    let acks = |cursor| Beginning::After { cursor, append: Some(AckKind::Delivered) };
    let starts = |cursor| Beginning::After { cursor, append: Some(AckKind::Start) };
    let (start, new, resume) = (Some(Begin::Start), Some(Begin::New), Some(Begin::Resume));
    // What a device has acknowledged is not offered again, wherever it wants to begin.
    for from in [None, start, resume] {
        check(Cursor::At(40), from, None, None, at(40));
        check(Cursor::At(40), from, Some(7), Some("l"), at(40));
        check(Cursor::At(40), from, Some(40), None, at(40));
        check(Cursor::At(40), from, Some(50), Some("l"), acks(50));
        check(Cursor::At(40), from, Some(50), Some("another"), at(40));
        check(Cursor::At(-1), from, None, None, at(-1));
    }
    // An offset without a log is of this one.
    check(Cursor::Never, None, Some(7), None, acks(7));
    check(Cursor::Never, resume, Some(7), Some("another"), Beginning::Newest);
    check(Cursor::Never, None, None, None, Beginning::Newest);
    check(Cursor::Never, resume, None, None, Beginning::Newest);
    check(Cursor::Never, start, None, None, starts(-1));
    check(Cursor::Never, new, None, None, starts(89));
    // New leaves out what waits, without acknowledging it.
    check(Cursor::At(40), new, None, None, starts(89));
    check(Cursor::At(89), new, None, None, at(89));
    // While the store is away, a device's own word is taken.
    check(Cursor::Unknown(None), None, None, None, Beginning::Later);
    check(Cursor::Unknown(None), start, None, None, Beginning::Later);
    check(Cursor::Unknown(None), resume, Some(7), Some("l"), acks(7));
    check(Cursor::Unknown(Some(40)), resume, Some(7), Some("l"), at(40));
    check(Cursor::Unknown(Some(40)), resume, Some(50), Some("l"), acks(50));
    check(Cursor::Unknown(Some(40)), resume, None, None, Beginning::Later);
}

#[test]
fn entries_are_offered_in_order_and_once_as_far_as_the_window_has_room() {
    let mut table = Table::new(9, 31);
    assert_eq!(table.session.position(), 9);
    assert_eq!(table.offer(&[10, 12, 15], 20, 15), ["entry 10", "entry 12", "entry 15"]);
    assert_eq!(table.session.room(), Some(Room { entries: 1, bytes: 40 }));
    assert_eq!(table.offer(&[15, 20, 25], 20, 30), ["entry 20"], "25 has no room, and 15 was offered");
    assert_eq!((table.session.position(), table.session.room()), (20, None));
    assert_eq!(table.ack(12), ["append delivered 12"]);
    assert_eq!(table.offer(&[25, 30], 20, 30), ["entry 25", "entry 30", "caught_up 30"]);
}

#[test]
fn one_entry_larger_than_the_window_passes_alone() {
    let mut table = Table::new(-1, 1_000);
    assert_eq!(table.offer(&[1, 2], 101, 2), ["entry 1"]);
    assert_eq!(table.session.room(), None);
    table.ack(1);
    assert_eq!(table.offer(&[2], 99, 2), ["entry 2"]);
    assert_eq!(table.offer(&[3], 2, 3), [""; 0]);
    assert_eq!(table.offer(&[3], 1, 3), ["entry 3"]);
}

#[test]
fn a_device_is_told_once_that_it_has_what_was_there_when_it_came() {
    let mut table = Table::new(9, 31);
    assert_eq!(table.offer(&[], 0, 29), [""; 0]);
    assert_eq!(table.offer(&[], 0, 30), ["caught_up 9"], "none of them was this user's");
    assert_eq!(table.offer(&[31], 1, 40), ["entry 31"]);
    assert_eq!(Table::new(-1, 0).offer(&[], 0, -1), ["caught_up -1"]);
}

#[test]
fn acknowledgements_are_appended_at_once_and_then_once_an_interval() {
    let mut table = Table::new(-1, 0);
    table.offer(&[1, 2, 3, 4], 1, 4);
    assert_eq!(table.ack(1), ["append delivered 1"]);
    assert_eq!(table.ack(2), [""; 0], "one is on its way");
    assert_eq!(table.appended(1, Claim::Offered, Ok(())), [""; 0], "the interval is not over");
    assert_eq!(table.ack(3), [""; 0]);
    assert_eq!(table.due(), MS(100));
    assert_eq!(table.after(MS(99)), [""; 0]);
    assert_eq!(table.after(MS(1)), ["append delivered 3"]);
    assert_eq!(table.appended(3, Claim::Offered, Ok(())), [""; 0]);
    table.clock.advance(MS(100));
    assert_eq!(table.ack(4), ["append delivered 4"]);
}

#[test]
fn reads_coalesce_by_conversation_behind_what_was_delivered() {
    let mut table = Table::new(-1, 0);
    let of = |text: &str| Looked::Message(ConversationId::new(text).unwrap());
    table.offer(&[1, 2, 3, 4], 1, 4);
    assert_eq!(table.ack(1), ["append delivered 1"]);
    assert_eq!(table.read(2, of("a~b")), ["look 2"]);
    assert_eq!(table.read(4, of("a~b")), ["look 4"]);
    assert_eq!(table.read(3, of("a~c")), ["look 3"]);
    assert_eq!(table.read(1, Looked::Unknown), ["look 1"]);
    assert_eq!(table.read(3, Looked::Foreign), ["look 3", "refused foreign_entry"]);
    table.ack(4);
    table.appended(1, Claim::Offered, Ok(()));
    assert_eq!(table.after(MS(100)), ["append delivered 4 read 1 read 4 read 3"]);
}

#[test]
fn acknowledgements_only_go_on() {
    let mut table = Table::new(5, 0);
    table.offer(&[6, 7], 1, 7);
    assert_eq!(table.ack(4), ["refused ack_backwards"]);
    assert_eq!(table.ack(5), [""; 0], "what it begins with, again");
    assert_eq!(table.ack(7), ["append delivered 7"]);
    assert_eq!(table.ack(7), [""; 0]);
    assert_eq!(table.ack(6), ["refused ack_backwards"]);
}

#[test]
fn an_acknowledgement_of_what_was_not_offered_counts_once_it_is_in_the_log() {
    let mut table = Table::new(-1, 0);
    table.offer(&[1], 1, 1);
    assert_eq!(table.ack(9), ["append delivered 9"]);
    assert_eq!((table.session.position(), table.ack(1)), (1, vec![]));
    assert_eq!(table.appended(9, Claim::Beyond, Ok(())), [""; 0]);
    assert_eq!((table.session.position(), table.ack(1)), (9, vec!["refused ack_backwards".to_owned()]));
    assert_eq!(table.offer(&[5, 10], 1, 10), ["entry 10"]);

    let mut table = Table::new(-1, 0);
    table.offer(&[1], 1, 1);
    table.ack(9);
    let refused = Failure::Refused(crate::code::Code::ForeignEntry.frame("d"));
    assert_eq!(table.appended(9, Claim::Beyond, Err(refused)), ["refused foreign_entry"]);
    assert_eq!((table.session.position(), table.after(MS(100))), (1, vec![]));
    assert_eq!(table.ack(1), ["append delivered 1"]);
}

#[test]
fn what_the_log_did_not_take_is_appended_later_with_what_came_since() {
    let mut table = Table::new(-1, 0);
    table.offer(&[1, 2], 1, 2);
    table.ack(1);
    table.ack(2);
    assert_eq!(table.appended(1, Claim::Offered, Err(Failure::Later)), [""; 0]);
    assert_eq!(table.after(MS(100)), ["append delivered 2"]);
    table.appended(2, Claim::Offered, Err(Failure::Later));
    let rest: Vec<i64> = table.session.rest().iter().map(|ack| ack.upto).collect();
    assert_eq!(rest, [2], "the connection's end forgets nothing");
}

#[test]
fn a_device_that_makes_no_progress_with_what_it_was_offered_is_let_go() {
    let mut table = Table::new(-1, 0);
    assert_eq!(table.after(Duration::from_secs(100)), [""; 0], "nothing waits for it");
    table.offer(&[1, 2], 1, 2);
    assert_eq!(table.after(Duration::from_secs(20)), ["ping"]);
    table.said(|session, now, _| session.heard(now));
    table.ack(1);
    table.appended(1, Claim::Offered, Ok(()));
    assert_eq!(table.due(), Duration::from_secs(30), "progress was made");
    assert_eq!(table.after(Duration::from_millis(29_999)), [""; 0]);
    table.offer(&[3], 1, 3);
    assert_eq!(table.after(MS(1)), ["goodbye ack_timeout"], "a further offer is no progress");
    assert!(table.session.has_ended() && table.session.room().is_none() && !table.session.listens());
    assert_eq!(table.offer(&[4], 1, 4), [""; 0]);
    assert_eq!(table.after(Duration::from_hours(1)), [""; 0]);
}

#[test]
fn a_silent_device_is_asked_and_then_gone() {
    let mut table = Table::new(-1, 0);
    assert_eq!(table.due(), Duration::from_mins(2));
    assert_eq!(table.after(Duration::from_mins(2)), ["ping"]);
    assert_eq!(table.due(), Duration::from_mins(2));
    table.said(|session, now, _| session.heard(now));
    assert_eq!(table.after(Duration::from_mins(2)), ["ping"]);
    assert_eq!(table.after(Duration::from_mins(1)), [""; 0]);
    assert_eq!(table.after(Duration::from_mins(1)), ["drop"]);
}

#[test]
fn a_device_that_reads_too_much_at_once_is_not_listened_to() {
    let mut table = Table::new(-1, 0);
    table.offer(&[1], 1, 1);
    table.ack(1);
    for n in 0..64 {
        assert!(table.session.listens(), "{n}");
        let conversation = ConversationId::new(format!("a~b{n}")).unwrap();
        table.read(1, Looked::Message(conversation));
    }
    assert!(!table.session.listens());
    table.appended(1, Claim::Offered, Ok(()));
    table.after(MS(100));
    assert!(table.session.listens());
}

#[derive(Clone, Debug)]
enum Step {
    Offer { entries: usize, bytes: usize, gap: i64 },
    Ack(f64),
    Appended(bool),
    Pause(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..6_usize, 1..60_usize, 1..4_i64).prop_map(|(entries, bytes, gap)| Step::Offer {
            entries,
            bytes,
            gap
        }),
        (0.0..1.2).prop_map(Step::Ack),
        any::<bool>().prop_map(Step::Appended),
        (0..200_u64).prop_map(Step::Pause),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn whatever_happens_entries_go_up_the_window_holds_and_no_acknowledgement_is_forgotten(steps in steps()) {
        let mut table = Table::new(-1, 1_000);
        let (mut last, mut unacked, mut asked) = (-1, Vec::<(i64, usize)>::new(), -1);
        let (mut durable, mut way) = (-1, None::<Vec<Ack>>);
        for step in steps {
            let now = table.now();
            let mut out = Vec::new();
            match step {
                Step::Offer { entries, bytes, gap } => {
                    let first = table.session.position() + gap;
                    let offer = |n| Offer { offset: first + n as i64, text: "x".repeat(bytes) };
                    table.session.offer((0..entries).map(offer).collect(), first, now, &mut out);
                }
                Step::Ack(part) => {
                    let position = table.session.position();
                    // Now and then of what was not offered.
                    let upto = (position as f64 * part) as i64;
                    table.session.ack(upto, now, &mut out);
                    if upto <= position && upto >= asked {
                        asked = upto;
                        unacked.retain(|(offset, _)| *offset > upto);
                    }
                }
                Step::Appended(taken) => if let Some(acks) = way.take() {
                    let ended = |ack: Ack| {
                        if taken {
                            durable = durable.max(ack.upto);
                            asked = asked.max(ack.upto);
                            unacked.retain(|(offset, _)| *offset > ack.upto);
                        }
                        (ack, if taken { Ok(()) } else { Err(Failure::Later) })
                    };
                    let done = acks.into_iter().map(ended).collect();
                    table.session.appended(done, now, &mut out);
                },
                Step::Pause(ms) => {
                    table.clock.advance(Duration::from_millis(ms));
                    let now = table.now();
                    table.session.tick(now, &mut out);
                }
            }
            for out in out {
                match out {
                    Out::Entry(entry) => {
                        prop_assert!(entry.offset > last, "{} after {last}", entry.offset);
                        last = entry.offset;
                        unacked.push((entry.offset, entry.text.len()));
                    }
                    Out::Append(acks) => {
                        prop_assert!(way.is_none(), "one batch at a time");
                        prop_assert!(!acks.is_empty());
                        way = Some(acks);
                    }
                    _ => {}
                }
            }
            let bytes: usize = unacked.iter().map(|(_, bytes)| bytes).sum();
            prop_assert!(unacked.len() <= 4 && (bytes <= 100 || unacked.len() == 1));
            prop_assert!(table.session.position() >= last);
        }
        let rest = table.session.rest().into_iter().chain(way.into_iter().flatten());
        let said = rest.map(|ack| ack.upto).fold(durable, i64::max);
        prop_assert!(said >= asked, "{asked} was acknowledged, {said} is in the log or on its way");
    }
}
