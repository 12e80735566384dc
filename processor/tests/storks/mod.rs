//! The real tracks and borders that lie beside the repository, where they do.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::Value;
use waypost_schemas::{
    event::{FixReported, Geometry, MultiPolygon, Polygon, ZoneDefined},
    id::{DeviceId, UserId, ZoneId},
    place::Place,
    time::Micros,
};

/// The folder of the real data; `None`, said aloud, where it is missing.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if folder.join("storks.csv.gz").exists() {
        return Some(folder);
    }
    eprintln!("skipped: there are no storks at {}", folder.display());
    None
}

/// The fixes, stamped with a registry offset.
pub(crate) fn fixes(folder: &Path, registry: i64) -> Vec<FixReported> {
    let mut rows = csv::Reader::from_reader(unzipped(&folder.join("storks.csv.gz")));
    let fix = |row: csv::StringRecord| FixReported {
        device: DeviceId::new(&row[0]).unwrap(),
        at_us: Micros::parse(&row[1]).unwrap(),
        lat: row[2].parse().unwrap(),
        lon: row[3].parse().unwrap(),
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
        attributes: BTreeMap::new(),
        registry,
    };
    rows.records().map(|row| fix(row.unwrap())).collect()
}

/// The countries of the world.
pub(crate) fn countries(folder: &Path) -> Vec<ZoneDefined> {
    let read = BufReader::new(unzipped(&folder.join("countries.geojson.gz")));
    let collection: Value = serde_json::from_reader(read).unwrap();
    let zone = |feature: &Value| ZoneDefined {
        zone: ZoneId::new(feature["id"].as_str().unwrap()).unwrap(),
        geometry: geometry(&feature["geometry"]),
        by: UserId::new("operator").unwrap(),
    };
    collection["features"].as_array().unwrap().iter().map(zone).collect()
}

fn geometry(value: &Value) -> Geometry {
    let coordinates = &value["coordinates"];
    match value["type"].as_str() {
        Some("Polygon") => Geometry::Polygon(polygon(coordinates)),
        Some("MultiPolygon") => Geometry::MultiPolygon(MultiPolygon { polygons: list(coordinates, polygon) }),
        other => panic!("a country is a polygon or several, not {other:?}"),
    }
}

fn polygon(value: &Value) -> Polygon {
    let place = |p: &Value| Place { lon: p[0].as_f64().unwrap(), lat: p[1].as_f64().unwrap() };
    Polygon { rings: list(value, |ring| list(ring, place)) }
}

fn list<T>(value: &Value, read: impl FnMut(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(read).collect()
}

fn unzipped(path: &Path) -> impl Read + use<> {
    GzDecoder::new(BufReader::new(File::open(path).unwrap()))
}
