//! The registry as one partition sees it: the zones and rules that stand at its stamp.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use waypost_schemas::{
    event::{Crossing, RuleDefined},
    id::{DeviceId, RuleId, ZoneId},
    place::Place,
};

use super::{Generation, index::Index, zone::Zone};
use crate::registry::{Change, What};

/// Zones and rules at a registry offset.
#[derive(Debug, Default)]
pub(super) struct View {
    zones: BTreeMap<Generation, Arc<Zone>>,
    generations: BTreeMap<ZoneId, Generation>,
    index: Index,
    rules: BTreeMap<RuleId, Rule>,
    watching_all: BTreeSet<RuleId>,
    watching: BTreeMap<ZoneId, BTreeSet<RuleId>>,
}

/// A rule that stands.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The registry offset of its definition.
    pub(super) version: i64,
    /// Its definition, each of its lists sorted.
    pub(super) defined: Arc<RuleDefined>,
}

impl View {
    /// Moves the view past a change.
    pub(super) fn fold(&mut self, change: &Change) {
        match &change.what {
            What::Zone(zone) => {
                let generation = *self.generations.entry(zone.id.clone()).or_insert(change.offset);
                self.zones.insert(generation, Arc::clone(zone));
                self.index.touch(generation);
            }
            What::NoZone(id) => {
                if let Some(generation) = self.generations.remove(id) {
                    self.zones.remove(&generation);
                    self.index.touch(generation);
                }
            }
            What::Rule(defined) => {
                self.remove_rule(&defined.rule);
                self.add_rule(Rule { version: change.offset, defined: sorted(defined) });
            }
            What::NoRule(id) => self.remove_rule(id),
        }
    }

    /// Puts the zones that a place is in into `inside`, in order of their generations.
    pub(super) fn find(&mut self, place: Place, inside: &mut Vec<Generation>) {
        self.index.settle(&self.zones);
        self.index.find(place, inside);
    }

    /// The zone that lives as this generation; none once it is removed.
    pub(super) fn zone(&self, generation: Generation) -> Option<&ZoneId> {
        self.zones.get(&generation).map(|zone| &zone.id)
    }

    /// The rules that a device's crossing fires, in order of their ids.
    pub(super) fn rules(&self, zone: &ZoneId, crossing: Crossing, device: &DeviceId) -> Vec<&Rule> {
        let ids: BTreeSet<&RuleId> =
            self.watching_all.iter().chain(self.watching.get(zone).into_iter().flatten()).collect();
        let fires = |rule: &&Rule| {
            rule.defined.on.contains(&crossing)
                && rule.defined.subjects.as_ref().is_none_or(|s| s.binary_search(device).is_ok())
        };
        ids.into_iter().filter_map(|id| self.rules.get(id)).filter(fires).collect()
    }

    fn add_rule(&mut self, rule: Rule) {
        let id = &rule.defined.rule;
        match &rule.defined.zones {
            None => {
                self.watching_all.insert(id.clone());
            }
            Some(zones) => {
                for zone in zones {
                    self.watching.entry(zone.clone()).or_default().insert(id.clone());
                }
            }
        }
        self.rules.insert(id.clone(), rule);
    }

    fn remove_rule(&mut self, id: &RuleId) {
        let Some(rule) = self.rules.remove(id) else { return };
        self.watching_all.remove(id);
        for zone in rule.defined.zones.iter().flatten() {
            if let Some(watching) = self.watching.get_mut(zone) {
                watching.remove(id);
                if watching.is_empty() {
                    self.watching.remove(zone);
                }
            }
        }
    }
}

/// The definition with its lists sorted and without repetitions, as ingest writes it; shared where it is so already.
fn sorted(defined: &Arc<RuleDefined>) -> Arc<RuleDefined> {
    let strictly = |ids: &[DeviceId]| ids.is_sorted_by(|a, b| a < b);
    if defined.subjects.as_deref().is_none_or(strictly) && defined.notify.is_sorted_by(|a, b| a < b) {
        return Arc::clone(defined);
    }
    let mut defined = RuleDefined::clone(defined);
    if let Some(subjects) = &mut defined.subjects {
        subjects.sort_unstable();
        subjects.dedup();
    }
    defined.notify.sort_unstable();
    defined.notify.dedup();
    Arc::new(defined)
}
