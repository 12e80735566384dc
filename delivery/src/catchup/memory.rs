//! The read models in memory, for tests: what a projector would have written, and away when told to be.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use waypost_runtime::{
    broker::{Boxed, Incoming},
    intake::{Admitted, Hole, Intake},
};
use waypost_schemas::{
    cause::SeqMap,
    event::{AckKind, Event},
    id::{DeviceName, UserId},
    topic::{Topic, TopicPartition},
};

use super::{Error, Mailbox, Newest, Page, Projected, Reached, Store, Stored};

/// Read models in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Models>);

#[derive(Debug, Default)]
struct Models {
    away: bool,
    cluster: Option<String>,
    rows: BTreeMap<TopicPartition, (i64, SeqMap)>,
    entries: BTreeMap<UserId, Vec<Stored>>,
    cursors: BTreeMap<(UserId, DeviceName), i64>,
}

impl Models {
    fn next(&self, topic: Topic, partition: i32) -> i64 {
        self.rows.get(&TopicPartition::new(topic, partition)).map_or(0, |(next, _)| *next)
    }

    fn of(&self, user: &UserId) -> &[Stored] {
        self.entries.get(user).map_or(&[], Vec::as_slice)
    }
}

impl Memory {
    /// Makes the read models go away, or come back.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Applies the records of a partition that were not applied before, made by a cluster of this id.
    pub fn project(
        &self,
        cluster: &str,
        partition: TopicPartition,
        records: &[Incoming],
    ) -> Result<(), Hole> {
        let mut models = self.lock();
        models.cluster = Some(cluster.to_owned());
        let (mut next, seqs) = models.rows.get(&partition).cloned().unwrap_or_default();
        let mut intake = Intake::new(partition, seqs);
        for record in records.iter().filter(|record| record.offset >= next).collect::<Vec<_>>() {
            if let Admitted::Event { event, cause } = intake.admit(record)? {
                models.apply(record, event, cause.map(|cause| cause.to_string()));
            }
            next = record.offset + 1;
        }
        models.rows.insert(partition, (next, intake.seqs().clone()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Models> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T: Send + 'static>(&self, answer: impl FnOnce(&Models) -> T) -> Boxed<'_, Result<T, Error>> {
        let models = self.lock();
        let answer = if models.away { Err(Error::Away) } else { Ok(answer(&models)) };
        Box::pin(std::future::ready(answer))
    }
}

impl Models {
    fn apply(&mut self, record: &Incoming, event: Event, cause: Option<String>) {
        match event {
            Event::EntryAdded(added) => {
                let (at, value) = (crate::entry::at(record), record.value.clone().unwrap_or_default());
                let stored = Stored { offset: record.offset, cause: cause.unwrap_or_default(), at, value };
                self.entries.entry(added.user).or_default().push(stored);
            }
            Event::EntriesAcknowledged(ack) if ack.kind != AckKind::Read => {
                let upto = self.cursors.entry((ack.user, ack.device)).or_insert(ack.upto);
                *upto = ack.upto.max(*upto);
            }
            _ => {}
        }
    }
}

impl Store for Memory {
    fn projected(&self, partition: i32) -> Boxed<'_, Result<Projected, Error>> {
        self.ask(|models| {
            let inboxes = models.rows.get(&TopicPartition::new(Topic::Inboxes, partition)).cloned();
            let acks_next = models.next(Topic::Acks, partition);
            let cluster = inboxes.as_ref().and(models.cluster.clone());
            let (inbox_next, seqs) = inboxes.unwrap_or_default();
            Projected { cluster, inbox_next, seqs, acks_next }
        })
    }

    fn page<'a>(
        &'a self,
        of: Mailbox<'a>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Boxed<'a, Result<Page, Error>> {
        self.ask(|models| {
            let mut page = Page { entries: Vec::new(), through: after };
            let mut bytes = 0;
            for entry in models.of(of.user).iter().filter(|entry| entry.offset > after) {
                if page.entries.len() == entries_max || bytes >= bytes_max {
                    return page;
                }
                (bytes, page.through) = (bytes + entry.value.len(), entry.offset);
                page.entries.push(entry.clone());
            }
            page.through = after.max(models.next(Topic::Inboxes, of.partition) - 1);
            page
        })
    }

    fn newest<'a>(&'a self, of: Mailbox<'a>, entries_max: usize) -> Boxed<'a, Result<Newest, Error>> {
        self.ask(|models| {
            let entries = models.of(of.user);
            let newest = &entries[entries.len().saturating_sub(entries_max)..];
            Newest {
                offsets: newest.iter().map(|entry| entry.offset).collect(),
                next: models.next(Topic::Inboxes, of.partition),
            }
        })
    }

    fn reached<'a>(&'a self, of: Mailbox<'a>, device: &'a DeviceName) -> Boxed<'a, Result<Reached, Error>> {
        self.ask(|models| Reached {
            upto: models.cursors.get(&(of.user.clone(), device.clone())).copied(),
            next: models.next(Topic::Acks, of.partition),
        })
    }
}
