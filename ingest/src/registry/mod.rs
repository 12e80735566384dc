//! Ingest's side of the registry: its follower, its view, its writer, and how far it lags.
//!
//! What is appended carries the registry offset up to which the follower has read, so that a fix meets every rule
//! that stood at its node when it was accepted. A write is answered when the follower has read it back.

mod bounds;
mod lag;
mod view;
mod writer;

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use waypost_runtime::{
    broker::{self, Batch, Reader},
    lifecycle::blocking,
    watch,
};
use waypost_schemas::{
    codec,
    event::Event,
    topic::{Topic, TopicPartition},
};

pub use bounds::Bounds;
pub(crate) use lag::Lag;
pub use view::{Change, Rule, Said, Standing, View, Zone};
pub use writer::{Outcome, Writer};

/// The registry's one partition.
pub const PARTITION: TopicPartition = TopicPartition { topic: Topic::Registry, partition: 0 };

/// The registry as this process has read it.
#[derive(Debug)]
pub struct Registry {
    view: RwLock<View>,
    /// The highest offset read; -1 where none.
    read: watch::Sender<i64>,
    /// Whether the end of the registry was reached once.
    caught_up: watch::Sender<bool>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { view: RwLock::default(), read: watch::Sender::new(-1), caught_up: watch::Sender::new(false) }
    }
}

impl Registry {
    /// The offset up to which the registry is read: the stamp of what is appended now. -1 where nothing is read.
    pub fn stamp(&self) -> i64 {
        *self.read.borrow()
    }

    /// What the registry says up to the stamp; held shortly, and never while waiting.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the registry has been read to its end since the start; before that, nothing may be stamped.
    pub fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }

    /// Resolves when the registry is read up to an offset.
    pub async fn read_upto(&self, offset: i64) {
        let mut read = self.read.subscribe();
        // The sender lives as long as `self`.
        let _ = read.wait_for(|read| *read >= offset).await;
    }

    /// The log's own name, once it is read.
    pub async fn log(&self) -> Box<str> {
        let mut read = self.read.subscribe();
        loop {
            if let Some(log) = self.view().log.clone() {
                return log;
            }
            // The sender lives as long as `self`.
            let _ = read.changed().await;
        }
    }

    /// Follows the registry from its beginning; ends only by an error.
    pub(crate) async fn follow(&self, reader: &dyn Reader) -> Result<(), broker::Error> {
        let mut feed = reader.open(PARTITION, 0)?;
        loop {
            let batch = feed.next().await?;
            let read = batch.next - 1;
            // A country takes milliseconds to decode: not on an async thread.
            let decoded = blocking(move || decode(&batch)).await;
            {
                let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
                for (offset, event) in decoded {
                    let name = event.name();
                    if !view.apply(offset, event) {
                        tracing::warn!(
                            offset,
                            record = name,
                            "a record of another topic in the registry is skipped"
                        );
                    }
                }
            }
            self.read.send_replace(read);
        }
    }

    pub(crate) fn set_caught_up(&self) {
        self.caught_up.send_if_modified(|is| !std::mem::replace(is, true));
    }
}

/// The records that can be read; the others are skipped by everyone alike.
fn decode(batch: &Batch) -> Vec<(i64, Event)> {
    let mut decoded = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        match codec::decode(record.value.as_deref().unwrap_or_default()) {
            Ok(event) => decoded.push((record.offset, event)),
            Err(error) => {
                tracing::warn!(
                    offset = record.offset,
                    code = error.code(),
                    "a record of the registry is skipped"
                );
            }
        }
    }
    decoded
}
