//! Everything in one process: a local Kafka and Postgres where no address is given, ingest, processor and reads.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::net::TcpListener;
use waypost_ingest::Ingest;
use waypost_processor::{Processor, reads};
use waypost_runtime::{
    auth::{Auth, Claims, Keys, Role},
    broker::{Broker, kafka, topics},
    clock::Clock,
    config::{SecretUrl, Settings},
    datadir::{Addresses, DataDir, Mark, write_private},
    health::{self, Health},
    http,
    lifecycle::{Cause, Lifecycle, Tasks, signals},
    postgres::{self, Pool},
    telemetry::Telemetry,
};
use waypost_schemas::id::UserId;

use crate::local::{self, Environment};

/// What a stack starts with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its state stands.
    pub data_dir: PathBuf,
    /// All other settings.
    pub settings: Settings,
    /// The environment, for what is started locally.
    pub environment: Environment,
}

/// Runs a stack until it is told to stop, and stops it in order: HTTP and ingest, machines and projector, then what
/// it started itself. An error says what failed first.
pub async fn run(options: Options, telemetry: Telemetry) -> anyhow::Result<()> {
    let Options { data_dir, mut settings, environment } = options;
    let data = DataDir::create(&data_dir)?;
    let _lock = data.lock()?;
    // Bound first: a port that is taken is told before anything is started.
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: is another stack running? --listen takes another address",
            settings.listen
        )
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    settings.data_dir = data.root().to_owned();

    let lifecycle = Lifecycle::new();
    signals(&lifecycle)?;
    let tasks = Tasks::new(&lifecycle);
    let begun = begin(&data, settings, &environment, &tasks, listener, &url, telemetry);
    let begun = tokio::select! {
        begun = begun => begun,
        () = lifecycle.soft_stopped() => Ok(()),
    };
    if let Err(error) = &begun {
        lifecycle.stop(Cause::Failed {
            task: "start".into(),
            error: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(format!("{error:#}"))),
        });
    }
    let outcome = tasks.wait(std::time::Duration::from_secs(30)).await;
    Addresses::remove(&data)?;
    begun?;
    match lifecycle.cause() {
        Some(cause) if cause.is_failure() => anyhow::bail!("{cause}"),
        _ if !outcome.is_clean() => anyhow::bail!("not everything stopped in time"),
        _ => Ok(()),
    }
}

async fn begin(
    data: &DataDir,
    mut settings: Settings,
    environment: &Environment,
    tasks: &Tasks,
    listener: TcpListener,
    url: &str,
    telemetry: Telemetry,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    // Stages stop in the order that they are made in: what is started first is made last.
    let up = tasks.stage("http");
    let memory = tasks.stage("processor");
    let ground = tasks.stage("local");
    let mut processes = std::collections::BTreeMap::new();
    if let Some(mark) = Mark::own() {
        processes.insert("waypost".to_owned(), mark);
    }
    let bootstrap = match settings.kafka.bootstrap.clone() {
        Some(bootstrap) => bootstrap,
        None => {
            let local = local::kafka::start(data, environment, &ground, &clock).await?;
            processes.extend(local.watched.mark().map(|mark| ("kafka".to_owned(), mark)));
            local.bootstrap
        }
    };
    let store = match settings.postgres.url.clone() {
        Some(store) => store,
        None => {
            let local = local::postgres::start(data, environment, &ground, &clock).await?;
            processes.extend(local.watched.mark().map(|mark| ("postgres".to_owned(), mark)));
            SecretUrl::new(local.url)
        }
    };
    settings.kafka.bootstrap = Some(bootstrap.clone());

    let mut config = kafka::Config::new(bootstrap.clone());
    config.properties =
        settings.kafka.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    config.limits.feed_records_max = settings.kafka.feed_records_max;
    config.limits.feed_bytes_max = settings.kafka.feed_bytes_max;
    let broker: Arc<dyn Broker> = Arc::new(kafka::Broker::connect(config)?);
    topics::apply(&*broker, settings.topics.partitions).await?;
    let pool = Pool::open(&store, &settings.postgres)?;
    postgres::migrate(&pool).await?;

    let health = Health::default();
    let keys = Arc::new(Keys::load_or_create(data.root(), &settings.auth)?);
    let operator = Claims { user: UserId::new("operator")?, device: None, role: Role::Operator };
    let minted = keys.mint(&operator, clock.now())?;
    write_private(&data.operator_token(), minted.token.as_bytes())?;

    let processor = Processor::build(waypost_processor::Deps {
        broker: broker.clone(),
        pool: pool.clone(),
        clock: clock.clone(),
        health: health.clone(),
        settings: settings.clone(),
    })?;
    let heads = processor.heads();
    processor.spawn(&memory);

    let ingest = Ingest::build(waypost_ingest::Deps {
        broker: broker.clone(),
        clock: clock.clone(),
        health: health.clone(),
        keys: keys.clone(),
        partitions: settings.topics.partitions,
        settings: settings.ingest.clone(),
    })?;
    let follower = ingest.clone();
    let lifecycle = up.lifecycle().clone();
    up.spawn("ingest", async move { follower.run(lifecycle).await });
    ingest.found(&uuid::Uuid::new_v7(uuid_time(&clock)).to_string()).await?;

    let auth = Auth { keys, clock: clock.clone() };
    let router = ingest
        .router()
        .merge(reads::router(reads::Reads::new(auth, pool, broker, heads, clock.clone())))
        .merge(health::router(health, telemetry, tasks.lifecycle().clone()));
    let limits = http::Limits::from(&settings.http);
    let lifecycle = up.lifecycle().clone();
    up.spawn("http", http::serve(listener, router, limits, clock, lifecycle));
    let addresses =
        Addresses { url: url.to_owned(), kafka: bootstrap, postgres: store.reveal().to_owned(), processes };
    addresses.write(data)?;
    tracing::info!(url, data_dir = %data.root().display(), "waypost is up");
    Ok(())
}

/// The time part of a new log's id.
fn uuid_time(clock: &Clock) -> uuid::Timestamp {
    let now = clock.now().0.max(0) as u64;
    uuid::Timestamp::from_unix(uuid::NoContext, now / 1_000_000, (now % 1_000_000 * 1_000) as u32)
}
