//! Waypost's memory: machines that fold the log, the runner that drives them, and the projector that fills the
//! read models.
//!
//! What decides is pure and stands in the machines ([`spatial`], [`alerts`], [`conversations`], [`inboxes`]) behind one trait ([`machine`]); what
//! reads, appends and commits is the [`runner`]'s, what keeps state the [`snapshots`]'. Nothing here talks to a
//! device. The way in: [`Processor`].

pub mod alerts;
pub mod bench;
pub mod checkpoint;
pub mod conversations;
pub mod dead_letter;
pub mod inboxes;
pub mod machine;
pub mod projector;
pub mod reads;
pub mod registry;
pub mod runner;
mod shards;
pub mod snapshots;
pub mod spatial;

use std::{path::PathBuf, sync::Arc};

use alerts::AlertsMachine;
use conversations::ConversationsMachine;
use inboxes::InboxesMachine;
use projector::{Heads, Models, Postgres, Projector};
use registry::Registry;
use runner::{Places, Runner};
use snapshots::{Place, database::Database, local::Local};
use spatial::SpatialMachine;
use waypost_runtime::{
    auth::Auth,
    broker::Broker,
    clock::Clock,
    config::Settings,
    health::Health,
    join::{Joined, Request},
    lifecycle::{Lifecycle, Tasks},
    postgres::Pool,
};

use machine::Machine;

/// What a processor stands on.
pub struct Deps {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Postgres; it may be away.
    pub pool: Pool,
    /// The clock.
    pub clock: Clock,
    /// Where it tells whether it is ready.
    pub health: Health,
    /// The settings: how machines run, when their state is written, where the data directory is, which instance
    /// this is.
    pub settings: Settings,
}

/// Everything of one process that folds the log.
pub struct Processor {
    runner: runner::Deps,
    projector: Projector,
}

/// What keeps what a processor makes of the log.
pub struct Stores {
    /// The read models.
    pub models: Arc<dyn Models>,
    /// The snapshots that are at hand.
    pub local: Arc<dyn Place>,
    /// The snapshots that another process finds too.
    pub database: Option<Arc<dyn Place>>,
}

impl Stores {
    /// The data directory and Postgres.
    fn new(pool: &Pool, settings: &Settings) -> Self {
        let directory: PathBuf = settings.data_dir.join("snapshots").join(instance(settings));
        let kept = settings.snapshots.kept;
        Self {
            models: Arc::new(Postgres::new(pool.clone(), settings.projector.connections_max)),
            local: Arc::new(Local::new(directory, kept)),
            database: Some(Arc::new(Database::new(pool.clone(), kept))),
        }
    }
}

/// The static member id of a process.
fn instance(settings: &Settings) -> String {
    format!("processor-{}", settings.instance)
}

impl Processor {
    /// Prepares a processor. It asks neither the broker nor Postgres.
    pub fn build(deps: Deps) -> Result<Self, projector::Error> {
        let stores = Stores::new(&deps.pool, &deps.settings);
        Self::on(stores, deps.broker, deps.clock, deps.health, deps.settings)
    }

    /// Prepares a processor that keeps what it makes in these stores.
    pub fn on(
        stores: Stores,
        broker: Arc<dyn Broker>,
        clock: Clock,
        health: Health,
        settings: Settings,
    ) -> Result<Self, projector::Error> {
        let instance = instance(&settings);
        let Stores { models, local, database } = stores;
        let projector =
            Projector::build(broker.clone(), models, settings.projector, &health, instance.clone())?;
        let runner = runner::Deps {
            registry: Registry::new(broker.clone()),
            broker,
            places: Arc::new(Places::new(local, database, clock.clone())),
            clock,
            settings: settings.processor,
            snapshot_interval: settings.snapshots.interval,
            health,
            instance,
        };
        Ok(Self { runner, projector })
    }

    /// How old the records are that are not in Postgres yet, for the status.
    pub fn heads(&self) -> Heads {
        self.projector.heads()
    }

    /// Starts everything as tasks, each of which ends when its stage stops softly; a failure stops the process.
    pub fn spawn(self, tasks: &Tasks) {
        self.spawn_machine::<SpatialMachine>(tasks);
        self.spawn_machine::<AlertsMachine>(tasks);
        self.spawn_machine::<ConversationsMachine>(tasks);
        self.spawn_machine::<InboxesMachine>(tasks);
        self.spawn_readers(tasks);
    }

    /// Starts one machine. It needs what [`Processor::spawn_readers`] starts.
    pub fn spawn_machine<M: Machine>(&self, tasks: &Tasks) {
        let lifecycle: Lifecycle = tasks.lifecycle().clone();
        tasks.spawn(M::NAME, Runner::<M>::new(self.runner.clone()).run(lifecycle));
    }

    /// Starts what reads for all machines, and the projector.
    pub fn spawn_readers(self, tasks: &Tasks) {
        let registry = self.runner.registry.clone();
        let lifecycle = tasks.lifecycle().clone();
        tasks.spawn("registry", async move {
            tokio::select! {
                biased;
                () = lifecycle.soft_stopped() => Ok(()),
                error = registry.follow() => Err(error),
            }
        });
        tasks.spawn("projector", self.projector.run(tasks.lifecycle().clone()));
    }
}

/// Runs a processor that joins a running stack, with the routes that read, until it is told to stop.
pub async fn run(request: Request) -> anyhow::Result<()> {
    let joined = Joined::open(request, true).await?;
    let processor = Processor::build(Deps {
        broker: joined.broker.clone(),
        pool: joined.pool.clone(),
        clock: joined.clock.clone(),
        health: joined.health.clone(),
        settings: joined.settings.clone(),
    })?;
    let auth = Auth { keys: joined.keys.clone(), clock: joined.clock.clone() };
    let (pool, broker, clock) = (joined.pool.clone(), joined.broker.clone(), joined.clock.clone());
    let routes = reads::router(reads::Reads::new(auth, pool, broker, processor.heads(), clock));
    processor.spawn(&joined.tasks);
    let outcome = joined.run(routes).await;
    anyhow::ensure!(!outcome.cause.is_failure(), "stopped: {}", outcome.cause);
    Ok(())
}
