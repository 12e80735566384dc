//! A zone, prepared for point queries once per definition and shared by all partitions.

use std::sync::OnceLock;

use waypost_schemas::{
    event::{Geometry, ZoneDefined},
    id::ZoneId,
    place::Place,
};

use super::{
    circle::Cap,
    envelope::{Envelope, sides},
    polygon::Area,
};

/// A zone's definition; what point queries need is prepared at the first of them.
#[derive(Debug)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// The registry offset of its definition.
    pub version: i64,
    /// Its definition.
    pub defined: ZoneDefined,
    prepared: OnceLock<Prepared>,
}

#[derive(Debug)]
enum Prepared {
    Cap(Cap),
    Areas(Vec<Area>),
}

impl Zone {
    /// Takes a definition that stands in the registry at offset `version`. It checks nothing and costs nothing: a
    /// part of the geometry that is not finite contains no place.
    pub fn new(defined: ZoneDefined, version: i64) -> Self {
        Self { id: defined.zone.clone(), version, defined, prepared: OnceLock::new() }
    }

    /// Whether a place is in the zone; its boundary is. Longitude 180 is -180, and at a pole all are one.
    pub fn contains(&self, place: Place) -> bool {
        match self.prepared() {
            Prepared::Cap(cap) => cap.contains(place),
            Prepared::Areas(areas) => sides(place).any(|side| areas.iter().any(|area| area.contains(side))),
        }
    }

    /// The rectangles that an index keeps for the zone: (part, envelope).
    pub(super) fn envelopes(&self) -> impl Iterator<Item = (u32, Envelope)> + '_ {
        let (cap, areas): (&[Envelope], &[Area]) = match self.prepared() {
            Prepared::Cap(cap) => (cap.envelopes(), &[]),
            Prepared::Areas(areas) => (&[], areas),
        };
        cap.iter().map(|e| (0, *e)).chain((0..).zip(areas).map(|(part, area)| (part, area.envelope())))
    }

    /// Whether a part contains a place, taken as it is written: the caller tries the antimeridian's other side.
    pub(super) fn part_contains(&self, part: u32, place: Place) -> bool {
        match self.prepared() {
            Prepared::Cap(cap) => cap.contains(place),
            Prepared::Areas(areas) => areas.get(part as usize).is_some_and(|area| area.contains(place)),
        }
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| match &self.defined.geometry {
            Geometry::Circle(circle) => Prepared::Cap(Cap::new(circle)),
            Geometry::Polygon(polygon) => Prepared::Areas(Area::new(polygon).into_iter().collect()),
            Geometry::MultiPolygon(multi) => {
                Prepared::Areas(multi.polygons.iter().filter_map(Area::new).collect())
            }
        })
    }
}
