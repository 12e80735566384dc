//! Whether the rings of a polygon cross, and whether its holes lie where holes may.
//!
//! Rings may touch, themselves or each other, in single points: real borders do. They may not cross, nor share a
//! stretch of border. All signs are exact (Shewchuk's predicates, crate `robust`). The search joins a tree of
//! boxes over the edges, in ring order, with itself: near-linear for borders, whose neighbours in the ring are
//! neighbours on the map. A shape made to defeat it runs out of steps and is refused; the count of steps depends on
//! the shape alone.

use std::ops::Range;

use robust::{Coord, orient2d};
use waypost_schemas::place::Place;

/// One edge of a ring; never of length zero.
struct Edge {
    from: Coord<f64>,
    to: Coord<f64>,
    /// Its ring.
    ring: usize,
    /// Which place of the ring it starts at.
    place: usize,
}

/// What is wrong with a polygon's rings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Two edges, each a ring and the place in it that the edge starts at, cross or share a stretch.
    Crossing((usize, usize), (usize, usize)),
    /// A hole lies outside the outer ring or inside another hole.
    Misplaced(usize),
    /// The steps ran out.
    TooComplex,
}

/// Looks for the first fault of a polygon's rings; each has at least three distinct places and is closed.
pub(super) fn find(rings: &[Vec<Place>], steps: &mut u64) -> Result<(), Fault> {
    let polygon = Edges::of(rings);
    let tree = Tree::over(&polygon.edges);
    polygon.crossings(&tree, steps)?;
    (1..rings.len()).try_for_each(|hole| polygon.hole(hole, &tree, steps))
}

fn spend(steps: &mut u64) -> Result<(), Fault> {
    *steps = steps.checked_sub(1).ok_or(Fault::TooComplex)?;
    Ok(())
}

/// The edges of all rings of a polygon, ring after ring.
struct Edges {
    edges: Vec<Edge>,
    /// Which of them are of which ring.
    rings: Vec<Range<usize>>,
}

impl Edges {
    fn of(rings: &[Vec<Place>]) -> Self {
        let mut edges = Vec::with_capacity(rings.iter().map(Vec::len).sum());
        let mut ranges = Vec::with_capacity(rings.len());
        for (ring, places) in rings.iter().enumerate() {
            let start = edges.len();
            for (place, pair) in places.windows(2).enumerate() {
                let [from, to] = [coord(pair[0]), coord(pair[1])];
                if from != to {
                    edges.push(Edge { from, to, ring, place });
                }
            }
            ranges.push(start..edges.len());
        }
        Self { edges, rings: ranges }
    }

    /// The edge that ends where edge `i` starts.
    fn before(&self, i: usize) -> &Edge {
        let ring = &self.rings[self.edges[i].ring];
        &self.edges[if i == ring.start { ring.end - 1 } else { i - 1 }]
    }

    /// Joins the tree with itself down to the pairs of edges whose boxes meet.
    fn crossings(&self, tree: &Tree, steps: &mut u64) -> Result<(), Fault> {
        let mut pending = vec![(1, 1)];
        while let Some((x, y)) = pending.pop() {
            spend(steps)?;
            if x == y {
                if x < tree.leaves {
                    pending.extend([(2 * x, 2 * x), (2 * x + 1, 2 * x + 1), (2 * x, 2 * x + 1)]);
                }
            } else if tree.boxes[x].meets(&tree.boxes[y]) {
                if x < tree.leaves {
                    for (x, y) in [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| (2 * x + i, 2 * y + j)) {
                        pending.push((x, y));
                    }
                } else {
                    self.pair(x - tree.leaves, y - tree.leaves)?;
                }
            }
        }
        Ok(())
    }

    fn pair(&self, i: usize, j: usize) -> Result<(), Fault> {
        let (s, t) = (&self.edges[i], &self.edges[j]);
        let t_of_s = [side(s.from, s.to, t.from), side(s.from, s.to, t.to)];
        let s_of_t = [side(t.from, t.to, s.from), side(t.from, t.to, s.to)];
        let cross = if t_of_s == [0, 0] {
            shares_a_stretch(s, t)
        } else if t_of_s[0] * t_of_s[1] < 0 && s_of_t[0] * s_of_t[1] < 0 {
            true
        } else if s.from == t.from {
            self.passes_through(i, j)
        } else {
            // Each vertex is the start of one edge, so every vertex that lies on an edge is looked at once.
            self.passes_over(i, j, t_of_s[0]) || self.passes_over(j, i, s_of_t[0])
        };
        if cross { Err(Fault::Crossing((s.ring, s.place), (t.ring, t.place))) } else { Ok(()) }
    }

    /// Whether the border crosses edge `i` in the vertex that edge `j` starts at.
    fn passes_over(&self, i: usize, j: usize, side_of_start: i8) -> bool {
        let (s, t) = (&self.edges[i], &self.edges[j]);
        if side_of_start != 0 || t.from == s.to || !Box::of(s).holds(t.from) {
            return false;
        }
        side(s.from, s.to, self.before(j).from) * side(s.from, s.to, t.to) < 0
    }

    /// Whether the border crosses itself in the vertex that both edges start at: whether, going round the vertex,
    /// one passage's two arms lie on different sides of the other's.
    fn passes_through(&self, i: usize, j: usize) -> bool {
        let vertex = self.edges[i].from;
        let (from, to) = (self.before(i).from, self.edges[i].to);
        // Whether an arm lies in the sector that opens from `to` counterclockwise to `from`.
        let inside = |arm| match side(vertex, to, from) {
            1 => side(vertex, to, arm) > 0 && side(vertex, arm, from) > 0,
            -1 => !(side(vertex, from, arm) > 0 && side(vertex, arm, to) > 0),
            _ => side(vertex, to, arm) > 0,
        };
        inside(self.before(j).from) != inside(self.edges[j].to)
    }

    /// Checks that a hole lies inside the outer ring and outside the other holes: as nothing crosses, one point of it
    /// that is on none of their borders decides, and that point sees an odd number of other edges to its right.
    fn hole(&self, hole: usize, tree: &Tree, steps: &mut u64) -> Result<(), Fault> {
        let own = &self.edges[self.rings[hole].clone()];
        let corners = own.iter().map(|e| e.from);
        let middles = own
            .iter()
            .map(|e| Coord { x: f64::midpoint(e.from.x, e.to.x), y: f64::midpoint(e.from.y, e.to.y) });
        for point in corners.chain(middles) {
            match self.edges_right_of(point, hole, tree, steps)? {
                None => {}
                Some(n) if n % 2 == 1 => return Ok(()),
                Some(_) => return Err(Fault::Misplaced(hole)),
            }
        }
        // Every corner and middle lies on the other rings' borders, which share no stretch with it: there is no such
        // hole but one too small for doubles.
        Err(Fault::Misplaced(hole))
    }

    /// How many edges of the other rings a ray to the east meets; `None` where the point lies on one.
    fn edges_right_of(
        &self,
        point: Coord<f64>,
        own: usize,
        tree: &Tree,
        steps: &mut u64,
    ) -> Result<Option<usize>, Fault> {
        let mut count = 0;
        let mut pending = vec![1];
        while let Some(x) = pending.pop() {
            spend(steps)?;
            let bounds = &tree.boxes[x];
            if point.y < bounds.min.y || point.y > bounds.max.y || point.x > bounds.max.x {
                continue;
            }
            if x < tree.leaves {
                pending.extend([2 * x, 2 * x + 1]);
                continue;
            }
            let e = &self.edges[x - tree.leaves];
            if e.ring == own {
                continue;
            }
            let side = side(e.from, e.to, point);
            if side == 0 && bounds.holds(point) {
                return Ok(None);
            }
            let rises = e.from.y <= point.y && point.y < e.to.y;
            let falls = e.to.y <= point.y && point.y < e.from.y;
            count += usize::from((rises && side > 0) || (falls && side < 0));
        }
        Ok(Some(count))
    }
}

/// Whether two edges on one line have more than a point in common.
fn shares_a_stretch(s: &Edge, t: &Edge) -> bool {
    let (a, b) = (Box::of(s), Box::of(t));
    a.min.x.max(b.min.x) < a.max.x.min(b.max.x) || a.min.y.max(b.min.y) < a.max.y.min(b.max.y)
}

fn coord(place: Place) -> Coord<f64> {
    Coord { x: place.lon, y: place.lat }
}

/// On which side of the line from `a` to `b` a point lies: 1 left, -1 right, 0 on it.
fn side(a: Coord<f64>, b: Coord<f64>, c: Coord<f64>) -> i8 {
    let sign = orient2d(a, b, c);
    i8::from(sign > 0.0) - i8::from(sign < 0.0)
}

/// A box in degrees, its borders included.
#[derive(Clone, Copy)]
struct Box {
    min: Coord<f64>,
    max: Coord<f64>,
}

impl Box {
    const EMPTY: Self = Self {
        min: Coord { x: f64::INFINITY, y: f64::INFINITY },
        max: Coord { x: f64::NEG_INFINITY, y: f64::NEG_INFINITY },
    };

    fn of(e: &Edge) -> Self {
        Self {
            min: Coord { x: e.from.x.min(e.to.x), y: e.from.y.min(e.to.y) },
            max: Coord { x: e.from.x.max(e.to.x), y: e.from.y.max(e.to.y) },
        }
    }
    fn with(&self, other: &Self) -> Self {
        Self {
            min: Coord { x: self.min.x.min(other.min.x), y: self.min.y.min(other.min.y) },
            max: Coord { x: self.max.x.max(other.max.x), y: self.max.y.max(other.max.y) },
        }
    }
    fn meets(&self, other: &Self) -> bool {
        self.min.x <= other.max.x
            && other.min.x <= self.max.x
            && self.min.y <= other.max.y
            && other.min.y <= self.max.y
    }
    fn holds(&self, p: Coord<f64>) -> bool {
        self.min.x <= p.x && p.x <= self.max.x && self.min.y <= p.y && p.y <= self.max.y
    }
}

/// A complete binary tree of boxes: node `n` has the children `2n` and `2n + 1`, the root is 1, and leaf `leaves + i`
/// is edge `i`; leaves without an edge are empty and meet nothing.
struct Tree {
    boxes: Vec<Box>,
    leaves: usize,
}

impl Tree {
    fn over(edges: &[Edge]) -> Self {
        let leaves = edges.len().next_power_of_two();
        let mut boxes = vec![Box::EMPTY; 2 * leaves];
        for (i, e) in edges.iter().enumerate() {
            boxes[leaves + i] = Box::of(e);
        }
        for n in (1..leaves).rev() {
            boxes[n] = boxes[2 * n].with(&boxes[2 * n + 1]);
        }
        Self { boxes, leaves }
    }
}
