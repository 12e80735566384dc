//! One partition's fold: the machine, and what a reader of its driving topic and a writer of its effects keep.
//!
//! Pure: the same records from the same state give the same effects, byte for byte, numbers included.

use std::{collections::BTreeMap, sync::Arc};

use waypost_runtime::{
    broker::{Incoming, Outgoing},
    intake::{Admitted, Intake},
};
use waypost_schemas::{
    cause::{Cause, Position, Seq, SeqMap},
    codec,
    event::Event,
    header, partition,
    topic::{Topic, TopicPartition},
};

use crate::{
    checkpoint::Checkpoint,
    dead_letter,
    machine::{Effect, Effects, Input, Machine, Unfit},
    registry::Change,
    snapshots::{Manifest, Owner},
};

/// The largest derived record, in bytes of its value: audiences are cut into numbered parts.
const EFFECT_BYTES_MAX: usize = 256 * 1024;

/// Whose snapshots a partition's are.
pub(super) fn owner<M: Machine>(partition: i32) -> Owner {
    Owner { machine: M::NAME, partition, format: M::FORMAT }
}

/// The fold of one partition.
pub(super) struct Fold<M> {
    pub(super) machine: M,
    pub(super) source: TopicPartition,
    /// How many partitions keyed topics have.
    keyed: i32,
    /// The offset of the next record to fold.
    pub(super) next: i64,
    /// The highest registry stamp so far; -1 where none.
    pub(super) view: i64,
    /// Up to where the machine has been given the registry.
    looked: i64,
    pub(super) intake: Intake,
    /// The last number given to each output partition.
    pub(super) given: BTreeMap<TopicPartition, u64>,
    effects: Effects,
}

impl<M: Machine> Fold<M> {
    /// The fold of a partition of which nothing has been read.
    pub(super) fn new(partition: i32, keyed: i32) -> Self {
        let source = TopicPartition::new(M::DRIVES, partition);
        Self {
            machine: M::new(),
            source,
            keyed,
            next: 0,
            view: -1,
            looked: -1,
            intake: Intake::new(source, SeqMap::default()),
            given: BTreeMap::new(),
            effects: Effects::default(),
        }
    }

    /// The fold as it was when a snapshot was taken. Its machine lacks the registry still.
    pub(super) fn restored(machine: M, manifest: Manifest, keyed: i32) -> Self {
        let new = Self::new(manifest.partition, keyed);
        let intake = Intake::new(new.source, manifest.taken);
        Self { machine, next: manifest.next, view: manifest.view, intake, given: manifest.given, ..new }
    }

    /// Everything of the fold that a snapshot's manifest says.
    pub(super) fn manifest(&self, cluster: String, checkpoint: Option<Checkpoint>) -> Manifest {
        let owner = owner::<M>(self.source.partition);
        let (taken, given) = (self.intake.seqs().clone(), self.given.clone());
        Manifest {
            next: self.next,
            view: self.view,
            taken,
            given,
            checkpoint,
            ..Manifest::new(owner, cluster)
        }
    }

    /// Goes on to a record that was looked at, and notes which registry it asks for; `None` where it is skipped.
    pub(super) fn begin(&mut self, record: &Incoming, admitted: Option<&Admitted>) {
        self.next = record.offset + 1;
        if let Some(Admitted::Event { event, .. }) = admitted {
            self.view = self.view.max(event.registry().unwrap_or(-1));
        }
    }

    /// Up to where the machine must be given the registry, and where that begins, if it lacks any of it.
    pub(super) fn lacks(&self) -> Option<(i64, i64)> {
        (M::LOOKS_AT_REGISTRY && self.looked < self.view).then_some((self.looked, self.view))
    }

    /// Gives the machine what it lacked.
    pub(super) fn look(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            self.machine.look(change);
        }
        self.looked = self.view;
    }

    /// Gives the machine the record that was admitted last, and puts what follows from it to `out`.
    pub(super) fn apply(&mut self, record: &Incoming, event: &Event, out: &mut Vec<Outgoing>) -> Outcome {
        let input =
            Input { position: self.position(record), append: record.append, event, registry: self.view };
        let mut effects = std::mem::take(&mut self.effects);
        let applied = self.machine.apply(input, &mut effects);
        let outcome = match applied {
            Ok(()) if effects.is_empty() => Outcome::Applied,
            Ok(()) => self.derive(record, &mut effects, out),
            Err(unfit) => self.bury(record, &unfit, out),
        };
        // What was emitted before an `Unfit` is nothing.
        effects.drain().for_each(drop);
        self.effects = effects;
        outcome
    }

    /// Makes a record a dead letter.
    pub(super) fn bury(&mut self, record: &Incoming, why: &Unfit, out: &mut Vec<Outgoing>) -> Outcome {
        let seq = self.number(TopicPartition::new(Topic::DeadLetters, self.source.partition));
        out.push(dead_letter::derived(&seq, self.source, record, why));
        Outcome::Buried(why.code)
    }

    fn derive(&mut self, record: &Incoming, effects: &mut Effects, out: &mut Vec<Outgoing>) -> Outcome {
        let encoded: Vec<(Effect, Vec<u8>)> =
            effects.drain().map(|e| (codec::encode(&e.event), e)).map(|(bytes, e)| (e, bytes)).collect();
        if let Some((effect, bytes)) = encoded.iter().find(|(_, bytes)| bytes.len() > EFFECT_BYTES_MAX) {
            let detail = format!(
                "a {} of {} bytes would follow from it, and {EFFECT_BYTES_MAX} is the limit",
                effect.event.name(),
                bytes.len()
            );
            return self.bury(record, &Unfit { code: "effect_too_large", detail }, out);
        }
        for (ordinal, (effect, bytes)) in (0..).zip(encoded) {
            let partitions = effect.topic.partitions(self.keyed);
            let to = TopicPartition::new(effect.topic, partition::of(&effect.key, partitions));
            let cause = Cause { position: self.position(record), ordinal };
            let seq = self.number(to);
            let parent =
                record.header(header::TRACE_PARENT).and_then(|value| std::str::from_utf8(value).ok());
            let headers = header::derived(&effect.event, cause, &seq, record.append, parent);
            let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            out.push(Outgoing { to, key: Some(effect.key), value: Some(bytes.into()), headers });
        }
        Outcome::Applied
    }

    /// The next number of an output partition.
    fn number(&mut self, to: TopicPartition) -> Seq {
        let number = self.given.entry(to).or_insert(0);
        *number += 1;
        Seq { machine: M::NAME.into(), partition: self.source.partition, number: *number }
    }

    fn position(&self, record: &Incoming) -> Position {
        Position { topic: self.source.topic, partition: self.source.partition, offset: record.offset }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The machine took it.
    Applied,
    /// It became a dead letter, by this code.
    Buried(&'static str),
}
