//! What an operator says of the log is obeyed by live runs and replays alike, and nothing less moves a machine on.

use std::{collections::BTreeSet, sync::Arc};

use waypost_runtime::{broker::Outgoing, telemetry::Chain};
use waypost_schemas::{
    cause::Position,
    event::{AckKind, BehaviourSet, Entry, EntryAdded, Event, HoleAccepted, RecordSkipped},
    id::{DeviceId, UserId},
    topic::{Topic, TopicPartition},
};

use super::{
    super::Error,
    world::{KEYED, World, fix, group, place_of},
};
use crate::{
    alerts::AlertsMachine,
    inboxes::InboxesMachine,
    machine::{Chunk, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
    spatial::SpatialMachine,
};

/// The device whose records make a brittle machine panic.
const KILLER: &str = "killer";

/// A machine that cannot bear one device.
struct Brittle<M>(M);

impl<M: Machine> Machine for Brittle<M> {
    const NAME: &'static str = M::NAME;
    const DRIVES: Topic = M::DRIVES;
    const LOOKS_AT_REGISTRY: bool = M::LOOKS_AT_REGISTRY;
    const LOOKS_AT: Option<Topic> = M::LOOKS_AT;
    const FORMAT: u16 = M::FORMAT;

    fn new() -> Self {
        Self(M::new())
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.0.look(change);
    }

    fn asks(event: &Event) -> Option<i64> {
        M::asks(event)
    }

    fn look_at(&mut self, offset: i64, event: &Event) {
        if let Event::EntryAdded(EntryAdded { user, entry: Entry::MessageArrived(_) }) = event {
            assert_ne!(user.as_str(), KILLER, "this entry is more than the machine can bear");
        }
        self.0.look_at(offset, event);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let device = match input.event {
            Event::FixReported(fix) => &fix.device,
            Event::RuleMatched(matched) => &matched.device,
            Event::EntriesAcknowledged(ack) => &DeviceId::of(&ack.user, &ack.device),
            _ => return self.0.apply(input, effects),
        };
        assert!(!device.as_str().starts_with(KILLER), "this record is more than the machine can bear");
        self.0.apply(input, effects)
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.0.changed_chunks()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        M::restore(chunks).map(Self)
    }
}

pub(super) fn by() -> UserId {
    UserId::new("operator").unwrap()
}

pub(super) fn skipped(machine: &str, Position { topic, partition, offset }: Position) -> Event {
    RecordSkipped { machine: machine.into(), topic, partition, offset, by: by() }.into()
}

pub(super) async fn run_to_the_end<M: Machine>(world: &World, name: &str) {
    let mut process = world.start::<M>(name, None);
    world.idle::<M>(&mut process).await.unwrap();
    process.stop().await.unwrap();
}

/// Folds the whole log anew in a process without snapshots, which sends every effect again: copies, and nothing else.
pub(super) async fn replay<M: Machine>(world: &World) {
    for source in World::sources::<M>() {
        world.cluster.set_committed(&group::<M>(), source, None);
    }
    run_to_the_end::<M>(world, "replay").await;
}

pub(super) async fn stop_of<M: Machine>(world: &World) -> Error {
    world.start::<M>("a", None).ended().await.expect_err("it must stop")
}

#[tokio::test]
async fn a_hole_is_passed_where_it_was_accepted_and_nowhere_else() {
    let mut world = World::new(21);
    world.reports(200);
    run_to_the_end::<SpatialMachine>(&world, "a").await;
    let to =
        (0..KEYED).map(|p| TopicPartition::new(Topic::Matches, p)).max_by_key(|p| world.end(*p)).unwrap();
    let records = world.cluster.records(to);
    let lost = records.len() / 2;
    world.cluster.lose_end(to, lost as i64);
    for record in records.into_iter().skip(lost + 1) {
        let (key, value, headers) = (record.key, record.value, record.headers);
        world.cluster.append(Outgoing { to, key, value, headers }).unwrap();
    }
    let error = stop_of::<AlertsMachine>(&world).await;
    let Error::Hole { source: hole, .. } = &error else { panic!("{error:?}") };
    let command = format!("waypost holes accept {to}/{}", hole.offset);
    assert!(Chain(&error).to_string().contains(&command), "{}", Chain(&error));

    let accepted =
        |offset| Event::from(HoleAccepted { topic: to.topic, partition: to.partition, offset, by: by() });
    world.change(&accepted(hole.offset + 1));
    assert!(
        matches!(stop_of::<AlertsMachine>(&world).await, Error::Hole { .. }),
        "another hole was accepted"
    );
    world.change(&accepted(hole.offset));
    run_to_the_end::<AlertsMachine>(&world, "a").await;
    world.check::<AlertsMachine>();
    replay::<AlertsMachine>(&world).await;
    world.check::<AlertsMachine>();
}

/// Where the killer's records of a machine's inputs stand.
fn of_killer<M: Machine>(world: &World) -> BTreeSet<Position> {
    let place = |source: TopicPartition| {
        let derived = source.topic.is_derived();
        // A copy is dropped before it can do any harm.
        let once = || world.read(source).into_iter().map(|(_, record)| record).collect();
        let records: Vec<_> = if derived { once() } else { world.cluster.records(source) };
        records.into_iter().filter(|r| r.key.as_deref() == Some(KILLER.as_bytes())).map(move |record| {
            Position { topic: source.topic, partition: source.partition, offset: record.offset }
        })
    };
    let inputs = std::iter::once(M::DRIVES).chain(M::LOOKS_AT);
    inputs.flat_map(|topic| (0..KEYED).map(move |p| TopicPartition::new(topic, p))).flat_map(place).collect()
}

async fn a_killer_is_skipped_once_the_registry_says_so<M: Machine>(world: &mut World) {
    let mut killers = of_killer::<M>(world);
    assert!(!killers.is_empty());
    while !killers.is_empty() {
        let error = stop_of::<Brittle<M>>(world).await;
        let Error::Panicked { position: killer, .. } = error else { panic!("{error:?}") };
        assert!(killers.remove(&killer), "{killer}");
        let command = format!("waypost records skip --machine {} {killer}", M::NAME);
        assert!(error.to_string().contains(&command), "{error}");
        // Another machine's skip, and another record's, are of no use.
        world.change(&skipped("nobody", killer));
        world.change(&skipped(M::NAME, Position { offset: killer.offset + 1_000, ..killer }));
        assert!(matches!(stop_of::<Brittle<M>>(world).await, Error::Panicked { .. }));
        world.change(&skipped(M::NAME, killer));
    }
    run_to_the_end::<Brittle<M>>(world, "a").await;
    world.check::<Brittle<M>>();
    replay::<Brittle<M>>(world).await;
    world.check::<Brittle<M>>();
}

#[tokio::test]
async fn a_record_that_makes_a_machine_panic_is_skipped_once_the_registry_says_so() {
    let mut world = World::new(22);
    world.reports(120);
    world.report(KILLER, &fix(KILLER, 100, true, 1));
    world.report(KILLER, &fix(KILLER, 101, false, 1));
    world.reports(120);
    a_killer_is_skipped_once_the_registry_says_so::<SpatialMachine>(&mut world).await;
}

#[tokio::test]
async fn a_record_that_a_machine_cannot_look_at_is_skipped_once_the_registry_says_so() {
    let mut world = World::new(25);
    world.chats(120);
    world.message(KILLER, "u1");
    world.message("u2", KILLER);
    let end = world.end(place_of(Topic::Inboxes, KILLER));
    world.acknowledge(KILLER, AckKind::Delivered, end - 1);
    world.chats(120);
    assert_eq!(of_killer::<InboxesMachine>(&world).len(), 3);
    a_killer_is_skipped_once_the_registry_says_so::<InboxesMachine>(&mut world).await;
}

#[tokio::test]
async fn a_derived_record_that_is_skipped_leaves_no_hole_behind() {
    let mut world = World::new(23);
    world.reports(120);
    world.report(KILLER, &fix(KILLER, 100, true, 1));
    world.reports(120);
    run_to_the_end::<SpatialMachine>(&world, "spatial").await;
    a_killer_is_skipped_once_the_registry_says_so::<AlertsMachine>(&mut world).await;
}

#[tokio::test]
async fn a_behaviour_that_this_version_lacks_stops_the_machine_at_once_and_at_the_start() {
    let mut world = World::new(24);
    let set = |machine: &str, number| Event::from(BehaviourSet { machine: machine.into(), number, by: by() });
    world.reports(60);
    world.change(&set("spatial", 1));
    world.change(&set("alerts", 2));
    let mut process = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut process).await.unwrap();
    world.change(&set("spatial", 2));
    let live = process.ended().await.unwrap_err();
    world.change(&set("spatial", 1));
    // The log between the two asks for behaviour 2 still.
    let at_start = stop_of::<SpatialMachine>(&world).await;
    for error in [live, at_start] {
        assert!(matches!(error, Error::Behaviour { number: 2, .. }), "{error:?}");
        assert!(error.to_string().contains("start a version that has behaviour 2 of spatial"), "{error}");
    }
}
