//! Connects to the log and to the store, and brings both to what this version needs.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use waypost_runtime::{
    broker::{self, Broker, kafka, topics},
    config::{self, Settings},
    postgres::{self, Pool},
};

/// How long a broker or a store that is away is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The log; waits until it answers. `cluster` is what a local one was formatted as: another one at its port is refused.
pub(super) async fn broker(settings: &Settings, cluster: Option<&str>) -> anyhow::Result<Arc<dyn Broker>> {
    let broker = kafka::Broker::connect(client(&settings.kafka, &settings.topics)?)?;
    let id = answered(|| broker::Broker::cluster_id(&broker)).await?;
    match cluster {
        Some(own) if own != id => bail!(
            "the kafka that answers is cluster {id}, but the one of this data directory is {own}: another program has its port; stop that one"
        ),
        _ => tracing::info!(cluster = id, "kafka answers"),
    }
    Ok(Arc::new(broker))
}

fn client(settings: &config::Kafka, topics: &config::Topics) -> anyhow::Result<kafka::Config> {
    let bootstrap = settings.bootstrap.clone().context("no kafka is named")?;
    Ok(kafka::Config {
        properties: settings
            .properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        replication_factor: topics.replication,
        limits: kafka::Limits {
            feed_records_max: settings.feed_records_max,
            feed_bytes_max: settings.feed_bytes_max,
            send_records_max: u32::try_from(settings.queue_records_max).unwrap_or(u32::MAX),
            send_bytes_max: u32::try_from(settings.queue_bytes_max).unwrap_or(u32::MAX),
            request_max: settings.request_timeout,
        },
        ..kafka::Config::new(bootstrap)
    })
}

/// Asks the broker until it answers; an error that will stand is returned.
async fn answered<T, F>(mut ask: impl FnMut() -> F) -> Result<T, broker::Error>
where
    F: Future<Output = Result<T, broker::Error>>,
{
    loop {
        match ask().await {
            Err(broker::Error::Unavailable { what }) => {
                tracing::warn!(what, "kafka does not answer yet; waiting for it");
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}

/// What stands between a broker and the catalogue; with `apply`, topics that are missing are created.
pub(crate) async fn plan(settings: &Settings, apply: bool) -> anyhow::Result<topics::Plan> {
    let broker = kafka::Broker::connect(client(&settings.kafka, &settings.topics)?)?;
    let keyed = settings.topics.partitions;
    Ok(if apply { topics::apply(&broker, keyed).await? } else { topics::check(&broker, keyed).await? })
}

/// Creates the topics of the catalogue that are missing, and tells what differs.
pub(super) async fn topics(broker: &dyn Broker, settings: &Settings) -> anyhow::Result<()> {
    let plan = answered(|| topics::apply(broker, settings.topics.partitions)).await?;
    if !plan.create.is_empty() {
        tracing::info!(topics = plan.create.len(), "created topics");
    }
    for difference in plan.differences {
        tracing::warn!(%difference, "a topic is not as the catalogue says");
    }
    Ok(())
}

/// The store; it need not be there yet.
pub(super) fn pool(settings: &Settings) -> anyhow::Result<Pool> {
    let url = settings.postgres.url.as_ref().context("no postgres is named")?;
    Ok(Pool::open(url, &settings.postgres)?)
}

/// Brings the store's schema up to this version, waiting while the store is away.
pub(super) async fn migrate(pool: &Pool) -> Result<(), postgres::Error> {
    loop {
        match postgres::migrate(pool).await {
            Ok(migrated) => {
                tracing::info!(schema = migrated.schema, applied = ?migrated.applied, "the store's schema is current");
                return Ok(());
            }
            Err(error) if error.passes() => {
                tracing::warn!(error = %waypost_runtime::telemetry::Chain(&error), "postgres does not answer yet; waiting for it");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}
