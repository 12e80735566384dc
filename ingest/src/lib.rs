//! Waypost's way up: what clients say is checked, stamped and appended to the log, and then accepted.
//!
//! [`admission`] decides, purely; [`gateway`] speaks HTTP, and [`uplink`] is the way up for who holds devices'
//! connections; [`appender`] appends what was admitted, and [`registry`] follows and writes the registry. What the log's order alone can decide is not decided here: `accepted` means logged.
//!
//! [`Ingest::build`] makes it, [`Ingest::run`] keeps it going, [`Ingest::router`] is its door.

pub mod admission;
pub mod appender;
pub mod code;
pub mod gateway;
pub mod registry;
pub mod uplink;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Semaphore};
use waypost_runtime::{
    auth::{Auth, Keys},
    broker::{self, Broker, Producer, Reader},
    clock::Clock,
    config, datadir,
    health::Health,
    join::{Joined, Request},
    lifecycle::{Lifecycle, Tasks},
};
use waypost_schemas::event::LogFounded;

use self::{
    appender::{Appender, Error, Fatal},
    gateway::Gateway,
    registry::{Change, Lag, Outcome, Registry, Writer},
    uplink::{Ends, Uplink},
};

/// How long the founding of a log waits before it tries again.
const FOUND_AGAIN: Duration = Duration::from_millis(200);

/// What ingest stands on.
pub struct Deps {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The time.
    pub clock: Clock,
    /// Where the checks `registry` and `log` are told.
    pub health: Health,
    /// What tokens are checked and minted by.
    pub keys: Arc<Keys>,
    /// How many partitions keyed topics have.
    pub partitions: i32,
    /// What is taken, and for how long is waited.
    pub settings: config::Ingest,
}

/// The way up; a cheap clone.
#[derive(Clone)]
pub struct Ingest(Arc<Parts>);

struct Parts {
    broker: Arc<dyn Broker>,
    reader: Arc<dyn Reader>,
    producer: Arc<dyn Producer>,
    acks: Arc<dyn Producer>,
    fatal: Fatal,
    clock: Clock,
    lag: Lag,
    gateway: Gateway,
    uplink: Uplink,
}

impl Ingest {
    /// Opens a reader and a producer; nothing is accepted until [`Ingest::run`] has read the registry to its end.
    pub fn build(deps: Deps) -> Result<Self, broker::Error> {
        let Deps { broker, clock, health, keys, partitions, settings } = deps;
        let (reader, producer, acks) = (broker.reader()?, broker.producer()?, broker.bulk_producer()?);
        let (fatal, registry) = (Fatal::default(), Arc::new(Registry::default()));
        let appender = Appender {
            producer: producer.clone(),
            acks: acks.clone(),
            registry: registry.clone(),
            fatal: fatal.clone(),
            clock: clock.clone(),
            partitions,
            timeout: settings.accept_timeout,
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
        };
        let writer = Writer {
            registry: registry.clone(),
            broker: broker.clone(),
            producer: producer.clone(),
            fatal: fatal.clone(),
            clock: clock.clone(),
            timeout: settings.accept_timeout,
            turn: Mutex::default(),
        };
        let uplink = Uplink {
            appender: appender.clone(),
            limits: (&settings).into(),
            places: Arc::new(Semaphore::new(settings.appends_in_flight_max)),
            ends: Arc::new(Ends::new(broker.clone())),
        };
        let gateway = Gateway {
            auth: Auth { keys, clock: clock.clone() },
            limits: (&settings).into(),
            zone_bytes_max: settings.zone_bytes_max,
            appender,
            registry,
            writer: Arc::new(writer),
            zones: Arc::new(Semaphore::new(gateway::ZONES_IN_FLIGHT_MAX)),
        };
        let lag = Lag {
            registry: health.check("registry", "the registry has not been read to its end yet"),
            log: health.check("log", "the log was not asked yet"),
            ready_within: settings.registry_lag_max,
        };
        Ok(Self(Arc::new(Parts { broker, reader, producer, acks, fatal, clock, lag, gateway, uplink })))
    }

    /// The HTTP routes.
    pub fn router(&self) -> axum::Router {
        gateway::router(self.0.gateway.clone())
    }

    /// The way up for who holds devices' connections. Whoever uses it must stop before [`Ingest::run`] does.
    pub fn uplink(&self) -> Uplink {
        self.0.uplink.clone()
    }

    /// The registry as it is followed; its stamp and its view.
    pub fn registry(&self) -> Arc<Registry> {
        self.0.gateway.registry.clone()
    }

    /// Follows the registry and tells the checks, until a soft stop; then waits until what was sent is in the log, or
    /// a hard stop comes. Its task must stop after what serves the router. Fails where the process must stop.
    pub async fn run(&self, lifecycle: Lifecycle) -> Result<(), broker::Error> {
        let Parts { broker, reader, producer, acks, fatal, clock, lag, gateway, .. } = &*self.0;
        tokio::select! {
            biased;
            followed = gateway.registry.follow(&**reader) => return followed,
            () = lag.watch(&gateway.registry, &**broker, clock) => {}
            error = fatal.told() => return Err(error),
            () = lifecycle.soft_stopped() => {}
        }
        tokio::select! {
            biased;
            flushed = async { producer.flush().await?; acks.flush().await } => flushed,
            error = fatal.told() => Err(error),
            () = lifecycle.hard_stopped() => Ok(()),
        }
    }

    /// Starts [`Ingest::run`] as a task, and one that names the log where it has no name yet.
    pub fn spawn(&self, tasks: &Tasks) {
        let (ingest, lifecycle) = (self.clone(), tasks.lifecycle().clone());
        tasks.spawn("ingest", async move { ingest.run(lifecycle).await });
        let (ingest, lifecycle) = (self.clone(), tasks.lifecycle().clone());
        tasks.spawn("log's name", async move {
            let log = datadir::random_uuid()?;
            tokio::select! {
                biased;
                named = ingest.found(&log) => tracing::info!(log = named?, "the log has its name"),
                () = lifecycle.soft_stopped() => {}
            }
            Ok::<(), anyhow::Error>(())
        });
    }

    /// Names a log that has no name yet, and gives the name that stands. Waits as long as the broker is away; needs
    /// [`Ingest::run`] to be running.
    pub async fn found(&self, log: &str) -> Result<String, Error> {
        let gateway = &self.0.gateway;
        let change = Change::Found(LogFounded { log: log.to_owned() });
        loop {
            match gateway.writer.write(&change).await {
                Err(Error::Unavailable) => tokio::time::sleep(FOUND_AGAIN).await,
                Err(error) => return Err(error),
                Ok(Outcome::Changed(_) | Outcome::Same(_) | Outcome::Absent) => {
                    let stands = gateway.registry.view().log.clone();
                    return Ok(stands.map_or_else(|| log.to_owned(), String::from));
                }
            }
        }
    }
}

/// Runs an ingest that joins a running stack, until it is told to stop.
pub async fn run(request: Request) -> anyhow::Result<()> {
    let joined = Joined::open(request, false).await?;
    let ingest = Ingest::build(Deps {
        broker: joined.broker.clone(),
        clock: joined.clock.clone(),
        health: joined.health.clone(),
        keys: joined.keys.clone(),
        partitions: joined.settings.topics.partitions,
        settings: joined.settings.ingest.clone(),
    })?;
    ingest.spawn(&joined.tasks);
    let outcome = joined.run(ingest.router()).await;
    anyhow::ensure!(!outcome.cause.is_failure(), "stopped: {}", outcome.cause);
    Ok(())
}
