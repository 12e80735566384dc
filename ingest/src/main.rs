//! The `waypost-ingest` command: what takes positions, zones and rules, in a process of its own that joins a running stack.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use waypost_runtime::join::{self, Request};

/// Run what takes positions, zones and rules, for the stack of a data directory
#[derive(Debug, Parser)]
#[command(
    name = "waypost-ingest",
    version,
    max_term_width = 100,
    after_help = "Example:\n  waypost-ingest --join .waypost --listen 127.0.0.1:7401"
)]
struct Args {
    /// Data directory of the stack that runs
    #[arg(long, value_name = "DIR")]
    join: PathBuf,
    /// Address of its HTTP port; default: a free port of loopback
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// TOML file with settings; default: waypost.toml in this directory, where it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting by its name, over WAYPOST_* variables and the file
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let Args { join: data_dir, listen, config, set } = Args::parse();
    let request = Request { data_dir, listen, instance: None, set, config };
    join::command(env!("CARGO_BIN_NAME"), waypost_ingest::run(request))
}
