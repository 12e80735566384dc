use std::{collections::BTreeMap, sync::Arc};

use waypost_schemas::{
    cause::Position,
    event::{
        BehaviourSet, Event, HoleAccepted, LogFounded, RecordSkipped, RuleDefined, RuleRemoved, ZoneDefined,
        ZoneRemoved,
    },
    id::{RuleId, UserId, ZoneId},
};

use super::bounds::{self, Bounds};
use crate::admission;

/// A definition that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The registry offset of the definition.
    pub version: i64,
    /// The definition.
    pub defined: ZoneDefined,
    /// How many vertices it has.
    pub vertices: usize,
    /// What it lies within.
    pub bounds: Bounds,
}

/// A rule that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The registry offset of the definition.
    pub version: i64,
    /// The definition.
    pub defined: RuleDefined,
}

/// Who said a thing, and where in the registry it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The registry offset at which it was said first.
    pub version: i64,
    /// The operator.
    pub by: UserId,
}

/// What the registry says up to some offset: a fold of its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The log's own name; the first record that names one.
    pub log: Option<Box<str>>,
    /// The zones that stand.
    pub zones: BTreeMap<ZoneId, Arc<Zone>>,
    /// The rules that stand.
    pub rules: BTreeMap<RuleId, Arc<Rule>>,
    /// The holes that were accepted, by the place of the record behind each.
    pub holes: BTreeMap<Position, Said>,
    /// The records that machines skip, by machine and place.
    pub skips: BTreeMap<(Box<str>, Position), Said>,
    /// The behaviour that was set last, by machine.
    pub behaviours: BTreeMap<Box<str>, (i32, Said)>,
}

/// A change that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The log is named.
    Found(LogFounded),
    /// A zone is defined.
    Zone(ZoneDefined),
    /// A zone is removed.
    NoZone(ZoneRemoved),
    /// A rule is defined.
    Rule(RuleDefined),
    /// A rule is removed.
    NoRule(RuleRemoved),
    /// A hole is accepted.
    Hole(HoleAccepted),
    /// A record is skipped.
    Skip(RecordSkipped),
    /// A behaviour is set.
    Behaviour(BehaviourSet),
}

/// What a change would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It would change something.
    Differs,
    /// What it asks for stands already, since this version.
    Same(i64),
    /// What it would remove is not there.
    Absent,
}

impl View {
    /// Folds one record; says whether it is one of the registry's.
    pub fn apply(&mut self, offset: i64, event: Event) -> bool {
        match event {
            Event::LogFounded(founded) => {
                self.log.get_or_insert(founded.log.into());
            }
            Event::ZoneDefined(defined) => {
                let vertices = admission::vertices(&defined.geometry);
                let bounds = bounds::of(&defined.geometry);
                let zone = Zone { version: offset, vertices, bounds, defined };
                self.zones.insert(zone.defined.zone.clone(), Arc::new(zone));
            }
            Event::ZoneRemoved(removed) => {
                self.zones.remove(&removed.zone);
            }
            Event::RuleDefined(defined) => {
                self.rules.insert(defined.rule.clone(), Arc::new(Rule { version: offset, defined }));
            }
            Event::RuleRemoved(removed) => {
                self.rules.remove(&removed.rule);
            }
            Event::HoleAccepted(hole) => {
                let said = Said { version: offset, by: hole.by.clone() };
                self.holes.entry(hole.position()).or_insert(said);
            }
            Event::RecordSkipped(skip) => {
                let said = Said { version: offset, by: skip.by.clone() };
                self.skips.entry(skip_key(&skip)).or_insert(said);
            }
            Event::BehaviourSet(BehaviourSet { machine, number, by }) => {
                self.behaviours.insert(machine.into(), (number, Said { version: offset, by }));
            }
            _ => return false,
        }
        true
    }

    /// What a change would do to what stands; who asks for it is no part of what stands.
    pub fn standing(&self, change: &Change) -> Standing {
        let same = |version: Option<i64>| version.map_or(Standing::Differs, Standing::Same);
        let present = |there: bool| if there { Standing::Differs } else { Standing::Absent };
        match change {
            Change::Found(_) => same(self.log.as_ref().map(|_| 0)),
            Change::Zone(asked) => {
                let stands = self.zones.get(&asked.zone).filter(|z| z.defined.geometry == asked.geometry);
                same(stands.map(|z| z.version))
            }
            Change::Rule(asked) => {
                let stands = self.rules.get(&asked.rule).filter(|r| {
                    let RuleDefined { rule: _, on, zones, subjects, notify, by: _ } = &r.defined;
                    (on, zones, subjects, notify) == (&asked.on, &asked.zones, &asked.subjects, &asked.notify)
                });
                same(stands.map(|r| r.version))
            }
            Change::NoZone(removed) => present(self.zones.contains_key(&removed.zone)),
            Change::NoRule(removed) => present(self.rules.contains_key(&removed.rule)),
            Change::Hole(hole) => same(self.holes.get(&hole.position()).map(|said| said.version)),
            Change::Skip(skip) => same(self.skips.get(&skip_key(skip)).map(|said| said.version)),
            Change::Behaviour(asked) => {
                let stands = self.behaviours.get(asked.machine.as_str());
                same(stands.filter(|(number, _)| *number == asked.number).map(|(_, said)| said.version))
            }
        }
    }
}

impl Change {
    /// The key of its record.
    pub fn key(&self) -> String {
        match self {
            Self::Found(_) => "log".to_owned(),
            Self::Zone(ZoneDefined { zone, .. }) | Self::NoZone(ZoneRemoved { zone, .. }) => {
                format!("zone/{zone}")
            }
            Self::Rule(RuleDefined { rule, .. }) | Self::NoRule(RuleRemoved { rule, .. }) => {
                format!("rule/{rule}")
            }
            Self::Hole(hole) => format!("hole/{}", hole.position()),
            Self::Skip(skip) => format!("skip/{}/{}", skip.machine, skip.position()),
            Self::Behaviour(set) => format!("behaviour/{}", set.machine),
        }
    }

    /// Its record.
    pub fn event(&self) -> Event {
        match self.clone() {
            Self::Found(event) => event.into(),
            Self::Zone(event) => event.into(),
            Self::NoZone(event) => event.into(),
            Self::Rule(event) => event.into(),
            Self::NoRule(event) => event.into(),
            Self::Hole(event) => event.into(),
            Self::Skip(event) => event.into(),
            Self::Behaviour(event) => event.into(),
        }
    }
}

fn skip_key(skip: &RecordSkipped) -> (Box<str>, Position) {
    (skip.machine.as_str().into(), skip.position())
}

#[cfg(test)]
mod tests {
    use waypost_schemas::{
        event::{Circle, Crossing, Geometry},
        place::Place,
        topic::Topic,
    };

    use super::*;

    fn zone(radius_m: f64, by: &str) -> Change {
        let centre = Place { lon: 7.0, lat: 46.0 };
        let geometry = Geometry::Circle(Circle { centre, radius_m });
        Change::Zone(ZoneDefined { zone: ZoneId::new("A").unwrap(), geometry, by: UserId::new(by).unwrap() })
    }

    fn rule(on: Crossing, by: &str) -> Change {
        let rule = RuleId::new("A").unwrap();
        let by = UserId::new(by).unwrap();
        Change::Rule(RuleDefined { rule, on: vec![on], zones: None, subjects: None, notify: vec![], by })
    }

    #[test]
    fn a_change_is_one_only_where_it_changes_what_stands_whoever_asks() {
        let mut view = View::default();
        let by = UserId::new("a").unwrap();
        let no_zone = Change::NoZone(ZoneRemoved { zone: ZoneId::new("A").unwrap(), by: by.clone() });
        let no_rule = Change::NoRule(RuleRemoved { rule: RuleId::new("A").unwrap(), by });
        let found = |log: &str| Change::Found(LogFounded { log: log.into() });
        let steps = [
            (found("x"), Standing::Differs),
            (found("y"), Standing::Same(0)),
            (no_zone.clone(), Standing::Absent),
            (zone(5.0, "a"), Standing::Differs),
            (zone(5.0, "b"), Standing::Same(3)),
            (zone(6.0, "a"), Standing::Differs),
            (no_rule.clone(), Standing::Absent),
            (rule(Crossing::Enter, "a"), Standing::Differs),
            (rule(Crossing::Enter, "b"), Standing::Same(7)),
            (rule(Crossing::Exit, "b"), Standing::Differs),
            (no_zone.clone(), Standing::Differs),
            (no_zone, Standing::Absent),
            (no_rule.clone(), Standing::Differs),
            (no_rule, Standing::Absent),
        ];
        for (offset, (change, standing)) in steps.into_iter().enumerate() {
            assert_eq!(view.standing(&change), standing, "step {offset}");
            if standing == Standing::Differs {
                assert!(view.apply(offset as i64, change.event()));
            }
        }
        assert_eq!(view, View { log: Some("x".into()), ..View::default() });
    }

    #[test]
    fn what_is_said_of_the_log_is_said_once_and_a_behaviour_whenever_it_differs() {
        let mut view = View::default();
        let by = |by: &str| UserId::new(by).unwrap();
        let hole = |offset, who| {
            Change::Hole(HoleAccepted { topic: Topic::Inboxes, partition: 3, offset, by: by(who) })
        };
        let skip = |machine: &str, who| {
            let (machine, topic) = (machine.to_owned(), Topic::Positions);
            Change::Skip(RecordSkipped { machine, topic, partition: 3, offset: 9, by: by(who) })
        };
        let set =
            |number, who| Change::Behaviour(BehaviourSet { machine: "spatial".into(), number, by: by(who) });
        for (offset, (change, standing)) in (0..).zip([
            (hole(7, "a"), Standing::Differs),
            (hole(7, "b"), Standing::Same(0)),
            (hole(8, "a"), Standing::Differs),
            (skip("spatial", "a"), Standing::Differs),
            (skip("spatial", "b"), Standing::Same(3)),
            (skip("alerts", "a"), Standing::Differs),
            (set(1, "a"), Standing::Differs),
            (set(1, "b"), Standing::Same(6)),
            (set(2, "a"), Standing::Differs),
            (set(1, "a"), Standing::Differs),
        ]) {
            assert_eq!(view.standing(&change), standing, "step {offset}");
            assert!(view.apply(offset, change.event()));
        }
        assert_eq!((view.holes.len(), view.skips.len(), view.behaviours["spatial"].0), (2, 2, 1));
    }
}
