//! The read models in memory, as Postgres keeps them, through the gate of the projector that writes them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use waypost_processor::projector::{Batch, Failure, Models, Row, Written};
use waypost_runtime::broker::Boxed;
use waypost_schemas::{
    id::{DeviceName, UserId},
    topic::TopicPartition,
};

use crate::{gate::Gate, met::Met};

/// The tables; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Tables(Arc<Mutex<Stored>>);

/// What stands in them.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) away: bool,
    /// How far each partition is.
    pub(crate) rows: BTreeMap<TopicPartition, Row>,
    /// The entries of inboxes, by partition and offset.
    pub(crate) entries: BTreeMap<(i32, i64), Kept>,
    /// Up to where each device has acknowledged.
    pub(crate) cursors: BTreeMap<(UserId, DeviceName), i64>,
}

/// An entry of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) user: UserId,
    pub(crate) cause: String,
    pub(crate) kind: &'static str,
    pub(crate) value: Bytes,
    pub(crate) append_us: i64,
    pub(crate) at_us: i64,
}

impl Tables {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    /// Moves the row behind a batch and writes its rows, where the row stands at its beginning.
    fn write(&mut self, partition: TopicPartition, batch: &Batch) -> Written {
        let row = self.rows.get_mut(&partition).filter(|row| row.next == batch.from());
        let Some(row) = row else { return Written::Fenced };
        *row = batch.row(&row.cluster);
        for entry in batch.entries() {
            let kept = Kept {
                user: entry.user.clone(),
                cause: entry.cause.to_owned(),
                kind: entry.kind,
                value: entry.value.clone(),
                append_us: entry.append_us,
                at_us: entry.at_us,
            };
            self.entries.entry((partition.partition, entry.offset)).or_insert(kept);
        }
        for (user, device, upto) in batch.cursors() {
            let cursor = self.cursors.entry((user.clone(), device.clone())).or_insert(upto);
            *cursor = upto.max(*cursor);
        }
        Written::Done
    }
}

/// The tables as one process reaches them.
pub(crate) struct Reached {
    pub(crate) tables: Tables,
    pub(crate) gate: Gate,
    pub(crate) met: Met,
}

impl Models for Reached {
    fn row<'a>(&'a self, partition: TopicPartition, cluster: &'a str) -> Boxed<'a, Result<Row, Failure>> {
        Box::pin(async move {
            self.gate.pass().await;
            let row = {
                let mut stored = self.tables.lock();
                if stored.away {
                    return Err(Failure::Away);
                }
                stored.rows.entry(partition).or_insert_with(|| Row::new(cluster)).clone()
            };
            self.gate.pass().await;
            Ok(row)
        })
    }

    fn write<'a>(
        &'a self,
        partition: TopicPartition,
        batch: &'a Batch,
    ) -> Boxed<'a, Result<Written, Failure>> {
        Box::pin(async move {
            self.gate.pass().await;
            let written = {
                let mut stored = self.tables.lock();
                if stored.away {
                    return Err(Failure::Away);
                }
                stored.write(partition, batch)
            };
            if written == Written::Fenced {
                self.met.one("projections fenced");
            }
            self.gate.pass().await;
            if self.gate.once_in(20) {
                self.met.one("answers of Postgres lost");
                return Err(Failure::Away);
            }
            Ok(written)
        })
    }
}
