//! `waypost zones`: the places that rules watch.

pub(super) mod features;
pub(super) mod import;

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::output;
use crate::client::{self, Client};

/// Import, list, show and remove zones
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost zones import countries.geojson.gz
  waypost zones show Germany")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Import(import::Args),
    List(List),
    Show(Show),
    Remove(Remove),
}

/// List all zones
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost zones list")]
struct List {
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// Show a zone as a GeoJSON Feature
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost zones show Germany > germany.geojson")]
struct Show {
    /// Its id
    id: String,
    #[command(flatten)]
    stack: client::Options,
}

/// Remove a zone
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost zones remove 'Depot North'")]
struct Remove {
    /// Its id
    id: String,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Deserialize)]
struct Listed {
    zones: Vec<Zone>,
}

#[derive(Debug, Deserialize)]
struct Zone {
    id: String,
    version: i64,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    vertices: u64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Import(args) => import::run(args).await,
        Command::List(args) => list(args).await,
        Command::Show(args) => {
            let zone: Value = Client::new(&args.stack)?.get(&["v1", "zones", &args.id], &[]).await?;
            output::line(&zone.to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Remove(args) => {
            Client::new(&args.stack)?.delete(&["v1", "zones", &args.id]).await?;
            output::line(&format!("zone {} is removed", args.id))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let document: Value = client.get(&["v1", "zones"], &[]).await?;
    if args.json {
        output::json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed = Listed::deserialize(&document)
        .map_err(|source| client::Error::Foreign { url: client.address().to_owned(), source })?;
    let rows: Vec<[String; 4]> = listed
        .zones
        .into_iter()
        .map(|zone| [zone.id, zone.kind, zone.vertices.to_string(), zone.version.to_string()])
        .collect();
    output::table(["ZONE", "TYPE", "VERTICES", "VERSION"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
