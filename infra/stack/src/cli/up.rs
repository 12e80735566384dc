//! `waypost up`: runs the stack until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

/// Starts Kafka and Postgres where no address is given, and runs Waypost until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost up --data-dir ./.waypost --listen 127.0.0.1:7400")]
pub(super) struct Args {
    /// Where the log, the store, the lock, `stack.json` and `operator.token` stand
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR", default_value = ".waypost")]
    data_dir: PathBuf,
    /// The address of the HTTP port
    #[arg(long, value_name = "ADDR", env = "WAYPOST_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// A Kafka that is there, instead of a local one
    #[arg(long, value_name = "HOST:PORT", env = "WAYPOST_KAFKA")]
    kafka: Option<String>,
    /// A Postgres that is there, instead of a local one
    #[arg(long, value_name = "URL", env = "WAYPOST_POSTGRES")]
    postgres: Option<String>,
}

#[allow(clippy::unused_async, reason = "the body follows")]
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("cannot start {args:?} yet")
}
