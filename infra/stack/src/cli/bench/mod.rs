//! `waypost bench`: how fast this machine is, beside what it could at most be.

mod chain;
mod floor;
mod idle;
mod import;
mod latency;
mod readback;
mod scratch;
mod sockets;
mod spatial;
mod workload;

use std::process::ExitCode;

use serde::Serialize;

use super::output;

/// The exit code of an interrupted bench, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Measure how fast this machine is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench import
  waypost bench chain --rate 500 --seconds 10
  waypost bench idle --connections 5000
  waypost bench spatial --file storks.csv.gz --zones-file countries.geojson.gz")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Chain(chain::Args),
    Idle(idle::Args),
    Import(import::Args),
    Spatial(spatial::Args),
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Chain(args) => chain::run(args).await,
        Command::Idle(args) => idle::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Spatial(args) => spatial::run(args),
    }
}

/// Writes what was measured, where it was.
fn ended<F: Serialize>(
    measured: Option<&F>,
    json: bool,
    text: impl Fn(&F) -> String,
) -> anyhow::Result<ExitCode> {
    let Some(figures) = measured else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    if json {
        output::json(figures)?;
    } else {
        output::line(&text(figures))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A number with commas, and without its fraction.
fn count(number: f64) -> String {
    indicatif::HumanCount(number as u64).to_string()
}
