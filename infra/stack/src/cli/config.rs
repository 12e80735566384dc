//! `waypost config`: which settings are in force, and where each comes from.

use std::process::ExitCode;

use super::{output, settings::Settings};

/// Show every setting that is in force, and where it comes from
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost config\n  WAYPOST_LISTEN=0.0.0.0:7400 waypost config --json")]
pub(super) struct Args {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.settings.load([])?;
    let text =
        if args.json { serde_json::to_string_pretty(&config.in_force())? + "\n" } else { config.print() };
    output::write(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
