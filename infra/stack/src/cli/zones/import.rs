//! `waypost zones import`: defines a zone for each feature of a file.

use std::{collections::BTreeMap, io::Read, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use waypost_runtime::{
    clock::Clock,
    lifecycle::{self, Lifecycle},
};

use super::features::{self, Feature};
use crate::{
    cli::{file::Source, output, progress::Progress},
    client::{self, Client},
};

/// How many zones are put at a time: each waits for its append and its reading back.
const PUTS_IN_FLIGHT_MAX: usize = 4;
/// How many features the reading thread may be ahead; one may be some megabytes.
const FEATURES_AHEAD_MAX: usize = 4;
/// The wait before a zone is put again while the stack is away.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The exit code where some features were refused and all others are zones.
const EXIT_REFUSED: u8 = 2;
/// The exit code of an interrupted import, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Define a zone for each feature of a GeoJSON file
///
/// A zone is a Polygon or a MultiPolygon, or a Point with a property `radius_m`: a circle of so many metres. The
/// file may be packed with gzip; `-` reads standard input. The import can be repeated: zones that stand already are left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A feature that is refused is named on standard error and counted, and the rest goes on.

Exit codes: 0 all features are zones, 2 some were refused and all others are zones,
1 the import could not go on, 130 it was interrupted.

Example:
  waypost zones import countries.geojson.gz
  waypost zones import depots.geojson --id-property name")]
pub(super) struct Args {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// The property that names a zone, instead of the feature's id
    #[arg(long, value_name = "P")]
    id_property: Option<String>,
    /// Write the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let source = Source::open(&args.file)?;
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    let progress = Progress::begin(source.bytes, "zones", Clock::system());
    let (summary, ended) = import(&client, source, args.id_property.as_deref(), &stop, &progress).await;
    progress.end();
    output::line(&if args.json { serde_json::to_string(&summary)? } else { summary.text() })?;
    ended.with_context(|| format!("the import of {} could not go on", args.file.display()))?;
    Ok(match &summary {
        Summary { interrupted: true, .. } => ExitCode::from(EXIT_INTERRUPTED),
        Summary { refused: 1.., .. } => ExitCode::from(EXIT_REFUSED),
        _ => ExitCode::SUCCESS,
    })
}

/// Imports to the end, or until it is stopped or cannot go on; the summary tells what was set in any case.
pub(in crate::cli) async fn import(
    client: &Client,
    source: Source,
    id_property: Option<&str>,
    stop: &Lifecycle,
    progress: &Progress,
) -> (Summary, anyhow::Result<()>) {
    let mut import = Import { client, progress, names: BTreeMap::new(), summary: Summary::default() };
    let ended = import.carry(source, id_property, stop).await;
    let mut summary = import.summary;
    summary.interrupted = stop.is_stopping();
    (summary, ended)
}

/// What an import came to.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Summary {
    features: u64,
    changed: u64,
    unchanged: u64,
    /// How many features are no zones.
    pub(in crate::cli) refused: u64,
    interrupted: bool,
}

impl Summary {
    pub(in crate::cli) fn text(&self) -> String {
        let interrupted = if self.interrupted { "; interrupted, the same command goes on" } else { "" };
        format!(
            "{} set, {} stood already, {} refused{interrupted}",
            output::count(self.changed, "zone is", "zones are"),
            self.unchanged,
            output::count(self.refused, "feature was", "features were"),
        )
    }
}

struct Import<'a> {
    client: &'a Client,
    progress: &'a Progress,
    /// The ids met so far, and the number of the feature that had each.
    names: BTreeMap<String, u64>,
    summary: Summary,
}

impl Import<'_> {
    async fn carry(
        &mut self,
        source: Source,
        property: Option<&str>,
        stop: &Lifecycle,
    ) -> anyhow::Result<()> {
        let read = source.counter();
        let mut features = read_aside(source)?;
        let mut in_flight = FuturesUnordered::new();
        let mut reading = true;
        while reading || !in_flight.is_empty() {
            tokio::select! {
                () = stop.soft_stopped() => return Ok(()),
                Some(answer) = in_flight.next(), if !in_flight.is_empty() => {
                    let (id, put): (String, _) = answer;
                    self.answered(&id, put)?;
                }
                feature = features.recv(), if reading && in_flight.len() < PUTS_IN_FLIGHT_MAX => match feature {
                    None => reading = false,
                    Some(Item::Failed(error)) => return Err(error),
                    Some(Item::Feature(feature)) => {
                        self.summary.features += 1;
                        match self.admit(feature, property) {
                            Ok((id, zone)) => in_flight.push(put(self.client, self.progress, id, zone)),
                            Err((name, why)) => self.refuse(&name, &why),
                        }
                    }
                },
            }
            self.progress.at(read.bytes(), self.summary.changed + self.summary.unchanged);
        }
        Ok(())
    }

    /// The zone's id and body, or how the feature is called and why it is none.
    fn admit(
        &mut self,
        feature: Result<Feature, String>,
        property: Option<&str>,
    ) -> Result<(String, Value), (String, String)> {
        let number = self.summary.features;
        let unnamed = |why| (format!("feature {number}"), why);
        let feature = feature.map_err(unnamed)?;
        let id = feature.id(property).map_err(unnamed)?;
        if let Some(before) = self.names.get(&id) {
            return Err((id.clone(), format!("feature {before} has the same id as feature {number}")));
        }
        self.names.insert(id.clone(), number);
        Ok((id, feature.zone()))
    }

    fn answered(&mut self, id: &str, put: Result<Put, client::Error>) -> anyhow::Result<()> {
        match put {
            Ok(Put { changed: true }) => self.summary.changed += 1,
            Ok(Put { changed: false }) => self.summary.unchanged += 1,
            Err(client::Error::Refused(problem)) if !matches!(problem.status, 401 | 403) => {
                self.refuse(id, &problem.to_string());
            }
            Err(error @ client::Error::Dots(_)) => self.refuse(id, &error.to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn refuse(&mut self, name: &str, why: &str) {
        self.summary.refused += 1;
        self.progress.say(&format!("{name}: {why}"));
    }
}

#[derive(serde::Deserialize)]
struct Put {
    changed: bool,
}

/// Puts a zone, waiting while the stack is away.
async fn put(
    client: &Client,
    progress: &Progress,
    id: String,
    zone: Value,
) -> (String, Result<Put, client::Error>) {
    let mut told = false;
    loop {
        let put = client.put(&["v1", "zones", &id], &zone).await;
        match put.as_ref().err().and_then(client::Error::retry_after) {
            None => return (id, put),
            Some(least) => {
                if let (false, Err(error)) = (told, &put) {
                    progress.say(&format!("waiting with {id}: {error}"));
                }
                told = true;
                tokio::time::sleep(least.max(RETRY_EVERY)).await;
            }
        }
    }
}

enum Item {
    Feature(Result<Feature, String>),
    Failed(anyhow::Error),
}

/// Reads on a thread of its own, which ends with the file or when nobody listens.
fn read_aside(source: impl Read + Send + 'static) -> anyhow::Result<mpsc::Receiver<Item>> {
    let (to, from) = mpsc::channel(FEATURES_AHEAD_MAX);
    let read = move || {
        let read = features::read(source, |feature| to.blocking_send(Item::Feature(feature)).is_ok());
        if let Err(error) = read {
            let _ = to.blocking_send(Item::Failed(error));
        }
    };
    std::thread::Builder::new()
        .name("zones-reader".to_owned())
        .spawn(read)
        .context("cannot start a thread")?;
    Ok(from)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        extract::{Path, State},
        http::StatusCode,
        response::{IntoResponse as _, Response},
        routing::put,
    };
    use serde_json::json;

    use super::*;

    /// The zones that stand, and how many requests are still to be failed.
    type Stack = Arc<Mutex<(BTreeMap<String, Value>, usize)>>;

    async fn answer(State(stack): State<Stack>, Path(id): Path<String>, Json(zone): Json<Value>) -> Response {
        let (zones, failures) = &mut *stack.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if zone["geometry"].is_null() {
            let problem = json!({"code": "bad_geojson", "detail": "as told"});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response();
        }
        let changed = zones.insert(id.clone(), zone.clone()) != Some(zone);
        Json(json!({"id": id, "version": 1, "changed": changed})).into_response()
    }

    async fn import(stack: &Stack, text: &str) -> (Summary, bool) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = client::Options { url, token: Some("t".parse().unwrap()), data_dir: ".".into() };
        let client = Client::new(&options).unwrap();
        let router = Router::new().route("/v1/zones/{id}", put(answer)).with_state(Arc::clone(stack));
        let (progress, stop) = (Progress::begin(None, "zones", Clock::system()), Lifecycle::new());
        let source = Source::of_bytes(text.as_bytes().to_vec());
        let (summary, ended) = tokio::select! {
            _ = axum::serve(listener, router) => unreachable!(),
            done = super::import(&client, source, None, &stop, &progress) => done,
        };
        (summary, ended.is_ok())
    }

    #[tokio::test]
    async fn refused_features_are_counted_and_the_others_become_zones_once() {
        let stack = Stack::default();
        let file = r#"{"type":"FeatureCollection","features":[
            {"type":"Feature","id":"a/b","geometry":{"type":"Polygon"}},
            {"type":"Feature","id":"c","geometry":null},
            {"type":"Feature","geometry":{"type":"Polygon"}},
            {"type":"Feature","id":"a/b","geometry":{"type":"Point"}},
            {"type":"Feature","id":"..","geometry":{"type":"Polygon"}},
            {"type":"Feature","id":"Åland","geometry":{"type":"Polygon"}}
        ]}"#;
        stack.lock().unwrap().1 = 2;
        let expected = Summary { features: 6, changed: 2, refused: 4, ..Summary::default() };
        assert_eq!(import(&stack, file).await, (expected, true));
        let expected = Summary { features: 6, unchanged: 2, refused: 4, ..Summary::default() };
        assert_eq!(import(&stack, file).await, (expected, true));
        let zones: Vec<String> = stack.lock().unwrap().0.keys().cloned().collect();
        assert_eq!(zones, ["a/b", "Åland"]);
    }

    #[tokio::test]
    async fn a_file_that_breaks_off_ends_with_an_error() {
        let broken = r#"{"features":[{"id":"a","geometry":{"type":"Polygon"}},{"id":"#;
        let (_, ended) = import(&Stack::default(), broken).await;
        assert!(!ended);
    }
}
