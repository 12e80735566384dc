//! Bugs that a run can plant in what a process stands on, to prove that the checks see what they should.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use waypost_processor::{
    conversations::ConversationsMachine,
    inboxes::InboxesMachine,
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
    codec,
    event::{AckKind, EntriesAcknowledged, Event},
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
    /// A machine forgets which client ids it has taken.
    IdsForgotten,
    /// A machine makes each receipt twice.
    ReceiptTwice,
    /// An acknowledgement covers whatever of the inbox is folded.
    AckSeesAhead,
    /// That a device begins counts as its having everything up to there.
    StartIsDelivered,
    /// A tail begins where the read models stand, without their numbers.
    TailWithoutNumbers,
    /// The read models' answer to what comes after an offset leaves out the next one.
    PageTooLate,
    /// The read models' answer to where a device stands is that it never was there.
    CursorForgotten,
    /// The read models' answer to where a device stands is one further.
    CursorTooFar,
}

/// Every planted bug.
pub(crate) const BUGS: [Bug; 13] = [
    Bug::CommitEarly,
    Bug::SnapshotWithoutNumbers,
    Bug::SnapshotAhead,
    Bug::LostReportedWritten,
    Bug::EffectByMemory,
    Bug::IdsForgotten,
    Bug::ReceiptTwice,
    Bug::AckSeesAhead,
    Bug::StartIsDelivered,
    Bug::TailWithoutNumbers,
    Bug::PageTooLate,
    Bug::CursorForgotten,
    Bug::CursorTooFar,
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

    /// Spoils what is appended.
    pub(crate) fn appended(self, mut records: Vec<Outgoing>) -> Vec<Outgoing> {
        let acks = records.iter_mut().filter(|record| record.to.topic == Topic::Acks);
        for record in acks.filter(|_| self == Self::StartIsDelivered) {
            let decoded = codec::decode(record.value.as_deref().unwrap_or_default());
            if let Ok(Event::EntriesAcknowledged(mut ack)) = decoded
                && ack.upto >= 0
            {
                ack.kind = if ack.kind == AckKind::Start { AckKind::Delivered } else { ack.kind };
                record.value = Some(codec::encode(&ack.into()).into());
            }
        }
        records
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

/// The conversations machine with [`Bug::IdsForgotten`].
pub(crate) struct Amnesiac(ConversationsMachine);

impl Machine for Amnesiac {
    const NAME: &'static str = ConversationsMachine::NAME;
    const DRIVES: Topic = ConversationsMachine::DRIVES;
    const LOOKS_AT_REGISTRY: bool = ConversationsMachine::LOOKS_AT_REGISTRY;
    const FORMAT: u16 = ConversationsMachine::FORMAT;

    fn new() -> Self {
        Self(ConversationsMachine::new())
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.0.look(change);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        ConversationsMachine::new().apply(input, effects)
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.0.changed_chunks()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self(ConversationsMachine::restore(chunks)?))
    }
}

/// The inboxes machine with [`Bug::ReceiptTwice`].
pub(crate) struct Stutterer(InboxesMachine);

impl Machine for Stutterer {
    const NAME: &'static str = InboxesMachine::NAME;
    const DRIVES: Topic = InboxesMachine::DRIVES;
    const LOOKS_AT_REGISTRY: bool = InboxesMachine::LOOKS_AT_REGISTRY;
    const LOOKS_AT: Option<Topic> = InboxesMachine::LOOKS_AT;
    const FORMAT: u16 = InboxesMachine::FORMAT;

    fn new() -> Self {
        Self(InboxesMachine::new())
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.0.look(change);
    }

    fn asks(event: &Event) -> Option<i64> {
        InboxesMachine::asks(event)
    }

    fn look_at(&mut self, offset: i64, event: &Event) {
        self.0.look_at(offset, event);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        self.0.apply(input, effects)?;
        let receipts: Vec<_> = effects.drain().collect();
        for receipt in receipts.into_iter().flat_map(|receipt| [receipt.clone(), receipt]) {
            effects.emit(receipt.topic, receipt.key, receipt.event);
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.0.changed_chunks()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self(InboxesMachine::restore(chunks)?))
    }
}

/// The inboxes machine with [`Bug::AckSeesAhead`].
pub(crate) struct Hasty {
    inner: InboxesMachine,
    last: i64,
}

impl Machine for Hasty {
    const NAME: &'static str = InboxesMachine::NAME;
    const DRIVES: Topic = InboxesMachine::DRIVES;
    const LOOKS_AT_REGISTRY: bool = InboxesMachine::LOOKS_AT_REGISTRY;
    const LOOKS_AT: Option<Topic> = InboxesMachine::LOOKS_AT;
    const FORMAT: u16 = InboxesMachine::FORMAT;

    fn new() -> Self {
        Self { inner: InboxesMachine::new(), last: -1 }
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.inner.look(change);
    }

    fn asks(event: &Event) -> Option<i64> {
        InboxesMachine::asks(event)
    }

    fn look_at(&mut self, offset: i64, event: &Event) {
        self.last = offset;
        self.inner.look_at(offset, event);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let Event::EntriesAcknowledged(ack) = input.event else { return self.inner.apply(input, effects) };
        let upto = if ack.kind == AckKind::Delivered { self.last.max(ack.upto) } else { ack.upto };
        let event = EntriesAcknowledged { upto, ..ack.clone() }.into();
        self.inner.apply(Input { event: &event, ..input }, effects)
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.inner.changed_chunks()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self { inner: InboxesMachine::restore(chunks)?, last: -1 })
    }
}
