//! Which matches the fixes should have made.

use std::collections::{BTreeMap, BTreeSet};

use waypost_schemas::{
    codec,
    event::{Crossing, Event, Fix, FixReported, Geometry, RuleDefined, RuleMatched},
    id::{DeviceId, RuleId, ZoneId},
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::{Derived, Facts, position};

/// The zones and rules up to some offset of the registry.
#[derive(Default)]
struct Registry {
    /// Since when a zone stands, and where it is.
    zones: BTreeMap<ZoneId, (i64, Geometry)>,
    rules: BTreeMap<RuleId, (i64, RuleDefined)>,
}

/// A device as its newest fix left it.
struct Device {
    newest: Fix,
    /// What of the registry it had seen.
    seen: i64,
    /// The zones that it was in, with since when each stood.
    inside: BTreeSet<(ZoneId, i64)>,
}

pub(super) fn fold(facts: &Facts<'_>, p: i32, derived: &mut Derived) {
    let of = TopicPartition::new(Topic::Positions, p);
    let (mut registry, mut seen) = (Registry::default(), -1);
    let mut devices: BTreeMap<DeviceId, Device> = BTreeMap::new();
    for record in facts.log.of_partition(Topic::Positions, p) {
        let cause = position(of, record.offset);
        let decoded = codec::decode(record.value.as_deref().unwrap_or_default());
        if let Ok(Event::FixReported(fix)) = &decoded {
            (seen + 1..=fix.registry).for_each(|offset| registry.apply(facts, offset));
            seen = seen.max(fix.registry);
        }
        if let Some(code) = facts.junk.get(&(of, record.offset)) {
            derived.dead("spatial", cause, record, code);
            continue;
        }
        let Ok(Event::FixReported(fix)) = decoded else { unreachable!("what is no fix was junk") };
        let before = devices.get(&fix.device);
        let late = before.is_some_and(|device| fix.at_us <= device.newest.at_us);
        if late || fix.at_us.0 > record.append.0 + 5 * Micros::MINUTE {
            continue;
        }
        let inside = registry.around(&fix);
        let matches = registry.matches(&fix, before, &inside, seen);
        for (ordinal, matched) in matches.into_iter().enumerate() {
            derived.effect("spatial", cause, ordinal, Topic::Matches, fix.device.as_str(), &matched.into());
        }
        devices.insert(fix.device.clone(), Device { newest: fix.fix(), seen, inside });
    }
}

impl Registry {
    fn apply(&mut self, facts: &Facts<'_>, offset: i64) {
        let record = &facts.log.of_partition(Topic::Registry, 0)[offset as usize];
        match codec::decode(record.value.as_deref().unwrap_or_default()) {
            Ok(Event::ZoneDefined(zone)) => {
                let since = self.zones.get(&zone.zone).map_or(offset, |(since, _)| *since);
                self.zones.insert(zone.zone, (since, zone.geometry));
            }
            Ok(Event::ZoneRemoved(removed)) => drop(self.zones.remove(&removed.zone)),
            Ok(Event::RuleDefined(rule)) => drop(self.rules.insert(rule.rule.clone(), (offset, rule))),
            Ok(Event::RuleRemoved(removed)) => drop(self.rules.remove(&removed.rule)),
            _ => {}
        }
    }

    /// The zones around a fix, each with since when it stands.
    fn around(&self, fix: &FixReported) -> BTreeSet<(ZoneId, i64)> {
        let around = self.zones.iter().filter(|(_, (_, geometry))| is_around(geometry, fix.lon));
        around.map(|(zone, (since, _))| (zone.clone(), *since)).collect()
    }

    fn matches(
        &self,
        fix: &FixReported,
        before: Option<&Device>,
        inside: &BTreeSet<(ZoneId, i64)>,
        seen: i64,
    ) -> Vec<RuleMatched> {
        let nowhere = BTreeSet::new();
        let was = before.map_or(&nowhere, |device| &device.inside);
        // A zone that is no more is left without a word.
        let stands = |(zone, since): &&(ZoneId, i64)| self.zones.get(zone).is_some_and(|(s, _)| s == since);
        let exits = was.difference(inside).filter(stands).map(|(zone, _)| (Crossing::Exit, zone, false));
        let enters = inside
            .difference(was)
            .map(|(zone, since)| (Crossing::Enter, zone, before.is_none_or(|device| device.seen < *since)));
        let mut matches = Vec::new();
        for (event, zone, initial) in exits.chain(enters) {
            for (rule, (version, defined)) in &self.rules {
                let watches = defined.on.contains(&event)
                    && defined.zones.as_ref().is_none_or(|zones| zones.contains(zone))
                    && defined.subjects.as_ref().is_none_or(|subjects| subjects.contains(&fix.device));
                if watches {
                    matches.push(RuleMatched {
                        rule: rule.clone(),
                        rule_version: *version,
                        zone: Some(zone.clone()),
                        event,
                        initial,
                        device: fix.device.clone(),
                        fix: fix.fix(),
                        previous: before.map(|device| device.newest),
                        audience: defined.notify.clone(),
                        part: 0,
                        parts: 1,
                        registry: seen,
                    });
                }
            }
        }
        matches
    }
}

/// Whether a zone is around a place on the world's one parallel; no place is near a border.
fn is_around(geometry: &Geometry, lon: f64) -> bool {
    match geometry {
        Geometry::Circle(circle) => (circle.centre.lon - lon).abs() < 0.1,
        Geometry::Polygon(polygon) => {
            let ring = &polygon.rings[0];
            let (west, east) = (ring[0].lon, ring[1].lon);
            (west..east).contains(&lon)
        }
        Geometry::MultiPolygon(_) => unreachable!("the world makes none"),
    }
}
