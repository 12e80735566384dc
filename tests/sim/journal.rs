//! What was promised when: each offset that was committed and each snapshot that was published, with the log as it
//! stood at that moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use waypost_runtime::broker::memory::Cluster;
use waypost_schemas::topic::{Topic, TopicPartition};

use crate::{digest::Order, met::Met};

/// A promise that all effects of causes below an offset are in the log.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// `commit` or `snapshot`.
    pub(crate) by: &'static str,
    /// The machine.
    pub(crate) machine: String,
    /// The partition of its driving topic.
    pub(crate) source: TopicPartition,
    /// The offset.
    pub(crate) next: i64,
    /// Where the outputs ended.
    pub(crate) ends: Arc<BTreeMap<TopicPartition, i64>>,
}

/// Everything that was promised; a cheap clone.
#[derive(Clone)]
pub(crate) struct Journal {
    cluster: Cluster,
    keyed: i32,
    promises: Arc<Mutex<Vec<Promise>>>,
    pub(crate) met: Met,
    /// The order of everything that processes asked of the world.
    pub(crate) order: Order,
}

impl Journal {
    pub(crate) fn new(cluster: Cluster, keyed: i32, met: Met) -> Self {
        Self { cluster, keyed, promises: Arc::default(), met, order: Order::default() }
    }

    /// Where each output ends now.
    pub(crate) fn ends(&self) -> Arc<BTreeMap<TopicPartition, i64>> {
        let outputs = [Topic::Matches, Topic::Inboxes, Topic::DeadLetters];
        let all = outputs.into_iter().flat_map(|t| (0..self.keyed).map(move |p| TopicPartition::new(t, p)));
        Arc::new(all.map(|of| (of, self.cluster.end(of))).collect())
    }

    pub(crate) fn promise(
        &self,
        by: &'static str,
        machine: &str,
        source: TopicPartition,
        next: i64,
        ends: &Arc<BTreeMap<TopicPartition, i64>>,
    ) {
        let (machine, ends) = (machine.to_owned(), ends.clone());
        let promise = Promise { by, machine, source, next, ends };
        self.promises.lock().unwrap_or_else(PoisonError::into_inner).push(promise);
    }

    /// Takes all promises since the last call.
    pub(crate) fn take(&self) -> Vec<Promise> {
        std::mem::take(&mut *self.promises.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
