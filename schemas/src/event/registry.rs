use serde::{Deserialize, Serialize};

use crate::{
    cause::Position,
    event::Crossing,
    id::{DeviceId, RuleId, UserId, ZoneId},
    place::Place,
    topic::Topic,
};

/// The log began; the first record of `registry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFounded {
    /// The log's own name, a UUID; offsets and cursors of another log mean nothing here.
    pub log: String,
}

/// A zone was defined or redefined; keyed by `zone/ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneDefined {
    /// The zone.
    pub zone: ZoneId,
    /// Its geometry.
    pub geometry: Geometry,
    /// The operator who said so.
    pub by: UserId,
}

/// A zone was removed; keyed by `zone/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRemoved {
    /// The zone.
    pub zone: ZoneId,
    /// The operator who said so.
    pub by: UserId,
}

/// A rule was defined or redefined; keyed by `rule/ID`. Its version is the record's offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDefined {
    /// The rule.
    pub rule: RuleId,
    /// Which crossings of a zone's border fire it; sorted, none twice.
    pub on: Vec<Crossing>,
    /// The zones that it watches, sorted; `None` is all of them.
    pub zones: Option<Vec<ZoneId>>,
    /// The devices whose fixes it watches, sorted; `None` is all of them.
    pub subjects: Option<Vec<DeviceId>>,
    /// The users who are told, sorted.
    pub notify: Vec<UserId>,
    /// The operator who said so.
    pub by: UserId,
}

/// A rule was removed; keyed by `rule/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRemoved {
    /// The rule.
    pub rule: RuleId,
    /// The operator who said so.
    pub by: UserId,
}

/// An operator accepted that records of a derived topic are missing before one; keyed by `hole/POSITION`. Every reader
/// that meets the hole there goes on from the number that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoleAccepted {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The offset of the record after the hole.
    pub offset: i64,
    /// The operator who said so.
    pub by: UserId,
}

/// An operator took a record out of what a machine folds; keyed by `skip/MACHINE/POSITION`. It holds for replays too,
/// whatever registry offset they are stamped with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSkipped {
    /// The machine, by its name.
    pub machine: String,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The operator who said so.
    pub by: UserId,
}

/// An operator chose what a machine does from here on; keyed by `behaviour/MACHINE`. Before the first such record a
/// machine does what its behaviour 1 does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehaviourSet {
    /// The machine, by its name.
    pub machine: String,
    /// The number of the behaviour, from 1.
    pub number: i32,
    /// The operator who said so.
    pub by: UserId,
}

impl HoleAccepted {
    /// Where the record after the hole stands.
    pub fn position(&self) -> Position {
        Position { topic: self.topic, partition: self.partition, offset: self.offset }
    }
}

impl RecordSkipped {
    /// Where the record stands.
    pub fn position(&self) -> Position {
        Position { topic: self.topic, partition: self.partition, offset: self.offset }
    }
}

/// A zone's shape. Edges are straight lines in longitude and latitude (RFC 7946, 3.1.1); the boundary is inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Geometry {
    /// A circle in metres on the ellipsoid.
    Circle(Circle),
    /// An outer ring and holes.
    Polygon(Polygon),
    /// Several polygons that make one zone.
    MultiPolygon(MultiPolygon),
}

/// A circle on the WGS84 ellipsoid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circle {
    /// Its centre.
    pub centre: Place,
    /// Its radius, in metres.
    pub radius_m: f64,
}

/// An outer ring and its holes; each ring is closed, its last place equal to its first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polygon {
    /// The outer ring, then the holes.
    pub rings: Vec<Vec<Place>>,
}

/// Several polygons that make one zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiPolygon {
    /// The polygons.
    pub polygons: Vec<Polygon>,
}
