//! Membership of a consumer group, without fetching.
//!
//! The group's assignment is acknowledged with an empty one of librdkafka's, so that this client never fetches;
//! who owns what is told to the owner, who reads through a [`super::reader::Reader`].

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
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
    fence::{self, Connections},
    settings::{SESSION_MS, Settings},
};
use crate::{
    broker::{self, Boxed, Committer, Error, GroupSpec, Membership, Release},
    clock::Clock,
};

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
        let what = format!("joining {} failed", spec.group);
        let seat = Seat {
            config: settings.member(&spec),
            spec,
            outage,
            news: tell,
            ownership: Arc::default(),
            clock: Clock::system(),
        };
        let committer = commit::start(seat.ownership.clone())?;
        let stop = Arc::<AtomicBool>::default();
        let poller = Poller { consumer: seat.take()?, seat, stop: stop.clone() };
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

/// A place in a group, for one client after another.
struct Seat {
    config: ClientConfig,
    spec: GroupSpec,
    outage: Arc<Outage>,
    news: mpsc::Sender<Membership>,
    ownership: Arc<Ownership>,
    clock: Clock,
}

impl Seat {
    /// Joins with a new client.
    fn take(&self) -> Result<Arc<BaseConsumer<Context>>, Error> {
        let failed = |e| error::fatal(&format!("joining {} failed", self.spec.group), e);
        let context = Context {
            outage: self.outage.clone(),
            news: self.news.clone(),
            ownership: self.ownership.clone(),
            clock: self.clock.clone(),
            connections: Mutex::default(),
            retired: AtomicBool::new(false),
        };
        let consumer: BaseConsumer<Context> = self.config.create_with_context(context).map_err(failed)?;
        let topics: Vec<_> = self.spec.topics.iter().map(|t| t.name()).collect();
        consumer.subscribe(&topics).map_err(failed)?;
        let consumer = Arc::new(consumer);
        self.ownership.follow(&consumer);
        Ok(consumer)
    }
}

struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    seat: Seat,
    stop: Arc<AtomicBool>,
}

/// How a client's part in its group ends.
enum End {
    /// Its instance has joined again, under another member id.
    Fenced,
    Failed(Error),
}

impl Poller {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(Err(error)) = self.consumer.poll(IDLE) else { continue };
            let failed = match self.end(&error) {
                None => continue,
                Some(End::Fenced) => self.join_again(),
                Some(End::Failed(error)) => Err(error),
            };
            if let Err(error) = failed {
                // Nobody hears it where the owner is gone.
                let _ = self.seat.news.blocking_send(Membership::Failed(error));
                return;
            }
        }
    }

    /// Takes the seat with a new client, where the fence may be this member's own echo. The owner has let go of
    /// everything before: from the fence until it is assigned anew, it owns nothing.
    fn join_again(&mut self) -> Result<(), Error> {
        let spec = &self.seat.spec;
        if !self.consumer.context().may_echo() {
            self.seat.ownership.set(BTreeSet::new());
            return Err(broker::replaced(spec));
        }
        let GroupSpec { group, instance, .. } = spec;
        tracing::warn!(%group, %instance, "fenced after a lost connection; joining again");
        self.consumer.context().retire();
        let fenced = mem::replace(&mut self.consumer, self.seat.take()?);
        thread::Builder::new()
            .name("kafka-fenced".to_owned())
            .spawn(move || close(fenced))
            .map_err(|e| error::fatal(&format!("leaving {group} failed"), e))?;
        Ok(())
    }

    /// What of librdkafka's errors ends the membership; it lives through the others by itself.
    fn end(&self, error: &KafkaError) -> Option<End> {
        let GroupSpec { group, topics, .. } = &self.seat.spec;
        let fatal = self.consumer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or_else(|| error.rdkafka_error_code())?;
        let failed = |what: &str| Some(End::Failed(error::fatal(&format!("{group} {what}"), code)));
        match code {
            Code::FencedInstanceId => Some(End::Fenced),
            Code::UnknownTopicOrPartition | Code::UnknownTopic => {
                let topics = topics.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
                tracing::warn!(%group, topics, "a topic of the group is not there; waiting for it");
                None
            }
            Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed => failed("is not allowed"),
            Code::InconsistentGroupProtocol | Code::InvalidSessionTimeout | Code::InvalidGroupId => {
                failed("does not take this process")
            }
            _ => fatal.map(|(_, reason)| End::Failed(error::fatal(&format!("{group} failed"), reason))),
        }
    }
}

/// Closes a client, which can take as long as the broker likes, when the last commit through it has been answered: so
/// that it is closed here, and not where others commit.
fn close(consumer: Arc<BaseConsumer<Context>>) {
    while Arc::strong_count(&consumer) > 1 {
        thread::sleep(IDLE);
    }
    drop(consumer);
}

/// Hears the group through librdkafka, on the thread that polls.
pub(super) struct Context {
    outage: Arc<Outage>,
    news: mpsc::Sender<Membership>,
    ownership: Arc<Ownership>,
    clock: Clock,
    connections: Mutex<Connections>,
    /// Whether another client has the seat: what this one hears is no longer the owner's.
    retired: AtomicBool,
}

impl ClientContext for Context {
    /// librdkafka's own threads call this.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if fence::is_loss_line(facility) {
            self.lose();
        }
        context::log(level, facility, line);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_some_and(fence::is_loss) {
            self.lose();
        }
        context::error_event(&self.outage, &error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions(list);
        let answered = if self.retired.load(Ordering::Relaxed) {
            consumer.unassign()
        } else if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
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
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        self.connections().lose(self.clock.monotonic());
    }

    fn may_echo(&self) -> bool {
        self.connections().may_echo(self.clock.monotonic())
    }

    /// Has the owner let go of what it still owns, and hears nothing from then on.
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.revoke(self.ownership.owned().into_iter().collect(), true);
    }

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
