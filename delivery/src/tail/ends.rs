//! The ends of inboxes and acknowledgements as the broker says them now, asked once for all who wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Mutex;
use waypost_runtime::broker::{self, Bounds, Broker};
use waypost_schemas::topic::{Topic, TopicPartition};

type All = Arc<BTreeMap<TopicPartition, Bounds>>;

/// Where a partition of `inboxes` and the like of `acks` end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) inbox: Bounds,
    pub(crate) acks: Bounds,
}

/// Asks the broker.
pub(crate) struct Asker {
    broker: Arc<dyn Broker>,
    /// How many have come to ask.
    came: AtomicU64,
    /// The last answer, and how many had come when it was asked for.
    answered: Mutex<(u64, All)>,
}

impl Asker {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, came: AtomicU64::new(0), answered: Mutex::default() }
    }

    /// The ends at a moment after the call.
    pub(crate) async fn ask(&self, partition: i32) -> Result<Ends, broker::Error> {
        let turn = self.came.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.answered.lock().await;
        if answered.0 < turn {
            // All who wait for the lock now share what is asked here.
            let came = self.came.load(Ordering::Acquire);
            *answered = (came, Arc::new(self.broker.bounds(vec![Topic::Inboxes, Topic::Acks]).await?));
        }
        let of = |topic| {
            let partition = TopicPartition::new(topic, partition);
            let missing = || broker::Error::Fatal { what: format!("{partition} does not exist") };
            answered.1.get(&partition).copied().ok_or_else(missing)
        };
        Ok(Ends { inbox: of(Topic::Inboxes)?, acks: of(Topic::Acks)? })
    }
}
