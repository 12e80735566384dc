//! The read models, one file each: which rows a topic's records make, and the statements that write them.

mod cursors;
mod inboxes;
mod matches;
mod messages;
mod positions;
mod receipts;
mod registry;

use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    cause::Cause,
    event::Event,
    id::{DeviceName, UserId},
    topic::{Topic, TopicPartition},
};

pub use self::inboxes::InboxEntry;
use crate::machine::Unfit;

/// A record that was taken, in its partition.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) append_us: i64,
    /// The append time of its cause; where it has none, of what its maker names, or its own.
    pub(super) at_us: i64,
    pub(super) event: Event,
    pub(super) cause: Option<Cause>,
    /// The record's own bytes.
    pub(super) value: bytes::Bytes,
}

/// The rows that a batch of one partition makes.
#[derive(Debug)]
pub(super) enum Rows {
    Positions(positions::Rows),
    Registry(registry::Rows),
    Matches(matches::Rows),
    Inboxes(inboxes::Rows),
    Acks(cursors::Rows),
}

impl Rows {
    /// No rows yet; `None` for a topic that is not projected.
    pub(super) fn of(partition: TopicPartition) -> Option<Self> {
        match partition.topic {
            Topic::Positions => Some(Self::Positions(positions::Rows::new(partition.partition))),
            Topic::Registry => Some(Self::Registry(registry::Rows::default())),
            Topic::Matches => Some(Self::Matches(matches::Rows::new(partition.partition))),
            Topic::Inboxes => Some(Self::Inboxes(inboxes::Rows::new(partition.partition))),
            Topic::Acks => Some(Self::Acks(cursors::Rows::new(partition.partition))),
            Topic::Messages | Topic::DeadLetters => None,
        }
    }

    /// Adds what a record says. A record that the machine owning its topic does not take makes no row.
    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        match self {
            Self::Positions(rows) => rows.add(record),
            Self::Registry(rows) => rows.add(record),
            Self::Matches(rows) => rows.add(record),
            Self::Inboxes(rows) => rows.add(record),
            Self::Acks(rows) => rows.add(record),
        }
    }

    /// Writes all rows; rows that stand there already from an earlier projection of the same records stay.
    pub(super) async fn write(
        &self,
        tx: &Transaction<'_>,
        trust: Trust,
    ) -> Result<(), tokio_postgres::Error> {
        match self {
            Self::Positions(rows) => rows.write(tx, trust).await,
            Self::Registry(rows) => rows.write(tx).await,
            Self::Matches(rows) => rows.write(tx).await,
            Self::Inboxes(rows) => rows.write(tx).await,
            Self::Acks(rows) => rows.write(tx).await,
        }
    }

    /// The entries of inboxes among them.
    pub(super) fn entries(&self) -> impl Iterator<Item = InboxEntry<'_>> {
        match self {
            Self::Inboxes(rows) => Some(rows.entries()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The cursors among them.
    pub(super) fn cursors(&self) -> impl Iterator<Item = (&UserId, &DeviceName, i64)> {
        match self {
            Self::Acks(rows) => Some(rows.cursors()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Positions(rows) => rows.len(),
            Self::Registry(rows) => rows.len(),
            Self::Matches(rows) => rows.len(),
            Self::Inboxes(rows) => rows.len(),
            Self::Acks(rows) => rows.len(),
        }
    }
}

/// Whether a fix newer than its device's newest may be written without looking whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It may: so it is, but for devices with fixes ahead of their time or in two partitions.
    Newest,
    /// It may not: it turned out to be there.
    Nothing,
}

/// A record whose type was checked against its topic, yet is not of it: the catalogue and this file differ.
fn not_projected(event: &Event) -> Unfit {
    Unfit { code: "wrong_type", detail: format!("a {} makes no row here", event.name()) }
}
