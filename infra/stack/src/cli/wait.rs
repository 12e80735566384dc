//! `waypost wait --idle`: waits until everything that was appended has been worked through.

use std::{process::ExitCode, time::Duration};

use waypost_runtime::clock::Clock;

use super::{duration, output, status::Status};
use crate::client::{self, Client};

/// How far two readings are apart that must agree.
const READINGS_APART: Duration = Duration::from_millis(300);
/// The exit code of a wait that was in vain.
const EXIT_TIMEOUT: u8 = 3;

/// Wait until every machine and the projector have reached the ends of their topics
///
/// Two readings, 300 ms apart, must show the same ends of all topics, and everything at them. While the stack is
/// away, the wait goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 idle, 3 not idle in time (what lags is named on standard error).

Example:
  waypost wait --idle --timeout 2m")]
pub(super) struct Args {
    /// Wait for idleness
    #[arg(long, required = true)]
    idle: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    stack: client::Options,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    debug_assert!(args.idle, "clap requires it");
    let client = Client::new(&args.stack)?;
    match idle(&client, args.timeout, &Clock::system()).await? {
        None => {
            output::line("idle")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(laggard) => {
            eprintln!("waypost: not idle in time: {laggard}");
            Ok(ExitCode::from(EXIT_TIMEOUT))
        }
    }
}

/// Waits until the stack is idle; what held it up where that took too long, `None` where it is idle.
///
/// Errors are refusals: a stack that does not answer is waited for.
pub(super) async fn idle(
    client: &Client,
    timeout: Duration,
    clock: &Clock,
) -> Result<Option<String>, client::Error> {
    let begun = clock.monotonic();
    let mut before: Option<Status> = None;
    let mut held_up = "the stack has not answered".to_owned();
    loop {
        let left = timeout.saturating_sub(clock.elapsed(begun));
        let reading = tokio::select! {
            reading = Status::get(client) => reading,
            () = tokio::time::sleep(left) => return Ok(Some(held_up)),
        };
        let reading = match reading {
            Ok(reading) => Some(reading),
            Err(error) if error.retry_after().is_some() => {
                held_up = error.to_string();
                None
            }
            Err(error) => return Err(error),
        };
        before = match (before, reading) {
            (_, None) => None,
            (before, Some(reading)) => match reading.laggard() {
                Some(laggard) => {
                    held_up = laggard;
                    None
                }
                None if before.is_some_and(|before| before.ends() == reading.ends()) => return Ok(None),
                None => {
                    "records are still coming in".clone_into(&mut held_up);
                    Some(reading)
                }
            },
        };
        if clock.elapsed(begun) >= timeout {
            return Ok(Some(held_up));
        }
        tokio::time::sleep(READINGS_APART).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::get};
    use serde_json::json;

    use super::*;

    /// Waits on a stack whose readings are these, the last for ever: committed and end, or away.
    async fn check(readings: &'static [Option<(i64, i64)>], expected: Option<&str>, asked: usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let answer = move || async move {
            let n = counted.fetch_add(1, Ordering::SeqCst).min(readings.len() - 1);
            match readings[n] {
                None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                Some((committed, high)) => Json(json!({
                    "cluster": "c",
                    "topics": [{"topic": "positions", "partition": 0, "low": 0, "high": high}],
                    "machines": [{"machine": "spatial", "topic": "positions", "partition": 0, "committed": committed}],
                    "projector": [{"topic": "positions", "partition": 0, "next": high}],
                }))
                .into_response(),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = client::Options { url, token: Some("t".parse().unwrap()), data_dir: ".".into() };
        let client = Client::new(&options).unwrap();
        let timeout = Duration::from_secs(if expected.is_some() { 1 } else { 60 });
        let clock = Clock::system();
        let waited = tokio::select! {
            _ = axum::serve(listener, Router::new().route("/v1/status", get(answer))) => unreachable!(),
            waited = idle(&client, timeout, &clock) => waited.unwrap(),
        };
        assert_eq!(waited.as_deref(), expected);
        assert!(count.load(Ordering::SeqCst) >= asked);
    }

    #[tokio::test]
    async fn idle_is_two_equal_readings_with_everything_at_its_end() {
        check(&[Some((5, 5))], None, 2).await;
        check(&[Some((4, 5)), Some((5, 5))], None, 3).await;
        check(&[Some((5, 5)), Some((6, 6)), Some((6, 6))], None, 3).await;
        check(&[None, Some((5, 5)), None, Some((5, 5))], None, 5).await;
    }

    #[tokio::test]
    async fn a_wait_in_vain_names_what_lags() {
        check(&[Some((4, 5))], Some("spatial is 1 records behind on positions/0 (4 of 5)"), 2).await;
        check(&[None], Some("http_503: 503 Service Unavailable"), 2).await;
    }
}
