//! A generated fleet: zones, fixes, and an independent account of the borders that it crosses.
//!
//! All coordinates are whole multiples of 1/1024 degree. Floats and short decimals hold those exactly, and the
//! account is in whole numbers: it needs no tolerance, and shares no line with the spatial machine.

use std::collections::{BTreeMap, BTreeSet};

use waypost_schemas::{
    event::{Crossing, FixReported, Geometry, MultiPolygon, Polygon, ZoneDefined},
    id::{DeviceId, UserId, ZoneId},
    place::Place,
    time::Micros,
};

/// Grid units a degree.
const PER_DEGREE: i32 = 1_024;
/// The fleet's ground in grid units, from 0: 12 by 6 degrees, at 4° E 44° N.
const GROUND: (i32, i32) = (12 * PER_DEGREE, 6 * PER_DEGREE);
const ORIGIN: (i32, i32) = (4 * PER_DEGREE, 44 * PER_DEGREE);
/// The longest way between two fixes, in grid units on each axis: about 5 km.
const STEP: i32 = 50;
/// 2026-01-01T00:00:00Z.
const START: Micros = Micros(1_767_225_600_000_000);
/// Five minutes between two fixes of a device.
const EVERY_US: i64 = 5 * Micros::MINUTE;

/// A point of the grid: east, north.
type Point = (i32, i32);
/// An outer ring and holes, each closed.
type Rings = Vec<Vec<Point>>;

/// A fleet's zones and fixes, by a seed.
#[derive(Debug, Clone)]
pub struct Track {
    zones: Vec<(ZoneId, Vec<Rings>)>,
    fixes: Vec<(DeviceId, Micros, Point)>,
}

/// A border that a device crossed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crossed {
    /// When, by the device's time.
    pub at: Micros,
    /// The device.
    pub device: DeviceId,
    /// Exits come before enters.
    pub event: Crossing,
    /// The zone.
    pub zone: ZoneId,
}

impl Track {
    /// Makes `zones` zones and `devices` devices with `fixes` fixes each, the same ones for the same seed.
    pub fn generate(seed: u64, zones: usize, devices: usize, fixes: usize) -> Self {
        let mut dice = Dice(seed);
        let id = |i: usize| ZoneId::new(format!("zone {i:03}")).expect("a printable text");
        let zones = (0..zones).map(|i| (id(i), shape(&mut dice))).collect();
        let mut at: Vec<Point> =
            (0..devices).map(|_| (dice.below(GROUND.0 + 1), dice.below(GROUND.1 + 1))).collect();
        let ids: Vec<DeviceId> =
            (0..devices).map(|i| DeviceId::new(format!("van-{i:02}")).expect("a name")).collect();
        let mut track = Self { zones, fixes: Vec::with_capacity(devices * fixes) };
        for (round, n) in (0..fixes).zip(0_i64..) {
            for (id, (x, y)) in ids.iter().zip(&mut at) {
                if round > 0 {
                    *x = (*x + dice.below(2 * STEP + 1) - STEP).clamp(0, GROUND.0);
                    *y = (*y + dice.below(2 * STEP + 1) - STEP).clamp(0, GROUND.1);
                }
                track.fixes.push((id.clone(), Micros(START.0 + n * EVERY_US), (*x, *y)));
            }
        }
        track
    }

    /// The zones, as records.
    pub fn zones(&self) -> Vec<ZoneDefined> {
        let polygon = |rings: &Rings| Polygon {
            rings: rings.iter().map(|ring| ring.iter().map(|p| place(*p)).collect()).collect(),
        };
        let geometry = |parts: &[Rings]| match parts {
            [one] => Geometry::Polygon(polygon(one)),
            several => {
                Geometry::MultiPolygon(MultiPolygon { polygons: several.iter().map(polygon).collect() })
            }
        };
        let by = UserId::new("operator").expect("a name");
        self.zones
            .iter()
            .map(|(zone, parts)| ZoneDefined {
                zone: zone.clone(),
                geometry: geometry(parts),
                by: by.clone(),
            })
            .collect()
    }

    /// The fixes, as records, by time and then device, stamped with a registry offset.
    pub fn fixes(&self, registry: i64) -> Vec<FixReported> {
        let record = |(device, at_us, point): &(DeviceId, Micros, Point)| {
            let Place { lon, lat } = place(*point);
            FixReported {
                device: device.clone(),
                lat,
                lon,
                at_us: *at_us,
                accuracy_m: None,
                speed_mps: None,
                heading_deg: None,
                altitude_m: None,
                attributes: BTreeMap::new(),
                registry,
            }
        };
        self.fixes.iter().map(record).collect()
    }

    /// The borders that the fleet crosses; a first fix inside a zone enters it. By time, device, event and zone.
    pub fn crossings(&self) -> Vec<Crossed> {
        let mut inside: BTreeMap<&DeviceId, BTreeSet<&ZoneId>> = BTreeMap::new();
        let mut crossed = Vec::new();
        for (device, at, point) in &self.fixes {
            let holds =
                |(_, parts): &&(ZoneId, Vec<Rings>)| parts.iter().any(|rings| contains(rings, *point));
            let now: BTreeSet<&ZoneId> = self.zones.iter().filter(holds).map(|(id, _)| id).collect();
            let before = inside.insert(device, now.clone()).unwrap_or_default();
            let mut add = |zone: &ZoneId, event| {
                crossed.push(Crossed { at: *at, device: device.clone(), event, zone: zone.clone() });
            };
            before.difference(&now).for_each(|zone| add(zone, Crossing::Exit));
            now.difference(&before).for_each(|zone| add(zone, Crossing::Enter));
        }
        crossed.sort_unstable();
        crossed
    }
}

fn place((x, y): Point) -> Place {
    let degrees = |units: i32| f64::from(units) / f64::from(PER_DEGREE);
    Place { lon: degrees(ORIGIN.0 + x), lat: degrees(ORIGIN.1 + y) }
}

/// One or two parts side by side, most with a hole. Every ring runs east along its northern side and back along its
/// southern, so none crosses itself; a hole keeps to the middle half of its part.
fn shape(dice: &mut Dice) -> Vec<Rings> {
    let parts = 1 + dice.below(2);
    let (width, height) = (128 + 8 * dice.below(64), 128 + 8 * dice.below(64));
    let west = dice.below(GROUND.0 - parts * width);
    let south = dice.below(GROUND.1 - height);
    let part = |n: i32, dice: &mut Dice| {
        let west = west + n * width;
        let middle = south + height / 2;
        let outer = ring(dice, (west, west + width - 16), middle, (height / 4 + 8, height / 2));
        match dice.below(3) {
            0 => vec![outer],
            _ => vec![outer, ring(dice, (west + 16, west + width - 32), middle, (1, height / 4))],
        }
    };
    (0..parts).map(|n| part(n, dice)).collect()
}

/// A closed ring from west to east whose sides keep a distance from the middle that lies between two bounds.
fn ring(dice: &mut Dice, (west, east): (i32, i32), middle: i32, (near, far): (i32, i32)) -> Vec<Point> {
    let every = 8 << dice.below(4);
    let columns: Vec<i32> = (west..east).step_by(every).chain([east]).collect();
    let mut off = |sign: i32| middle + sign * (near + dice.below(far - near + 1));
    let south: Vec<Point> = columns.iter().map(|x| (*x, off(-1))).collect();
    let north: Vec<Point> = columns.iter().rev().map(|x| (*x, off(1))).collect();
    let first = south[0];
    south.into_iter().chain(north).chain([first]).collect()
}

/// Inside the outer ring or on it, and not inside a hole unless on its ring.
fn contains(rings: &Rings, point: Point) -> bool {
    if rings.iter().any(|ring| ring.windows(2).any(|edge| is_on(edge[0], edge[1], point))) {
        return true;
    }
    rings[0].len() > 1 && winds(&rings[0], point) && !rings[1..].iter().any(|hole| winds(hole, point))
}

/// Twice the area of the triangle, positive where `p` is left of the way from `a` to `b`.
fn cross(a: Point, b: Point, p: Point) -> i64 {
    let d = |m: i32, n: i32| i64::from(m) - i64::from(n);
    d(b.0, a.0) * d(p.1, a.1) - d(p.0, a.0) * d(b.1, a.1)
}

fn is_on(a: Point, b: Point, p: Point) -> bool {
    cross(a, b, p) == 0
        && (a.0.min(b.0)..=a.0.max(b.0)).contains(&p.0)
        && (a.1.min(b.1)..=a.1.max(b.1)).contains(&p.1)
}

/// Whether a ring winds around a point that is not on it. Source: D. Sunday, "Inclusion of a point in a polygon".
fn winds(ring: &[Point], p: Point) -> bool {
    let mut winding = 0;
    for edge in ring.windows(2) {
        let (a, b) = (edge[0], edge[1]);
        if a.1 <= p.1 && b.1 > p.1 && cross(a, b, p) > 0 {
            winding += 1;
        } else if a.1 > p.1 && b.1 <= p.1 && cross(a, b, p) < 0 {
            winding -= 1;
        }
    }
    winding != 0
}

/// `SplitMix64`: a seed's numbers, the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: i32) -> i32 {
        (self.next() % bound.max(1) as u64) as i32
    }
}
