//! Real borders: every country of Natural Earth is a zone.

use std::{fs, io::Read, path::Path};

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use waypost_ingest::admission::{self, Limits};
use waypost_schemas::id::UserId;

#[derive(Deserialize)]
struct Collection {
    features: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[test]
fn every_country_is_taken_as_a_zone() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/countries.geojson.gz");
    let Ok(packed) = fs::read(&file) else {
        println!("skipped: {} is not there", file.display());
        return;
    };
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    let countries: Collection = serde_json::from_str(&text).unwrap();
    // A twentieth of what a zone may take: real borders are far from the bound.
    let steps = Limits::default().geometry_steps_max / 20;
    let limits = Limits { geometry_steps_max: steps, ..Limits::default() };
    let by = UserId::new("warden").unwrap();
    let mut vertices_max = 0;
    for feature in &countries.features {
        let Named { id } = serde_json::from_str(feature.get()).unwrap();
        let zone = admission::zone(admission::zone_id(&id).unwrap(), feature.get().as_bytes(), &by, &limits);
        let zone = zone.unwrap_or_else(|refusal| panic!("{id}: {refusal}"));
        vertices_max = vertices_max.max(admission::vertices(&zone.geometry));
    }
    assert_eq!((countries.features.len(), vertices_max), (254, 68_065));
}
