//! Bugs that a run can plant in what a process stands on, to prove that the checks see what they should.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use waypost_processor::{
    machine::{Chunk, Effects, Input, Machine, Unreadable},
    registry::Change,
    snapshots::Manifest,
    spatial::SpatialMachine,
};
use waypost_runtime::{
    broker::{Delivery, Outgoing},
    intake::Unfit,
};
use waypost_schemas::{
    cause::{Position, SeqMap},
    topic::{Topic, TopicPartition},
};

use crate::broker::Broker;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An input offset is committed as soon as its record is handed out, before its effects are durable.
    CommitEarly,
    /// A snapshot keeps neither what was taken nor what was given.
    SnapshotWithoutNumbers,
    /// A snapshot claims to cover more than it does.
    SnapshotAhead,
    /// A batch that was lost is reported as written.
    LostReportedWritten,
    /// A machine looks at what stands in no snapshot: how much it has folded since its start.
    EffectByMemory,
}

/// Every planted bug.
pub(crate) const BUGS: [Bug; 5] = [
    Bug::CommitEarly,
    Bug::SnapshotWithoutNumbers,
    Bug::SnapshotAhead,
    Bug::LostReportedWritten,
    Bug::EffectByMemory,
];

impl Bug {
    /// Spoils what is committed.
    pub(crate) fn committed(
        self,
        broker: &Broker,
        mut offsets: BTreeMap<TopicPartition, i64>,
    ) -> BTreeMap<TopicPartition, i64> {
        if self == Self::CommitEarly {
            let handed = broker.handed.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, offset) in &mut offsets {
                *offset = handed.get(partition).copied().unwrap_or(0).max(*offset);
            }
        }
        offsets
    }

    /// Spoils a snapshot.
    pub(crate) fn written(self, manifest: &mut Manifest) {
        if self == Self::SnapshotWithoutNumbers {
            (manifest.taken, manifest.given) = (SeqMap::default(), BTreeMap::new());
        }
        if self == Self::SnapshotAhead {
            manifest.next += 1;
        }
    }

    /// Whether this send is lost.
    pub(crate) fn loses(self, broker: &Broker, records: &[Outgoing]) -> bool {
        let derived = records.iter().any(|r| matches!(r.to.topic, Topic::Matches | Topic::Inboxes));
        self == Self::LostReportedWritten && derived && broker.gate.once_in(10)
    }

    /// What a lost send is answered.
    pub(crate) fn lost(records: Vec<Outgoing>) -> Delivery {
        let position = |r: Outgoing| Position { topic: r.to.topic, partition: r.to.partition, offset: 0 };
        Box::pin(std::future::ready(Ok(records.into_iter().map(position).collect())))
    }
}

/// The spatial machine with [`Bug::EffectByMemory`].
pub(crate) struct Forgetful {
    inner: SpatialMachine,
    folded: u64,
}

impl Machine for Forgetful {
    const NAME: &'static str = SpatialMachine::NAME;
    const DRIVES: Topic = SpatialMachine::DRIVES;
    const LOOKS_AT_REGISTRY: bool = SpatialMachine::LOOKS_AT_REGISTRY;
    const FORMAT: u16 = SpatialMachine::FORMAT;

    fn new() -> Self {
        Self { inner: SpatialMachine::new(), folded: 0 }
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.inner.look(change);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        self.inner.apply(input, effects)?;
        self.folded += 1;
        if self.folded.is_multiple_of(4) {
            effects.drain().for_each(drop);
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.inner.changed_chunks()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self { inner: SpatialMachine::restore(chunks)?, folded: 0 })
    }
}
