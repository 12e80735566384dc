//! The spatial machine on small worlds.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use waypost_schemas::{
    cause::Position,
    event::{
        Circle, Crossing, Event, FixReported, Geometry, MultiPolygon, Polygon, RuleDefined, RuleMatched,
        ZoneDefined,
    },
    id::{DeviceId, RuleId, UserId, ZoneId},
    place::Place,
    time::Micros,
    topic::Topic,
};

use super::{AUDIENCE_PART_USERS_MAX, SpatialMachine, zone::Zone};
use crate::{
    machine::{Chunk, Effects, Input, Machine, Unfit},
    registry::{Change, What},
};

/// 2026-01-01T00:00:00Z.
const START: Micros = Micros(1_767_225_600_000_000);

/// A machine with its registry and its log.
struct World {
    machine: SpatialMachine,
    registry: Vec<Arc<Change>>,
    /// How much of the registry the partition has been stamped with.
    stamped: usize,
    offset: i64,
}

impl World {
    fn new() -> Self {
        Self { machine: SpatialMachine::new(), registry: Vec::new(), stamped: 0, offset: 0 }
    }

    fn change(&mut self, what: What) {
        self.registry.push(Arc::new(Change { offset: self.registry.len() as i64, what }));
    }
    fn zone(&mut self, id: &str, geometry: Geometry) {
        let defined = ZoneDefined { zone: ZoneId::new(id).unwrap(), geometry, by: user("op") };
        let version = self.registry.len() as i64;
        self.change(What::Zone(Arc::new(Zone::new(defined, version))));
    }
    fn no_zone(&mut self, id: &str) {
        self.change(What::NoZone(ZoneId::new(id).unwrap()));
    }
    fn rule(&mut self, rule: RuleDefined) {
        self.change(What::Rule(Arc::new(rule)));
    }

    /// Folds a fix that is stamped with all of the registry.
    fn take(&mut self, fix: FixReported, append: Micros) -> Result<Vec<RuleMatched>, Unfit> {
        self.apply(&Event::from(fix), append)
    }
    fn apply(&mut self, event: &Event, append: Micros) -> Result<Vec<RuleMatched>, Unfit> {
        self.look_up_to(self.registry.len());
        let position = Position { topic: Topic::Positions, partition: 0, offset: self.offset };
        let input = Input { position, append, event, registry: self.stamped as i64 - 1 };
        self.offset += 1;
        let mut effects = Effects::default();
        let taken = self.machine.apply(input, &mut effects);
        let matches = effects.drain().map(|effect| match effect.event {
            Event::RuleMatched(matched) => {
                assert_eq!(
                    (effect.topic, &effect.key[..]),
                    (Topic::Matches, matched.device.as_str().as_bytes())
                );
                matched
            }
            other => panic!("a {} from spatial", other.name()),
        });
        let matches: Vec<RuleMatched> = matches.collect();
        assert!(taken.is_ok() || matches.is_empty());
        taken.map(|()| matches)
    }
    fn look_up_to(&mut self, stamp: usize) {
        for change in &self.registry[self.stamped..stamp] {
            self.machine.look(change);
        }
        self.stamped = stamp;
    }

    /// Puts a device at a place at a minute, and tells what that derived: `enter A r initial`.
    fn fix(&mut self, device: &str, lon: f64, lat: f64, minute: i64) -> Vec<String> {
        let fix = fix(device, lon, lat, minute);
        let at = fix.at_us;
        self.take(fix, at).unwrap().iter().map(told).collect()
    }
}

fn told(matched: &RuleMatched) -> String {
    let zone = matched.zone.as_ref().unwrap();
    let initial = if matched.initial { " initial" } else { "" };
    format!("{} {zone} {}{initial}", matched.event.as_str(), matched.rule)
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn fix(device: &str, lon: f64, lat: f64, minute: i64) -> FixReported {
    FixReported {
        device: DeviceId::new(device).unwrap(),
        lat,
        lon,
        at_us: Micros(START.0 + minute * Micros::MINUTE),
        accuracy_m: None,
        speed_mps: Some(minute as f32),
        heading_deg: None,
        altitude_m: None,
        attributes: BTreeMap::new(),
        registry: 0,
    }
}

/// A rule on both crossings of all zones, for all devices.
fn rule(id: &str) -> RuleDefined {
    RuleDefined {
        rule: RuleId::new(id).unwrap(),
        on: vec![Crossing::Exit, Crossing::Enter],
        zones: None,
        subjects: None,
        notify: vec![user("warden")],
        by: user("op"),
    }
}

fn square_rings(west: f64, south: f64, size: f64) -> Polygon {
    let place = |(x, y): (f64, f64)| Place { lon: west + x * size, lat: south + y * size };
    Polygon { rings: vec![[(0., 0.), (1., 0.), (1., 1.), (0., 1.), (0., 0.)].map(place).to_vec()] }
}

fn square(west: f64, south: f64, size: f64) -> Geometry {
    Geometry::Polygon(square_rings(west, south, size))
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_first_fix_inside_is_an_initial_enter_and_then_only_crossings_count() {
    let mut world = World::new();
    world.zone("A", square(0., 0., 1.));
    world.rule(rule("r"));
    assert_eq!(world.fix("van", 0.5, 0.5, 0), ["enter A r initial"]);
    assert_eq!(world.fix("van", 0.6, 0.5, 1), NOTHING);
    assert_eq!(world.fix("van", 1.0, 1.0, 2), NOTHING, "the boundary is inside");
    assert_eq!(world.fix("van", 1.1, 1.0, 3), ["exit A r"]);
    assert_eq!(world.fix("van", 1.2, 1.0, 4), NOTHING);
    assert_eq!(world.fix("van", 0.0, 0.0, 5), ["enter A r"]);
    assert_eq!(world.fix("bus", 5.0, 5.0, 5), NOTHING);
    assert_eq!(world.fix("bus", 0.5, 0.5, 6), ["enter A r"], "its first fix was outside");
}

#[test]
fn exits_come_before_enters_then_zones_and_rules_in_byte_order() {
    let mut world = World::new();
    for (id, west) in [("d", 0.), ("Ä", 0.), ("b", 2.), ("a", 2.), ("Z", 0.)] {
        world.zone(id, square(west, 0., 1.));
    }
    for id in ["s", "r", "R"] {
        world.rule(rule(id));
    }
    world.fix("van", 0.5, 0.5, 0);
    assert_eq!(
        world.fix("van", 2.5, 0.5, 1),
        [
            "exit Z R",
            "exit Z r",
            "exit Z s",
            "exit d R",
            "exit d r",
            "exit d s",
            "exit Ä R",
            "exit Ä r",
            "exit Ä s",
            "enter a R",
            "enter a r",
            "enter a s",
            "enter b R",
            "enter b r",
            "enter b s",
        ]
    );
}

#[test]
fn a_match_names_its_fix_the_one_before_and_the_versions_it_saw() {
    let mut world = World::new();
    world.zone("A", square(0., 0., 1.));
    world.rule(rule("r"));
    world.fix("depot/van", 5.0, 5.0, 0);
    let entering = fix("depot/van", 0.5, 0.5, 1);
    let matched = world.take(entering.clone(), START).unwrap().remove(0);
    assert_eq!(
        matched,
        RuleMatched {
            rule: RuleId::new("r").unwrap(),
            rule_version: 1,
            zone: Some(ZoneId::new("A").unwrap()),
            event: Crossing::Enter,
            initial: false,
            device: entering.device.clone(),
            fix: entering.fix(),
            previous: Some(fix("depot/van", 5.0, 5.0, 0).fix()),
            audience: vec![user("warden")],
            part: 0,
            parts: 1,
            registry: 1,
        }
    );
}

#[test]
fn late_fixes_and_fixes_from_the_future_are_history_only() {
    let mut world = World::new();
    world.zone("A", square(0., 0., 1.));
    world.rule(rule("r"));
    assert_eq!(world.fix("van", 5.0, 5.0, 10), NOTHING);
    world.machine.changed_chunks();
    assert_eq!(world.fix("van", 0.5, 0.5, 9), NOTHING, "older than the newest");
    assert_eq!(world.fix("van", 0.5, 0.5, 10), NOTHING, "as old as the newest");
    let ahead = fix("van", 0.5, 0.5, 16);
    let early = Micros(ahead.at_us.0 - 5 * Micros::MINUTE - 1);
    assert_eq!(world.take(ahead.clone(), early), Ok(vec![]), "a microsecond too far ahead");
    assert_eq!(world.machine.changed_chunks(), [], "none of them moved the device");
    assert_eq!(world.take(ahead, Micros(early.0 + 1)).unwrap().len(), 1, "just near enough");
}

#[test]
fn what_cannot_be_a_fix_is_unfit_and_changes_nothing() {
    let mut world = World::new();
    world.zone("A", square(-180., -90., 90.));
    world.rule(rule("r"));
    world.machine.changed_chunks();
    let at = |text: &str| FixReported { at_us: Micros::parse(text).unwrap(), ..fix("van", 0., 0., 0) };
    for (unfit, code) in [
        (fix("van", f64::NAN, 0., 0), "bad_place"),
        (fix("van", 0., f64::INFINITY, 0), "bad_place"),
        (fix("van", 0., 90.000_1, 0), "bad_place"),
        (fix("van", -180.000_1, 0., 0), "bad_place"),
        (at("1999-12-31T23:59:59.999999Z"), "bad_device_time"),
        (at("1970-01-01T00:00:00Z"), "bad_device_time"),
        (at("2100-01-01T00:00:00Z"), "bad_device_time"),
        (FixReported { at_us: Micros(i64::MIN), ..fix("van", 0., 0., 0) }, "bad_device_time"),
        (FixReported { at_us: Micros(i64::MAX), ..fix("van", 0., 0., 0) }, "bad_device_time"),
    ] {
        assert_eq!(world.take(unfit, START).unwrap_err().code, code);
    }
    let removed = waypost_schemas::event::ZoneRemoved { zone: ZoneId::new("A").unwrap(), by: user("op") };
    assert_eq!(world.apply(&Event::from(removed), START).unwrap_err().code, "unexpected_record");
    assert_eq!(world.machine.changed_chunks(), []);
    assert_eq!(
        world.take(at("2000-01-01T00:00:00Z"), Micros(i64::MIN)),
        Ok(vec![]),
        "the append may be anything"
    );
}

#[test]
fn a_zone_that_is_redefined_stays_itself_and_one_that_comes_back_is_another() {
    let mut world = World::new();
    world.rule(rule("r"));
    assert_eq!(world.fix("van", 0.5, 0.5, 0), NOTHING);
    world.zone("A", square(0., 0., 1.));
    assert_eq!(world.fix("van", 0.5, 0.5, 1), ["enter A r initial"], "no fix since the zone was defined");
    world.zone("A", square(0., 0., 2.));
    assert_eq!(world.fix("van", 0.5, 0.5, 2), NOTHING, "still inside, by the new shape");
    world.zone("A", square(5., 5., 1.));
    assert_eq!(world.fix("van", 0.5, 0.5, 3), ["exit A r"], "the new shape does not hold it");
    world.zone("A", square(0., 0., 1.));
    assert_eq!(world.fix("van", 0.5, 0.5, 4), ["enter A r"], "the same zone as before");
    world.no_zone("A");
    assert_eq!(world.fix("van", 0.5, 0.5, 5), NOTHING, "a removed zone is left without a word");
    world.zone("A", square(0., 0., 1.));
    assert_eq!(world.fix("van", 0.5, 0.5, 6), ["enter A r initial"], "another zone of the same name");
    world.no_zone("A");
    world.zone("A", square(0., 0., 1.));
    assert_eq!(world.fix("van", 0.5, 0.5, 7), ["enter A r initial"], "though no fix came between");
    world.no_zone("A");
    world.no_zone("A");
    world.no_zone("never");
    assert_eq!(world.fix("van", 5.5, 5.5, 8), NOTHING);
}

#[test]
fn a_rule_fires_for_its_crossings_zones_and_subjects_alone() {
    let zones = |ids: &[&str]| Some(ids.iter().map(|id| ZoneId::new(*id).unwrap()).collect());
    let devices = |ids: &[&str]| Some(ids.iter().map(|id| DeviceId::new(*id).unwrap()).collect());
    let mut world = World::new();
    world.zone("A", square(0., 0., 1.));
    world.zone("B", square(0., 0., 2.));
    world.rule(RuleDefined { on: vec![Crossing::Enter], ..rule("enters") });
    world.rule(RuleDefined { on: vec![Crossing::Exit], zones: zones(&["A", "nowhere"]), ..rule("exits A") });
    world.rule(RuleDefined {
        subjects: devices(&["van", "bus"]),
        zones: zones(&["B"]),
        ..rule("van or bus at B")
    });
    world.rule(RuleDefined { subjects: devices(&[]), ..rule("nobody") });
    world.rule(RuleDefined { on: vec![], ..rule("never") });
    assert_eq!(
        world.fix("van", 0.5, 0.5, 0),
        ["enter A enters initial", "enter B enters initial", "enter B van or bus at B initial"]
    );
    assert_eq!(world.fix("car", 0.5, 0.5, 0), ["enter A enters initial", "enter B enters initial"]);
    assert_eq!(world.fix("van", 5.0, 0.5, 1), ["exit A exits A", "exit B van or bus at B"]);
    assert_eq!(world.fix("car", 5.0, 0.5, 1), ["exit A exits A"]);

    world.rule(RuleDefined { zones: zones(&["A"]), ..rule("enters") });
    world.change(What::NoRule(RuleId::new("exits A").unwrap()));
    world.change(What::NoRule(RuleId::new("exits A").unwrap()));
    assert_eq!(world.fix("car", 0.5, 0.5, 2), ["enter A enters"]);
    assert_eq!(world.fix("car", 5.0, 0.5, 3), ["exit A enters"]);
}

#[test]
fn a_large_audience_is_cut_into_numbered_parts_below_256_kib() {
    let longest = |i: usize| user(&format!("{i:06}{}", "u".repeat(58)));
    let mut world = World::new();
    let zone = "ß".repeat(128);
    world.zone(&zone, square(0., 0., 1.));
    let audience: Vec<UserId> = (0..=2 * AUDIENCE_PART_USERS_MAX).map(longest).collect();
    world.rule(RuleDefined { notify: audience.clone(), ..rule(&"\u{10000}".repeat(128)) });
    world.rule(RuleDefined { notify: vec![], ..rule("nobody is told") });
    let matches = world.take(fix("van", 0.5, 0.5, 0), START).unwrap();
    let parts: Vec<(i32, i32, usize)> = matches.iter().map(|m| (m.part, m.parts, m.audience.len())).collect();
    let full = AUDIENCE_PART_USERS_MAX;
    assert_eq!(parts, [(0, 1, 0), (0, 3, full), (1, 3, full), (2, 3, 1)]);
    let told: Vec<UserId> = matches.iter().flat_map(|m| m.audience.clone()).collect();
    assert_eq!(told, audience);
    for matched in matches {
        let bytes = waypost_schemas::codec::encode(&Event::from(matched)).len();
        // Some room stays for the headers.
        assert!(bytes < 255 * 1_024, "a part of {bytes} bytes");
    }
}

#[test]
fn the_antimeridian_and_the_poles_have_more_than_one_name() {
    let mut world = World::new();
    world.rule(rule("r"));
    let parts = vec![square_rings(170., 0., 10.), square_rings(-180., 0., 10.)];
    world.zone("dateline", Geometry::MultiPolygon(MultiPolygon { polygons: parts }));
    world.zone("east only", square(178., 0., 2.));
    world.zone("arctic", square(0., 80., 10.));
    let pole = Circle { centre: Place { lon: 0., lat: -90. }, radius_m: 500_000. };
    world.zone("south pole", Geometry::Circle(pole));
    assert_eq!(world.fix("a", -180., 1., 0), ["enter dateline r initial", "enter east only r initial"]);
    assert_eq!(world.fix("a", 180., 1., 1), NOTHING, "the same place");
    assert_eq!(world.fix("a", -179.9, 1., 2), ["exit east only r"]);
    assert_eq!(
        world.fix("b", -120., 90., 0),
        ["enter arctic r initial"],
        "at the pole all longitudes are one"
    );
    assert_eq!(world.fix("b", 5., 90., 1), NOTHING);
    assert_eq!(world.fix("b", -120., 89.9, 2), ["exit arctic r"]);
    assert_eq!(world.fix("c", 77., -90., 0), ["enter south pole r initial"]);
    assert_eq!(world.fix("c", -180., -86., 1), NOTHING);
    assert_eq!(world.fix("c", -180., -85., 2), ["exit south pole r"]);
}

#[test]
fn a_broken_chunk_is_unreadable_and_nothing_worse() {
    let mut world = World::new();
    world.zone("A", square(0., 0., 1.));
    for i in 0..200 {
        world.fix(&format!("van-{i}"), 0.5, 0.5, i);
    }
    let whole = world.machine.changed_chunks();
    assert!(SpatialMachine::restore(whole.clone()).is_ok());

    let long = whole.iter().position(|chunk| chunk.bytes.len() > 100).unwrap();
    let check = |what: &str, chunks: Vec<Chunk>| {
        assert!(SpatialMachine::restore(chunks).is_err(), "{what}");
    };
    check("no chunks", vec![]);
    check("one too few", whole[1..].to_vec());
    check("one too many", [&whole[..], &whole[63..]].concat());
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut chunks = whole.clone();
        edit(&mut chunks[long].bytes);
        chunks
    };
    check("more devices than bytes", edited(&|bytes| bytes[..4].fill(0xff)));
    check("a device too many", edited(&|bytes| bytes[0] += 1));
    check("a device too few", edited(&|bytes| bytes[0] -= 1));
    check("another device's chunk", {
        let mut chunks = whole.clone();
        let other = (long + 1) % 64;
        (chunks[other].bytes, chunks[long].bytes) = (whole[long].bytes.clone(), whole[other].bytes.clone());
        chunks
    });
    for length in 0..whole[long].bytes.len() {
        check("cut short", edited(&|bytes| bytes.truncate(length)));
    }
}

proptest! {
    #[test]
    fn bytes_that_are_no_chunk_never_panic(number in 0_usize..64, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut chunks = SpatialMachine::new().changed_chunks();
        chunks[number].bytes = bytes;
        // Either answer is right; an allocation of what the bytes claim would not be.
        let _ = SpatialMachine::restore(chunks);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..10_000, flip in 1_u8..) {
        let mut world = World::new();
        world.zone("A", square(0., 0., 1.));
        for device in ["a", "b", "c/d"] {
            world.fix(device, 0.5, 0.5, 0);
        }
        let mut chunks = world.machine.changed_chunks();
        let flat: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut at = at % flat;
        for chunk in &mut chunks {
            if let Some(byte) = chunk.bytes.get_mut(at) {
                *byte ^= flip;
                break;
            }
            at -= chunk.bytes.len();
        }
        let _ = SpatialMachine::restore(chunks);
    }
}

/// What can happen in a small world.
#[derive(Clone, Debug)]
enum Step {
    Zone(usize, usize),
    NoZone(usize),
    Rule(usize, usize),
    NoRule(usize),
    Fix {
        device: usize,
        lon: i32,
        lat: i32,
        minute: i64,
    },
    /// The machine is put away and made again of its snapshot.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_usize..4, 0_usize..6).prop_map(|(zone, shape)| Step::Zone(zone, shape)),
        1 => (0_usize..4).prop_map(Step::NoZone),
        1 => (0_usize..3, 0_usize..4).prop_map(|(rule, kind)| Step::Rule(rule, kind)),
        1 => (0_usize..3).prop_map(Step::NoRule),
        9 => (0_usize..4, -1..6, -1..6, 0_i64..60)
            .prop_map(|(device, lon, lat, minute)| Step::Fix { device, lon, lat, minute }),
        2 => Just(Step::Restart),
    ]
}

/// Folds the steps and returns every effect and the state's chunks; with `restarts`, the machine is made anew of its
/// chunks where a step says so, from what was written of it at every restart before.
fn run(steps: &[Step], restarts: bool) -> (Vec<RuleMatched>, Vec<Chunk>) {
    let shape = |n: usize| match n {
        0 => square(0., 0., 2.),
        1 => square(1., 1., 3.),
        2 => square(-5., -5., 1.),
        3 => Geometry::Circle(Circle { centre: Place { lon: 2., lat: 2. }, radius_m: 200_000. }),
        4 => Geometry::MultiPolygon(MultiPolygon {
            polygons: vec![square_rings(0., 0., 1.), square_rings(3., 3., 1.)],
        }),
        _ => Geometry::Polygon(Polygon { rings: vec![] }),
    };
    let zone = |n: usize| ["A", "B", "C", "D"][n];
    let mut world = World::new();
    let (mut effects, mut written) = (Vec::new(), BTreeMap::new());
    for step in steps {
        match step {
            Step::Zone(n, kind) => world.zone(zone(*n), shape(*kind)),
            Step::NoZone(n) => world.no_zone(zone(*n)),
            Step::Rule(n, kind) => {
                let mut rule = rule(["r", "s", "t"][*n]);
                rule.on.truncate(1 + kind % 2);
                rule.zones = (*kind >= 2).then(|| vec![ZoneId::new("A").unwrap(), ZoneId::new("C").unwrap()]);
                world.rule(rule);
            }
            Step::NoRule(n) => world.change(What::NoRule(RuleId::new(["r", "s", "t"][*n]).unwrap())),
            Step::Fix { device, lon, lat, minute } => {
                let fix = fix(["a", "b", "c", "d"][*device], f64::from(*lon), f64::from(*lat), *minute);
                effects.extend(world.take(fix, Micros(START.0 + Micros::HOUR)).unwrap());
            }
            Step::Restart if restarts => {
                written.extend(world.machine.changed_chunks().into_iter().map(|chunk| (chunk.number, chunk)));
                world.machine = SpatialMachine::restore(written.values().cloned().collect()).unwrap();
                let stamp = std::mem::take(&mut world.stamped);
                world.look_up_to(stamp);
            }
            Step::Restart => {}
        }
    }
    written.extend(world.machine.changed_chunks().into_iter().map(|chunk| (chunk.number, chunk)));
    (effects, written.into_values().collect())
}

proptest! {
    #[test]
    fn a_restored_machine_goes_on_as_if_nothing_had_been(steps in prop::collection::vec(step(), 0..80)) {
        let (effects, state) = run(&steps, false);
        let (again, same) = run(&steps, true);
        prop_assert_eq!(again, effects);
        prop_assert_eq!(same, state);
    }
}
