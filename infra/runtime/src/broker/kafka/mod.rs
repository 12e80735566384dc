//! Kafka, by librdkafka. This folder alone names it; what a guarantee needs of it is set in [`settings`], and cannot
//! be set otherwise.
//!
//! Every call of librdkafka that can block runs on a thread of its own or on tokio's blocking threads.

#[cfg(feature = "contract")]
pub mod bare;
pub mod chain;
mod commit;
mod context;
mod error;
mod fence;
mod fetch;
mod inquiry;
mod member;
mod produce;
mod queue;
mod reader;
mod settings;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use waypost_schemas::topic::{Topic, TopicPartition};

use self::{
    context::Outage,
    inquiry::Inquiry,
    settings::{Favour, Settings},
};
use super::{Bounds, Boxed, Error, GroupSpec, Member, Producer, Reader, TopicState};

/// How to reach a Kafka cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to begin with: `host:port`, by commas.
    pub bootstrap: String,
    /// What the process calls itself in the broker's logs and quotas.
    pub client_id: String,
    /// librdkafka's settings, passed through; those that a guarantee needs are refused.
    pub properties: BTreeMap<String, String>,
    /// The replication factor of topics that are created; -1 leaves it to the broker.
    pub replication_factor: i32,
    /// The bounds of queues and waits.
    pub limits: Limits,
}

impl Config {
    /// A cluster with everything else as it is by default.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "waypost".to_owned(),
            properties: BTreeMap::new(),
            replication_factor: -1,
            limits: Limits::default(),
        }
    }
}

/// The bounds of queues and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many records of a partition wait for their reader.
    pub feed_records_max: usize,
    /// How many bytes of a partition wait for their reader, give or take one record.
    pub feed_bytes_max: usize,
    /// How many clients a producer is, each with one request in flight; a partition's records go by one of them.
    pub send_lanes: usize,
    /// How long a record of a bulk producer may wait for others of its partition.
    pub bulk_linger: Duration,
    /// How many records of a producer are on their way; a larger batch goes alone.
    pub send_records_max: u32,
    /// How many bytes of a producer are on their way; a larger batch goes alone.
    pub send_bytes_max: u32,
    /// How long a request waits for its answer.
    pub request_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A tenth of a second at full speed, so that a fetch is under way long before the queue is empty.
            feed_records_max: 10_000,
            // Twice the largest record, so that the next is there while one is read.
            feed_bytes_max: 8 * 1024 * 1024,
            // Of `waypost bench chain --rate 500` four halve the p99 of one.
            send_lanes: 4,
            // Nobody sees that a receipt is so much later, and what a machine carries is counted in requests.
            bulk_linger: Duration::from_millis(100),
            // A second at full speed.
            send_records_max: 100_000,
            send_bytes_max: 32 * 1024 * 1024,
            request_max: Duration::from_secs(10),
        }
    }
}

/// A Kafka cluster. Clones share its connections for requests.
#[derive(Clone)]
pub struct Broker {
    settings: Arc<Settings>,
    outage: Arc<Outage>,
    limits: Limits,
    inquiry: Arc<Inquiry>,
}

impl Broker {
    /// Checks the settings and begins to connect; it does not wait for the broker. A setting that is refused or
    /// unknown is [`Error::Fatal`], named.
    pub fn connect(config: Config) -> Result<Self, Error> {
        let limits = config.limits;
        let settings = Arc::new(Settings::new(config)?);
        let outage = Arc::<Outage>::default();
        let inquiry = Arc::new(Inquiry::new(settings.clone(), outage.clone(), limits.request_max)?);
        Ok(Self { settings, outage, limits, inquiry })
    }

    fn reads(&self, favour: Favour) -> reader::Reader {
        reader::Reader::new(self.settings.clone(), self.outage.clone(), (self.limits, favour))
    }

    fn produces(&self, favour: Favour) -> Result<produce::Producer, Error> {
        produce::Producer::new(&self.settings, &self.outage, (self.limits, favour))
    }

    /// Runs a blocking request where it may block.
    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Inquiry) -> Result<T, Error> + Send + 'static,
    ) -> Boxed<'static, Result<T, Error>> {
        let inquiry = self.inquiry.clone();
        Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || request(&inquiry)).await;
            answer.unwrap_or_else(|_| Err(Error::Unavailable { what: "the request was given up".to_owned() }))
        })
    }
}

impl super::Broker for Broker {
    fn reader(&self) -> Result<Arc<dyn Reader>, Error> {
        Ok(Arc::new(self.reads(Favour::Latency)))
    }

    fn bulk_reader(&self) -> Result<Arc<dyn Reader>, Error> {
        Ok(Arc::new(self.reads(Favour::Throughput)))
    }

    fn join(&self, group: GroupSpec) -> Result<Box<dyn Member>, Error> {
        Ok(Box::new(member::Member::join(&self.settings, self.outage.clone(), group)?))
    }

    fn producer(&self) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(self.produces(Favour::Latency)?))
    }

    fn bulk_producer(&self) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(self.produces(Favour::Throughput)?))
    }

    fn cluster_id(&self) -> Boxed<'_, Result<String, Error>> {
        self.ask(Inquiry::cluster_id)
    }

    fn bounds(&self, topics: Vec<Topic>) -> Boxed<'_, Result<BTreeMap<TopicPartition, Bounds>, Error>> {
        self.ask(move |inquiry| inquiry.bounds(&topics))
    }

    fn committed(
        &self,
        group: String,
        topics: Vec<Topic>,
    ) -> Boxed<'_, Result<BTreeMap<TopicPartition, i64>, Error>> {
        self.ask(move |inquiry| inquiry.committed(&group, &topics))
    }

    fn members(&self, group: String) -> Boxed<'_, Result<usize, Error>> {
        self.ask(move |inquiry| inquiry.members(&group))
    }

    fn topics(&self) -> Boxed<'_, Result<Vec<TopicState>, Error>> {
        Box::pin(async { self.inquiry.topics().await })
    }

    fn create(&self, topics: Vec<Topic>, keyed: i32) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async move { self.inquiry.create(&topics, keyed).await })
    }
}
