//! `waypost bench chain`: a message from its sender's socket to its recipient's, beside a bare chain of the same bytes.

mod log;
mod pairs;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use waypost_runtime::{
    broker::{
        Broker as _,
        kafka::{
            self, Config,
            chain::{Chain, Link, Passed},
        },
    },
    clock::Clock,
    lifecycle::Lifecycle,
    pace::Pace,
};
use waypost_schemas::{time::Micros, topic::Topic};

use self::{
    log::{Logged, between},
    pairs::{Heard, Load},
};
use super::{
    count, ended,
    latency::{Latency, Ratio},
    scratch::{self, Scratch},
};
use crate::cli::{output, wait};

/// How long the stack may take until it has applied all.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// Measure how long a message takes from its sender's socket to its recipient's
///
/// Starts a stack of its own in a temporary directory, and connects pairs of users, of whom one writes to the other
/// evenly at a rate, whatever happens to what was sent before; both acknowledge what they get, as clients do. Time
/// counts from the moment that a message was due. Then a bare librdkafka chain does the same with the same bytes,
/// partitions and settings on the same broker: produce, consume, produce what follows, consume that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost bench chain --rate 500 --seconds 10
  waypost bench chain --rate 5000 --pairs 200 --json")]
pub(super) struct Args {
    /// How many messages a second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For how long, after the warm-up
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// For how long before, at the same rate, unmeasured
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u16).range(0..=3_600))]
    warm_up: u16,
    /// How many pairs of users
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pairs: u16,
    /// How long a message is
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    body_bytes: u16,
    /// Write the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was measured, without the warm-up.
#[derive(Debug, Serialize)]
struct Figures {
    rate_per_s: u32,
    seconds: u16,
    pairs: u16,
    body_bytes: u16,
    sent: usize,
    received: usize,
    /// From when a message was due until its recipient had it.
    waypost: Latency,
    /// The same of the bare chain.
    bare: Latency,
    ratio: Ratio,
    stages: Stages,
}

/// Where the time goes. What is in the log is known to a millisecond.
#[derive(Debug, Serialize)]
struct Stages {
    /// From when it was due until the log had it in `messages`.
    in_messages: Latency,
    /// From there until the log had the recipient's entry in `inboxes`.
    in_inboxes: Latency,
    /// From there until the recipient had it from the socket.
    on_socket: Latency,
    /// From when it was due until its sender was told that it is accepted.
    accepted: Latency,
    /// In the bare chain, from when it was due until what is between the topics had read it.
    bare_read: Latency,
}

impl Figures {
    fn text(&self) -> String {
        let stages = &self.stages;
        let rows = [
            self.waypost.row("waypost, socket to socket"),
            self.bare.row("bare librdkafka chain"),
            self.ratio.row("ratio"),
            stages.in_messages.row("waypost: until in messages"),
            stages.in_inboxes.row("  from there until in inboxes"),
            stages.on_socket.row("  from there until on the socket"),
            stages.accepted.row("  until the sender heard accepted"),
            stages.bare_read.row("bare: until read from messages"),
        ];
        format!(
            "{} messages sent, {} received, {} a second for {} s, {} pairs of users, {} bytes each\n{}",
            count(self.sent as f64),
            count(self.received as f64),
            count(f64::from(self.rate_per_s)),
            self.seconds,
            self.pairs,
            self.body_bytes,
            output::columns(["latency", "p50", "p90", "p99"], &rows).trim_end(),
        )
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let measured = scratch::on_one(async |scratch, _: &Lifecycle| measure(&args, scratch).await).await?;
    ended(measured.as_ref(), args.json, Figures::text)
}

async fn measure(args: &Args, scratch: &Scratch) -> anyhow::Result<Figures> {
    let clock = Clock::system();
    let pace = Pace::new(f64::from(args.rate));
    let warm = pace.within(Duration::from_secs(args.warm_up.into()));
    let sent = pace.within(Duration::from_secs(args.seconds.into()));
    let (pairs, body_bytes) = (args.pairs.into(), args.body_bytes.into());
    eprintln!("{pairs} pairs of users connect and speak ...");
    let heard = pairs::speak(scratch, Load { pairs, count: warm + sent, pace, body_bytes }, &clock).await?;
    if let Some(laggard) = wait::idle(&scratch.client, IDLE_MAX, &clock).await? {
        anyhow::bail!("the stack does not become idle: {laggard}");
    }
    let received = heard.received.iter().skip(warm).flatten().count();
    ensure!(received == sent, "{} of {sent} messages did not come in time", sent - received);

    eprintln!("measuring a bare chain ...");
    let broker = kafka::Broker::connect(Config::new(&*scratch.addresses.kafka))?;
    let Logged { appended, links } = log::read(&broker, warm + sent).await?;
    let keyed = broker.bounds(vec![Topic::Messages]).await?.len() as i32;
    let bare = bare(scratch, keyed, links, pace, clock).await?;

    let (waypost, floor) =
        (latency(heard.received.iter().copied(), warm)?, latency(bare.iter().map(|b| Some(b.whole)), warm)?);
    Ok(Figures {
        rate_per_s: args.rate,
        seconds: args.seconds,
        pairs: args.pairs,
        body_bytes: args.body_bytes,
        sent,
        received,
        waypost,
        bare: floor,
        ratio: waypost.over(floor),
        stages: stages(&heard, &appended, &bare, pace, warm)?,
    })
}

async fn bare(
    scratch: &Scratch,
    keyed: i32,
    links: Vec<Link>,
    pace: Pace,
    clock: Clock,
) -> anyhow::Result<Vec<Passed>> {
    let chain = Chain::create(Config::new(&*scratch.addresses.kafka), keyed).await?;
    let ran = tokio::task::spawn_blocking(move || {
        let passed = chain.run(&links, pace, &clock);
        (chain, passed)
    });
    let (chain, passed) = ran.await.context("the bare chain broke")?;
    chain.remove().await?;
    Ok(passed?)
}

fn stages(
    heard: &Heard,
    appended: &[(Micros, Micros)],
    bare: &[Passed],
    pace: Pace,
    warm: usize,
) -> anyhow::Result<Stages> {
    let at = |after: Duration| Micros(heard.begun.0 + after.as_micros() as i64);
    let due = |number| at(pace.due(number));
    let logged = || appended.iter().copied().enumerate();
    let on_socket = logged().zip(&heard.received).map(|((number, (_, inboxes)), received)| {
        Some(between(inboxes, at(pace.due(number) + (*received)?)))
    });
    Ok(Stages {
        in_messages: latency(
            logged().map(|(number, (messages, _))| Some(between(due(number), messages))),
            warm,
        )?,
        in_inboxes: latency(logged().map(|(_, (messages, inboxes))| Some(between(messages, inboxes))), warm)?,
        on_socket: latency(on_socket, warm)?,
        accepted: latency(heard.accepted.iter().copied(), warm)?,
        bare_read: latency(bare.iter().map(|bare| Some(bare.read)), warm)?,
    })
}

/// Of what came after the warm-up.
fn latency(took: impl Iterator<Item = Option<Duration>>, warm: usize) -> anyhow::Result<Latency> {
    Latency::of(took.skip(warm).flatten().collect()).context("nothing was measured")
}
