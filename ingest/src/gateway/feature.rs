use axum::http::header;
use serde::{Serialize, Serializer, ser::SerializeMap};
use waypost_schemas::{
    event::{Geometry, Polygon},
    place::Place,
};

use crate::registry::Zone;

/// GeoJSON with its media type.
pub(super) type Body = ([(header::HeaderName, &'static str); 1], Vec<u8>);

/// What kind of geometry it is: `Circle`, `Polygon` or `MultiPolygon`.
pub(super) fn kind(geometry: &Geometry) -> &'static str {
    match geometry {
        Geometry::Circle(_) => "Circle",
        Geometry::Polygon(_) => "Polygon",
        Geometry::MultiPolygon(_) => "MultiPolygon",
    }
}

/// A zone as a GeoJSON Feature (RFC 7946, section 3.2), in the form in which it can be put again.
pub(super) fn body(zone: &Zone) -> Body {
    let radius_m = match &zone.defined.geometry {
        Geometry::Circle(circle) => Some(circle.radius_m),
        _ => None,
    };
    let feature = Feature {
        kind: "Feature",
        id: zone.defined.zone.as_str(),
        bbox: zone.bounds,
        properties: Properties { version: zone.version, radius_m },
        geometry: Shape(&zone.defined.geometry),
    };
    // Texts and finite numbers only, to memory: nothing that can fail.
    let text = serde_json::to_vec(&feature).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/geo+json")], text)
}

#[derive(Serialize)]
struct Feature<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    bbox: [f64; 4],
    properties: Properties,
    geometry: Shape<'a>,
}

#[derive(Serialize)]
struct Properties {
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    radius_m: Option<f64>,
}

struct Shape<'a>(&'a Geometry);

impl Serialize for Shape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        match self.0 {
            Geometry::Circle(circle) => {
                map.serialize_entry("type", "Point")?;
                map.serialize_entry("coordinates", &Position(circle.centre))?;
            }
            Geometry::Polygon(polygon) => {
                map.serialize_entry("type", "Polygon")?;
                map.serialize_entry("coordinates", &Rings(polygon))?;
            }
            Geometry::MultiPolygon(many) => {
                map.serialize_entry("type", "MultiPolygon")?;
                map.serialize_entry("coordinates", &many.polygons.iter().map(Rings).collect::<Vec<_>>())?;
            }
        }
        map.end()
    }
}

struct Rings<'a>(&'a Polygon);

impl Serialize for Rings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.rings.iter().map(|ring| Ring(ring)))
    }
}

struct Ring<'a>(&'a [Place]);

impl Serialize for Ring<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(Position))
    }
}

/// Longitude, then latitude.
struct Position(Place);

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.0.lon, self.0.lat].serialize(serializer)
    }
}
