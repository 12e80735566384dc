//! What a stack stands on: a Kafka and a Postgres that it starts, that are named, or that another stack has.

use std::collections::BTreeMap;

use waypost_runtime::{
    clock::Clock,
    config::{SecretUrl, Settings},
    datadir::{self, Addresses, DataDir, Mark},
    join,
};

use super::Stages;
use crate::local::{Environment, Watched, kafka, postgres};

/// The programs that this stack has started.
#[derive(Debug, Clone, Default)]
pub(super) struct Foundation {
    kafka: Option<kafka::Kafka>,
    postgres: Option<postgres::Postgres>,
}

impl Foundation {
    /// Starts what is not named, both at once; the settings then name everything.
    pub(super) async fn lay(
        settings: &mut Settings,
        data: &DataDir,
        environment: &Environment,
        joins: bool,
        stages: &Stages,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        if joins {
            join::adopt(settings, Addresses::read(data)?);
            return Ok(Self::default());
        }
        let kafka = async {
            match settings.kafka.bootstrap {
                Some(_) => Ok(None),
                None => kafka::start(data, environment, &stages.kafka, clock).await.map(Some),
            }
        };
        let postgres = async {
            match settings.postgres.url {
                Some(_) => Ok(None),
                None => postgres::start(data, environment, &stages.postgres, clock).await.map(Some),
            }
        };
        let (kafka, postgres) = tokio::try_join!(kafka, postgres)?;
        if let Some(kafka) = &kafka {
            settings.kafka.bootstrap = Some(kafka.bootstrap.clone());
        }
        if let Some(postgres) = &postgres {
            settings.postgres.url = Some(SecretUrl::new(&*postgres.url));
        }
        Ok(Self { kafka, postgres })
    }

    /// The id of the local broker's cluster.
    pub(super) fn cluster(&self) -> Option<&str> {
        self.kafka.as_ref().map(|kafka| &*kafka.cluster)
    }

    /// Whether any program was started.
    pub(super) fn is_local(&self) -> bool {
        self.kafka.is_some() || self.postgres.is_some()
    }

    fn programs(&self) -> impl Iterator<Item = (&'static str, &Watched)> {
        let kafka = self.kafka.as_ref().map(|kafka| ("kafka", &kafka.watched));
        let postgres = self.postgres.as_ref().map(|postgres| ("postgres", &postgres.watched));
        kafka.into_iter().chain(postgres)
    }

    /// The processes as they are now, by part.
    pub(super) fn processes(&self) -> BTreeMap<String, Mark> {
        let own = Mark::own().map(|mark| ("waypost", mark));
        let programs = self.programs().filter_map(|(name, watched)| Some((name, watched.mark()?)));
        own.into_iter().chain(programs).map(|(name, mark)| (name.to_owned(), mark)).collect()
    }

    /// Writes `stack.json`, again whenever a program has another process, and takes it away at the end.
    pub(super) fn publish(
        &self,
        addresses: Addresses,
        data: DataDir,
        stages: &Stages,
    ) -> Result<(), datadir::Error> {
        addresses.write(&data)?;
        let (foundation, lifecycle) = (self.clone(), stages.http.lifecycle().clone());
        let mut addresses = addresses;
        stages.http.spawn("stack.json", async move {
            loop {
                tokio::select! {
                    () = foundation.changed() => {}
                    () = lifecycle.soft_stopped() => return Addresses::remove(&data),
                }
                addresses.processes = foundation.processes();
                addresses.write(&data)?;
            }
        });
        Ok(())
    }

    async fn changed(&self) {
        let kafka = async {
            match &self.kafka {
                Some(kafka) => kafka.watched.changed().await,
                None => std::future::pending().await,
            }
        };
        let postgres = async {
            match &self.postgres {
                Some(postgres) => postgres.watched.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = kafka => {}
            () = postgres => {}
        }
    }
}
