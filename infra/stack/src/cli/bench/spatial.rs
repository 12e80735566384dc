//! `waypost bench spatial`: the spatial machine alone, beside bare look-ups.

use std::process::ExitCode;

use waypost_processor::bench;
use waypost_runtime::clock::Clock;

use super::{
    count,
    workload::{self, Files, Fleet},
};
use crate::cli::output;

/// Measure the spatial machine alone, on one thread
///
/// Folds all fixes with a rule on every border of every zone, beside the R-tree and point-in-polygon calls that any
/// such machine must make. No broker takes part. Of five passes the median counts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench spatial
  waypost bench spatial --file storks.csv.gz --zones-file countries.geojson.gz")]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    fleet: Fleet,
    /// Write the figures as JSON
    #[arg(long)]
    json: bool,
}

#[allow(clippy::needless_pass_by_value, reason = "as every command takes its arguments")]
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let files = args.files.zones_file.as_ref().zip(args.files.fixes_file.as_ref());
    let (zones, fixes) = if let Some((zones, fixes)) = files {
        // The reading of a file waits for a thread of its own, which async code must not.
        tokio::task::block_in_place(|| {
            anyhow::Ok((workload::read_zones(zones)?, workload::read_fixes(fixes)?))
        })?
    } else {
        let track = args.fleet.generate();
        (track.zones(), track.fixes(0))
    };
    let clock = Clock::system();
    let figures = bench::spatial(zones, fixes, &clock);
    let (machine, floor) = (figures.machine_per_s(), figures.floor_per_s());
    if args.json {
        output::json(&serde_json::json!({
            "fixes": figures.fixes,
            "zones": figures.zones,
            "matches": figures.matches,
            "machine_per_s": machine.round(),
            "floor_per_s": floor.round(),
            "ratio": machine / floor,
        }))?;
    } else {
        output::line(&format!(
            "{} fixes among {} zones, {} matches\n\
             machine        {} fixes/s\n\
             bare look-ups  {} fixes/s\n\
             ratio          {:.2}",
            count(figures.fixes as f64),
            count(figures.zones as f64),
            count(figures.matches as f64),
            count(machine),
            count(floor),
            machine / floor,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
