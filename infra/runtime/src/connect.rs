//! Connects to the log and to the store by the settings, waits for them while they are away, and brings both to what
//! this version needs.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    broker::{self, Broker, kafka, topics},
    config::{self, Settings},
    postgres::{self, Pool},
    telemetry::Chain,
};

/// How long a broker or a store that is away is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no connection, and waiting will not help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address is known.
    #[error("no address of {0} is known: name one, or join a stack that has one")]
    Unnamed(&'static str),
    /// Another cluster answers than the one that was asked for.
    #[error(
        "the kafka that answers is cluster {found}, but the one of this data directory is {own}: another program has its port; stop that one"
    )]
    OtherCluster {
        /// The cluster of the data directory.
        own: String,
        /// The cluster that answers.
        found: String,
    },
    /// The broker refuses.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// Postgres refuses.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
}

/// Connects to the log and waits until it answers; with `cluster`, another one is [`Error::OtherCluster`].
pub async fn broker(settings: &Settings, cluster: Option<&str>) -> Result<Arc<dyn Broker>, Error> {
    let broker = client(&settings.kafka, &settings.topics)?;
    let found = answered(|| broker::Broker::cluster_id(&broker)).await?;
    match cluster {
        Some(own) if own != found => return Err(Error::OtherCluster { own: own.to_owned(), found }),
        _ => tracing::info!(cluster = found, "kafka answers"),
    }
    Ok(Arc::new(broker))
}

/// What stands between the broker that the settings name and the catalogue; with `apply`, what is missing is created.
/// It does not wait for a broker that is away.
pub async fn plan(settings: &Settings, apply: bool) -> Result<topics::Plan, Error> {
    let broker = client(&settings.kafka, &settings.topics)?;
    let keyed = settings.topics.partitions;
    let plan = if apply { topics::apply(&broker, keyed).await } else { topics::check(&broker, keyed).await };
    Ok(plan?)
}

/// Creates the topics of the catalogue that are missing, and tells what differs.
pub async fn topics(broker: &dyn Broker, settings: &Settings) -> Result<(), Error> {
    let plan = answered(|| topics::apply(broker, settings.topics.partitions)).await?;
    if !plan.create.is_empty() {
        tracing::info!(topics = plan.create.len(), "created topics");
    }
    for difference in plan.differences {
        tracing::warn!(%difference, "a topic is not as the catalogue says");
    }
    Ok(())
}

/// The store's connections; the store need not be there yet.
pub fn pool(settings: &Settings) -> Result<Pool, Error> {
    let url = settings.postgres.url.as_ref().ok_or(Error::Unnamed("postgres"))?;
    Ok(Pool::open(url, &settings.postgres)?)
}

/// Brings the store's schema up to this version, waiting while the store is away.
pub async fn migrate(pool: &Pool) -> Result<(), postgres::Error> {
    let mut told = false;
    loop {
        match postgres::migrate(pool).await {
            Ok(migrated) => {
                tracing::info!(schema = migrated.schema, applied = ?migrated.applied, "the store's schema is current");
                return Ok(());
            }
            Err(error) if error.passes() => {
                if !told {
                    tracing::warn!(error = %Chain(&error), "postgres does not answer yet; waiting for it");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn client(settings: &config::Kafka, topics: &config::Topics) -> Result<kafka::Broker, Error> {
    let bootstrap = settings.bootstrap.as_ref().ok_or(Error::Unnamed("kafka"))?;
    let properties = settings.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(kafka::Broker::connect(kafka::Config {
        properties: properties.collect(),
        replication_factor: topics.replication,
        limits: kafka::Limits {
            feed_records_max: settings.feed_records_max,
            feed_bytes_max: settings.feed_bytes_max,
            send_lanes: settings.lanes,
            bulk_linger: settings.bulk_linger,
            send_records_max: u32::try_from(settings.queue_records_max).unwrap_or(u32::MAX),
            send_bytes_max: u32::try_from(settings.queue_bytes_max).unwrap_or(u32::MAX),
            request_max: settings.request_timeout,
        },
        ..kafka::Config::new(bootstrap)
    })?)
}

/// Asks the broker until it answers; an error that will stand is returned.
async fn answered<T, F>(mut ask: impl FnMut() -> F) -> Result<T, broker::Error>
where
    F: Future<Output = Result<T, broker::Error>>,
{
    let mut told = false;
    loop {
        match ask().await {
            Err(broker::Error::Unavailable { what }) => {
                if !told {
                    tracing::warn!(what, "kafka does not answer yet; waiting for it");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}
