//! What a machine is: a pure fold of one driving topic.
//!
//! It may look at one more topic; then each driving record says up to where, so that it does not matter how the two
//! interleave.
//!
//! `apply(state, record) -> effects`: no clock, no randomness, no hash order, no I/O. The same prefix of the log
//! gives the same state and the same effects, byte for byte. The runner gives it records, appends what it emits,
//! and commits; a machine knows nothing of that.

use std::sync::Arc;

use bytes::Bytes;
pub use waypost_runtime::intake::Unfit;
use waypost_schemas::{cause::Position, event::Event, machine, time::Micros, topic::Topic};

use crate::registry::Change;

/// A record of the driving topic, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Where it stands in the log.
    pub position: Position,
    /// The time of its append.
    pub append: Micros,
    /// What it says.
    pub event: &'a Event,
    /// The highest registry offset that the partition has been stamped with, this record's own included; -1 where
    /// none. The machine has been given every change up to there by [`Machine::look`], and none beyond.
    pub registry: i64,
}

/// One record that a machine derives.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The topic that it goes to.
    pub topic: Topic,
    /// Its key, which chooses its partition.
    pub key: Bytes,
    /// What it says.
    pub event: Event,
}

/// What one record made a machine derive, in order; the place in it is the ordinal.
#[derive(Debug, Default)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// Adds a record to be derived.
    pub fn emit(&mut self, topic: Topic, key: impl Into<Bytes>, event: impl Into<Event>) {
        self.0.push(Effect { topic, key: key.into(), event: event.into() });
    }
    /// Takes what was emitted, leaving none.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.0.drain(..)
    }
    /// How many were emitted.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none was emitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One piece of a machine's state, written to a snapshot only when it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which piece; a machine cuts its state the same way each time.
    pub number: u16,
    /// Its bytes, uncompressed.
    pub bytes: Vec<u8>,
}

/// A snapshot's chunk that a machine cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("chunk {number} of the snapshot is unreadable: {detail}")]
pub struct Unreadable {
    /// The chunk.
    pub number: u16,
    /// What is wrong with it.
    pub detail: String,
}

/// What everybody knows of a machine.
pub fn spec<M: Machine>() -> &'static machine::Spec {
    machine::of(M::NAME).expect("every machine is in the catalogue: see its test")
}

/// A pure fold of one partition of its driving topic.
pub trait Machine: Send + 'static {
    /// Its name, which is part of its seqs and its group: `spatial`.
    const NAME: &'static str;
    /// The topic whose records cause its effects.
    const DRIVES: Topic;
    /// Whether it looks at the registry.
    const LOOKS_AT_REGISTRY: bool;
    /// The keyed topic that it looks at beside the one that drives it: the partition of the same number.
    const LOOKS_AT: Option<Topic> = None;
    /// Whether its records may wait a little on their way in and out, so that fewer requests carry them.
    const IN_BULK: bool = false;
    /// The format of its chunks; a snapshot of a newer one is not read.
    const FORMAT: u16;

    /// The state of a partition of which nothing has been read.
    fn new() -> Self;
    /// Folds a registry change silently: no effects. Called in offset order, each once, up to the highest stamp.
    ///
    /// Changes are not state of a snapshot: after [`Machine::restore`] they are given again from the first up to
    /// the snapshot's stamp, so looking must not touch what only records may change.
    fn look(&mut self, change: &Arc<Change>);
    /// Up to which offset of the topic that it looks at, inclusive, a record asks for; `None` where for nothing.
    fn asks(_event: &Event) -> Option<i64> {
        None
    }
    /// Folds a record of the topic that it looks at silently: no effects. Called in offset order, each once.
    ///
    /// When a record is applied, at least what it asks for has been given, and perhaps more: no effect, nor any
    /// change that [`Machine::apply`] makes, may depend on what lies above. What was given is state of a snapshot.
    fn look_at(&mut self, _offset: i64, _event: &Event) {}
    /// Folds a record. It checks before it changes: on `Err` the state is as before and nothing was emitted.
    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit>;
    /// The chunks that changed since the last call; all of them at the first.
    fn changed_chunks(&mut self) -> Vec<Chunk>;
    /// A state made of a snapshot's chunks, in order of their numbers.
    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable>
    where
        Self: Sized;
}
