//! A polygon with holes, prepared for exact point queries.

use geo::{Coord, Kernel, Orientation, kernels::RobustKernel};
use waypost_schemas::{event::Polygon, place::Place};

use super::envelope::{Envelope, is_pole};

/// How many edges a band holds on average where no edge spans two bands.
const EDGES_PER_BAND: usize = 4;
/// How many times an edge stands in bands on average, at most; long edges make bands fewer, never the memory large.
const COPIES_PER_EDGE_MAX: usize = 4;

/// An outer ring with holes. Edges are straight in longitude and latitude, and every ring's boundary is inside.
///
/// A ray to the east decides, as in JTS' and GEOS' `RayCrossingCounter`; the side of an edge is decided by
/// Shewchuk's adaptive orientation, which is exact. To meet few edges, those are filed by bands of latitude.
#[derive(Debug)]
pub(super) struct Area {
    envelope: Envelope,
    /// The rings, one after the other, each closed. Edge `i` goes from vertex `i` to vertex `i + 1`.
    vertices: Box<[Place]>,
    /// Band `b` holds `edges[starts[b]..starts[b + 1]]`.
    starts: Box<[u32]>,
    edges: Box<[u32]>,
    bands_per_degree: f64,
}

impl Area {
    /// Prepares a polygon; `None` where it has no place, or one that is not on the globe.
    pub(super) fn new(polygon: &Polygon) -> Option<Self> {
        let mut vertices = Vec::with_capacity(polygon.rings.iter().map(|ring| ring.len() + 1).sum());
        let mut edges = Vec::with_capacity(vertices.capacity());
        for ring in &polygon.rings {
            let first = vertices.len() as u32;
            for place in ring {
                vertices.push(Place::new(place.lon, place.lat).ok()?);
            }
            // A ring that is not closed is closed: otherwise its last gap would let rays through.
            vertices.extend(ring.first().filter(|first| ring.last() != Some(first)));
            edges.extend(first..(vertices.len() as u32).saturating_sub(1).max(first));
        }
        let envelope = Envelope::of(vertices.iter().copied())?;
        let mut area = Self {
            envelope,
            vertices: vertices.into(),
            starts: Box::default(),
            edges: Box::default(),
            bands_per_degree: 0.0,
        };
        area.file(&edges);
        Some(area)
    }

    /// The rectangle around it.
    pub(super) fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Whether a place, with its longitude as it is written, is inside or on the boundary.
    pub(super) fn contains(&self, place: Place) -> bool {
        if place.lat < self.envelope.min.lat || place.lat > self.envelope.max.lat {
            return false;
        }
        if is_pole(place.lat) {
            // What reaches the pole's latitude anywhere touches the pole.
            return true;
        }
        let band = self.band(place.lat);
        let edges = &self.edges[self.starts[band] as usize..self.starts[band + 1] as usize];
        let mut odd = false;
        for &edge in edges {
            let (a, b) = (self.vertices[edge as usize], self.vertices[edge as usize + 1]);
            match meet(place, a, b) {
                Ray::Misses => {}
                Ray::Crosses => odd = !odd,
                Ray::StartsOn => return true,
            }
        }
        odd
    }

    /// Files the edges by bands: as many as give few edges each, halved until long edges are not copied too often.
    fn file(&mut self, edges: &[u32]) {
        let height = self.envelope.max.lat - self.envelope.min.lat;
        let mut bands = (edges.len() / EDGES_PER_BAND).max(1);
        loop {
            self.bands_per_degree = bands as f64 / height;
            self.starts = vec![0; bands + 1].into();
            let copies: usize = edges.iter().map(|e| self.bands_of(*e).count()).sum();
            if bands == 1 || copies <= edges.len() * COPIES_PER_EDGE_MAX {
                break;
            }
            bands /= 2;
        }
        let mut starts = vec![0_u32; bands + 1];
        for band in edges.iter().flat_map(|e| self.bands_of(*e)) {
            starts[band + 1] += 1;
        }
        for band in 0..bands {
            starts[band + 1] += starts[band];
        }
        let mut next = starts.clone();
        let mut filed = vec![0; starts[bands] as usize];
        for &edge in edges {
            for band in self.bands_of(edge) {
                filed[next[band] as usize] = edge;
                next[band] += 1;
            }
        }
        (self.starts, self.edges) = (starts.into(), filed.into());
    }

    fn bands_of(&self, edge: u32) -> std::ops::RangeInclusive<usize> {
        let (a, b) =
            (self.band(self.vertices[edge as usize].lat), self.band(self.vertices[edge as usize + 1].lat));
        a.min(b)..=a.max(b)
    }

    /// The band of a latitude; it never falls while the latitude rises, so an edge is filed wherever a ray meets it.
    /// (A flat area has an infinite `bands_per_degree`; its one latitude times that is no number, which casts to 0.)
    fn band(&self, lat: f64) -> usize {
        (((lat - self.envelope.min.lat) * self.bands_per_degree) as usize).min(self.starts.len() - 2)
    }
}

enum Ray {
    Misses,
    Crosses,
    StartsOn,
}

/// How the ray from `p` to the east meets the edge from `a` to `b`. An edge owns its lower end, not its upper one.
#[inline]
#[allow(clippy::float_cmp, reason = "the same latitude is the same number: the predicate is exact")]
fn meet(p: Place, a: Place, b: Place) -> Ray {
    if a.lon < p.lon && b.lon < p.lon {
        return Ray::Misses;
    }
    if a.lat == p.lat && b.lat == p.lat {
        let on = a.lon.min(b.lon) <= p.lon && p.lon <= a.lon.max(b.lon);
        return if on { Ray::StartsOn } else { Ray::Misses };
    }
    if b == p || a == p {
        return Ray::StartsOn;
    }
    if (a.lat > p.lat) == (b.lat > p.lat) {
        return Ray::Misses;
    }
    if a.lon > p.lon && b.lon > p.lon {
        return Ray::Crosses;
    }
    let (low, high) = if a.lat < b.lat { (a, b) } else { (b, a) };
    match RobustKernel::orient2d(coord(low), coord(high), coord(p)) {
        Orientation::Collinear => Ray::StartsOn,
        Orientation::CounterClockwise => Ray::Crosses,
        Orientation::Clockwise => Ray::Misses,
    }
}

fn coord(place: Place) -> Coord {
    Coord { x: place.lon, y: place.lat }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Point = (i32, i32);

    fn polygon(rings: &[&[Point]]) -> Polygon {
        let place = |(x, y): &Point| Place { lon: f64::from(*x), lat: f64::from(*y) };
        Polygon { rings: rings.iter().map(|ring| ring.iter().map(place).collect()).collect() }
    }

    fn check(rings: &[&[Point]], inside: &[(f64, f64)], outside: &[(f64, f64)]) {
        let area = Area::new(&polygon(rings)).unwrap();
        for (places, expected) in [(inside, true), (outside, false)] {
            for (lon, lat) in places {
                assert_eq!(
                    area.contains(Place { lon: *lon, lat: *lat }),
                    expected,
                    "({lon}, {lat}) in {rings:?}"
                );
            }
        }
    }

    const SQUARE: &[Point] = &[(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)];
    const HOLE: &[Point] = &[(2, 2), (2, 8), (8, 8), (8, 2), (2, 2)];

    #[test]
    fn vertices_and_edges_of_every_ring_are_inside() {
        check(
            &[SQUARE, HOLE],
            &[
                (0.0, 0.0),
                (10.0, 10.0),
                (0.0, 5.0),
                (5.0, 10.0),
                (10.0, 3.0),
                (5.0, 0.0),
                (1.0, 1.0),
                (9.0, 5.0),
            ],
            &[(-0.1, 0.0), (10.1, 10.0), (5.0, 10.000_000_001), (f64::from_bits(10_f64.to_bits() + 1), 5.0)],
        );
        check(
            &[SQUARE, HOLE],
            &[(2.0, 2.0), (8.0, 8.0), (2.0, 5.0), (5.0, 8.0), (8.0, 5.0), (5.0, 2.0)],
            &[(2.000_000_001, 5.0), (5.0, 5.0), (3.0, 2.000_000_001)],
        );
    }

    #[test]
    fn rays_through_vertices_and_along_edges_count_right() {
        // A W: rays at the heights of its inner vertices and along its flat tops.
        let w: &[Point] =
            &[(0, 10), (2, 0), (5, 5), (8, 0), (10, 10), (8, 10), (7, 4), (5, 9), (3, 4), (2, 10), (0, 10)];
        check(
            &[w],
            &[(5.0, 5.0), (5.0, 9.0), (1.0, 10.0), (9.0, 10.0), (3.0, 3.0)],
            &[(5.0, 4.9), (5.0, 10.0), (0.0, 0.0), (5.0, 0.0), (2.9, 10.0)],
        );
        // Steps: flat edges on both sides of a ray.
        let steps: &[Point] = &[(0, 0), (6, 0), (6, 2), (4, 2), (4, 4), (2, 4), (2, 6), (0, 6), (0, 0)];
        check(
            &[steps],
            &[(3.0, 2.0), (5.0, 2.0), (3.0, 4.0), (1.0, 4.0)],
            &[(-1.0, 2.0), (7.0, 2.0), (-1.0, 4.0), (5.0, 4.0), (3.0, 6.0)],
        );
    }

    #[test]
    fn what_is_not_quite_a_polygon_still_has_its_boundary() {
        check(&[&[(1, 1), (5, 5), (1, 1)]], &[(1.0, 1.0), (3.0, 3.0)], &[(3.0, 2.9), (6.0, 6.0)]);
        check(&[&[(1, 1), (5, 1), (9, 1), (1, 1)]], &[(7.0, 1.0)], &[(7.0, 1.1), (0.0, 1.0)]);
        check(&[&[(1, 1)]], &[], &[(2.0, 1.0)]);
        check(&[&[(0, 0), (4, 0), (4, 4), (0, 4)]], &[(0.0, 2.0), (1.0, 1.0)], &[(-1.0, 2.0)]);
        assert!(Area::new(&polygon(&[])).is_none());
        assert!(Area::new(&polygon(&[&[]])).is_none());
        assert!(Area::new(&polygon(&[&[(0, 0), (400, 0), (0, 4), (0, 0)]])).is_none());
        let nan = Polygon { rings: vec![vec![Place { lon: f64::NAN, lat: 0.0 }; 4]] };
        assert!(Area::new(&nan).is_none());
    }

    #[test]
    fn long_edges_do_not_make_the_bands_large() {
        // A comb whose every edge runs through all latitudes.
        let teeth = (0..20_000).map(|i| Place { lon: f64::from(i) / 1_000.0, lat: f64::from(i % 2) });
        let ends =
            [Place { lon: 20.0, lat: -1.0 }, Place { lon: 0.0, lat: -1.0 }, Place { lon: 0.0, lat: 0.0 }];
        let area = Area::new(&Polygon { rings: vec![teeth.chain(ends).collect()] }).unwrap();
        assert!(area.edges.len() <= COPIES_PER_EDGE_MAX * area.vertices.len());
        assert!(area.contains(Place { lon: 0.002, lat: 0.0 }));
        assert!(!area.contains(Place { lon: 0.002, lat: 0.000_001 }));
    }

    #[test]
    fn an_edge_is_straight_to_the_last_bit() {
        // On the diagonal of two floats that differ in their last bits, rounding alone would say "on the edge".
        let next = |x: f64| f64::from_bits(x.to_bits() + 1);
        let (a, b) = (Place { lon: 0.1, lat: 0.1 }, Place { lon: 0.3, lat: 0.3 });
        let ring = vec![a, b, Place { lon: 0.1, lat: 0.3 }, a];
        let area = Area::new(&Polygon { rings: vec![ring] }).unwrap();
        assert!(area.contains(Place { lon: 0.2, lat: 0.2 }));
        assert!(area.contains(Place { lon: 0.2, lat: next(0.2) }));
        assert!(!area.contains(Place { lon: next(0.2), lat: 0.2 }));
    }

    /// The even-odd rule and the boundary, edge by edge, in whole numbers.
    fn naive(rings: &[Vec<Point>], (x, y): Point) -> bool {
        let mut odd = false;
        for edge in rings.iter().flat_map(|ring| ring.windows(2)) {
            let ((ax, ay), (bx, by)) = (edge[0], edge[1]);
            let cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax);
            if cross == 0 && (ax.min(bx)..=ax.max(bx)).contains(&x) && (ay.min(by)..=ay.max(by)).contains(&y)
            {
                return true;
            }
            let upward = ay <= y && by > y;
            let downward = by <= y && ay > y;
            if (upward && cross > 0) || (downward && cross < 0) {
                odd = !odd;
            }
        }
        odd
    }

    fn ring(reach: i32) -> impl Strategy<Value = Vec<Point>> {
        prop::collection::vec((-reach..=reach, -reach..=reach), 3..40).prop_map(|mut ring| {
            ring.push(ring[0]);
            ring
        })
    }

    proptest! {
        /// Rings of any kind, crossing themselves and each other: the structure must not change what the rule says.
        #[test]
        fn bands_answer_as_edge_by_edge_does(rings in prop::collection::vec(ring(12), 1..4)) {
            let borrowed: Vec<&[Point]> = rings.iter().map(Vec::as_slice).collect();
            let area = Area::new(&polygon(&borrowed)).unwrap();
            for x in -13..=13 {
                for y in -13..=13 {
                    let place = Place { lon: f64::from(x), lat: f64::from(y) };
                    prop_assert_eq!(area.contains(place), naive(&rings, (x, y)), "({}, {})", x, y);
                }
            }
        }
    }
}
