//! One partition's task: fold a slice of records, send its effects, and say up to where they are durable.
//!
//! The order of steps is what makes a crash between any two of them harmless: 0 is committed before the first fold;
//! effects are sent after their causes are folded, in order; an offset is told to be durable only when every effect
//! of what lies before it is; and a snapshot is written only when what it covers is durable.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use waypost_runtime::{
    broker::{self, Batch, Bounds, Feed, Incoming, Outgoing},
    intake::Admitted,
    watch,
};
use waypost_schemas::{event::Event, topic::TopicPartition};

use super::{
    Error, Shared,
    admit::{admit, guarded},
    fault::Step,
    fold::{Fold, Outcome, owner},
    looked::{self, Last, Looked, Looking},
    measures::Measures,
    publish::Publisher,
    restore::{self, Beginning, Facts},
    window::Window,
};
use crate::machine::Machine;

/// How long a partition that must be let go waits for its last effects: well within the session, for which the
/// group waits at most.
const LET_GO: Duration = Duration::from_millis(1_500);
/// How often a task that has nothing to do looks whether a snapshot is due.
const TICK: Duration = Duration::from_secs(1);

/// What the runner wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Fold on.
    Run,
    /// Stop soon: the group takes the partition away.
    LetGo,
    /// Stop cleanly: wait for every effect, then write a last snapshot.
    Finish,
}

/// Up to where a partition's offset may be committed, told by its task; and up to where the one is folded that it looks
/// at, whose records have no effects.
pub(super) struct Mark {
    offset: AtomicI64,
    looked: AtomicI64,
    moved: Arc<Notify>,
}

impl Mark {
    pub(super) fn new(moved: Arc<Notify>) -> Self {
        Self { offset: AtomicI64::new(-1), looked: AtomicI64::new(-1), moved }
    }

    /// The offset, where the task has told one.
    pub(super) fn get(&self) -> Option<i64> {
        Some(self.offset.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
    }

    /// The offset of the topic that is looked at, where the task has told one.
    pub(super) fn looked(&self) -> Option<i64> {
        Some(self.looked.load(Ordering::Acquire)).filter(|offset| *offset >= 0)
    }

    fn set(&self, offset: i64, looked: Option<i64>) {
        let before = self.looked.swap(looked.unwrap_or(-1), Ordering::AcqRel);
        if self.offset.swap(offset, Ordering::AcqRel) != offset || before != looked.unwrap_or(-1) {
            self.moved.notify_one();
        }
    }
}

/// Waits until the task is to stop, and how. Cancel-safe.
async fn ordered(orders: &mut watch::Receiver<Order>) -> Order {
    // A runner that is gone without a word has been dropped, and so will its tasks be.
    orders.wait_for(|order| *order != Order::Run).await.map_or(Order::LetGo, |order| *order)
}

/// Owns a partition until the runner orders otherwise or the log fails.
pub(super) async fn run<M: Machine>(
    shared: Arc<Shared>,
    source: TopicPartition,
    committed: Option<i64>,
    mut orders: watch::Receiver<Order>,
    mark: Arc<Mark>,
) -> Result<(), Error> {
    let begun = {
        let begin = pin!(Task::<M>::begin(shared, source, committed, mark));
        tokio::select! {
            biased;
            _ = ordered(&mut orders) => return Ok(()),
            begun = begin => begun?,
        }
    };
    // Fenced at its first commit: the partition belongs to another already.
    let Some((mut task, first)) = begun else { return Ok(()) };
    task.work(first, &mut orders).await
}

struct Task<M> {
    shared: Arc<Shared>,
    fold: Fold<M>,
    feed: Box<dyn Feed>,
    /// The topic that the machine looks at.
    looked: Option<Looked>,
    window: Window,
    publisher: Publisher,
    measures: Measures,
    mark: Arc<Mark>,
    /// Effects of causes below this are folded, not sent.
    floor: i64,
    /// The offsets of the records that an operator took out of what is folded.
    skipped: BTreeSet<i64>,
    /// Up to where records are folded and their effects sent.
    sent: i64,
    /// The record before `sent`; where none was read since the start, its checkpoint.
    last: Last,
}

impl<M: Machine> Task<M> {
    /// Restores the partition's state and opens its topic. `None`: it belongs to another.
    async fn begin(
        shared: Arc<Shared>,
        source: TopicPartition,
        committed: Option<i64>,
        mark: Arc<Mark>,
    ) -> Result<Option<(Self, Batch)>, Error> {
        let refused = |source_of| Error::Refused { machine: M::NAME, partition: source, source: source_of };
        let owner = owner::<M>(source.partition);
        let began = shared.clock.monotonic();
        let found =
            restore::newest_of_all::<M>(&shared.places, owner, &shared.cluster).await.map_err(refused)?;
        let (bounds, manifest) = (shared.bounds(source).await?, found.restored.as_ref().map(|r| &r.manifest));
        let facts = Facts {
            group: &shared.group,
            partition: source,
            bounds,
            committed,
            newest: found.newest,
            manifest,
        };
        let Beginning { from, floor, first } = restore::judge(facts).map_err(refused)?;
        let looking = Looking::judge::<M>(&shared, source.partition, manifest).await?;
        let mut inputs = vec![source];
        inputs.extend(looking.as_ref().map(|looking| looking.source));
        if first && !shared.commit_zero(&inputs).await? {
            return Ok(None);
        }
        shared.faults.at(Step::Begun)?;

        let checkpoint = manifest.and_then(|m| m.checkpoint.clone());
        let mut feed = shared.reader.open(source, from).map_err(failed::<M>)?;
        let batch = match &checkpoint {
            Some(checkpoint) => {
                restore::verify(&mut *feed, checkpoint).await.map_err(failed::<M>)?.map_err(refused)?
            }
            None => Batch { records: Vec::new(), next: from, at_end: false },
        };
        let opened = match looking {
            Some(looking) => Some(looking.open::<M>(&shared).await?),
            None => None,
        };
        // Both hold whatever stamp a record carries, so the registry is read to its end, at every beginning anew.
        let facts = shared.registry.facts().await.map_err(facts_of::<M>)?;
        let skipped = facts.skipped(M::NAME, source);
        let mut fold: Fold<M> = match found.restored {
            Some(restored) => Fold::restored(restored.machine, restored.manifest, shared.keyed),
            None => Fold::new(source.partition, shared.keyed),
        };
        if let Some((after, upto)) = fold.lacks() {
            shared.registry.wait_for(upto).await.map_err(|e| registry::<M>(source, fold.next, e))?;
            fold.look(&shared.registry.changes(after, upto));
        }
        let mut looked = None;
        if let Some((opened, batch)) = opened {
            let opened = looked.insert(opened);
            opened.skip(facts.skipped(M::NAME, opened.source()));
            opened.fold(&shared, &mut fold.machine, batch).await?;
        }
        let needed = facts.behaviours_from(M::NAME, fold.view);
        if let Some(number) = needed.into_iter().find(|number| !shared.behaviours.contains(number)) {
            return Err(shared.behaviour(number));
        }
        let Bounds { high, .. } = bounds;
        let (next, took) = (fold.next, shared.clock.elapsed(began));
        tracing::debug!(
            machine = M::NAME,
            partition = source.partition,
            next,
            committed,
            high,
            ?took,
            "partition begun"
        );
        let Shared { places, clock, snapshot_interval, .. } = &*shared;
        let publisher =
            Publisher::new(owner, places.clone(), clock.clone(), *snapshot_interval, next, found.flawed);
        let measures = Measures::new(M::NAME, source.partition);
        let (window, sent) = (Window::default(), next);
        let last = Last::restored(checkpoint);
        let task = Self {
            shared,
            fold,
            feed,
            looked,
            window,
            publisher,
            measures,
            mark,
            floor,
            skipped,
            sent,
            last,
        };
        Ok(Some((task, batch)))
    }

    async fn work(&mut self, first: Batch, orders: &mut watch::Receiver<Order>) -> Result<(), Error> {
        self.tell();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut whole = self.take(first, orders).await?;
        loop {
            tokio::select! {
                biased;
                order = ordered(orders) => return self.leave(order, whole).await,
                durable = self.window.oldest() => durable.map_err(failed::<M>)?,
                () = self.publisher.written() => self.shared.faults.at(Step::Written)?,
                batch = self.feed.next(), if self.window.has_room() => {
                    whole = self.take(batch.map_err(failed::<M>)?, orders).await?;
                }
                batch = looked::next(&mut self.looked) => self.look_at(batch.map_err(failed::<M>)?).await?,
                _ = ticks.tick() => self.measures.snapshot_age(self.publisher.age()),
            }
            self.tell();
            if whole {
                self.snapshot();
            }
        }
    }

    /// Folds a batch, slice by slice, and leaves the rest when an order comes; false where a slice was left halfway.
    async fn take(&mut self, batch: Batch, orders: &mut watch::Receiver<Order>) -> Result<bool, Error> {
        for slice in batch.records.chunks(self.shared.slice_records) {
            if *orders.borrow() != Order::Run {
                return Ok(true);
            }
            tokio::select! {
                biased;
                _ = ordered(orders) => return Ok(false),
                taken = self.slice(slice) => taken?,
            }
            self.tell();
            self.snapshot();
            // Folding alone never waits, and other tasks share the thread.
            tokio::task::yield_now().await;
        }
        self.fold.next = self.fold.next.max(batch.next);
        self.sent = self.fold.next;
        Ok(true)
    }

    /// Folds a slice of records and sends its effects. Dropped halfway, the task must not fold on.
    async fn slice(&mut self, records: &[Incoming]) -> Result<(), Error> {
        let mut out = Vec::new();
        let mut first = None;
        let from = self.sent;
        for record in records.iter().filter(|record| record.offset >= from) {
            let Self { shared, fold, skipped, .. } = self;
            let admitted = admit::<M>(shared, fold.source, &mut fold.intake, skipped, record).await?;
            self.fold.begin(record, admitted.as_ref());
            let Some(admitted) = admitted else { continue };
            if let Admitted::Event { event, .. } = &admitted {
                self.catch_up(record, event, &mut first, &mut out).await?;
            }
            // Only now: looking may have sent what was there.
            let before = out.len();
            let outcome = match admitted {
                Admitted::Copy => continue,
                Admitted::Unfit(why) => self.fold.bury(record, &why, &mut out),
                Admitted::Event { event, .. } => {
                    let fold = &mut self.fold;
                    guarded::<M, _>(fold.source, record, || fold.apply(record, &event, &mut out))?
                }
            };
            if let Outcome::Buried(code) = outcome {
                self.measures.buried(code);
            }
            if record.offset < self.floor {
                out.truncate(before);
            } else if out.len() > before {
                first.get_or_insert(record.offset);
            }
        }
        self.measures.applied(records.len());
        self.shared.faults.at(Step::Folded)?;
        self.send(&mut first, &mut out).await?;
        if let Some(last) = records.last() {
            self.last = Last::Read(last.clone());
        }
        self.sent = self.fold.next;
        self.shared.faults.at(Step::Sent)
    }

    /// Folds of other topics what a record asks for. Where that is not there yet, what was made so far is sent first:
    /// nothing waits for what is to come.
    async fn catch_up(
        &mut self,
        record: &Incoming,
        event: &Event,
        first: &mut Option<i64>,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), Error> {
        if let Some((after, upto)) = self.fold.lacks() {
            if self.shared.registry.next() <= upto {
                self.send(first, out).await?;
                self.wait_for_registry(record, upto).await?;
            }
            self.fold.look(&self.shared.registry.changes(after, upto));
        }
        if let Some(asked) = self.lacks(event) {
            self.send(first, out).await?;
            self.reach(record, asked).await?;
        }
        Ok(())
    }

    async fn send(&mut self, first: &mut Option<i64>, out: &mut Vec<Outgoing>) -> Result<(), Error> {
        let Some(offset) = first.take() else { return Ok(()) };
        while !self.window.has_room() {
            self.window.oldest().await.map_err(failed::<M>)?;
        }
        let delivery = self.shared.producer.send(std::mem::take(out)).await.map_err(failed::<M>)?;
        self.window.push(offset, delivery);
        self.window.settle().map_err(failed::<M>)
    }

    /// Up to where a record asks for the topic that the machine looks at, where that is not folded so far.
    fn lacks(&self, event: &Event) -> Option<i64> {
        let looked = self.looked.as_ref()?;
        M::asks(event).filter(|asked| !looked.has(*asked))
    }

    /// Folds the topic that the machine looks at, until a record can be applied.
    async fn reach(&mut self, record: &Incoming, asked: i64) -> Result<(), Error> {
        let Some(looked) = &mut self.looked else { return Ok(()) };
        let asking = (self.fold.source, record.offset);
        looked.reach(&self.shared, &mut self.fold.machine, asking, asked).await?;
        self.shared.faults.at(Step::Looked)
    }

    /// Folds a batch of the topic that the machine looks at, also where nothing asks for it yet.
    async fn look_at(&mut self, batch: Batch) -> Result<(), Error> {
        if let Some(looked) = &mut self.looked {
            looked.fold(&self.shared, &mut self.fold.machine, batch).await?;
        }
        self.shared.faults.at(Step::Looked)?;
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn wait_for_registry(&mut self, record: &Incoming, upto: i64) -> Result<(), Error> {
        let waited = self.shared.registry.wait_for(upto).await;
        waited.map_err(|error| registry::<M>(self.fold.source, record.offset, error))
    }

    /// The offset up to which all effects are durable.
    fn durable(&self) -> i64 {
        self.window.durable(self.sent)
    }

    /// Tells the runner up to where it may commit; never less than what was committed already.
    fn tell(&mut self) {
        let durable = self.durable();
        self.mark.set(durable.max(self.floor), self.looked.as_ref().map(Looked::next));
        self.publisher.publish(durable);
    }

    /// Takes a snapshot where one is due. The fold must stand between two slices.
    fn snapshot(&mut self) {
        if self.publisher.is_due(self.sent) {
            self.take_snapshot();
            self.publisher.publish(self.durable());
        }
    }

    fn take_snapshot(&mut self) {
        let mut manifest = self.fold.manifest(self.shared.cluster.clone(), self.last.checkpoint());
        manifest.looked = self.looked.as_ref().map(Looked::manifest);
        self.publisher.take(manifest, || self.fold.machine.changed_chunks());
    }

    /// Stops as it was ordered to; `whole` is false where a slice was left halfway, of which no snapshot is taken.
    async fn leave(&mut self, order: Order, whole: bool) -> Result<(), Error> {
        let last_effects = async {
            while !self.window.is_empty() {
                self.window.oldest().await?;
            }
            Ok(())
        };
        match order {
            Order::Run => Ok(()),
            Order::LetGo => {
                let waited = tokio::time::timeout(LET_GO, last_effects).await;
                self.tell();
                waited.unwrap_or(Ok(())).map_err(failed::<M>)
            }
            Order::Finish => {
                last_effects.await.map_err(failed::<M>)?;
                self.tell();
                if whole && !self.publisher.covers(self.sent) {
                    self.publisher.finish(self.durable()).await;
                    self.take_snapshot();
                }
                self.publisher.finish(self.durable()).await;
                Ok(())
            }
        }
    }
}

pub(super) fn failed<M: Machine>(source: broker::Error) -> Error {
    Error::Broker { machine: M::NAME, source }
}

pub(super) fn facts_of<M: Machine>(source: crate::registry::reader::Error) -> Error {
    Error::Facts { machine: M::NAME, source }
}

fn registry<M: Machine>(
    partition: TopicPartition,
    offset: i64,
    source: crate::registry::reader::Error,
) -> Error {
    Error::Registry { machine: M::NAME, partition, offset, source }
}
