//! `waypost holes`: records that are missing, and that readers go on without.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::output;
use crate::client::{self, Client};

/// Accept that records are missing from the log, and list where
///
/// A reader that meets a hole stops with an error that names its position. Accepting it lets every reader go on from
/// the record that came; what is missing stays missing, so put it back instead where you can.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost holes accept inboxes/3/1288
  waypost holes list")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Accept(Accept),
    List(List),
}

/// Let every reader go on at a hole; this cannot be taken back
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost holes accept inboxes/3/1288
Where the stack stops at the hole, start what takes the command alone, and then the stack again:
  waypost up --only ingest")]
struct Accept {
    /// The record behind the hole: topic/partition/offset, as the error says it
    position: String,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// List the holes that were accepted
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost holes list")]
struct List {
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Deserialize)]
struct Listed {
    holes: Vec<Hole>,
}

#[derive(Debug, Deserialize)]
struct Hole {
    position: String,
    version: i64,
    by: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Accept(args) => accept(args).await,
        Command::List(args) => list(args).await,
    }
}

async fn accept(args: Accept) -> anyhow::Result<ExitCode> {
    let body = json!({"position": args.position});
    let answer: Value = Client::new(&args.stack)?.post(&["v1", "holes"], &body).await?;
    output::stands(&format!("the hole before {}", args.position), "accepted", &answer, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let row = |hole: Hole| [hole.position, hole.by, hole.version.to_string()];
    let rows = |listed: Listed| listed.holes.into_iter().map(row).collect();
    let heads = ["HOLE BEFORE", "ACCEPTED BY", "VERSION"];
    output::listed(&["v1", "holes"], (&args.stack, args.json), heads, rows).await
}
