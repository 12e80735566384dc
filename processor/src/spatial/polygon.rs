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
