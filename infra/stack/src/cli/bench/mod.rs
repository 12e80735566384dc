//! `waypost bench`: how fast this machine is, beside what it could at most be.

mod floor;
mod import;
mod scratch;
mod spatial;
mod workload;

use std::process::ExitCode;

/// Measure how fast this machine is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench import
  waypost bench spatial --file storks.csv.gz --zones-file countries.geojson.gz")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Import(import::Args),
    Spatial(spatial::Args),
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Import(args) => import::run(args).await,
        Command::Spatial(args) => spatial::run(args),
    }
}

/// A number with commas, and without its fraction.
fn count(number: f64) -> String {
    indicatif::HumanCount(number as u64).to_string()
}
