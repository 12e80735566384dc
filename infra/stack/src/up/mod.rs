//! Everything in one process: the local broker and store where no address is given, ingest, processor and delivery, and
//! one HTTP port. `waypost up`, the crates' own binaries and the tests start it by the same function, [`start`].

pub(crate) mod checks;
mod foundation;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use waypost_runtime::{
    clock::Clock,
    config::Settings,
    connect,
    datadir::{Addresses, DataDir, Lock, Mark},
    health::Health,
    lifecycle::{Lifecycle, Outcome, Tasks},
    telemetry::Telemetry,
};

use self::foundation::Foundation;
use crate::local::{Environment, LOCAL_STOP_WITHIN};

/// A part of Waypost that can run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    /// What takes positions, zones and rules.
    Ingest,
    /// What folds the log, and fills the read models.
    Processor,
    /// What serves devices.
    Delivery,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Processor, Self::Delivery];
}

/// What a stack is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The settings; `kafka.bootstrap` and `postgres.url` name what is there, and without them both are started.
    pub settings: Settings,
    /// The process's environment, in which Java, Kafka's jars and Postgres are looked for.
    pub environment: Environment,
    /// Which parts run here.
    pub parts: BTreeSet<Part>,
    /// Whether to join the stack that runs in the data directory, instead of owning the directory.
    pub join: bool,
}

/// A stack that runs.
#[derive(Debug)]
pub struct Stack {
    addresses: Addresses,
    foundation: Foundation,
    health: Health,
    lifecycle: Lifecycle,
    tasks: Tasks,
    settings: Settings,
    locks: Vec<Lock>,
}

/// The stages, in the order in which they stop.
struct Stages {
    http: Tasks,
    delivery: Tasks,
    ingest: Tasks,
    processor: Tasks,
    /// The connections to the store, which are closed before it ends.
    pool: Tasks,
    postgres: Tasks,
    kafka: Tasks,
}

impl Stages {
    fn new(lifecycle: &Lifecycle) -> Self {
        let http = Tasks::new(lifecycle);
        let delivery = http.stage("delivery");
        let (ingest, processor) = (http.stage("ingest"), http.stage("processor"));
        let (pool, postgres, kafka) = (http.stage("pool"), http.stage("postgres"), http.stage("kafka"));
        Self { http, delivery, ingest, processor, pool, postgres, kafka }
    }
}

/// Starts a stack, which runs until its lifecycle is stopped; see [`Stack::wait`].
///
/// What it has started is ended before an error is returned, and also when a stop is asked for meanwhile.
pub async fn start(options: Options, lifecycle: &Lifecycle, telemetry: &Telemetry) -> anyhow::Result<Stack> {
    let stages = Stages::new(lifecycle);
    let tasks = stages.http.clone();
    let drain = options.settings.shutdown.drain + LOCAL_STOP_WITHIN;
    let started = tokio::select! {
        started = build(options, stages, lifecycle, telemetry) => started,
        () = lifecycle.soft_stopped() => {
            let cause = lifecycle.cause().map_or_else(String::new, |cause| cause.to_string());
            Err(anyhow::anyhow!("stopped while starting: {cause}"))
        }
    };
    if started.is_err() {
        lifecycle.stop(waypost_runtime::lifecycle::Cause::Asked("the start failed".to_owned()));
        tasks.wait(drain).await;
    }
    started
}

async fn build(
    options: Options,
    stages: Stages,
    lifecycle: &Lifecycle,
    telemetry: &Telemetry,
) -> anyhow::Result<Stack> {
    let Options { mut settings, environment, parts, join } = options;
    let clock = Clock::system();
    checks::descriptors()?;
    // A start that fails at the port leaves no new directory behind; where one is there, who holds it is the better news.
    let early =
        if join || settings.data_dir.exists() { None } else { Some(checks::listen(settings.listen).await?) };
    let data =
        if join { DataDir::existing(&settings.data_dir)? } else { DataDir::create(&settings.data_dir)? };
    data.root().clone_into(&mut settings.data_dir);
    let mut locks = Vec::new();
    if !join {
        locks.push(data.lock()?);
    }
    if parts.contains(&Part::Processor) {
        locks.push(data.lock_instance(settings.instance)?);
    }
    if parts.contains(&Part::Delivery) {
        locks.push(data.lock_instance_of("delivery", settings.instance)?);
    }
    let listener = match early {
        Some(listener) => listener,
        None => checks::listen(settings.listen).await?,
    };
    let url = format!("http://{}", listener.local_addr().context("the HTTP port has no address")?);

    let foundation = Foundation::lay(&mut settings, &data, &environment, join, &stages, &clock).await?;
    let broker = connect::broker(&settings, foundation.cluster()).await?;
    connect::topics(&*broker, &settings).await?;
    let pool = connect::pool(&settings)?;

    let health = Health::default();
    let ground = parts::Ground { broker, pool, clock, health: health.clone(), telemetry: telemetry.clone() };
    let kept = parts::Kept { data: &data, settings: &settings, join };
    parts::run(&ground, &kept, &parts, &stages, listener)?;

    let addresses = Addresses {
        url,
        kafka: settings.kafka.bootstrap.clone().unwrap_or_default(),
        postgres: settings.postgres.url.as_ref().map_or_else(String::new, |url| url.reveal().to_owned()),
        processes: foundation.processes(),
    };
    if !join {
        foundation.publish(addresses.clone(), data, &stages)?;
    }
    let (lifecycle, tasks) = (lifecycle.clone(), stages.http);
    Ok(Stack { addresses, foundation, health, lifecycle, tasks, settings, locks })
}

impl Stack {
    /// Where everything is.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The address of the HTTP port, `http://127.0.0.1:7400`.
    pub fn url(&self) -> &str {
        &self.addresses.url
    }

    /// The absolute path of the data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.settings.data_dir
    }

    /// What tells whether each piece can do its work.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The handle by which it is stopped.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The processes as they are now, by part: a program that died has another one.
    pub fn processes(&self) -> BTreeMap<String, Mark> {
        self.foundation.processes()
    }

    /// Runs until a stop is asked for or something fails, then stops all in order: HTTP, delivery, ingest, processor,
    /// Postgres, Kafka. A hard stop meanwhile ends all at once.
    pub async fn wait(self) -> Outcome {
        let programs = if self.foundation.is_local() { LOCAL_STOP_WITHIN } else { std::time::Duration::ZERO };
        let outcome = self.tasks.wait(self.settings.shutdown.drain + programs).await;
        drop(self.locks);
        outcome
    }
}
