use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use waypost_schemas::{
    event::{Circle, Geometry, MultiPolygon, Polygon, ZoneDefined},
    id::{UserId, ZoneId},
    place::{self, Place},
};

use super::{Limits, Refusal, ensure, object::Object, rings};
use crate::code::Code;

/// A GeoJSON object, as far as it matters here; RFC 7946 lets it have any other members.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    geometry: Option<&'a RawValue>,
    #[serde(borrow)]
    coordinates: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

/// The one property that matters: what makes a circle of a point.
#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow)]
    radius_m: Option<&'a RawValue>,
}

/// Reads a zone id from a path.
pub fn zone_id(text: &str) -> Result<ZoneId, Refusal> {
    ZoneId::new(text).map_err(|e| Refusal::new(Code::BadId, e.to_string()))
}

/// Reads a zone's body: a GeoJSON (RFC 7946) Polygon, MultiPolygon or Feature of one, or a Feature of a Point whose
/// property `radius_m` makes it a circle.
///
/// Further coordinates than longitude and latitude are ignored. It may take a second for a large or hostile shape:
/// call it off the async threads.
pub fn zone(id: ZoneId, body: &[u8], by: &UserId, limits: &Limits) -> Result<ZoneDefined, Refusal> {
    let Object(object) = serde_json::from_slice::<Object<Json<'_>>>(body).map_err(|error| {
        let code = if error.is_data() { Code::BadGeojson } else { Code::BadJson };
        Refusal::new(code, format!("the zone cannot be read: {error}"))
    })?;
    let geometry = if object.kind == "Feature" {
        let raw = object.geometry.ok_or_else(|| bad("the Feature has no geometry"))?;
        let Object(inner) = serde_json::from_str::<Object<Json<'_>>>(raw.get())
            .map_err(|e| bad(format!("the geometry cannot be read: {e}")))?;
        geometry(&inner, object.properties, limits)?
    } else {
        geometry(&object, None, limits)?
    };
    Ok(ZoneDefined { zone: id, geometry, by: by.clone() })
}

/// How many vertices a geometry has, counting each ring's closing place; a circle has none.
pub fn vertices(geometry: &Geometry) -> usize {
    let of = |polygon: &Polygon| polygon.rings.iter().map(Vec::len).sum::<usize>();
    match geometry {
        Geometry::Circle(_) => 0,
        Geometry::Polygon(polygon) => of(polygon),
        Geometry::MultiPolygon(many) => many.polygons.iter().map(of).sum(),
    }
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadGeojson, detail)
}

fn geometry(object: &Json<'_>, properties: Option<&RawValue>, limits: &Limits) -> Result<Geometry, Refusal> {
    let depth = match object.kind.as_str() {
        "Point" => return circle(object, properties, limits),
        "Polygon" => 2,
        "MultiPolygon" => 3,
        kind => {
            let kind: String = kind.chars().take(32).collect();
            return Err(Refusal::new(
                Code::UnsupportedGeometry,
                format!(
                    "{kind:?} is no zone: Polygon, MultiPolygon and a Feature of a Point with radius_m are"
                ),
            ));
        }
    };
    let raw = object.coordinates.ok_or_else(|| bad(format!("the {} has no coordinates", object.kind)))?;
    let count = Count { members: Cell::new(0), max: limits.vertices_max.saturating_mul(2) };
    let ring = List { of: Position, count: &count };
    let rings = List { of: ring, count: &count };
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let read = if depth == 2 {
        rings.deserialize(&mut json).map(|rings| vec![Polygon { rings }])
    } else {
        let polygons = List { of: rings, count: &count };
        polygons.deserialize(&mut json).map(|all| all.into_iter().map(|rings| Polygon { rings }).collect())
    };
    let polygons = read.map_err(|error| {
        if count.is_over() {
            let max = limits.vertices_max;
            Refusal::new(Code::TooManyVertices, format!("the geometry has far more than {max} vertices"))
        } else {
            bad(format!("the coordinates cannot be read: {error}"))
        }
    })?;
    rings::check(&polygons, limits)?;
    Ok(match <[Polygon; 1]>::try_from(polygons) {
        Ok([polygon]) if depth == 2 => Geometry::Polygon(polygon),
        Ok([polygon]) => Geometry::MultiPolygon(MultiPolygon { polygons: vec![polygon] }),
        Err(polygons) => Geometry::MultiPolygon(MultiPolygon { polygons }),
    })
}

fn circle(object: &Json<'_>, properties: Option<&RawValue>, limits: &Limits) -> Result<Geometry, Refusal> {
    let raw = object.coordinates.ok_or_else(|| bad("the Point has no coordinates"))?;
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let Place { lon, lat } =
        Position.deserialize(&mut json).map_err(|e| bad(format!("the coordinates cannot be read: {e}")))?;
    let centre = Place::new(lon, lat).map_err(|error| {
        let code = match error {
            place::Error::Latitude => Code::BadLatitude,
            place::Error::Longitude => Code::BadLongitude,
        };
        Refusal::new(code, format!("the Point is [{lon}, {lat}]: {error}"))
    })?;
    let max = limits.radius_m_max;
    let refuse = |what: &str| {
        Refusal::new(
            Code::BadRadius,
            format!("properties.radius_m {what}: more than 0, at most {max} metres are taken"),
        )
    };
    let radius =
        properties.and_then(|raw| serde_json::from_str::<Object<Properties<'_>>>(raw.get()).ok()?.0.radius_m);
    let radius = radius.ok_or_else(|| refuse("is missing"))?;
    let radius_m: f64 = serde_json::from_str(radius.get()).map_err(|_| refuse("is not a number"))?;
    ensure(radius_m > 0.0 && radius_m <= max, Code::BadRadius, || refuse(&format!("is {radius_m}")).detail)?;
    Ok(Geometry::Circle(Circle { centre, radius_m }))
}

/// Counts the members of all lists while they are read, so that a body of empty lists does not fill the memory. A
/// valid zone has less than one ring and one polygon for every two vertices.
struct Count {
    members: Cell<usize>,
    max: usize,
}

impl Count {
    fn add(&self) {
        self.members.set(self.members.get() + 1);
    }
    fn is_over(&self) -> bool {
        self.members.get() > self.max
    }
}

/// A JSON array whose members are read by `of`.
#[derive(Clone, Copy)]
struct List<'c, S> {
    of: S,
    count: &'c Count,
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for List<'_, S> {
    type Value = Vec<S::Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for List<'_, S> {
    type Value = Vec<S::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of arrays as deep as the geometry's type asks for")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = seq.next_element_seed(self.of)? {
            self.count.add();
            if self.count.is_over() {
                return Err(A::Error::custom("too many members"));
            }
            members.push(member);
        }
        Ok(members)
    }
}

/// A GeoJSON position: longitude, latitude, and what else may follow.
#[derive(Clone, Copy)]
struct Position;

impl<'de> DeserializeSeed<'de> for Position {
    type Value = Place;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Position {
    type Value = Place;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position: an array of longitude and latitude")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Place, A::Error> {
        let lon = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let lat = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Place { lon, lat })
    }
}
