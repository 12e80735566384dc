//! `waypost rules`: what fires, and who is told.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output;
use crate::client::{self, Client};

/// Add, list, show and remove rules
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost rules add --id borders --on enter,exit --zones all --subjects all --notify warden")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Show(Show),
    Remove(Remove),
}

/// Add a rule, or change the one of that id
///
/// --zones, --subjects and --notify can be given more than once. A name may hold commas.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost rules add --id borders --on enter,exit --zones all --subjects all --notify warden
  waypost rules add --id depots --on enter --zones North --zones 'East, 2' \\
    --subjects depot/van-7 --notify ops")]
struct Add {
    /// Its id
    #[arg(long, value_name = "R")]
    id: String,
    /// What fires it
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', required = true)]
    on: Vec<Trigger>,
    /// A zone that it watches, or `all`
    #[arg(long, value_name = "Z|all", required = true)]
    zones: Vec<String>,
    /// A device that it watches, or `all`
    #[arg(long, value_name = "D|all", required = true)]
    subjects: Vec<String>,
    /// A user who is told
    #[arg(long, value_name = "U", required = true)]
    notify: Vec<String>,
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// List all rules
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost rules list")]
struct List {
    /// Write the stack's own document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: client::Options,
}

/// Show a rule as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost rules show borders")]
struct Show {
    /// Its id
    id: String,
    #[command(flatten)]
    stack: client::Options,
}

/// Remove a rule
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost rules remove borders")]
struct Remove {
    /// Its id
    id: String,
    #[command(flatten)]
    stack: client::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Trigger {
    /// A device comes into a zone
    Enter,
    /// A device leaves a zone
    Exit,
}

#[derive(Debug, Serialize)]
struct Definition<'a> {
    on: &'a [Trigger],
    zones: Names<'a>,
    subjects: Names<'a>,
    notify: &'a [String],
}

/// Some names, or all there are.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Names<'a> {
    All(&'static str),
    These(&'a [String]),
}

impl<'a> Names<'a> {
    fn of(names: &'a [String]) -> Self {
        if names.iter().any(|name| name == "all") { Self::All("all") } else { Self::These(names) }
    }
}

#[derive(Debug, Deserialize)]
struct Listed {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    id: String,
    version: i64,
    on: Vec<String>,
    zones: Value,
    subjects: Value,
    notify: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Add(args) => add(args).await,
        Command::List(args) => list(args).await,
        Command::Show(args) => {
            let rule: Value = Client::new(&args.stack)?.get(&["v1", "rules", &args.id], &[]).await?;
            output::json(&rule)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Remove(args) => {
            Client::new(&args.stack)?.delete(&["v1", "rules", &args.id]).await?;
            output::line(&format!("rule {} is removed", args.id))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn add(args: Add) -> anyhow::Result<ExitCode> {
    let definition = Definition {
        on: &args.on,
        zones: Names::of(&args.zones),
        subjects: Names::of(&args.subjects),
        notify: &args.notify,
    };
    let answer: Value = Client::new(&args.stack)?.put(&["v1", "rules", &args.id], &definition).await?;
    if args.json {
        output::json(&answer)?;
    } else {
        let stands = if answer["changed"] == false { "stands already" } else { "is set" };
        output::line(&format!("rule {} {stands} (version {})", args.id, answer["version"]))?;
        for zone in answer["unknown_zones"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output::line(&format!("warning: there is no zone {zone}; the rule waits until it is defined"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.stack)?;
    let document: Value = client.get(&["v1", "rules"], &[]).await?;
    if args.json {
        output::json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed = Listed::deserialize(&document)
        .map_err(|source| client::Error::Foreign { url: client.address().to_owned(), source })?;
    let names = |names: &Value| match names {
        Value::Array(names) => {
            names.iter().map(|name| name.as_str().unwrap_or("?")).collect::<Vec<_>>().join("; ")
        }
        other => other.as_str().unwrap_or("?").to_owned(),
    };
    let rows: Vec<[String; 6]> = listed
        .rules
        .iter()
        .map(|rule| {
            [
                rule.id.clone(),
                rule.on.join(","),
                names(&rule.zones),
                names(&rule.subjects),
                rule.notify.join("; "),
                rule.version.to_string(),
            ]
        })
        .collect();
    output::table(["RULE", "ON", "ZONES", "SUBJECTS", "NOTIFY", "VERSION"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Door {
        #[command(flatten)]
        add: Add,
    }

    fn definition(line: &[&str]) -> Result<Value, String> {
        let add = Door::try_parse_from([&["waypost", "--id", "r", "--notify", "u"], line].concat())
            .map_err(|e| e.to_string())?
            .add;
        let (zones, subjects) = (Names::of(&add.zones), Names::of(&add.subjects));
        Ok(serde_json::to_value(Definition { on: &add.on, zones, subjects, notify: &add.notify }).unwrap())
    }

    #[test]
    fn names_repeat_and_only_triggers_split_at_commas() {
        for (line, expected) in [
            (
                &["--on", "enter,exit", "--zones", "all", "--subjects", "all"][..],
                serde_json::json!({"on": ["enter", "exit"], "zones": "all", "subjects": "all", "notify": ["u"]}),
            ),
            (
                &["--on", "exit", "--zones", "a, b", "--zones", "c", "--subjects", "x/y", "--notify", "v,w"],
                serde_json::json!({"on": ["exit"], "zones": ["a, b", "c"], "subjects": ["x/y"], "notify": ["u", "v,w"]}),
            ),
        ] {
            assert_eq!(definition(line), Ok(expected));
        }
        for bad in
            [&["--on", "inside", "--zones", "a", "--subjects", "x"][..], &["--on", "enter", "--zones", "a"]]
        {
            assert!(definition(bad).is_err(), "{bad:?}");
        }
    }
}
