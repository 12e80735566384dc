//! Users' inboxes, and what follows from their entries: the messages of conversations, and how far they were read.

use bytes::Bytes;
use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    event::{Entry, Event},
    id::UserId,
};

use super::{Record, messages, not_projected, receipts};
use crate::machine::Unfit;

const APPEND: &str = "INSERT INTO waypost.inbox_entries (user_id, partition, \"offset\", cause, kind, value, append_us, \
    at_us) SELECT u, $2, o, c, k, v, a, t \
    FROM UNNEST($1::text[], $3::int8[], $4::text[], $5::text[], $6::bytea[], $7::int8[], $8::int8[]) \
    AS r (u, o, c, k, v, a, t) ON CONFLICT DO NOTHING";

/// An entry of a user's inbox, as a read model keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxEntry<'a> {
    /// Whose inbox.
    pub user: &'a UserId,
    /// Its offset in its partition.
    pub offset: i64,
    /// The record's cause.
    pub cause: &'a str,
    /// `message`, `receipt`, `match` or `system`.
    pub kind: &'static str,
    /// The record's own bytes.
    pub value: &'a Bytes,
    /// The time of its append, in microseconds.
    pub append_us: i64,
    /// The time of its cause's append, in microseconds.
    pub at_us: i64,
}

/// Entries of one partition.
#[derive(Debug)]
pub(crate) struct Rows {
    partition: i32,
    user: Vec<UserId>,
    offset: Vec<i64>,
    cause: Vec<String>,
    kind: Vec<&'static str>,
    value: Vec<Bytes>,
    append_us: Vec<i64>,
    at_us: Vec<i64>,
    messages: messages::Rows,
    receipts: receipts::Rows,
}

impl Rows {
    pub(super) fn new(partition: i32) -> Self {
        Self {
            partition,
            user: Vec::new(),
            offset: Vec::new(),
            cause: Vec::new(),
            kind: Vec::new(),
            value: Vec::new(),
            append_us: Vec::new(),
            at_us: Vec::new(),
            messages: messages::Rows::default(),
            receipts: receipts::Rows::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.user.len()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        match (record.event, record.cause) {
            (Event::EntryAdded(added), Some(cause)) => {
                match &added.entry {
                    Entry::MessageArrived(arrived) => {
                        self.messages.add(&added.user, arrived, cause, record.at_us, &record.value);
                    }
                    Entry::ReceiptArrived(receipt) => self.receipts.add(receipt),
                    Entry::MatchArrived(_) | Entry::SystemNotice(_) => {}
                }
                self.kind.push(kind(&added.entry));
                self.user.push(added.user);
                self.offset.push(record.offset);
                self.cause.push(cause.to_string());
                self.value.push(record.value);
                self.append_us.push(record.append_us);
                self.at_us.push(record.at_us);
                Ok(())
            }
            (event, _) => Err(not_projected(&event)),
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = InboxEntry<'_>> {
        (0..self.user.len()).map(|i| InboxEntry {
            user: &self.user[i],
            offset: self.offset[i],
            cause: &self.cause[i],
            kind: self.kind[i],
            value: &self.value[i],
            append_us: self.append_us[i],
            at_us: self.at_us[i],
        })
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        if self.user.is_empty() {
            return Ok(());
        }
        let user: Vec<&str> = self.user.iter().map(UserId::as_str).collect();
        let value: Vec<&[u8]> = self.value.iter().map(|v| &v[..]).collect();
        let statement = tx.prepare_cached(APPEND).await?;
        tx.execute(
            &statement,
            &[
                &user,
                &self.partition,
                &self.offset,
                &self.cause,
                &self.kind,
                &value,
                &self.append_us,
                &self.at_us,
            ],
        )
        .await?;
        self.messages.write(tx).await?;
        self.receipts.write(tx).await
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::MessageArrived(_) => "message",
        Entry::ReceiptArrived(_) => "receipt",
        Entry::MatchArrived(_) => "match",
        Entry::SystemNotice(_) => "system",
    }
}
