//! The `waypost` command: a door to [`waypost::cli`].

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::runtime::Builder;

/// How long threads that still wait for a broker are waited for at the end.
const THREADS_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = waypost::cli::Cli::parse();
    let done =
        Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from).and_then(|runtime| {
            let done = runtime.block_on(waypost::cli::run(cli));
            runtime.shutdown_timeout(THREADS_WAIT);
            done
        });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("waypost: {error:#}");
            ExitCode::FAILURE
        }
    }
}
