//! Which zones a place is in: an R-tree over the parts of zones.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use rstar::{AABB, RTree, RTreeObject};
use waypost_schemas::place::Place;

use super::{
    Generation,
    envelope::{Envelope, sides},
    zone::Zone,
};

/// Below this share of the tree, parts are put in and taken out one by one; above it the tree is made anew, which
/// is cheaper and gives the better tree.
const REBUILD_ABOVE: usize = 4;

/// Zones by generation, found by place. Polygons are kept by part: a country with islands on two oceans is not one
/// rectangle around the globe.
#[derive(Debug, Default)]
pub(super) struct Index {
    tree: RTree<Part>,
    /// What the tree holds.
    indexed: BTreeMap<Generation, Arc<Zone>>,
    /// Which generations have changed since; their geometry is prepared when it is needed, not while the registry
    /// is read through.
    stale: BTreeSet<Generation>,
}

#[derive(Clone, Debug)]
struct Part {
    envelope: AABB<[f64; 2]>,
    generation: Generation,
    zone: Arc<Zone>,
    number: u32,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        (self.generation, self.number) == (other.generation, other.number)
    }
}

impl RTreeObject for Part {
    type Envelope = AABB<[f64; 2]>;
    fn envelope(&self) -> Self::Envelope {
        self.envelope
    }
}

impl Index {
    /// Says that a zone was defined, redefined or removed.
    pub(super) fn touch(&mut self, generation: Generation) {
        self.stale.insert(generation);
    }

    /// Brings the tree up to `zones`, of which it was told what changed.
    pub(super) fn settle(&mut self, zones: &BTreeMap<Generation, Arc<Zone>>) {
        if self.stale.is_empty() {
            return;
        }
        let stale = std::mem::take(&mut self.stale);
        let old: Vec<Part> =
            stale.iter().filter_map(|g| Some(parts(*g, self.indexed.get(g)?))).flatten().collect();
        let new: Vec<Part> = stale.iter().filter_map(|g| Some(parts(*g, zones.get(g)?))).flatten().collect();
        for generation in stale {
            match zones.get(&generation) {
                Some(zone) => self.indexed.insert(generation, Arc::clone(zone)),
                None => self.indexed.remove(&generation),
            };
        }
        if (old.len() + new.len()) * REBUILD_ABOVE > self.tree.size() {
            self.tree = RTree::bulk_load(self.indexed.iter().flat_map(|(g, z)| parts(*g, z)).collect());
            return;
        }
        for part in old {
            self.tree.remove(&part);
        }
        for part in new {
            self.tree.insert(part);
        }
    }

    /// Puts the generations of the zones that a place is in into `inside`, in order, each once.
    pub(super) fn find(&self, place: Place, inside: &mut Vec<Generation>) {
        inside.clear();
        for side in sides(place) {
            let envelope = aabb(Envelope::to_search(side));
            let visit = |part: &Part| -> ControlFlow<()> {
                if part.zone.part_contains(part.number, side) {
                    inside.push(part.generation);
                }
                ControlFlow::Continue(())
            };
            let _: ControlFlow<()> = self.tree.locate_in_envelope_intersecting_int(envelope, visit);
        }
        inside.sort_unstable();
        inside.dedup();
    }
}

/// The bare index over zones that never change: what [`crate::bench`] measures the machine against.
#[derive(Debug, Default)]
pub struct ZoneIndex(Index);

impl ZoneIndex {
    /// Indexes zones by their versions.
    pub fn new(zones: impl IntoIterator<Item = Arc<Zone>>) -> Self {
        let zones: BTreeMap<Generation, Arc<Zone>> = zones.into_iter().map(|z| (z.version, z)).collect();
        let mut index = Index::default();
        for generation in zones.keys() {
            index.touch(*generation);
        }
        index.settle(&zones);
        Self(index)
    }

    /// Puts the versions of the zones that a place is in into `inside`, in order, each once.
    pub fn find(&self, place: Place, inside: &mut Vec<i64>) {
        self.0.find(place, inside);
    }
}

fn parts(generation: Generation, zone: &Arc<Zone>) -> Vec<Part> {
    let part =
        |(number, envelope)| Part { envelope: aabb(envelope), generation, zone: Arc::clone(zone), number };
    zone.envelopes().map(part).collect()
}

fn aabb(envelope: Envelope) -> AABB<[f64; 2]> {
    AABB::from_corners([envelope.min.lon, envelope.min.lat], [envelope.max.lon, envelope.max.lat])
}
