//! The `waypost-delivery` command: what serves devices, in a process of its own that joins a running stack.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use waypost_runtime::join::{self, Request};

/// Run what serves devices, for the stack of a data directory
#[derive(Debug, Parser)]
#[command(
    name = "waypost-delivery",
    version,
    max_term_width = 100,
    after_help = "Example:\n  waypost-delivery --join .waypost --instance 2"
)]
struct Args {
    /// Data directory of the stack that runs
    #[arg(long, value_name = "DIR")]
    join: PathBuf,
    /// Which delivery node this is; two that run at once have different numbers
    #[arg(long, value_name = "N")]
    instance: Option<u32>,
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
    let Args { join: data_dir, instance, listen, config, set } = Args::parse();
    let request = Request { data_dir, listen, instance, set, config };
    join::command(env!("CARGO_BIN_NAME"), waypost_delivery::run(request))
}
