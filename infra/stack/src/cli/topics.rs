//! `waypost topics`: the topics of the catalogue on a broker.

use std::process::ExitCode;

use waypost_runtime::{
    broker::topics::Plan,
    connect,
    datadir::{Addresses, DataDir},
};

use super::{output, settings::Settings};

/// Create the topics of the catalogue, or compare them with the broker's
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  waypost topics apply --kafka broker:9092\n  waypost topics check")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create the topics that are missing; says what differs, and changes no topic
    Apply(Target),
    /// Say what is missing and what differs; exits 1 where something is missing
    Check(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The broker; default: kafka.bootstrap, or the one of the stack in the data directory
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Data directory of a stack that runs
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (target, apply) = match args.command {
        Command::Apply(target) => (target, true),
        Command::Check(target) => (target, false),
    };
    let flags = [("kafka.bootstrap", target.kafka), ("data_dir", target.data_dir)];
    let mut settings = target.settings.load(flags)?.settings().clone();
    if settings.kafka.bootstrap.is_none() {
        let data = DataDir::existing(&settings.data_dir)?;
        settings.kafka.bootstrap = Some(Addresses::read(&data)?.kafka);
    }
    let plan = connect::plan(&settings, apply).await?;
    output::write(describe(&plan, apply).as_bytes())?;
    Ok(if apply || plan.create.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(plan: &Plan, applied: bool) -> String {
    let word = if applied { "created" } else { "missing" };
    let mut lines: Vec<String> = plan.create.iter().map(|topic| format!("{word}: {topic}")).collect();
    lines.extend(plan.differences.iter().map(|difference| format!("differs: {difference}")));
    if lines.is_empty() {
        lines.push("all topics are as the catalogue says".to_owned());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use waypost_runtime::broker::topics::Difference;
    use waypost_schemas::topic::Topic;

    use super::*;

    #[test]
    fn what_is_missing_and_what_differs_is_said_line_by_line() {
        assert_eq!(describe(&Plan::default(), true), "all topics are as the catalogue says\n");
        let difference = Difference {
            topic: Topic::Acks,
            setting: "retention.ms".into(),
            is: Some("1000".into()),
            ought: "-1".into(),
        };
        let plan = Plan { create: vec![Topic::Matches], differences: vec![difference] };
        let text = describe(&plan, false);
        assert_eq!(text, "missing: matches\ndiffers: acks: retention.ms is 1000, the catalogue says -1\n");
        assert!(describe(&plan, true).starts_with("created: matches\n"));
    }
}
