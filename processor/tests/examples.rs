//! Every example of the schemas through every machine: what each makes of each is written down and compared.

use std::{fmt::Write, sync::Arc};

use waypost_processor::{
    alerts::AlertsMachine,
    conversations::ConversationsMachine,
    inboxes::InboxesMachine,
    machine::{Effects, Input, Machine},
    registry::{Change, What},
    spatial::{SpatialMachine, zone::Zone},
};
use waypost_schemas::{cause::Position, event::Event, example, time::Micros};

/// 2026-01-01T01:00:00Z.
const APPEND: Micros = Micros(1_767_229_200_000_000);

/// What the registry examples change; the removals first, so that something stands.
fn changes() -> Vec<Arc<Change>> {
    let (mut removed, mut defined) = (Vec::new(), Vec::new());
    for (_, event) in example::all() {
        match event {
            Event::ZoneRemoved(e) => removed.push(What::NoZone(e.zone)),
            Event::RuleRemoved(e) => removed.push(What::NoRule(e.rule)),
            Event::ZoneDefined(e) => defined.push(What::Zone(Arc::new(Zone::new(e, 0)))),
            Event::RuleDefined(e) => defined.push(What::Rule(Arc::new(e))),
            _ => {}
        }
    }
    let all = removed.into_iter().chain(defined);
    (0..).zip(all).map(|(offset, what)| Arc::new(Change { offset, what })).collect()
}

fn account<M: Machine>() -> String {
    let (mut machine, mut effects, mut account) = (M::new(), Effects::default(), String::new());
    let changes = changes();
    for change in &changes {
        machine.look(change);
    }
    for (offset, (name, event)) in (0..).zip(example::all()) {
        machine.look_at(offset, &event);
        let position = Position { topic: M::DRIVES, partition: 0, offset };
        let input = Input { position, append: APPEND, event: &event, registry: changes.len() as i64 - 1 };
        match machine.apply(input, &mut effects) {
            Ok(()) => writeln!(account, "{name}: taken").unwrap(),
            Err(unfit) => writeln!(account, "{name}: {unfit}").unwrap(),
        }
        for effect in effects.drain() {
            let key = String::from_utf8_lossy(&effect.key).into_owned();
            writeln!(account, "  {} {key} {:?}", effect.topic, effect.event).unwrap();
        }
    }
    for chunk in machine.changed_chunks().iter().filter(|chunk| chunk.bytes.len() > 4) {
        writeln!(account, "chunk {}: {:02x?}", chunk.number, chunk.bytes).unwrap();
    }
    account
}

#[test]
fn spatial_makes_of_every_example_what_it_made_before() {
    insta::assert_snapshot!(account::<SpatialMachine>());
}

#[test]
fn alerts_makes_of_every_example_what_it_made_before() {
    insta::assert_snapshot!(account::<AlertsMachine>());
}

#[test]
fn conversations_makes_of_every_example_what_it_made_before() {
    insta::assert_snapshot!(account::<ConversationsMachine>());
}

#[test]
fn inboxes_makes_of_every_example_what_it_made_before() {
    insta::assert_snapshot!(account::<InboxesMachine>());
}
