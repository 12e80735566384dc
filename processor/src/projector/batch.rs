//! What a run of one partition's records writes in one transaction.

use waypost_runtime::{
    broker::{Incoming, Outgoing},
    facts::{self, Facts},
    intake::{Admitted, Hole, Intake},
};
use waypost_schemas::{
    cause::SeqMap,
    header,
    id::{DeviceName, UserId},
    time::Micros,
    topic::TopicPartition,
};

use super::{
    store::Row,
    tables::{InboxEntry, Record, Rows},
};
use crate::{checkpoint::Checkpoint, dead_letter};

/// The projector's name, where topics say who reads them and who makes their dead letters.
pub(super) const NAME: &str = "projector";

/// How many bytes of records a batch holds before it waits for no more: rows hold them until they are written, and
/// several batches are under way at once.
const BYTES_MAX: usize = 16 << 20;

/// Records of one partition, folded into rows.
#[derive(Debug)]
pub struct Batch {
    /// The offset that the partition's row must stand at.
    pub(super) from: i64,
    /// The offset that it moves to.
    pub(super) next: i64,
    pub(super) rows: Rows,
    pub(super) seqs: SeqMap,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Records that do not belong on the topic, where the projector is who says so.
    pub(super) letters: Vec<Outgoing>,
    /// The append time of its first record.
    pub(super) oldest: Option<Micros>,
    /// Where the log misses records; the batch ends before it.
    pub(super) hole: Option<Hole>,
}

impl Batch {
    /// The offset that the partition's row must stand at.
    pub fn from(&self) -> i64 {
        self.from
    }

    /// Where the partition's row moves to.
    pub fn row(&self, cluster: &str) -> Row {
        let (seqs, checkpoint) = (self.seqs.clone(), self.checkpoint.clone());
        Row { cluster: cluster.to_owned(), next: self.next, seqs, checkpoint }
    }

    /// The entries of users' inboxes that it brings, in log order.
    pub fn entries(&self) -> impl Iterator<Item = InboxEntry<'_>> {
        self.rows.entries()
    }

    /// How far devices have acknowledged their users' inboxes by it: each one's highest offset; what stands already
    /// may be higher.
    pub fn cursors(&self) -> impl Iterator<Item = (&UserId, &DeviceName, i64)> {
        self.rows.cursors()
    }
}

/// The append time of a record's cause, or of the record itself where it has none.
fn caused_at(record: &Incoming) -> Micros {
    let time = record.header(header::TIME).and_then(|value| std::str::from_utf8(value).ok());
    time.and_then(|text| Micros::parse(text).ok()).unwrap_or(record.append)
}

/// Folds records into a batch.
#[derive(Debug)]
pub(super) struct Folding<'a> {
    partition: TopicPartition,
    facts: &'a Facts,
    intake: Intake,
    last: Option<Incoming>,
    bytes: usize,
    batch: Batch,
}

impl<'a> Folding<'a> {
    /// Begins where a row stands, and passes the holes that the facts accept; `None` for a topic that is not projected.
    pub(super) fn new(partition: TopicPartition, row: &Row, facts: &'a Facts) -> Option<Self> {
        let batch = Batch {
            from: row.next,
            next: row.next,
            rows: Rows::of(partition)?,
            seqs: SeqMap::default(),
            checkpoint: row.checkpoint.clone(),
            letters: Vec::new(),
            oldest: None,
            hole: None,
        };
        Some(Self {
            partition,
            facts,
            intake: Intake::new(partition, row.seqs.clone()),
            last: None,
            bytes: 0,
            batch,
        })
    }

    /// Folds the next records, up to a hole; what lies below the batch is passed over.
    pub(super) fn fold(&mut self, records: Vec<Incoming>, next: i64) {
        for record in records {
            if record.offset < self.batch.next || self.batch.hole.is_some() {
                continue;
            }
            match self.admit(&record) {
                Ok(admitted) => self.take(record, admitted),
                Err(hole) => {
                    self.batch.next = record.offset;
                    self.batch.hole = Some(hole);
                    return;
                }
            }
        }
        if self.batch.hole.is_none() {
            self.batch.next = self.batch.next.max(next);
        }
    }

    fn admit(&mut self, record: &Incoming) -> Result<Admitted, Hole> {
        match self.intake.admit(record) {
            Err(hole) if self.facts.accepts(&hole) => {
                facts::warn_of_hole(&hole);
                self.intake.pass(&hole);
                self.intake.admit(record)
            }
            admitted => admitted,
        }
    }

    fn take(&mut self, record: Incoming, admitted: Admitted) {
        let unfit = match admitted {
            Admitted::Copy => {
                metrics::counter!("waypost_projector_copies_total").increment(1);
                None
            }
            Admitted::Unfit(unfit) => Some(unfit),
            Admitted::Event { event, cause } => {
                let value = record.value.clone().unwrap_or_default();
                let (offset, append_us, at_us) = (record.offset, record.append.0, caused_at(&record).0);
                self.batch.rows.add(Record { offset, append_us, at_us, event, cause, value }).err()
            }
        };
        if let Some(unfit) = unfit.filter(|_| self.partition.topic.spec().dead_letters_by == Some(NAME)) {
            let (partition, offset) = (self.partition, record.offset);
            tracing::warn!(%partition, offset, code = unfit.code, "a record does not belong here: a dead letter");
            self.batch.letters.push(dead_letter::of(NAME, partition, &record, &unfit));
        }
        self.bytes += record.bytes();
        self.batch.oldest.get_or_insert(record.append);
        self.batch.next = record.offset + 1;
        self.last = Some(record);
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.next == self.batch.from && self.batch.hole.is_none()
    }

    /// Whether the batch should wait for no more.
    pub(super) fn is_full(&self, rows_max: usize) -> bool {
        self.batch.rows.len() >= rows_max || self.bytes >= BYTES_MAX || self.batch.hole.is_some()
    }

    /// The append time of the first record.
    pub(super) fn oldest(&self) -> Option<Micros> {
        self.batch.oldest
    }

    /// The batch as it is to be written.
    pub(super) fn finish(mut self) -> Batch {
        self.batch.seqs = self.intake.seqs().clone();
        if let Some(last) = &self.last {
            self.batch.checkpoint = Some(Checkpoint::of(last));
        }
        self.batch
    }
}
