//! Whole tracks through the machines as one pure fold, against accounts that share no line with them.

mod storks;

use std::collections::BTreeMap;

use waypost_processor::{
    alerts::AlertsMachine,
    bench::{changes, track::Track},
    machine::{Effects, Input, Machine},
    spatial::SpatialMachine,
};
use waypost_schemas::{
    cause::Position,
    event::{Crossing, Event, FixReported, RuleMatched, ZoneDefined},
    partition,
    topic::Topic,
};

const PARTITIONS: i32 = 16;

/// Device, time, zone, event: the row of a match.
type Row = (String, String, String, String);

/// The machines of all partitions, and what they have derived.
struct Fold {
    machines: BTreeMap<i32, SpatialMachine>,
    next: BTreeMap<i32, i64>,
    registry: i64,
    matches: Vec<RuleMatched>,
}

impl Fold {
    fn new(zones: Vec<ZoneDefined>) -> Self {
        let changes = changes(zones);
        let machine = |_| {
            let mut machine = SpatialMachine::new();
            for change in &changes {
                machine.look(change);
            }
            machine
        };
        Self {
            machines: (0..PARTITIONS).map(|p| (p, machine(p))).collect(),
            next: BTreeMap::new(),
            registry: changes.last().unwrap().offset,
            matches: Vec::new(),
        }
    }

    fn take(&mut self, fixes: &[FixReported]) {
        let mut effects = Effects::default();
        for fix in fixes {
            let partition = partition::of(fix.device.as_str().as_bytes(), PARTITIONS);
            let next = self.next.entry(partition).or_default();
            let position = Position { topic: Topic::Positions, partition, offset: *next };
            *next += 1;
            let event = Event::from(fix.clone());
            let input = Input { position, append: fix.at_us, event: &event, registry: self.registry };
            self.machines.get_mut(&partition).unwrap().apply(input, &mut effects).unwrap();
            self.matches.extend(effects.drain().map(|effect| match effect.event {
                Event::RuleMatched(matched) => matched,
                other => panic!("a {} from spatial", other.name()),
            }));
        }
    }

    /// The rows, by time and device, in the order of their deriving.
    fn rows(&self) -> Vec<Row> {
        let mut matches: Vec<&RuleMatched> = self.matches.iter().collect();
        matches.sort_by_key(|m| (m.fix.at_us, m.device.clone()));
        let zone = |m: &RuleMatched| m.zone.as_ref().unwrap().to_string();
        matches
            .iter()
            .map(|m| (m.device.to_string(), m.fix.at_us.to_string(), zone(m), m.event.as_str().into()))
            .collect()
    }
}

#[test]
fn the_storks_cross_exactly_the_borders_that_geos_finds() {
    let Some(data) = storks::data() else { return };
    let mut fold = Fold::new(storks::countries(&data));
    let fixes = storks::fixes(&data, fold.registry);
    assert_eq!(fixes.len(), 155_173);
    fold.take(&fixes);

    let mut rows = csv::Reader::from_path(data.join("storks-crossings.csv")).unwrap();
    let expected: Vec<Row> = rows.deserialize().map(Result::unwrap).collect();
    assert_eq!(fold.rows(), expected);
    let count = |event| fold.matches.iter().filter(|m| m.event == event).count();
    assert_eq!((count(Crossing::Enter), count(Crossing::Exit)), (146, 131));

    fold.take(&fixes);
    assert_eq!(fold.matches.len(), 277, "the same fixes again say nothing new");
}

#[test]
fn a_generated_fleet_crosses_exactly_the_borders_that_whole_numbers_find() {
    for seed in 0..3 {
        let track = Track::generate(seed, 60, 12, 600);
        let mut fold = Fold::new(track.zones());
        let fixes = track.fixes(fold.registry);
        fold.take(&fixes);
        let expected: Vec<Row> = track
            .crossings()
            .into_iter()
            .map(|c| (c.device.to_string(), c.at.to_string(), c.zone.to_string(), c.event.as_str().into()))
            .collect();
        assert!(expected.len() > 100, "seed {seed}: a track of {} crossings proves little", expected.len());
        assert_eq!(fold.rows(), expected, "seed {seed}");
    }
}

#[test]
fn each_match_of_a_fleet_arrives_in_one_inbox() {
    let track = Track::generate(7, 60, 12, 300);
    let mut fold = Fold::new(track.zones());
    let fixes = track.fixes(fold.registry);
    fold.take(&fixes);
    let (mut alerts, mut effects) = (AlertsMachine::new(), Effects::default());
    for (offset, matched) in (0..).zip(&fold.matches) {
        let event = Event::from(matched.clone());
        let position = Position { topic: Topic::Matches, partition: 0, offset };
        let input = Input { position, append: matched.fix.at_us, event: &event, registry: fold.registry };
        alerts.apply(input, &mut effects).unwrap();
    }
    let arrived: Vec<_> = effects.drain().collect();
    assert_eq!(arrived.len(), fold.matches.len());
    assert!(!arrived.is_empty());
    assert!(arrived.iter().all(|effect| effect.topic == Topic::Inboxes && &effect.key[..] == b"warden"));
}
