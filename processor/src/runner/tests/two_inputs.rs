//! A machine that looks at a topic beside its driving one: what follows depends on the two logs alone, and a start on
//! others than those of its snapshot is refused.

use std::time::Duration;

use bytes::Bytes;
use waypost_runtime::{
    broker::{Broker, Incoming, Outgoing},
    telemetry::Chain,
};
use waypost_schemas::{
    cause::Position,
    codec,
    event::{AckKind, Event, HoleAccepted},
    topic::{Topic, TopicPartition},
};

use super::{
    super::Error,
    operators::{by, replay, run_to_the_end, skipped, stop_of},
    world::{KEYED, World, fix, group, place_of},
};
use crate::{inboxes::InboxesMachine, snapshots::Manifest};

const MACHINE: &str = "inboxes";

/// A user of `World::chats`, and the places of his records.
const USER: &str = "u1";

fn inbox() -> TopicPartition {
    place_of(Topic::Inboxes, USER)
}

fn acks() -> TopicPartition {
    place_of(Topic::Acks, USER)
}

/// What a process made of two logs, stopped cleanly.
async fn stopped(seed: u64) -> World {
    let mut world = World::new(seed);
    world.chats(200);
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    world
}

fn newest(world: &World) -> Manifest {
    world.newest::<InboxesMachine>("a", inbox().partition).expect("there is a snapshot")
}

/// How far the looked-at topic is folded in the newest snapshot, and where its last record stands.
fn looked(world: &World) -> (i64, i64) {
    let looked = newest(world).looked.expect("it looks at a topic");
    (looked.next, looked.checkpoint.expect("something was folded").offset)
}

fn append_again(world: &World, to: TopicPartition, record: Incoming) {
    let Incoming { key, value, headers, .. } = record;
    world.cluster.append(Outgoing { to, key, value, headers }).unwrap();
}

/// Waits until the topic that is looked at is committed up to its end.
async fn all_looked_at(world: &World) {
    let broker = world.cluster.connect("observer");
    let sources = || (0..KEYED).map(|p| TopicPartition::new(Topic::Inboxes, p));
    let all = async {
        loop {
            let committed = broker.committed(group::<InboxesMachine>(), vec![Topic::Inboxes]).await.unwrap();
            if sources().all(|p| committed.get(&p) == Some(&world.end(p))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("it is looked at in time");
}

#[tokio::test]
async fn what_follows_depends_on_the_two_logs_alone_however_far_one_is_ahead() {
    for seed in 0..10 {
        let mut world = World::new(100 + seed);
        world.slice_records = 1 + world.dice.below(7) as usize;
        if world.dice.below(2) == 0 {
            world.chats(100);
        }
        let mut process = world.start::<InboxesMachine>("a", None);
        for _ in 0..6 {
            let records = 1 + world.dice.below(40) as usize;
            world.chats(records);
            match world.dice.below(4) {
                0 => world.idle::<InboxesMachine>(&mut process).await.unwrap(),
                1 => all_looked_at(&world).await,
                2 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => {}
            }
        }
        world.idle::<InboxesMachine>(&mut process).await.unwrap();
        process.stop().await.unwrap();
        world.check::<InboxesMachine>();
        world.check_snapshots::<InboxesMachine>("a");
    }
}

#[tokio::test]
async fn what_a_record_makes_is_sent_also_where_it_had_to_wait_in_the_middle_of_a_slice() {
    let mut world = World::new(110);
    // More than the twin gives at once, so that the second acknowledgement waits after the first has made a receipt.
    (0..70).for_each(|_| world.message("u2", USER));
    world.acknowledge(USER, AckKind::Delivered, 0);
    world.acknowledge(USER, AckKind::Delivered, 69);
    let before = world.end(place_of(Topic::Inboxes, "u2"));
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    assert_eq!(world.end(place_of(Topic::Inboxes, "u2")), before + 2);
    world.check::<InboxesMachine>();
}

#[tokio::test]
async fn a_machine_looks_ahead_of_what_asks_for_it_and_says_how_far() {
    let mut world = World::new(120);
    for _ in 0..100 {
        world.message("u2", USER);
    }
    let mut process = world.start::<InboxesMachine>("a", None);
    all_looked_at(&world).await;
    world.acknowledge(USER, AckKind::Delivered, 40);
    world.acknowledge(USER, AckKind::Read, 20);
    world.acknowledge(USER, AckKind::Delivered, 60);
    world.idle::<InboxesMachine>(&mut process).await.unwrap();
    process.stop().await.unwrap();
    world.check::<InboxesMachine>();
    world.check_snapshots::<InboxesMachine>("a");
}

#[tokio::test]
async fn receipts_that_a_machine_finds_where_it_looks_make_no_more() {
    let world = stopped(121).await;
    let count = |world: &World| -> i64 {
        (0..KEYED).map(|p| world.end(TopicPartition::new(Topic::Inboxes, p))).sum()
    };
    for round in 0..3 {
        for number in 0..6 {
            let user = format!("u{number}");
            let end = world.end(place_of(Topic::Inboxes, &user));
            world.acknowledge(&user, AckKind::Delivered, end - 1);
            world.acknowledge(&user, AckKind::Read, end - 1);
        }
        let before = count(&world);
        run_to_the_end::<InboxesMachine>(&world, "a").await;
        assert_eq!(count(&world) == before, round > 0, "round {round}");
    }
    world.check::<InboxesMachine>();
}

#[tokio::test]
async fn a_start_on_a_looked_at_log_that_is_not_the_one_of_the_snapshot_is_refused_with_the_way_out() {
    type Harm = fn(&mut World);
    let harms: [(Harm, &str); 4] = [
        (|w| w.cluster.lose_end(inbox(), looked(w).0 - 1), "lost its end"),
        (
            |w| {
                let (_, last) = looked(w);
                let mut records = w.cluster.records(inbox()).split_off(last as usize);
                w.cluster.lose_end(inbox(), last);
                records[0].key = Some(Bytes::from_static(b"user-other"));
                records.into_iter().for_each(|record| append_again(w, inbox(), record));
            },
            "is not the one that the snapshot after it covers",
        ),
        (|w| w.cluster.cut(inbox(), looked(w).1 + 1), "no snapshot covers what was removed"),
        (
            |w| {
                std::fs::remove_dir_all(w.directory.path().join("a")).unwrap();
                w.cluster.cut(inbox(), 1);
            },
            "the log begins at 1",
        ),
    ];
    for (harm, says) in harms {
        let mut world = stopped(130).await;
        harm(&mut world);
        world.chats(1);
        let error = stop_of::<InboxesMachine>(&world).await;
        let text = Chain(&error).to_string();
        assert!(matches!(error, Error::Refused { partition, .. } if partition == inbox()), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn both_inputs_may_be_cut_up_to_the_last_records_that_a_snapshot_covers() {
    let mut world = stopped(140).await;
    for partition in 0..KEYED {
        let manifest = world.newest::<InboxesMachine>("a", partition).unwrap();
        let at = |checkpoint: &Option<crate::checkpoint::Checkpoint>| checkpoint.as_ref().unwrap().offset;
        world.cut(TopicPartition::new(Topic::Acks, partition), at(&manifest.checkpoint));
        world.cut(TopicPartition::new(Topic::Inboxes, partition), at(&manifest.looked.unwrap().checkpoint));
    }
    world.chats(100);
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    world.check::<InboxesMachine>();
    world.check_snapshots::<InboxesMachine>("a");
}

#[tokio::test]
async fn an_acknowledgement_beyond_the_end_stops_loudly_and_may_be_skipped() {
    let mut world = stopped(150).await;
    let (asked, offset) = (world.end(inbox()), world.end(acks()));
    world.acknowledge(USER, AckKind::Delivered, asked);
    let error = stop_of::<InboxesMachine>(&world).await;
    let (text, at) =
        (error.to_string(), Position { topic: Topic::Acks, partition: acks().partition, offset });
    assert!(matches!(error, Error::BeyondEnd { asked: a, end, .. } if a == asked && end == asked), "{text}");
    assert!(text.contains(&format!("ends at {asked}")), "{text}");
    world.change(&skipped(MACHINE, at));
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    world.check::<InboxesMachine>();
}

#[tokio::test]
async fn a_log_that_lost_what_was_acknowledged_stops_loudly_without_snapshots_too() {
    let world = stopped(160).await;
    std::fs::remove_dir_all(world.directory.path().join("a")).unwrap();
    let asked = |record: Incoming| match codec::decode(record.value.as_deref()?).ok()? {
        Event::EntriesAcknowledged(ack) => Some(ack.upto),
        _ => None,
    };
    let highest = world.records(acks()).into_iter().filter_map(asked).max().unwrap();
    world.cluster.lose_end(inbox(), highest);
    let error = stop_of::<InboxesMachine>(&world).await;
    assert!(matches!(error, Error::BeyondEnd { end, .. } if end == highest), "{error:?}");
}

#[tokio::test]
async fn what_is_foreign_to_acks_is_buried_and_what_is_foreign_to_inboxes_is_anothers_to_bury() {
    let mut world = stopped(170).await;
    let letters = TopicPartition::new(Topic::DeadLetters, inbox().partition);
    let before = world.end(letters);
    let foreign = codec::encode(&fix("van-1", 1, true, -1));
    let seq = |text: &'static str| vec![("seq".into(), Bytes::from_static(text.as_bytes()))];
    for to in [inbox(), acks()] {
        world.append(to, USER, foreign.clone(), seq("conversations/0/1"));
        world.append(to, USER, &b"\0\xff\xff\xff\xff"[..], Vec::new());
        world.cluster.append(Outgoing { to, key: None, value: None, headers: Vec::new() }).unwrap();
    }
    world.acknowledge(USER, AckKind::Read, -1);
    world.message("u2", USER);
    world.acknowledge(USER, AckKind::Delivered, world.end(inbox()) - 1);
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    let buried = world.cluster.records(letters).split_off(before as usize);
    let header = |name: &str| -> Vec<String> {
        buried.iter().filter_map(|r| Some(String::from_utf8_lossy(r.header(name)?).into())).collect()
    };
    assert_eq!(header("waypost_reason"), ["wrong_type", "unknown_schema", "empty", "bad_offset"]);
    assert_eq!(header("waypost_topic"), ["acks"; 4]);
    world.check_snapshots::<InboxesMachine>("a");
}

#[tokio::test]
async fn a_hole_where_a_machine_looks_is_passed_where_it_was_accepted_and_nowhere_else() {
    let mut world = stopped(180).await;
    world.lose_entry(USER);
    let hole = world.end(inbox());
    world.message("u2", USER);
    world.chats(60);
    let error = stop_of::<InboxesMachine>(&world).await;
    let command = format!("waypost holes accept {}/{hole}", inbox());
    assert!(Chain(&error).to_string().contains(&command), "{}", Chain(&error));
    let accepted = |offset| {
        let TopicPartition { topic, partition } = inbox();
        Event::from(HoleAccepted { topic, partition, offset, by: by() })
    };
    world.change(&accepted(hole + 1));
    assert!(
        matches!(stop_of::<InboxesMachine>(&world).await, Error::Hole { .. }),
        "another hole was accepted"
    );
    world.change(&accepted(hole));
    run_to_the_end::<InboxesMachine>(&world, "a").await;
    world.check::<InboxesMachine>();
    replay::<InboxesMachine>(&world).await;
    world.check::<InboxesMachine>();
    world.check_snapshots::<InboxesMachine>("replay");
}
