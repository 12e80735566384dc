//! How old the oldest record is that is not in Postgres yet, of the partitions that this process projects.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use waypost_schemas::{time::Micros, topic::TopicPartition};

/// What a projected partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// All that it has read is in Postgres.
    Written,
    /// It holds records that are not, the oldest of which was appended then.
    Pending(Micros),
}

/// The heads of the partitions that this process projects; a cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Heads(Arc<Mutex<BTreeMap<TopicPartition, Head>>>);

impl Heads {
    /// A partition's head; `None` where this process does not project it, or cannot yet.
    pub fn of(&self, partition: TopicPartition) -> Option<Head> {
        self.lock().get(&partition).copied()
    }

    pub(super) fn set(&self, partition: TopicPartition, head: Option<Head>) {
        match head {
            Some(head) => self.lock().insert(partition, head),
            None => self.lock().remove(&partition),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Head>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
