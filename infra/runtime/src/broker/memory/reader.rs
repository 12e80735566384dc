//! Reading the log in memory.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use waypost_schemas::topic::TopicPartition;

use super::{
    super::{self as broker, Batch, Boxed, Error},
    Broker, State,
};

/// How many records a batch holds at most: small, so that tests see more than one.
const BATCH_RECORDS_MAX: usize = 64;

type Open = Arc<Mutex<BTreeSet<TopicPartition>>>;

pub(super) struct Reader {
    broker: Broker,
    open: Open,
}

impl Reader {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, open: Open::default() }
    }
}

impl broker::Reader for Reader {
    fn open(&self, partition: TopicPartition, offset: i64) -> Result<Box<dyn broker::Feed>, Error> {
        if !self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(partition) {
            return Err(broker::open_already(partition));
        }
        let (broker, open) = (self.broker.clone(), self.open.clone());
        Ok(Box::new(Feed { broker, open, partition, next: offset, end_told: false, failed: false }))
    }
}

struct Feed {
    broker: Broker,
    open: Open,
    partition: TopicPartition,
    next: i64,
    end_told: bool,
    failed: bool,
}

impl Feed {
    fn take(&mut self, state: &mut State) -> Option<Result<Batch, Error>> {
        if state.away || self.failed || self.broker.dead(state) {
            return None;
        }
        let (partition, offset) = (self.partition, self.next);
        let log = match state.partition(partition) {
            Ok(log) => log,
            Err(error) => return Some(self.fail(error)),
        };
        let broker::Bounds { low, high } = log.bounds();
        let Some(records) = log.read(offset, BATCH_RECORDS_MAX) else {
            return Some(self.fail(Error::OutOfRange { partition, offset, low, high }));
        };
        let next = offset + records.len() as i64;
        let at_end = next == high;
        if records.is_empty() && self.end_told {
            return None;
        }
        let records = records.to_vec();
        (self.next, self.end_told) = (next, at_end);
        Some(Ok(Batch { records, next, at_end }))
    }

    fn fail(&mut self, error: Error) -> Result<Batch, Error> {
        self.failed = true;
        Err(error)
    }
}

impl broker::Feed for Feed {
    fn next(&mut self) -> Boxed<'_, Result<Batch, Error>> {
        Box::pin(async {
            let shared = self.broker.shared.clone();
            shared.wait(|s| self.take(s)).await
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.partition);
    }
}
