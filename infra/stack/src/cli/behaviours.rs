//! `waypost behaviours`: what machines do, by number.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::output;
use crate::client::{self, Client};

/// Set what a machine does from here on, and list what each does
///
/// What a machine derives changes by this and not by a new version: a version has a behaviour and the one before it,
/// so set a number when every process has it. One that does not stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost behaviours list
  waypost behaviours set --machine spatial 1")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Set(Set),
    List(List),
}

/// Set the behaviour of a machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost behaviours set --machine spatial 1")]
struct Set {
    /// The machine
    #[arg(long, value_name = "M")]
    machine: String,
    /// The number of the behaviour
    number: i32,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// List the behaviours of all machines
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost behaviours list")]
struct List {
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Deserialize)]
struct Listed {
    behaviours: Vec<Behaviour>,
}

#[derive(Debug, Deserialize)]
struct Behaviour {
    machine: String,
    number: i32,
    known: Vec<i32>,
    by: Option<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Set(args) => set(args).await,
        Command::List(args) => list(args).await,
    }
}

async fn set(args: Set) -> anyhow::Result<ExitCode> {
    let body = json!({"machine": args.machine, "number": args.number});
    let answer: Value = Client::new(&args.stack)?.post(&["v1", "behaviours"], &body).await?;
    output::stands(&format!("behaviour {} of {}", args.number, args.machine), "set", &answer, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let known = |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    let row = |b: Behaviour| {
        [b.machine, b.number.to_string(), known(&b.known), b.by.unwrap_or_else(|| "-".to_owned())]
    };
    let rows = |listed: Listed| listed.behaviours.into_iter().map(row).collect();
    let heads = ["MACHINE", "BEHAVIOUR", "THIS VERSION HAS", "SET BY"];
    output::listed(&["v1", "behaviours"], (&args.stack, args.json), heads, rows).await
}
