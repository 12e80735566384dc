//! The read models as delivery asks them, through the gate of the node that asks.

use waypost_delivery::catchup::{self, Error, Mailbox, Newest, Page, Projected, Store};
use waypost_runtime::broker::Boxed;
use waypost_schemas::{
    cause::SeqMap,
    id::DeviceName,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::{
    bug::Bug,
    gate::Gate,
    models::{Stored, Tables},
};

/// The tables as one node reaches them.
pub(crate) struct Reached {
    pub(crate) tables: Tables,
    pub(crate) gate: Gate,
    pub(crate) bug: Option<Bug>,
}

impl Reached {
    async fn ask<T>(&self, answer: impl FnOnce(&Stored) -> T + Send) -> Result<T, Error> {
        self.gate.pass().await;
        let answer = {
            let stored = self.tables.lock();
            if stored.away {
                return Err(Error::Away);
            }
            answer(&stored)
        };
        self.gate.pass().await;
        Ok(answer)
    }
}

impl Stored {
    fn next(&self, topic: Topic, partition: i32) -> i64 {
        self.rows.get(&TopicPartition::new(topic, partition)).map_or(0, |row| row.next)
    }

    /// The entries of a user after an offset.
    fn after(&self, of: Mailbox<'_>, after: i64) -> impl DoubleEndedIterator<Item = catchup::Stored> {
        let range = self.entries.range((of.partition, after.saturating_add(1))..=(of.partition, i64::MAX));
        range.filter(move |(_, kept)| kept.user == *of.user).map(|((_, offset), kept)| catchup::Stored {
            offset: *offset,
            cause: kept.cause.clone(),
            at: Micros(kept.at_us),
            value: kept.value.clone(),
        })
    }
}

impl Store for Reached {
    fn projected(&self, partition: i32) -> Boxed<'_, Result<Projected, Error>> {
        Box::pin(self.ask(move |stored| {
            let row = stored.rows.get(&TopicPartition::new(Topic::Inboxes, partition));
            let seqs = row.map(|row| row.seqs.clone()).filter(|_| self.bug != Some(Bug::TailWithoutNumbers));
            Projected {
                cluster: row.map(|row| row.cluster.clone()),
                inbox_next: row.map_or(0, |row| row.next),
                seqs: seqs.unwrap_or_else(SeqMap::default),
                acks_next: stored.next(Topic::Acks, partition),
            }
        }))
    }

    fn page<'a>(
        &'a self,
        of: Mailbox<'a>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Boxed<'a, Result<Page, Error>> {
        let from = if self.bug == Some(Bug::PageTooLate) { after + 1 } else { after };
        Box::pin(self.ask(move |stored| {
            let mut page = Page { entries: Vec::new(), through: after };
            let mut bytes = 0;
            for entry in stored.after(of, from) {
                if page.entries.len() == entries_max || bytes >= bytes_max {
                    return page;
                }
                (bytes, page.through) = (bytes + entry.value.len(), entry.offset);
                page.entries.push(entry);
            }
            page.through = after.max(stored.next(Topic::Inboxes, of.partition) - 1);
            page
        }))
    }

    fn newest<'a>(&'a self, of: Mailbox<'a>, entries_max: usize) -> Boxed<'a, Result<Newest, Error>> {
        Box::pin(self.ask(move |stored| {
            let mut offsets: Vec<i64> =
                stored.after(of, -1).rev().take(entries_max).map(|entry| entry.offset).collect();
            offsets.reverse();
            Newest { offsets, next: stored.next(Topic::Inboxes, of.partition) }
        }))
    }

    fn reached<'a>(
        &'a self,
        of: Mailbox<'a>,
        device: &'a DeviceName,
    ) -> Boxed<'a, Result<catchup::Reached, Error>> {
        Box::pin(self.ask(move |stored| {
            let upto = stored.cursors.get(&(of.user.clone(), device.clone())).copied();
            catchup::Reached {
                upto: match self.bug {
                    Some(Bug::CursorForgotten) => None,
                    Some(Bug::CursorTooFar) => upto.map(|upto| upto + 1),
                    _ => upto,
                },
                next: stored.next(Topic::Acks, of.partition),
            }
        }))
    }
}
