//! `waypost up`: runs the stack until it is told to stop.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use waypost_runtime::{
    config::{self, Config, Sources},
    telemetry,
};

use crate::up::{self, Options};

/// Starts Kafka and Postgres where no address is given, and runs Waypost until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost up --data-dir ./.waypost --listen 127.0.0.1:7400")]
pub(super) struct Args {
    /// Where the log, the store, the lock, `stack.json` and `operator.token` stand
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address of the HTTP port
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A Kafka that is there, instead of a local one
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A Postgres that is there, instead of a local one
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// A file of settings, instead of waypost.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut flags = BTreeMap::new();
    let data_dir = args.data_dir.map(|dir| dir.display().to_string());
    for (key, value) in [
        ("data_dir", data_dir),
        ("listen", args.listen),
        ("kafka.bootstrap", args.kafka),
        ("postgres.url", args.postgres),
    ] {
        flags.extend(value.map(|value| (key.to_owned(), value)));
    }
    let environment = config::environment();
    let sources = Sources::read(flags, environment.clone(), args.config.as_deref())?;
    let settings = Config::load(&sources)?.settings().clone();
    let telemetry = telemetry::init(settings.log.format, &settings.log.filter)?;
    let data_dir = settings.data_dir.clone();
    up::run(Options { data_dir, settings, environment }, telemetry).await?;
    Ok(ExitCode::SUCCESS)
}
