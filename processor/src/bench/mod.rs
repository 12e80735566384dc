//! How fast the spatial machine folds, beside what any such machine must at least do.
//!
//! [`spatial`] measures; [`track`] makes fixes and zones where no real ones are at hand.

pub mod track;

use std::{sync::Arc, time::Duration};

use waypost_runtime::clock::Clock;
use waypost_schemas::{
    cause::Position,
    event::{Crossing, Event, FixReported, RuleDefined, ZoneDefined},
    id::{RuleId, UserId},
    place::Place,
    topic::Topic,
};

use crate::{
    machine::{Effects, Input, Machine},
    registry::{Change, What},
    spatial::{SpatialMachine, ZoneIndex, zone::Zone},
};

/// How often each of the two is run; the median counts.
const PASSES: usize = 5;

/// What [`spatial`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// How many fixes a pass takes.
    pub fixes: usize,
    /// How many zones there are.
    pub zones: usize,
    /// How many matches a pass derives.
    pub matches: usize,
    /// What a pass through the machine takes, effects included.
    pub machine: Duration,
    /// What the bare look-ups take: R-tree and point in polygon for each fix, nothing remembered.
    pub floor: Duration,
}

impl Figures {
    /// Fixes a second through the machine.
    pub fn machine_per_s(&self) -> f64 {
        self.per_s(self.machine)
    }
    /// Fixes a second by the bare look-ups.
    pub fn floor_per_s(&self) -> f64 {
        self.per_s(self.floor)
    }
    /// Where no time has passed nothing was measured: 0, not infinitely many.
    fn per_s(&self, pass: Duration) -> f64 {
        if pass.is_zero() { 0.0 } else { self.fixes as f64 / pass.as_secs_f64() }
    }
}

/// Measures the spatial machine and its floor, in turns, on one thread, with a rule on all crossings of all zones.
///
/// What is prepared once for all partitions is prepared before; the fixes
/// of a device are in the order of their times.
pub fn spatial(zones: Vec<ZoneDefined>, fixes: Vec<FixReported>, clock: &Clock) -> Figures {
    let changes = changes(zones);
    let index = ZoneIndex::new(changes.iter().filter_map(|change| match &change.what {
        What::Zone(zone) => Some(Arc::clone(zone)),
        _ => None,
    }));
    let events: Vec<Event> = fixes.into_iter().map(Event::from).collect();
    let registry = changes.last().map_or(-1, |change| change.offset);
    let mut figures = Figures {
        fixes: events.len(),
        zones: changes.len() - 1,
        matches: 0,
        machine: Duration::ZERO,
        floor: Duration::ZERO,
    };
    let (mut machine, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let start = clock.monotonic();
        std::hint::black_box(look_up(&index, &events));
        floor.push(clock.elapsed(start));

        let mut folding = SpatialMachine::new();
        for change in &changes {
            folding.look(change);
        }
        let start = clock.monotonic();
        figures.matches = fold(&mut folding, &events, registry);
        machine.push(clock.elapsed(start));
    }
    (figures.machine, figures.floor) = (median(machine), median(floor));
    figures
}

/// The registry that defines the zones, and then a rule on every crossing of theirs.
pub fn changes(zones: Vec<ZoneDefined>) -> Vec<Arc<Change>> {
    let rule = RuleDefined {
        rule: RuleId::new("borders").expect("a printable text"),
        on: vec![Crossing::Exit, Crossing::Enter],
        zones: None,
        subjects: None,
        notify: vec![UserId::new("warden").expect("a name")],
        by: UserId::new("operator").expect("a name"),
    };
    let zones =
        zones.into_iter().zip(0..).map(|(zone, offset)| What::Zone(Arc::new(Zone::new(zone, offset))));
    let all = zones.chain([What::Rule(Arc::new(rule))]);
    (0..).zip(all).map(|(offset, what)| Arc::new(Change { offset, what })).collect()
}

/// Folds fixes in order and counts the matches.
pub fn fold(machine: &mut SpatialMachine, events: &[Event], registry: i64) -> usize {
    let mut effects = Effects::default();
    let mut matches = 0;
    for (offset, event) in (0..).zip(events) {
        let Event::FixReported(fix) = event else { continue };
        let position = Position { topic: Topic::Positions, partition: 0, offset };
        let input = Input { position, append: fix.at_us, event, registry };
        // A fix that is unfit costs what it costs, and matches nothing.
        let _ = machine.apply(input, &mut effects);
        matches += effects.drain().count();
    }
    matches
}

/// Looks up the zones of each fix and counts them.
pub fn look_up(index: &ZoneIndex, events: &[Event]) -> usize {
    let mut inside = Vec::new();
    let mut found = 0;
    for event in events {
        if let Event::FixReported(fix) = event {
            index.find(Place { lon: fix.lon, lat: fix.lat }, &mut inside);
            found += inside.len();
        }
    }
    found
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::{track::Track, *};

    #[test]
    fn figures_are_those_of_the_work_done() {
        let track = Track::generate(3, 40, 6, 200);
        let figures = spatial(track.zones(), track.fixes(40), &Clock::system());
        assert_eq!((figures.fixes, figures.zones), (1_200, 40));
        assert_eq!(figures.matches, track.crossings().len());
        assert!(figures.matches > 0);
    }

    #[test]
    fn no_fixes_take_no_time_worth_dividing_by() {
        let figures = spatial(vec![], vec![], &Clock::manual(waypost_schemas::time::Micros(0)));
        assert_eq!((figures.fixes, figures.zones, figures.matches), (0, 0, 0));
        assert_eq!((figures.machine_per_s(), figures.floor_per_s()), (0.0, 0.0));
    }
}
