//! What devices lack and no tail holds: the seam to the read models, whose rows the projector writes.
//!
//! Each answer is of one moment, and says how far the read models were at it.

pub mod memory;
mod postgres;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Semaphore;
use waypost_runtime::{
    broker::Boxed,
    health::{Health, Reporter},
    postgres as pg,
    telemetry::Chain,
    watch,
};
use waypost_schemas::{
    cause::SeqMap,
    id::{DeviceName, UserId},
    time::Micros,
};

pub use self::postgres::Postgres;

/// Why the read models do not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres failed or refused.
    #[error("the read models cannot be read")]
    Postgres(#[from] pg::Error),
    /// They are away.
    #[error("the read models are away")]
    Away,
    /// A row says what no projector writes.
    #[error("the read models hold a row that no projector writes: {what}")]
    Row {
        /// Which row.
        what: String,
    },
}

impl Error {
    /// Whether it passes by itself.
    pub fn passes(&self) -> bool {
        match self {
            Self::Postgres(error) => error.passes(),
            Self::Away => true,
            Self::Row { .. } => false,
        }
    }
}

/// A user's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The partition of `inboxes` in which it lies; that of the user's acknowledgements in `acks` has the same number.
    pub partition: i32,
}

/// How far a partition of `inboxes` and the like of `acks` were projected at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projected {
    /// The Kafka cluster that the read models were made from; nothing where nothing was made yet.
    pub cluster: Option<String>,
    /// The next offset of `inboxes` to be applied.
    pub inbox_next: i64,
    /// The numbers that were taken below it.
    pub seqs: SeqMap,
    /// The next offset of `acks` to be applied.
    pub acks_next: i64,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: i64,
    /// Its cause.
    pub cause: String,
    /// The append time of its cause.
    pub at: Micros,
    /// The record's value.
    pub value: Bytes,
}

/// Entries of an inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order.
    pub entries: Vec<Stored>,
    /// Up to where there are no others of this user.
    pub through: i64,
}

/// The newest entries of an inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// Their offsets, lowest first.
    pub offsets: Vec<i64>,
    /// The next offset of `inboxes` to be applied.
    pub next: i64,
}

/// Up to where a device has acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The highest offset of its starts and deliveries; nothing where there are none.
    pub upto: Option<i64>,
    /// The next offset of `acks` to be applied.
    pub next: i64,
}

/// The read models as delivery asks them.
pub trait Store: Send + Sync {
    /// How far a partition was projected; the log's beginning where it was not at all.
    fn projected(&self, partition: i32) -> Boxed<'_, Result<Projected, Error>>;

    /// The first entries after an offset: at most so many, and so many bytes but for a first one that is larger.
    fn page<'a>(
        &'a self,
        of: Mailbox<'a>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Boxed<'a, Result<Page, Error>>;

    /// The offsets of the newest entries, at most so many.
    fn newest<'a>(&'a self, of: Mailbox<'a>, entries_max: usize) -> Boxed<'a, Result<Newest, Error>>;

    /// Up to where a device has acknowledged.
    fn reached<'a>(&'a self, of: Mailbox<'a>, device: &'a DeviceName) -> Boxed<'a, Result<Reached, Error>>;
}

/// The read models, and whether they are away.
pub(crate) struct Catchup {
    store: Arc<dyn Store>,
    reporter: Reporter,
    away: watch::Sender<bool>,
    /// As many questions as may be under way: more wait here, and not where waiting for long is taken for an outage.
    questions: Semaphore,
}

/// How often read models that are away are asked whether they are back.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Catchup {
    pub(crate) fn new(store: Arc<dyn Store>, questions_max: usize, health: &Health) -> Self {
        let reporter = health.check("delivery", "the read models were not asked yet");
        Self { store, reporter, away: watch::Sender::new(true), questions: Semaphore::new(questions_max) }
    }

    /// Asks while they are away, so that it is known when they are back.
    pub(crate) async fn watch(&self) {
        let mut away = self.away.subscribe();
        loop {
            // The sender is held here.
            let _ = away.wait_for(|away| *away).await;
            if let Err(error) = self.projected(0).await {
                if !error.passes() {
                    return tracing::error!(error = %Chain(&error), "the read models refuse to be read");
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    pub(crate) async fn projected(&self, partition: i32) -> Result<Projected, Error> {
        let _question = self.questions.acquire().await;
        self.note(self.store.projected(partition).await)
    }

    pub(crate) async fn page(
        &self,
        of: Mailbox<'_>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        let _question = self.questions.acquire().await;
        self.note(self.store.page(of, after, entries_max, bytes_max).await)
    }

    pub(crate) async fn newest(&self, of: Mailbox<'_>, entries_max: usize) -> Result<Newest, Error> {
        let _question = self.questions.acquire().await;
        self.note(self.store.newest(of, entries_max).await)
    }

    pub(crate) async fn reached(&self, of: Mailbox<'_>, device: &DeviceName) -> Result<Reached, Error> {
        let _question = self.questions.acquire().await;
        self.note(self.store.reached(of, device).await)
    }

    fn note<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Ok(_) => {
                self.away.send_if_modified(std::mem::take);
                self.reporter.ready();
            }
            Err(error) if error.passes() => {
                if self.away.send_if_modified(|away| !std::mem::replace(away, true)) {
                    tracing::warn!(error = %Chain(error), "the read models are away: devices that were away wait");
                }
                self.reporter.not_ready("the read models are away: devices that were away wait");
            }
            Err(_) => self.reporter.not_ready("the read models refuse to be read"),
        }
        answer
    }
}
