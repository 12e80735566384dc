//! `waypost up`: runs the stack until it is told to stop.

use std::{collections::BTreeSet, process::ExitCode};

use waypost_runtime::{
    config::{SecretUrl, environment},
    lifecycle::{self, Lifecycle},
    telemetry,
};

use super::{output, settings::Settings};
use crate::up::{Options, Part, Stack, start};

/// Start Kafka and Postgres where no address is given, and run Waypost until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  waypost up
  waypost up --data-dir /srv/waypost --listen 0.0.0.0:7400
  waypost up --kafka broker:9092 --postgres postgresql://waypost@db/waypost
  waypost up --join .waypost --only processor --instance 2")]
pub(super) struct Args {
    /// Where the log, the store, the lock, stack.json and operator.token stand; default: .waypost
    #[arg(long, value_name = "DIR", conflicts_with = "join")]
    data_dir: Option<String>,
    /// Address of the HTTP port; default: 127.0.0.1:7400, and a free port with --join
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// A Kafka that is there, instead of a local one
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A Postgres that is there, instead of a local one
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Run this part alone; may be given more than once
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Join the stack that runs in this data directory: use its Kafka, its Postgres and its keys
    #[arg(long, value_name = "DIR")]
    join: Option<String>,
    /// Which processor or delivery node this is; two that run at once have different numbers
    #[arg(long, value_name = "N")]
    instance: Option<u32>,
    /// Say where everything is as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let join = args.join.is_some();
    let listen = args.listen.or_else(|| join.then(|| "127.0.0.1:0".to_owned()));
    let flags = [
        ("data_dir", args.join.or(args.data_dir)),
        ("listen", listen),
        ("kafka.bootstrap", args.kafka),
        ("postgres.url", args.postgres),
        ("instance", args.instance.map(|number| number.to_string())),
    ];
    let settings = args.settings.load(flags)?.settings().clone();
    let telemetry = telemetry::init(settings.log.format, &settings.log.filter)?;
    let parts = if args.only.is_empty() { Part::ALL.to_vec() } else { args.only };
    let parts = parts.into_iter().collect::<BTreeSet<_>>();
    let options = Options { settings, environment: environment(), parts, join };

    let lifecycle = Lifecycle::new();
    lifecycle::signals(&lifecycle)?;
    let stack = start(options, &lifecycle, &telemetry).await?;
    output::write(describe(&stack, args.json)?.as_bytes())?;
    let outcome = stack.wait().await;
    if outcome.cause.is_failure() {
        anyhow::bail!("stopped: {}", outcome.cause);
    }
    if !outcome.aborted.is_empty() {
        tracing::warn!(tasks = ?outcome.aborted, "did not end in time and were given up");
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(stack: &Stack, json: bool) -> anyhow::Result<String> {
    let (addresses, data) = (stack.addresses(), stack.data_dir().display());
    if json {
        let mut all = serde_json::to_value(addresses)?;
        all["postgres"] = SecretUrl::new(&*addresses.postgres).to_string().into();
        all["data_dir"] = data.to_string().into();
        return Ok(all.to_string() + "\n");
    }
    Ok(format!(
        "Waypost runs; Ctrl-C stops it.\n  HTTP      {}\n  Kafka     {}\n  Postgres  {}\n  data      {data}\n  token     {data}/operator.token\n",
        addresses.url,
        addresses.kafka,
        SecretUrl::new(&*addresses.postgres),
    ))
}
