use std::{collections::BTreeMap, sync::Arc};

use waypost_schemas::{
    event::{Event, LogFounded, RuleDefined, RuleRemoved, ZoneDefined, ZoneRemoved},
    id::{RuleId, ZoneId},
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

/// What the registry says up to some offset: a fold of its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The log's own name; the first record that names one.
    pub log: Option<Box<str>>,
    /// The zones that stand.
    pub zones: BTreeMap<ZoneId, Arc<Zone>>,
    /// The rules that stand.
    pub rules: BTreeMap<RuleId, Arc<Rule>>,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_schemas::{
        event::{Circle, Crossing, Geometry},
        id::UserId,
        place::Place,
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
}
