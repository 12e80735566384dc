//! Membership of a consumer group, without fetching.
//!
//! The group's assignment is acknowledged with an empty one of librdkafka's, so that this client never fetches;
//! who owns what is told to the owner, who reads through a [`super::reader::Reader`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    types::RDKafkaRespErr,
};
use tokio::sync::mpsc;
use waypost_schemas::topic::{Topic, TopicPartition};

use super::{
    commit::{self, Ownership},
    context::{self, Outage},
    error,
    settings::{SESSION_MS, Settings},
};
use crate::broker::{self, Boxed, Committer, Error, GroupSpec, Membership, Release};

/// How often the thread looks whether it should stop; the group's news wake it.
const IDLE: Duration = Duration::from_millis(100);
/// How long an owner may take to let go: a second less than the session.
const RELEASE_MAX: Duration = Duration::from_millis(SESSION_MS - 1_000);
/// How many news wait for an owner that does not ask; past that the group waits for it, and then drops it.
const NEWS_MAX: usize = 16;

pub(super) struct Member {
    news: mpsc::Receiver<Membership>,
    committer: Arc<dyn Committer>,
    stop: Arc<AtomicBool>,
}

impl Member {
    pub(super) fn join(settings: &Settings, outage: Arc<Outage>, spec: GroupSpec) -> Result<Self, Error> {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let ownership = Arc::<Ownership>::default();
        let context = Context { outage, news: tell.clone(), ownership: ownership.clone() };
        let what = format!("joining {} failed", spec.group);
        let consumer: BaseConsumer<Context> =
            settings.member(&spec).create_with_context(context).map_err(|e| error::fatal(&what, e))?;
        let topics: Vec<_> = spec.topics.iter().map(|t| t.name()).collect();
        consumer.subscribe(&topics).map_err(|e| error::fatal(&what, e))?;
        let consumer = Arc::new(consumer);
        let committer = commit::start(Arc::downgrade(&consumer), ownership)?;
        let stop = Arc::<AtomicBool>::default();
        let poller = Poller { consumer, spec, news: tell, stop: stop.clone() };
        thread::Builder::new()
            .name("kafka-member".to_owned())
            .spawn(move || poller.run())
            .map_err(|e| error::fatal(&what, e))?;
        Ok(Self { news, committer, stop })
    }
}

impl broker::Member for Member {
    fn next(&mut self) -> Boxed<'_, Membership> {
        Box::pin(async {
            match self.news.recv().await {
                Some(news) => news,
                // The thread has said why.
                None => std::future::pending().await,
            }
        })
    }

    fn committer(&self) -> Arc<dyn Committer> {
        self.committer.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The thread ends by itself: closing a consumer can take as long as the broker likes, and a static member
        // does not say goodbye.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    spec: GroupSpec,
    news: mpsc::Sender<Membership>,
    stop: Arc<AtomicBool>,
}

impl Poller {
    fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(Err(error)) = self.consumer.poll(IDLE) else { continue };
            if let Some(error) = self.fatal(&error) {
                // Nobody hears it where the owner is gone.
                let _ = self.news.blocking_send(Membership::Failed(error));
                return;
            }
        }
    }

    /// What of librdkafka's errors ends the membership; it lives through the others by itself.
    fn fatal(&self, error: &KafkaError) -> Option<Error> {
        let GroupSpec { group, .. } = &self.spec;
        let fatal = self.consumer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or_else(|| error.rdkafka_error_code())?;
        match code {
            Code::FencedInstanceId => Some(broker::replaced(&self.spec)),
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                let topics = self.spec.topics.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
                tracing::warn!(%group, topics, "a topic of the group is not there; waiting for it");
                None
            }
            Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed => {
                Some(error::fatal(&format!("{group} is not allowed"), code))
            }
            Code::InconsistentGroupProtocol | Code::InvalidSessionTimeout | Code::InvalidGroupId => {
                Some(error::fatal(&format!("{group} does not take this process"), code))
            }
            _ => fatal.map(|(_, reason)| error::fatal(&format!("{group} failed"), reason)),
        }
    }
}

/// Hears the group through librdkafka, on the thread that polls.
pub(super) struct Context {
    outage: Arc<Outage>,
    news: mpsc::Sender<Membership>,
    ownership: Arc<Ownership>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        context::error_event(&self.outage, &error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions(list);
        let answered = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.outage.over();
            self.ownership.set(partitions.iter().copied().collect());
            let answered = consumer.assign(&TopicPartitionList::new());
            // Nobody hears it where the owner is gone.
            let _ = self.news.blocking_send(Membership::Assigned(partitions));
            answered
        } else {
            self.revoke(partitions, consumer.assignment_lost());
            consumer.unassign()
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "the group's news were not answered");
        }
    }
}

impl Context {
    /// Has the owner let go. librdkafka beats the heart meanwhile.
    fn revoke(&self, partitions: Vec<TopicPartition>, lost: bool) {
        if lost {
            self.ownership.set(BTreeSet::new());
        }
        if !partitions.is_empty() {
            let (released, wait) = std_mpsc::sync_channel::<()>(0);
            let done = Release::new(move || drop(released));
            let told = self.news.blocking_send(Membership::Revoked { partitions, lost, done }).is_ok();
            if told && wait.recv_timeout(RELEASE_MAX) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!("partitions were not let go in time; they are taken");
            }
        }
        self.ownership.set(BTreeSet::new());
        self.ownership.wait_for_commits(RELEASE_MAX);
    }
}

/// The partitions of a list that are the catalogue's.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let known = list.elements();
    let mut partitions: Vec<_> = known
        .iter()
        .filter_map(|e| Some(TopicPartition::new(Topic::from_name(e.topic())?, e.partition())))
        .collect();
    partitions.sort();
    partitions
}

/// The list of partitions with an offset for each.
pub(super) fn list_of(offsets: &BTreeMap<TopicPartition, i64>) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(
            partition.topic.name(),
            partition.partition,
            rdkafka::Offset::Offset(*offset),
        )
        .map_err(|e| error::fatal(&format!("{partition} has no offset {offset}"), e))?;
    }
    Ok(list)
}
