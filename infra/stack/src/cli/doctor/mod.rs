//! `waypost doctor`: whether this machine has what a stack needs, and what to do where it has not.

mod checks;

use std::process::ExitCode;

use serde::Serialize;
use waypost_runtime::config::environment;

use super::{output, settings::Settings};

/// Tell whether this machine has what a stack needs
///
/// Says what to do where something is missing. Looks at Java, Kafka's programs, PostgreSQL, ports, file descriptors, the data directory, disk space, and the stack
/// that runs there. Nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing is missing, 1 something is.

Example:
  waypost doctor
  waypost doctor --data-dir /srv/waypost --json | jq '.checks[] | select(.state != \"ok\")'")]
pub(super) struct Args {
    /// The data directory of the stack; default: .waypost
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the HTTP port; default: 127.0.0.1:7400
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A Kafka that is there, instead of a local one
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A Postgres that is there, instead of a local one
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// A stack runs, but this is worth knowing.
    Note,
    /// A stack does not run like this.
    Missing,
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    /// What is there, or what is wrong and what to do.
    says: String,
}

impl Finding {
    fn ok(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, state: State::Ok, says: says.into() }
    }

    fn note(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, state: State::Note, says: says.into() }
    }

    fn missing(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, state: State::Missing, says: says.into() }
    }

    /// What is needed: there, or missing with the error as what to do.
    fn needed(what: &'static str, found: anyhow::Result<String>) -> Self {
        match found {
            Ok(says) => Self::ok(what, says),
            Err(error) => Self::missing(what, format!("{error:#}")),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let flags = [
        ("data_dir", args.data_dir),
        ("listen", args.listen),
        ("kafka.bootstrap", args.kafka),
        ("postgres.url", args.postgres),
    ];
    let settings = args.settings.load(flags)?.settings().clone();
    let checks = checks::all(&settings, &environment()).await;
    let ok = checks.iter().all(|finding| finding.state != State::Missing);
    if args.json {
        output::json(&Report { ok, checks })?;
    } else {
        output::write(text(&checks).as_bytes())?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each; what has more lines is indented.
fn text(checks: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let state = match finding.state {
            State::Ok => "OK",
            State::Note => "NOTE",
            State::Missing => "MISSING",
        };
        let says = finding.says.trim_end().replace('\n', "\n          ");
        format!("{state:<8}  {}: {says}\n", finding.what)
    };
    checks.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_for_each_finding() {
        let checks = [
            Finding::ok("java", "Java 17"),
            Finding::needed("maven", Err(anyhow::anyhow!("no Maven: install it\nand more"))),
            Finding::note("disk", "little"),
        ];
        assert_eq!(
            text(&checks),
            "OK        java: Java 17\nMISSING   maven: no Maven: install it\n          and more\nNOTE      disk: little\n"
        );
    }
}
