//! What a bench works on: real files, or a generated fleet among generated zones.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost_ingest::admission;
use waypost_processor::bench::track::Track;
use waypost_schemas::{
    event::{FixReported, Geometry, Polygon, ZoneDefined},
    id::{DeviceId, UserId, ZoneId},
    place::Place,
    time::Micros,
};

use crate::cli::{file::Source, import::rows, zones::features};

/// The seed of generated fleets: the same one on every machine.
const SEED: u64 = 1;
/// How many chunks the reading of a file may be ahead.
const CHUNKS_AHEAD_MAX: usize = 4;

/// Real files to measure with, instead of a generated fleet.
#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// A CSV file of fixes, instead of generated ones
    #[arg(long = "file", visible_alias = "fixes-file", value_name = "FILE", requires = "zones_file")]
    pub(super) fixes_file: Option<PathBuf>,
    /// A GeoJSON file of zones, instead of generated ones
    #[arg(long, value_name = "FILE", requires = "fixes_file")]
    pub(super) zones_file: Option<PathBuf>,
}

/// How large a generated fleet is.
#[derive(Debug, clap::Args)]
pub(super) struct Fleet {
    /// How many fixes are generated
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    pub(super) fixes: u32,
    /// Of how many devices they are
    #[arg(long, value_name = "D", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) devices: u32,
    /// Among how many zones
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) zones: u32,
}

impl Fleet {
    /// Generates it; each device has at least one fix, and all have the same number.
    pub(super) fn generate(&self) -> Track {
        let each = self.fixes.div_ceil(self.devices);
        Track::generate(SEED, self.zones as usize, self.devices as usize, each as usize)
    }
}

/// Fixes as a CSV file.
pub(super) fn csv(fixes: &[FixReported]) -> String {
    let mut text = "device,timestamp,lat,lon\n".to_owned();
    for fix in fixes {
        let _ = writeln!(text, "{},{},{},{}", fix.device, fix.at_us, fix.lat, fix.lon);
    }
    text
}

/// Zones as a GeoJSON file.
pub(super) fn geojson(zones: &[ZoneDefined]) -> String {
    let features: Vec<Value> = zones
        .iter()
        .map(|zone| {
            let (geometry, properties) = shape(&zone.geometry);
            json!({"type": "Feature", "id": zone.zone, "geometry": geometry, "properties": properties})
        })
        .collect();
    json!({"type": "FeatureCollection", "features": features}).to_string()
}

fn shape(geometry: &Geometry) -> (Value, Value) {
    let position = |place: &Place| [place.lon, place.lat];
    let rings = |polygon: &Polygon| -> Vec<Vec<[f64; 2]>> {
        polygon.rings.iter().map(|ring| ring.iter().map(position).collect()).collect()
    };
    match geometry {
        Geometry::Circle(circle) => {
            let point = json!({"type": "Point", "coordinates": position(&circle.centre)});
            (point, json!({"radius_m": circle.radius_m}))
        }
        Geometry::Polygon(polygon) => (json!({"type": "Polygon", "coordinates": rings(polygon)}), json!({})),
        Geometry::MultiPolygon(many) => {
            let polygons: Vec<_> = many.polygons.iter().map(rings).collect();
            (json!({"type": "MultiPolygon", "coordinates": polygons}), json!({}))
        }
    }
}

/// Reads a GeoJSON file's zones, as the stack would take them; a refused feature is an error.
pub(super) fn read_zones(path: &Path) -> anyhow::Result<Vec<ZoneDefined>> {
    let by = UserId::new("operator")?;
    let mut zones: Vec<anyhow::Result<ZoneDefined>> = vec![];
    features::read(Source::open(path)?, |feature| {
        zones.push((|| {
            let feature = feature.map_err(anyhow::Error::msg)?;
            let id = feature.id(None).map_err(anyhow::Error::msg)?;
            let zone = ZoneId::new(id.as_str())?;
            let body = serde_json::to_vec(&feature.zone())?;
            admission::zone(zone, &body, &by, &admission::Limits::default())
                .map_err(|refusal| anyhow::anyhow!("{id}: {}", refusal.detail))
        })());
        true
    })?;
    zones.into_iter().collect()
}

/// A fix as it stands in a request.
#[derive(Deserialize)]
struct Fix {
    lat: f64,
    lon: f64,
    at: Micros,
    accuracy_m: Option<f32>,
    speed_mps: Option<f32>,
    heading_deg: Option<f32>,
    altitude_m: Option<f32>,
}

/// Reads a CSV file's fixes; a bad line is an error.
pub(super) fn read_fixes(path: &Path) -> anyhow::Result<Vec<FixReported>> {
    let source = Source::open(path)?;
    let (to, mut chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let reader = std::thread::Builder::new().name("fixes-reader".to_owned());
    let reader = reader.spawn(move || rows::read(source, &to)).context("cannot start a thread")?;
    let mut fixes = vec![];
    while let Some(chunk) = chunks.blocking_recv() {
        let chunk = chunk.with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(bad) = chunk.bad.first() {
            anyhow::bail!("{}: line {}: {}", path.display(), bad.line, bad.why);
        }
        for row in &chunk.rows {
            let fix: Fix = serde_json::from_slice(chunk.fix(row))?;
            fixes.push(FixReported {
                device: DeviceId::new(chunk.device(row))?,
                lat: fix.lat,
                lon: fix.lon,
                at_us: fix.at,
                accuracy_m: fix.accuracy_m,
                speed_mps: fix.speed_mps,
                heading_deg: fix.heading_deg,
                altitude_m: fix.altitude_m,
                attributes: BTreeMap::new(),
                registry: 0,
            });
        }
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    Ok(fixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_fleet_comes_back_from_its_files() {
        let track = Fleet { fixes: 100, devices: 3, zones: 9 }.generate();
        let dir = tempfile::tempdir().unwrap();
        let (zones, fixes) = (dir.path().join("zones.geojson"), dir.path().join("fixes.csv"));
        std::fs::write(&zones, geojson(&track.zones())).unwrap();
        std::fs::write(&fixes, csv(&track.fixes(0))).unwrap();
        assert_eq!(read_zones(&zones).unwrap(), track.zones());
        assert_eq!(read_fixes(&fixes).unwrap(), track.fixes(0));
    }
}
