use robust::{Coord, orient2d};
use waypost_schemas::{event::Polygon, place};

use super::{Limits, Refusal, crossing, ensure};
use crate::code::Code;

/// Checks the polygons of one zone: ranges, closed rings, areas, crossings and holes. Polygons may overlap: the zone
/// is their union. Either winding is taken, as RFC 7946 3.1.6 asks of readers.
pub(super) fn check(polygons: &[Polygon], limits: &Limits) -> Result<(), Refusal> {
    ensure(!polygons.is_empty(), Code::EmptyGeometry, || "the geometry has no polygon".into())?;
    let vertices: usize = polygons.iter().flat_map(|p| &p.rings).map(Vec::len).sum();
    ensure(vertices <= limits.vertices_max, Code::TooManyVertices, || {
        format!("the geometry has {vertices} vertices; {} are taken", limits.vertices_max)
    })?;
    let mut steps = limits.geometry_steps_max;
    for (i, polygon) in polygons.iter().enumerate() {
        ensure(!polygon.rings.is_empty(), Code::EmptyGeometry, || format!("polygon {i} has no ring"))?;
        for (j, ring) in polygon.rings.iter().enumerate() {
            check_ring(ring, || format!("polygon {i}, ring {j}"))?;
        }
        crossing::find(&polygon.rings, &mut steps).map_err(|fault| explain(i, &fault))?;
    }
    Ok(())
}

fn check_ring(ring: &[place::Place], which: impl Fn() -> String) -> Result<(), Refusal> {
    for (k, p) in ring.iter().enumerate() {
        place::Place::new(p.lon, p.lat).map_err(|error| {
            let (code, hint) = match error {
                place::Error::Latitude => (Code::BadLatitude, "GeoJSON has the longitude first"),
                place::Error::Longitude => {
                    (Code::BadLongitude, "cut a zone that crosses the antimeridian there, into two polygons")
                }
            };
            Refusal::new(code, format!("{}, place {k} is [{}, {}]: {hint}", which(), p.lon, p.lat))
        })?;
    }
    ensure(ring.len() >= 4, Code::TooFewPlaces, || {
        format!("{} has {} places; a ring has four or more", which(), ring.len())
    })?;
    ensure(ring.first() == ring.last(), Code::UnclosedRing, || {
        format!("{} does not end where it starts: repeat its first place at its end", which())
    })?;
    ensure(!is_flat(ring), Code::ZeroAreaRing, || {
        format!("{} encloses nothing: its places lie on one line", which())
    })
}

/// Whether all places lie on one line, exactly.
fn is_flat(ring: &[place::Place]) -> bool {
    let coord = |p: &place::Place| Coord { x: p.lon, y: p.lat };
    let first = coord(&ring[0]);
    let Some(second) = ring.iter().map(coord).find(|c| *c != first) else { return true };
    ring.iter().all(|p| orient2d(first, second, coord(p)) == 0.0)
}

fn explain(polygon: usize, fault: &crossing::Fault) -> Refusal {
    match fault {
        crossing::Fault::Crossing((ring, place), (other_ring, other_place)) => Refusal::new(
            Code::CrossingRings,
            format!(
                "polygon {polygon}: the edge from ring {ring}, place {place} crosses or runs along \
                 the edge from ring {other_ring}, place {other_place}"
            ),
        ),
        crossing::Fault::Misplaced(ring) => Refusal::new(
            Code::MisplacedHole,
            format!("polygon {polygon}, ring {ring} is a hole outside the outer ring or inside another hole"),
        ),
        crossing::Fault::TooComplex => Refusal::new(
            Code::GeometryTooComplex,
            format!("polygon {polygon} takes too long to check: simplify the zone or cut it into several"),
        ),
    }
}
