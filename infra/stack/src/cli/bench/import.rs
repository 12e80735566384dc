//! `waypost bench import`: the whole way from a request to a match, beside bare produce.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use waypost_processor::{machine::Machine as _, spatial::SpatialMachine};
use waypost_runtime::{
    broker::{
        Broker,
        kafka::{self, Config},
    },
    clock::Clock,
    lifecycle::Lifecycle,
};
use waypost_schemas::{time::Micros, topic::Topic};

use super::{
    count, ended, floor,
    scratch::{self, Scratch},
    workload::{self, Files, Fleet},
};
use crate::cli::{file::Source, import, progress::Progress, status::Status, wait, zones};

/// How often the log is asked for the last match.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long the machines may take after the last fix was accepted.
const MATCHES_MAX: Duration = Duration::from_mins(10);

/// Measure an import, from the first request to the last match in the log
///
/// Starts a stack of its own in a temporary directory, imports fixes with a rule on every border of every zone, and
/// then appends the same bytes to the same broker by a bare producer of the same settings: idempotent, acks=all, one
/// request in flight.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench import --fixes 1000000 --devices 1000
  waypost bench import --file storks.csv.gz --zones-file countries.geojson.gz")]
pub(super) struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    fleet: Fleet,
    /// Write the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    fixes: u64,
    matches: i64,
    /// From the first request to the answer of the last.
    accepted_s: f64,
    accepted_per_s: f64,
    /// From the first request to the append of the last match.
    matched_s: f64,
    matched_per_s: f64,
    /// How many records the projector had still to apply when the last match was seen.
    projector_lag: i64,
    /// Records a second of the bare producer.
    floor_per_s: f64,
    /// Fixes a second to the last match, by records a second of the bare producer.
    ratio: f64,
}

impl Figures {
    fn text(&self) -> String {
        format!(
            "{} fixes, {} matches\n\
             accepted      {} fixes/s ({:.2} s)\n\
             matched       {} fixes/s ({:.2} s, to the last match in the log)\n\
             projector     {} records behind then\n\
             bare produce  {} records/s\n\
             ratio         {:.2}",
            count(self.fixes as f64),
            count(self.matches as f64),
            count(self.accepted_per_s),
            self.accepted_s,
            count(self.matched_per_s),
            self.matched_s,
            count(self.projector_lag as f64),
            count(self.floor_per_s),
            self.ratio,
        )
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let measured = scratch::on_one(async |scratch, stop| measure(&args, scratch, stop).await).await?;
    ended(measured.as_ref(), args.json, Figures::text)
}

/// The files of a workload, and how many matches must come where that is known.
struct Workload {
    fixes: PathBuf,
    zones: PathBuf,
    matches: Option<i64>,
}

fn workload(args: &Args, scratch: &Scratch) -> anyhow::Result<Workload> {
    if let (Some(fixes), Some(zones)) = (&args.files.fixes_file, &args.files.zones_file) {
        return Ok(Workload { fixes: fixes.clone(), zones: zones.clone(), matches: None });
    }
    eprintln!("generating a fleet ...");
    let track = args.fleet.generate();
    Ok(Workload {
        fixes: scratch.write("fixes.csv", &workload::csv(&track.fixes(0)))?,
        zones: scratch.write("zones.geojson", &workload::geojson(&track.zones()))?,
        matches: Some(track.crossings().len() as i64),
    })
}

async fn measure(args: &Args, scratch: &Scratch, stop: &Lifecycle) -> anyhow::Result<Figures> {
    let (clock, client) = (Clock::system(), &scratch.client);
    let work = tokio::task::block_in_place(|| workload(args, scratch))?;
    let broker = kafka::Broker::connect(Config::new(&*scratch.addresses.kafka))?;

    let progress = Progress::begin(None, "zones", clock.clone());
    let (zones, ended) =
        zones::import::import(client, Source::open(&work.zones)?, None, stop, &progress).await;
    progress.end();
    ended?;
    ensure!(zones.refused == 0, "{} zones were refused", zones.refused);
    let rule = json!({"on": ["enter", "exit"], "zones": "all", "subjects": "all", "notify": ["warden"]});
    client.put::<_, Value>(&["v1", "rules", "bench"], &rule).await?;
    idle(scratch, &clock).await?;

    let source = Source::open(&work.fixes)?;
    let progress = Progress::begin(source.bytes, "fixes", clock.clone());
    let begun = clock.now();
    let (summary, failure) = import::import(client, source, stop, &progress).await;
    progress.end();
    failure.map_or(Ok(()), Err)?;
    let matches = tokio::time::timeout(MATCHES_MAX, matched(&broker, work.matches)).await;
    let matches = matches.context("the machines did not come to the end in time")??;
    let projector_lag = Status::get(client).await?.projector_lag();
    ensure!(
        work.matches.is_none_or(|expected| expected == matches),
        "{matches} matches came where {} must come",
        work.matches.unwrap_or_default()
    );
    let matched_s = (last_append(&broker).await?.0 - begun.0) as f64 / Micros::SECOND as f64;

    idle(scratch, &clock).await?;
    eprintln!("measuring a bare producer ...");
    let floor = floor::measure(&broker, &clock).await?;
    let (matched_per_s, floor_per_s) =
        (summary.taken as f64 / matched_s, floor.records as f64 / floor.took.as_secs_f64());
    Ok(Figures {
        fixes: summary.taken,
        matches,
        accepted_s: summary.seconds,
        accepted_per_s: summary.taken as f64 / summary.seconds,
        matched_s,
        matched_per_s,
        projector_lag,
        floor_per_s,
        ratio: matched_per_s / floor_per_s,
    })
}

async fn idle(scratch: &Scratch, clock: &Clock) -> anyhow::Result<()> {
    match wait::idle(&scratch.client, MATCHES_MAX, clock).await? {
        None => Ok(()),
        Some(laggard) => anyhow::bail!("the stack does not become idle: {laggard}"),
    }
}

/// Waits until as many matches as expected are in the log, or the machine has come to the end of the positions;
/// how many there are then.
async fn matched(broker: &dyn Broker, expected: Option<i64>) -> anyhow::Result<i64> {
    let group = format!("waypost.{}", SpatialMachine::NAME);
    loop {
        let committed = broker.committed(group.clone(), vec![Topic::Positions]).await?;
        let bounds = broker.bounds(vec![Topic::Positions, Topic::Matches]).await?;
        let high = |topic| bounds.iter().filter(move |(of, _)| of.topic == topic);
        let matches = high(Topic::Matches).map(|(_, bounds)| bounds.high).sum();
        let at_end = high(Topic::Positions)
            .all(|(of, bounds)| committed.get(of).copied().unwrap_or(bounds.low) == bounds.high);
        if at_end || expected.is_some_and(|expected| matches >= expected) {
            return Ok(matches);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// When the newest match was appended.
async fn last_append(broker: &dyn Broker) -> anyhow::Result<Micros> {
    let reader = broker.reader()?;
    let mut newest = None;
    for (of, bounds) in broker.bounds(vec![Topic::Matches]).await? {
        if bounds.low < bounds.high {
            let mut feed = reader.open(of, bounds.high - 1)?;
            let last = loop {
                if let Some(last) = feed.next().await?.records.last() {
                    break last.append;
                }
            };
            newest = newest.max(Some(last));
        }
    }
    newest.context("no match came; nothing was measured")
}
