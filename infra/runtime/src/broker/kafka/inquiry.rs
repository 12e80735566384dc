//! Requests to the cluster: bounds, groups, topics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
};
use waypost_schemas::topic::{Topic, TopicPartition};

use super::{
    context::{Context, Outage},
    error,
    settings::Settings,
};
use crate::broker::{Bounds, Error, TopicState, topics};

/// The clients that only ask. All methods but the async ones block.
pub(super) struct Inquiry {
    settings: Arc<Settings>,
    outage: Arc<Outage>,
    wait_max: Duration,
    consumer: BaseConsumer<Context>,
    /// One client a group, because a client asks for its own group's offsets only.
    groups: Mutex<BTreeMap<String, Arc<BaseConsumer<Context>>>>,
    /// How many partitions a topic has, which is for life.
    counts: Mutex<BTreeMap<Topic, i32>>,
}

impl Inquiry {
    pub(super) fn new(
        settings: Arc<Settings>,
        outage: Arc<Outage>,
        wait_max: Duration,
    ) -> Result<Self, Error> {
        let consumer = settings
            .inquirer(None)
            .create_with_context(Context(outage.clone()))
            .map_err(|e| error::fatal("kafka.properties are not right", e))?;
        Ok(Self { settings, outage, wait_max, consumer, groups: Mutex::default(), counts: Mutex::default() })
    }

    pub(super) fn cluster_id(&self) -> Result<String, Error> {
        drain(&self.consumer);
        let id = self.consumer.client().fetch_cluster_id(self.wait_max);
        id.ok_or_else(|| Error::Unavailable { what: "the cluster's id".to_owned() })
    }

    pub(super) fn bounds(&self, topics: &[Topic]) -> Result<BTreeMap<TopicPartition, Bounds>, Error> {
        drain(&self.consumer);
        let partitions = self.partitions(topics)?;
        // The end first: what is cut off between the two requests leaves the low bound not above the high one.
        let highs = self.offsets(&partitions, Offset::End)?;
        let lows = self.offsets(&partitions, Offset::Beginning)?;
        let bounds = |partition: &TopicPartition| {
            let (low, high) = (*lows.get(partition)?, *highs.get(partition)?);
            Some((*partition, Bounds { low: low.min(high), high }))
        };
        let bounds: BTreeMap<_, _> = partitions.iter().filter_map(bounds).collect();
        if bounds.len() < partitions.len() {
            return Err(Error::Unavailable { what: "the bounds of some partitions".to_owned() });
        }
        self.outage.over();
        Ok(bounds)
    }

    /// One end of every partition, by one request a broker.
    fn offsets(
        &self,
        partitions: &[TopicPartition],
        end: Offset,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        const WHAT: &str = "the bounds of topics";
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(partition.topic.name(), partition.partition, end)
                .map_err(|e| error::of_request(WHAT, &e))?;
        }
        let list =
            self.consumer.offsets_for_times(list, self.wait_max).map_err(|e| error::of_request(WHAT, &e))?;
        read(&list, WHAT)
    }

    pub(super) fn committed(
        &self,
        group: &str,
        topics: &[Topic],
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let what = format!("the offsets of {group}");
        let partitions = self.partitions(topics)?;
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let consumer = self.of_group(group)?;
        drain(&consumer);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in &partitions {
            list.add_partition(partition.topic.name(), partition.partition);
        }
        let list =
            consumer.committed_offsets(list, self.wait_max).map_err(|e| error::of_request(&what, &e))?;
        self.outage.over();
        read(&list, &what)
    }

    pub(super) fn members(&self, group: &str) -> Result<usize, Error> {
        drain(&self.consumer);
        let what = format!("the members of {group}");
        let groups = self.consumer.client().fetch_group_list(Some(group), self.wait_max);
        let groups = groups.map_err(|e| error::of_request(&what, &e))?;
        self.outage.over();
        Ok(groups.groups().iter().filter(|g| g.name() == group).map(|g| g.members().len()).sum())
    }

    fn of_group(&self, group: &str) -> Result<Arc<BaseConsumer<Context>>, Error> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = groups.get(group) {
            return Ok(consumer.clone());
        }
        let consumer: BaseConsumer<Context> = self
            .settings
            .inquirer(Some(group))
            .create_with_context(Context(self.outage.clone()))
            .map_err(|e| error::fatal("a client was not made", e))?;
        let consumer = Arc::new(consumer);
        groups.insert(group.to_owned(), consumer.clone());
        Ok(consumer)
    }

    /// The partitions of topics that must be there.
    fn partitions(&self, topics: &[Topic]) -> Result<Vec<TopicPartition>, Error> {
        let known = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counts = if topics.iter().all(|t| known.contains_key(t)) { known } else { self.counts()? };
        let mut partitions = Vec::new();
        for topic in topics {
            let count = *counts.get(topic).ok_or_else(|| topics::missing(*topic))?;
            partitions.extend((0..count).map(|p| TopicPartition::new(*topic, p)));
        }
        Ok(partitions)
    }

    /// Asks which topics of the catalogue there are, and how many partitions they have.
    fn counts(&self) -> Result<BTreeMap<Topic, i32>, Error> {
        drain(&self.consumer);
        let metadata = self
            .consumer
            .fetch_metadata(None, self.wait_max)
            .map_err(|e| error::of_request("the topics", &e))?;
        let counts: BTreeMap<_, _> = metadata
            .topics()
            .iter()
            .filter(|t| t.error().is_none() && !t.partitions().is_empty())
            .filter_map(|t| Some((Topic::from_name(t.name())?, t.partitions().len() as i32)))
            .collect();
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&counts);
        self.outage.over();
        Ok(counts)
    }

    pub(super) async fn topics(self: &Arc<Self>) -> Result<Vec<TopicState>, Error> {
        const WHAT: &str = "the settings of topics";
        let counts = self.blocking(Self::counts).await?;
        let admin = self.blocking(Self::admin).await?;
        let names: Vec<_> = counts.keys().map(|t| ResourceSpecifier::Topic(t.name())).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let options = AdminOptions::new().request_timeout(Some(self.wait_max));
        let described =
            admin.describe_configs(&names, &options).await.map_err(|e| error::of_request(WHAT, &e))?;
        let mut states = Vec::new();
        for ((topic, partitions), resource) in counts.into_iter().zip(described) {
            let resource = resource.map_err(|code| error::of_code(WHAT, code))?;
            let setting = |name: &String| Some((name.clone(), resource.get(name)?.value.clone()?));
            let settings = topics::settings(topic).keys().filter_map(setting).collect();
            states.push(TopicState { topic, partitions, settings });
        }
        Ok(states)
    }

    pub(super) async fn create(self: &Arc<Self>, topics: &[Topic], keyed: i32) -> Result<(), Error> {
        let admin = self.blocking(Self::admin).await?;
        let settings: Vec<_> = topics.iter().map(|t| (*t, topics::settings(*t))).collect();
        let replication = self.settings.replication_factor;
        let made: Vec<_> = settings
            .iter()
            .map(|(topic, settings)| {
                let count = topic.partitions(keyed);
                let new = NewTopic::new(topic.name(), count, TopicReplication::Fixed(replication));
                settings.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let wait = Some(self.wait_max);
        let options = AdminOptions::new().request_timeout(wait).operation_timeout(wait);
        let results = admin
            .create_topics(&made, &options)
            .await
            .map_err(|e| error::of_request("the creation of topics", &e))?;
        for result in results {
            match result {
                // Another process was faster.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(error::of_code(&format!("the creation of {topic}"), code)),
            }
        }
        self.await_created(topics, keyed).await
    }

    /// Waits until the topics answer: their partitions have leaders a moment after the creation is answered.
    async fn await_created(self: &Arc<Self>, topics: &[Topic], keyed: i32) -> Result<(), Error> {
        const STEP: Duration = Duration::from_millis(50);
        let topics: Arc<[Topic]> = topics.into();
        let answer = async {
            loop {
                let asked = topics.clone();
                let answer = self
                    .blocking(move |inquiry| {
                        let counts = inquiry.counts()?;
                        let known = asked.iter().all(|t| counts.get(t) == Some(&t.partitions(keyed)));
                        if known { inquiry.bounds(&asked).map(|_| true) } else { Ok(false) }
                    })
                    .await;
                match answer {
                    Ok(true) => return Ok(()),
                    Ok(false) | Err(Error::Unavailable { .. }) => tokio::time::sleep(STEP).await,
                    Err(error) => return Err(error),
                }
            }
        };
        let late = || Error::Unavailable { what: "the topics that were created".to_owned() };
        tokio::time::timeout(self.wait_max, answer).await.unwrap_or_else(|_| Err(late()))
    }

    /// A client for administration, for one use: nobody would poll it between two.
    fn admin(&self) -> Result<AdminClient<Context>, Error> {
        self.settings
            .inquirer(None)
            .create_with_context(Context(self.outage.clone()))
            .map_err(|e| error::fatal("a client was not made", e))
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        request: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inquiry = self.clone();
        let answer = tokio::task::spawn_blocking(move || request(&inquiry)).await;
        answer.unwrap_or_else(|_| Err(Error::Unavailable { what: "the request was given up".to_owned() }))
    }
}

/// The offsets of a list; partitions without one are left out.
fn read(list: &TopicPartitionList, what: &str) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error().map_err(|e| error::of_request(what, &e))?;
        if let (Some(topic), Offset::Offset(offset)) = (Topic::from_name(element.topic()), element.offset()) {
            offsets.insert(TopicPartition::new(topic, element.partition()), offset);
        }
    }
    Ok(offsets)
}

/// Takes what librdkafka said since the last request, so that it does not pile up.
fn drain(consumer: &BaseConsumer<Context>) {
    while consumer.poll(Duration::ZERO).is_some() {}
}
