//! Wires the parts: each is built on the same ground, runs in its stage, and has its routes on the one port.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use waypost_delivery::{Delivery, catchup::Postgres};
use waypost_ingest::Ingest;
use waypost_processor::{Processor, projector::Heads, reads};
use waypost_runtime::{
    auth::{Auth, Claims, Keys, Role},
    broker::Broker,
    clock::Clock,
    config::Settings,
    connect,
    datadir::{DataDir, write_private},
    health::{self, Health},
    http,
    lifecycle::Lifecycle,
    postgres::Pool,
    telemetry::{Chain, Telemetry},
};
use waypost_schemas::id::UserId;

use super::{Part, Stages};

/// How long a token that could not be written is left alone.
const TOKEN_RETRY: Duration = Duration::from_mins(1);

/// What all parts stand on.
pub(super) struct Ground {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    pub(super) health: Health,
    pub(super) telemetry: Telemetry,
}

/// Where and as what the process runs.
pub(super) struct Kept<'a> {
    pub(super) data: &'a DataDir,
    pub(super) settings: &'a Settings,
    pub(super) join: bool,
}

/// Starts the parts and the HTTP port.
pub(super) fn run(
    ground: &Ground,
    kept: &Kept<'_>,
    parts: &BTreeSet<Part>,
    stages: &Stages,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let settings = kept.settings;
    let keys = Arc::new(Keys::load_or_create(kept.data.root(), &settings.auth)?);
    if !kept.join {
        operator_token(ground, kept, &keys, stages)?;
        migrations(ground, stages);
    }
    let mut router = Router::new();
    if parts.contains(&Part::Ingest) || parts.contains(&Part::Delivery) {
        let ingest = ingest(ground, settings, &keys, stages)?;
        if parts.contains(&Part::Ingest) {
            router = router.merge(ingest.router());
        }
        if parts.contains(&Part::Delivery) {
            router = router.merge(delivery(ground, kept, &keys, ingest, stages)?);
        }
    }
    let heads = if parts.contains(&Part::Processor) {
        processor(ground, settings, stages)?
    } else {
        Heads::default()
    };
    let auth = Auth { keys, clock: ground.clock.clone() };
    let (pool, broker, clock) = (ground.pool.clone(), ground.broker.clone(), ground.clock.clone());
    router = router.merge(reads::router(reads::Reads::new(auth, pool, broker, heads, clock)));

    let (pool, lifecycle) = (ground.pool.clone(), stages.pool.lifecycle().clone());
    stages.pool.spawn("pool", async move {
        lifecycle.soft_stopped().await;
        pool.close();
        Ok::<(), Infallible>(())
    });
    router = router.merge(crate::page::router());
    let lifecycle = stages.http.lifecycle().clone();
    router = router.merge(health::router(ground.health.clone(), ground.telemetry.clone(), lifecycle.clone()));
    ground.telemetry.upkeep(&stages.http);
    let (limits, clock) = (http::Limits::from(&settings.http), ground.clock.clone());
    stages.http.spawn("http", http::serve(listener, router, limits, clock, lifecycle));
    Ok(())
}

/// The way up, which delivery uses too: with its routes or without.
fn ingest(ground: &Ground, settings: &Settings, keys: &Arc<Keys>, stages: &Stages) -> anyhow::Result<Ingest> {
    let ingest = Ingest::build(waypost_ingest::Deps {
        broker: ground.broker.clone(),
        clock: ground.clock.clone(),
        health: ground.health.clone(),
        keys: keys.clone(),
        partitions: settings.topics.partitions,
        settings: settings.ingest.clone(),
    })?;
    ingest.spawn(&stages.ingest);
    Ok(ingest)
}

fn delivery(
    ground: &Ground,
    kept: &Kept<'_>,
    keys: &Arc<Keys>,
    ingest: Ingest,
    stages: &Stages,
) -> anyhow::Result<Router> {
    let settings = kept.settings;
    let delivery = Delivery::build(waypost_delivery::Deps {
        broker: ground.broker.clone(),
        store: Arc::new(Postgres::new(ground.pool.clone())),
        ingest,
        keys: keys.clone(),
        clock: ground.clock.clone(),
        health: ground.health.clone(),
        dir: kept.data.instance_of("delivery", settings.instance),
        name: waypost_delivery::node_name()?,
        partitions: settings.topics.partitions,
        settings: settings.delivery.clone(),
        tasks: stages.delivery.clone(),
    })?;
    delivery.spawn();
    Ok(delivery.router())
}

fn processor(ground: &Ground, settings: &Settings, stages: &Stages) -> anyhow::Result<Heads> {
    let processor = Processor::build(waypost_processor::Deps {
        broker: ground.broker.clone(),
        pool: ground.pool.clone(),
        clock: ground.clock.clone(),
        health: ground.health.clone(),
        settings: settings.clone(),
    })?;
    let heads = processor.heads();
    processor.spawn(&stages.processor);
    Ok(heads)
}

/// Brings the store's schema up to this version beside everything else, for the log needs no store.
fn migrations(ground: &Ground, stages: &Stages) {
    let (pool, lifecycle) = (ground.pool.clone(), stages.processor.lifecycle().clone());
    let ready = ground.health.check("migrations", "the store's schema is not current yet");
    stages.processor.spawn("migrations", async move {
        tokio::select! {
            done = connect::migrate(&pool) => done?,
            () = lifecycle.soft_stopped() => return Ok(()),
        }
        ready.ready();
        // Dropped, the check would be taken off the list.
        lifecycle.soft_stopped().await;
        Ok::<(), waypost_runtime::postgres::Error>(())
    });
}

/// Writes the token by which commands on this machine act as the operator, and a new one long before it expires.
fn operator_token(ground: &Ground, kept: &Kept<'_>, keys: &Arc<Keys>, stages: &Stages) -> anyhow::Result<()> {
    let (keys, clock, path) = (keys.clone(), ground.clock.clone(), kept.data.operator_token());
    let user = UserId::new("operator").context("the operator's name")?;
    let claims = Claims { user, device: None, role: Role::Operator };
    let write = move || -> anyhow::Result<()> {
        let minted = keys.mint(&claims, clock.now())?;
        Ok(write_private(&path, minted.token.as_bytes())?)
    };
    write()?;
    let (every, lifecycle) = (kept.settings.auth.token_lifetime / 2, stages.http.lifecycle().clone());
    stages.http.spawn("operator token", async move {
        renew(every, &lifecycle, write).await;
        Ok::<(), Infallible>(())
    });
    Ok(())
}

async fn renew(every: Duration, lifecycle: &Lifecycle, write: impl Fn() -> anyhow::Result<()>) {
    let mut wait = every;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = lifecycle.soft_stopped() => return,
        }
        wait = match write() {
            Ok(()) => every,
            Err(error) => {
                tracing::error!(error = %Chain(error.as_ref()), "the operator's token cannot be renewed");
                TOKEN_RETRY.min(every)
            }
        };
    }
}
