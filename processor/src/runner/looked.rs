//! The topic that a machine looks at beside its driving one: read by a feed of its own, folded as it comes, and never
//! behind what a driving record asks for when that is folded.
//!
//! It has an offset, a map of numbers and a checkpoint of its own, which stand in the snapshot beside those of the
//! driving topic: both are of one cut. Its effects are none. What is committed of it says how far it was folded, so that
//! its lag is seen and no record below is skipped any more; where its fold goes on is the snapshot's to say.

use std::{collections::BTreeSet, time::Duration};

use waypost_runtime::{
    broker::{self, Batch, Feed, Incoming},
    intake::{Admitted, Intake},
};
use waypost_schemas::{cause::SeqMap, topic::TopicPartition};

use super::{
    Error, Refusal, Shared,
    admit::{admit, guarded},
    restore,
    task::failed,
};
use crate::{
    checkpoint::Checkpoint,
    machine::Machine,
    snapshots::{self, Manifest},
};

/// How soon what is asked for comes, unless the log lost its end: what is written is read within `fetch.wait.max.ms`. Only
/// then is the broker asked, for whom a question costs as much as a batch.
const SOON: Duration = Duration::from_millis(250);

/// The last record that a fold covers.
pub(super) enum Last {
    None,
    Restored(Checkpoint),
    Read(Incoming),
}

impl Last {
    pub(super) fn restored(checkpoint: Option<Checkpoint>) -> Self {
        checkpoint.map_or(Self::None, Self::Restored)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        match self {
            Self::None => None,
            Self::Restored(checkpoint) => Some(checkpoint.clone()),
            Self::Read(record) => Some(Checkpoint::of(record)),
        }
    }
}

/// Where the fold of a partition begins that is looked at.
pub(super) struct Looking {
    pub(super) source: TopicPartition,
    from: i64,
    restored: Option<snapshots::Looked>,
}

impl Looking {
    /// Decides where it begins, or why it must not; `None` where the machine looks at no topic.
    pub(super) async fn judge<M: Machine>(
        shared: &Shared,
        partition: i32,
        manifest: Option<&Manifest>,
    ) -> Result<Option<Self>, Error> {
        let Some(topic) = M::LOOKS_AT else { return Ok(None) };
        let source = TopicPartition::new(topic, partition);
        let restored = manifest.and_then(|manifest| manifest.looked.clone());
        let from = restore::judge_looked(shared.bounds(source).await?, restored.as_ref());
        let from = from.map_err(|refusal| refused::<M>(source, refusal))?;
        Ok(Some(Self { source, from, restored }))
    }

    /// Opens the partition; gives what came with its checkpoint, which is to be folded first.
    pub(super) async fn open<M: Machine>(self, shared: &Shared) -> Result<(Looked, Batch), Error> {
        let Self { source, from, restored } = self;
        let mut feed = shared.reader.open(source, from).map_err(failed::<M>)?;
        let checkpoint = restored.as_ref().and_then(|looked| looked.checkpoint.clone());
        let batch = match &checkpoint {
            Some(checkpoint) => {
                let verified = restore::verify(&mut *feed, checkpoint).await.map_err(failed::<M>)?;
                verified.map_err(|refusal| refused::<M>(source, refusal))?
            }
            None => Batch { records: Vec::new(), next: from, at_end: false },
        };
        let (next, taken) = restored.map_or((0, SeqMap::default()), |looked| (looked.next, looked.taken));
        let (intake, last) = (Intake::new(source, taken), Last::restored(checkpoint));
        let skipped = BTreeSet::new();
        Ok((Looked { source, feed, next, intake, skipped, last, end: next }, batch))
    }
}

/// A partition that is looked at.
pub(super) struct Looked {
    source: TopicPartition,
    feed: Box<dyn Feed>,
    /// The offset of the next record to fold.
    next: i64,
    intake: Intake,
    /// The offsets of the records that an operator took out of what is folded.
    skipped: BTreeSet<i64>,
    last: Last,
    /// An end of the partition that the broker has told: what lies below it was there.
    end: i64,
}

/// The next batch of what is looked at; for ever where nothing is. Cancel-safe.
pub(super) async fn next(looked: &mut Option<Looked>) -> Result<Batch, broker::Error> {
    match looked {
        Some(looked) => looked.feed.next().await,
        None => std::future::pending().await,
    }
}

impl Looked {
    pub(super) fn source(&self) -> TopicPartition {
        self.source
    }

    /// Says which records are taken out of what is folded.
    pub(super) fn skip(&mut self, offsets: BTreeSet<i64>) {
        self.skipped = offsets;
    }

    /// The offset of the next record to fold.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Whether it is folded up to an offset, inclusive.
    pub(super) fn has(&self, offset: i64) -> bool {
        offset < self.next
    }

    /// Folds until an offset, inclusive, for a driving record that asks for it. Loud where the partition ends before.
    /// Dropped halfway, the task must not fold on.
    pub(super) async fn reach<M: Machine>(
        &mut self,
        shared: &Shared,
        machine: &mut M,
        asking: (TopicPartition, i64),
        asked: i64,
    ) -> Result<(), Error> {
        while !self.has(asked) {
            match tokio::time::timeout(SOON, self.feed.next()).await {
                Ok(batch) => self.fold(shared, machine, batch.map_err(failed::<M>)?).await?,
                // Whoever wrote the record had seen the offset, so an end below it is an end that was lost.
                Err(_) if asked >= self.end => {
                    self.end = shared.bounds(self.source).await?.high;
                    let ((partition, offset), looked, end) = (asking, self.source, self.end);
                    if asked >= end {
                        return Err(Error::BeyondEnd {
                            machine: M::NAME,
                            partition,
                            offset,
                            looked,
                            asked,
                            end,
                        });
                    }
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Folds a batch. What does not belong on the topic is another's to bury. Dropped halfway, the task must not fold on.
    pub(super) async fn fold<M: Machine>(
        &mut self,
        shared: &Shared,
        machine: &mut M,
        mut batch: Batch,
    ) -> Result<(), Error> {
        let (source, from) = (self.source, self.next);
        for record in batch.records.iter().filter(|record| record.offset >= from) {
            let admitted = admit::<M>(shared, source, &mut self.intake, &self.skipped, record).await?;
            if let Some(Admitted::Event { event, .. }) = admitted {
                guarded::<M, _>(source, record, || machine.look_at(record.offset, &event))?;
            }
        }
        self.next = self.next.max(batch.next);
        if let Some(last) = batch.records.pop() {
            self.last = Last::Read(last);
        }
        Ok(())
    }

    /// What a snapshot's manifest says of it.
    pub(super) fn manifest(&self) -> snapshots::Looked {
        snapshots::Looked {
            topic: self.source.topic.name().to_owned(),
            next: self.next,
            taken: self.intake.seqs().clone(),
            checkpoint: self.last.checkpoint(),
        }
    }
}

fn refused<M: Machine>(partition: TopicPartition, source: Refusal) -> Error {
    Error::Refused { machine: M::NAME, partition, source }
}
