//! What a process tells about itself: log lines on stderr, and metrics in Prometheus' text format.

use std::{
    error::Error as StdError,
    fmt,
    io::{IsTerminal, stderr},
    panic,
    sync::{Once, OnceLock},
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::lifecycle::{Tasks, said};

/// Bounds of latency buckets, in seconds: from what an append takes to what a client gives up at.
const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often the recorder folds what histograms were told since: between two scrapes they only grow.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Pretty where stderr is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people, with colours on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one of `tracing_subscriber`'s.
    #[error(
        "log filter {filter:?} is not understood: it is a level or a list such as info,waypost_ingest=debug"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process records metrics already.
    #[error("metrics are recorded by something else in this process")]
    Recorder,
}

/// The handle to a process's telemetry; a cheap clone.
#[derive(Clone)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.prometheus.render()
    }

    /// Keeps the recorder's memory bounded while nobody scrapes.
    pub fn upkeep(&self, tasks: &Tasks) {
        let (prometheus, lifecycle) = (self.prometheus.clone(), tasks.lifecycle().clone());
        tasks.spawn("metrics upkeep", async move {
            loop {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(UPKEEP_EVERY) => prometheus.run_upkeep(),
                    () = lifecycle.soft_stopped() => return Ok::<(), std::convert::Infallible>(()),
                }
            }
        });
    }
}

/// Starts logging to stderr and recording metrics. Called again, it changes nothing and gives the same recorder.
pub fn init(format: Format, filter: &str) -> Result<Telemetry, Error> {
    let filter =
        EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let terminal = stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Pretty => false,
        Format::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(terminal);
    // A second subscriber is refused: the first one stays, which is what a second call should mean.
    let _ = if json {
        tracing_subscriber::registry().with(filter).with(lines.json().flatten_event(true)).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(lines).try_init()
    };
    log_panics();
    Ok(Telemetry { prometheus: recorder()? })
}

/// Makes a panic one line of the log, wherever it happens.
fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = thread::current().name().unwrap_or("unnamed").to_owned();
            tracing::error!(said = said(info.payload()), place, thread, "panicked");
        }));
    });
}

fn recorder() -> Result<PrometheusHandle, Error> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .ok()?
                .install_recorder()
                .ok()
        })
        .clone()
        .ok_or(Error::Recorder)
}

/// An error with its sources, on one line: `a: b: c`.
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_changes_nothing_and_records_in_the_same_place() {
        let first = init(Format::Json, "off").unwrap();
        let second = init(Format::Pretty, "waypost=debug,off").unwrap();
        metrics::counter!("waypost_telemetry_test_total").increment(1);
        for telemetry in [first, second] {
            assert!(telemetry.render().contains("waypost_telemetry_test_total 1"));
        }
    }

    #[test]
    fn a_filter_that_is_not_understood_is_named() {
        let error = init(Format::Auto, "info,waypost=loud").unwrap_err();
        assert!(
            error.to_string().starts_with("log filter \"info,waypost=loud\" is not understood"),
            "{error}"
        );
    }

    #[test]
    fn a_chain_tells_each_source_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Layer(&'static str, #[source] Option<Box<Layer>>);
        let error = Layer("a", Some(Box::new(Layer("b", Some(Box::new(Layer("c", None)))))));
        assert_eq!(Chain(&error).to_string(), "a: b: c");
    }
}
