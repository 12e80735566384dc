//! `waypost demo`: everything at once, on a stack that runs: vans, depots, matches, and two users who chat.

mod people;
mod tally;

use std::{cell::Cell, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_runtime::{
    clock::Clock,
    lifecycle::{self, Lifecycle},
};
use waypost_schemas::{id::UserId, place::Place};

use self::people::{DISPATCHER, People};
use super::{
    duration,
    file::Source,
    import, output,
    progress::Progress,
    simulate::{self, Fleet},
    wait, zones,
};
use crate::client::{self, Client};

/// The zones of the demonstration where no file names others.
const DEPOTS: &str = include_str!("depots.geojson");
const RULE: &str = "demo";
const USER: &str = "fleet";
/// How long what was said and what happened may take to arrive everywhere.
const SETTLE_WITHIN: Duration = Duration::from_mins(1);
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// How many matches are counted at a time.
const PAGE_MATCHES: &str = "10000";

/// Show a running stack at work: vans, matches, and two users who chat
///
/// Defines the zones and the rule `demo`, which tells the user `dispatcher`; lets vans of the user `fleet` drive, and
/// carol and dave write to each other; and prints what arrives: messages, their V (delivered) and VV (read), and matches.
/// At the end it waits until everything has arrived, and compares.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 messages, V, VV and matches arrived, each once; 1 something lacks, and is named.

Example:
  waypost demo --for 30s
  waypost demo --fixes tracks.csv.gz --zones zones.geojson")]
pub(super) struct Args {
    /// When to end; default: at Ctrl-C, or when all of --fixes were sent
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Replay a CSV file instead of vans (device,timestamp,lat,lon), packed with gzip or not
    #[arg(long, value_name = "FILE", requires = "zones")]
    fixes: Option<PathBuf>,
    /// The zones of a GeoJSON file instead of two depots
    #[arg(long, value_name = "FILE", requires = "fixes")]
    zones: Option<PathBuf>,
    /// How many vans drive
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    vans: u16,
    #[command(flatten)]
    stack: client::Options,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = Lifecycle::new();
    lifecycle::signals(&stop)?;
    let (operator, clock) = (Client::new(&args.stack)?, Clock::system());
    set_up(&operator, &args, &stop, &clock).await?;
    let before = matches(&operator).await?;
    let mut people = People::connect(&operator, &clock).await?;

    let drive = Lifecycle::new();
    let over = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        chatted = people.chat() => chatted?,
        driven = self::drive(&operator, &args, &drive, &clock) => driven?,
        () = over => {}
        () = stop.soft_stopped() => {}
    }
    output::line("everything is said; waiting until it has arrived")?;
    let fired = tokio::select! {
        settled = settle(&mut people, &operator, before, &clock) => settled?,
        () = stop.hard_stopped() => bail!("stopped before all had arrived"),
    };
    let tally = people.close(CLOSE_WITHIN).await;
    output::line(&tally.summary())?;
    let lacks = [tally.lacks(fired), tally.wrong().to_vec()].concat();
    lacks.iter().for_each(|lack| eprintln!("waypost: {lack}"));
    Ok(if lacks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Defines zones and rule.
async fn set_up(operator: &Client, args: &Args, stop: &Lifecycle, clock: &Clock) -> anyhow::Result<()> {
    let source = match &args.zones {
        Some(file) => Source::open(file)?,
        None => Source::of_bytes(DEPOTS.as_bytes().to_vec()),
    };
    let progress = Progress::lines(source.bytes, "zones", clock.clone());
    let (summary, ended) = zones::import::import(operator, source, None, stop, &progress).await;
    ended.context("the zones cannot be defined")?;
    output::line(&summary.text())?;
    let zones = if args.zones.is_some() { json!("all") } else { json!(["Depot West", "Depot East"]) };
    let rule = json!({"on": ["enter", "exit"], "zones": zones, "subjects": "all", "notify": [DISPATCHER]});
    let _: Value = operator.put(&["v1", "rules", RULE], &rule).await?;
    Ok(())
}

/// Drives vans until nobody awaits it any more, or sends all fixes of a file.
async fn drive(operator: &Client, args: &Args, stop: &Lifecycle, clock: &Clock) -> anyhow::Result<()> {
    let Some(file) = &args.fixes else {
        let fleet = Fleet {
            vans: args.vans,
            user: UserId::new(USER)?,
            between: Place::new(7.43, 46.95)?,
            and: Place::new(7.47, 46.95)?,
            lap: Duration::from_secs(20),
            every: Duration::from_millis(500),
        };
        return simulate::drive(operator, &fleet, clock, &Cell::new(0)).await;
    };
    let source = Source::open(file)?;
    let progress = Progress::lines(source.bytes, "fixes", clock.clone());
    let (summary, failure) = import::import(operator, source, stop, &progress).await;
    output::line(&summary.text())?;
    failure.map_or(Ok(()), |error| {
        Err(error.context(format!("the import of {} could not go on", file.display())))
    })
}

/// Waits until machines and read models are at the ends of the log, and then until all that is there has arrived; how
/// many matches there are.
async fn settle(
    people: &mut People,
    operator: &Client,
    before: usize,
    clock: &Clock,
) -> anyhow::Result<usize> {
    let idle = tokio::select! {
        idle = wait::idle(operator, SETTLE_WITHIN, clock) => idle?,
        listened = people.listen() => return listened.map(|()| 0),
    };
    if let Some(laggard) = idle {
        eprintln!("waypost: not idle in time: {laggard}");
    }
    let fired = matches(operator).await?.saturating_sub(before);
    people.settle(fired, SETTLE_WITHIN).await?;
    Ok(fired)
}

/// How many matches of the demonstration's rule there are.
async fn matches(operator: &Client) -> Result<usize, client::Error> {
    #[derive(Deserialize)]
    struct Page {
        matches: Vec<Value>,
        next: Option<String>,
    }
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let mut query = vec![("rule", RULE), ("limit", PAGE_MATCHES)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page: Page = operator.get(&["v1", "matches"], &query).await?;
        count += page.matches.len();
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(count),
        }
    }
}
