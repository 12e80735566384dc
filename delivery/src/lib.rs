//! Waypost's way down: what the log says to users reaches their devices, each entry until its device acknowledges it.
//!
//! A device holds one connection ([`socket`](self) adapters). Its [`session`] decides, purely, what it is told. What
//! it lacks comes from the read models ([`catchup`]) as far as the projector has applied the log, and then from the
//! tail of the log itself; so a message between connected users waits for no store. A socket write is never
//! "delivered": only the device's acknowledgement is, which goes up through ingest's library.
//!
//! What it is not: a place where anything is decided about what is in an inbox; the machines do that.
//!
//! [`Delivery::build`] makes it, [`Delivery::spawn`] keeps it going, [`Delivery::router`] is its door.

pub mod catchup;
pub mod code;
pub mod entry;
mod node;
mod registry;
pub mod session;
mod socket;
mod tail;

use std::{path::PathBuf, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use waypost_ingest::Ingest;
use waypost_runtime::{
    auth::{Auth, Identity, Keys},
    broker::Broker,
    clock::Clock,
    config, datadir,
    health::Health,
    http::Code,
    join::{Joined, Request},
    lifecycle::{Lifecycle, Tasks},
};

use self::{
    catchup::{Catchup, Postgres, Store},
    node::Node,
    registry::Registry,
    socket::{Doors, Sessions},
    tail::{Limits, Tails, ring::Bounds},
};
pub use self::{
    registry::Full,
    tail::{Error, NotMade},
};

/// What delivery stands on.
pub struct Deps {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The read models.
    pub store: Arc<dyn Store>,
    /// The way up, which runs in this process and stops after delivery.
    pub ingest: Ingest,
    /// What tokens are checked by.
    pub keys: Arc<Keys>,
    /// The time.
    pub clock: Clock,
    /// Where the check `delivery` is told.
    pub health: Health,
    /// Where the node keeps how its tails stand: a directory of its own.
    pub dir: PathBuf,
    /// What tells this node's sessions from those of others.
    pub name: String,
    /// How many partitions keyed topics have.
    pub partitions: i32,
    /// What sessions and tails are bound by.
    pub settings: config::Delivery,
    /// The stage that sessions and tails run in; it stops after what serves the router, and before ingest.
    pub tasks: Tasks,
}

/// The way down; a cheap clone.
#[derive(Clone)]
pub struct Delivery {
    doors: Doors,
    tasks: Tasks,
}

/// The refusals that only delivery's routes give, for the documentation.
pub static PROBLEMS: &[&Code] = socket::PROBLEMS;

impl Delivery {
    /// Opens a reader. Nothing is read before a device comes.
    pub fn build(deps: Deps) -> Result<Self, NotMade> {
        let Deps { broker, store, ingest, keys, clock, health, dir, name, partitions, settings, tasks } =
            deps;
        let limits = Limits {
            ring: Bounds { entries_max: settings.ring_entries_max, bytes_max: settings.ring_bytes_max },
            cursors_max: settings.cursors_max,
            linger: settings.tail_linger,
            keep_every: settings.tail_keep,
        };
        let catchup = Arc::new(Catchup::new(store, settings.catchups_max, &health));
        let uplink = ingest.uplink();
        let tails = Tails::new(
            broker,
            catchup.clone(),
            uplink.clone(),
            clock.clone(),
            (&dir, limits),
            tasks.clone(),
        )?;
        let session = session::Limits {
            window_entries_max: settings.window_entries_max,
            window_bytes_max: settings.window_bytes_max,
            ack_interval: settings.ack_interval,
            ack_timeout: settings.ack_timeout,
            silence: settings.silence,
        };
        let node = Node {
            tails,
            catchup,
            uplink,
            facts: ingest.registry(),
            connections: Arc::new(Registry::new(settings.sessions_max)),
            auth: Auth { keys, clock },
            settings,
            limits: Arc::new(session),
            partitions,
            name: name.into(),
            numbered: std::sync::atomic::AtomicU64::new(0),
        };
        let doors = Doors { node: Arc::new(node), sessions: Arc::new(Sessions::default()) };
        Ok(Self { doors, tasks })
    }

    /// The HTTP routes.
    pub fn router(&self) -> axum::Router {
        socket::router(self.doors.clone())
    }

    /// Keeps delivery going until a soft stop; then says goodbye to all connections and waits until they have ended,
    /// or a hard stop comes.
    pub async fn run(&self, lifecycle: Lifecycle) {
        tokio::select! {
            biased;
            () = self.doors.node.catchup.watch() => lifecycle.soft_stopped().await,
            () = lifecycle.soft_stopped() => {}
        }
        self.doors.node.connections.stop();
        tokio::select! {
            biased;
            () = self.doors.sessions.ended() => {}
            () = lifecycle.hard_stopped() => {}
        }
    }

    /// Starts [`Delivery::run`] as a task.
    pub fn spawn(&self) {
        let (delivery, lifecycle) = (self.clone(), self.tasks.lifecycle().clone());
        self.tasks.spawn("delivery", async move {
            delivery.run(lifecycle).await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Serves a device over a stream on which a WebSocket's handshake is done, until the connection ends.
    pub async fn serve<S>(&self, identity: Identity, stream: S) -> Result<(), Full>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.doors.serve(identity, stream).await
    }
}

/// Runs a delivery that joins a running stack, with a way up of its own, until it is told to stop.
pub async fn run(request: Request) -> anyhow::Result<()> {
    let joined = Joined::open_as(request, Some("delivery")).await?;
    let ingest = Ingest::build(waypost_ingest::Deps {
        broker: joined.broker.clone(),
        clock: joined.clock.clone(),
        health: joined.health.clone(),
        keys: joined.keys.clone(),
        partitions: joined.settings.topics.partitions,
        settings: joined.settings.ingest.clone(),
    })?;
    let uplink = joined.tasks.stage("uplink");
    ingest.spawn(&uplink);
    let delivery = Delivery::build(Deps {
        broker: joined.broker.clone(),
        store: Arc::new(Postgres::new(joined.pool.clone())),
        ingest,
        keys: joined.keys.clone(),
        clock: joined.clock.clone(),
        health: joined.health.clone(),
        dir: joined.data.instance_of("delivery", joined.settings.instance),
        name: node_name()?,
        partitions: joined.settings.topics.partitions,
        settings: joined.settings.delivery.clone(),
        tasks: joined.tasks.clone(),
    })?;
    delivery.spawn();
    let outcome = joined.run(delivery.router()).await;
    anyhow::ensure!(!outcome.cause.is_failure(), "stopped: {}", outcome.cause);
    Ok(())
}

/// A name that no other node has: the kernel's random bits.
pub fn node_name() -> Result<String, datadir::Error> {
    let mut name = datadir::random_uuid()?;
    name.truncate(8);
    Ok(name)
}
