//! A generated fleet as files that `waypost import` and `waypost zones import` read, with the rows that
//! `waypost matches --format csv` must then give.

use std::fmt::Write;

use serde_json::{Value, json};
use waypost_processor::bench::track::Track;
use waypost_schemas::{
    event::{Geometry, Polygon},
    place::Place,
};

/// The fixes as CSV: `device,timestamp,lat,lon`, by time.
pub fn csv(track: &Track) -> String {
    let mut csv = String::from("device,timestamp,lat,lon\n");
    for fix in track.fixes(-1) {
        // Floats are written so that reading them gives the same float again.
        writeln!(csv, "{},{},{},{}", fix.device, fix.at_us, fix.lat, fix.lon).expect("a string takes all");
    }
    csv
}

/// The zones as a GeoJSON feature collection whose features' ids are the zones'.
pub fn geojson(track: &Track) -> String {
    let features: Vec<Value> = track
        .zones()
        .iter()
        .map(|zone| {
            json!({"type": "Feature", "id": zone.zone.as_str(), "properties": {}, "geometry": geometry(&zone.geometry)})
        })
        .collect();
    json!({"type": "FeatureCollection", "features": features}).to_string()
}

/// The borders that the fleet crosses as CSV: `device,timestamp,zone,event`, by time, device, event (exits first)
/// and zone.
pub fn crossings(track: &Track) -> String {
    let mut csv = String::from("device,timestamp,zone,event\n");
    for c in track.crossings() {
        writeln!(csv, "{},{},{},{}", c.device, c.at, c.zone, c.event.as_str()).expect("a string takes all");
    }
    csv
}

fn geometry(geometry: &Geometry) -> Value {
    match geometry {
        Geometry::Circle(circle) => json!({"type": "Point", "coordinates": position(&circle.centre)}),
        Geometry::Polygon(polygon) => json!({"type": "Polygon", "coordinates": rings(polygon)}),
        Geometry::MultiPolygon(multi) => {
            json!({"type": "MultiPolygon", "coordinates": multi.polygons.iter().map(rings).collect::<Vec<_>>()})
        }
    }
}

fn rings(polygon: &Polygon) -> Vec<Vec<Value>> {
    polygon.rings.iter().map(|ring| ring.iter().map(position).collect()).collect()
}

fn position(place: &Place) -> Value {
    json!([place.lon, place.lat])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_every_fix_zone_and_crossing_exactly() {
        let track = Track::generate(1, 30, 5, 200);
        let text = csv(&track);
        let mut rows = ::csv::Reader::from_reader(text.as_bytes());
        let read: Vec<(String, String, f64, f64)> = rows.deserialize().map(Result::unwrap).collect();
        let fixes = track.fixes(-1);
        assert_eq!(read.len(), fixes.len());
        for (row, fix) in read.iter().zip(&fixes) {
            assert_eq!((row.2.to_bits(), row.3.to_bits()), (fix.lat.to_bits(), fix.lon.to_bits()));
        }
        let zones: Value = serde_json::from_str(&geojson(&track)).unwrap();
        assert_eq!(zones["features"].as_array().unwrap().len(), 30);
        assert!(crossings(&track).lines().count() > 10);
    }
}
