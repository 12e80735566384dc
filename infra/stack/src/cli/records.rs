//! `waypost records`: records that a machine does not fold.

use std::{process::ExitCode, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::output;
use crate::client::{self, Client};

/// For how long a machine that was just stopped still has members: a session of six seconds, and as much again.
const SESSION_WAIT: Duration = Duration::from_secs(12);
/// How often it is asked again meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Take a record out of what a machine folds, and list such records
///
/// For a record that ends the process whenever a machine folds it. What follows from it is never made, and replays
/// skip it too; so take a version that can fold it instead where there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost records skip --machine spatial positions/3/1288
  waypost records list")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Skip(Skip),
    List(List),
}

/// Let a machine skip a record; this cannot be taken back
///
/// Every process that runs the machine must be stopped. One that ended a moment ago counts until its session is over,
/// for which this waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost records skip --machine spatial positions/3/1288
Where the stack stops at the record, start what takes the command alone, and then the stack again:
  waypost up --only ingest")]
struct Skip {
    /// The machine, as the error says it
    #[arg(long, value_name = "M")]
    machine: String,
    /// The record: topic/partition/offset, as the error says it
    position: String,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// List the records that machines skip
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost records list")]
struct List {
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Deserialize)]
struct Listed {
    skips: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    machine: String,
    position: String,
    version: i64,
    by: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Skip(args) => skip(args).await,
        Command::List(args) => list(args).await,
    }
}

async fn skip(args: Skip) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let body = json!({"machine": args.machine, "position": args.position});
    let mut last = None;
    let skipped = tokio::time::timeout(SESSION_WAIT, async {
        loop {
            match client.post::<_, Value>(&["v1", "skips"], &body).await {
                Err(error) if error.problem().is_some_and(|problem| problem.code == "machine_runs") => {
                    last = Some(error);
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    });
    let answer = match (skipped.await, last) {
        (Ok(answer), _) => answer?,
        (Err(_), Some(error)) => return Err(error.into()),
        (Err(late), None) => return Err(late.into()),
    };
    let record = format!("{} for {}", args.position, args.machine);
    output::stands(&record, "skipped", &answer, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let row = |skip: Skipped| [skip.machine, skip.position, skip.by, skip.version.to_string()];
    let rows = |listed: Listed| listed.skips.into_iter().map(row).collect();
    let heads = ["MACHINE", "SKIPS", "BY", "VERSION"];
    output::listed(&["v1", "skips"], (&args.stack, args.json), heads, rows).await
}
