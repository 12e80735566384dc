//! What an end-to-end test imports: real tracks and borders where they are at hand, else a generated fleet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use waypost_processor::bench::track::Track;

use crate::{
    stack::{Stack, path, rows},
    track,
};

/// Two files, and the rows of matches that they must give.
pub struct Input {
    /// The fixes, for `waypost import`.
    pub fixes: PathBuf,
    /// The zones, for `waypost zones import`.
    pub zones: PathBuf,
    /// The matches' rows, sorted.
    pub expected: Vec<String>,
}

impl Input {
    /// The real tracks beside the checkout; without them a fleet that is written into `dir`.
    pub fn at_hand(dir: &Path) -> anyhow::Result<Self> {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let (fixes, zones) = (shared.join("storks.csv.gz"), shared.join("countries.geojson.gz"));
        if let Ok(crossings) = fs::read_to_string(shared.join("storks-crossings.csv")) {
            return Ok(Self { fixes, zones, expected: rows(&crossings) });
        }
        eprintln!("skipped the real tracks: {} is not there; a generated fleet stands in", shared.display());
        let fleet = Track::generate(7, 60, 40, 2_000);
        let (fixes, zones) = (dir.join("fleet.csv"), dir.join("zones.geojson"));
        fs::write(&fixes, track::csv(&fleet))?;
        fs::write(&zones, track::geojson(&fleet))?;
        Ok(Self { fixes, zones, expected: rows(&track::crossings(&fleet)) })
    }

    /// Sets the zones, and a rule that tells the user `warden` of each border that is crossed.
    pub fn prepare(&self, stack: &Stack) -> anyhow::Result<()> {
        stack.waypost(&["zones", "import", path(&self.zones)])?;
        let rule = ["rules", "add", "--id", "borders", "--on", "enter,exit", "--zones", "all"];
        stack.waypost(&[&rule[..], &["--subjects", "all", "--notify", "warden"]].concat())?;
        Ok(())
    }
}
