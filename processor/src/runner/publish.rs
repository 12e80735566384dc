//! When a partition's snapshot is taken, and how it gets to its places.
//!
//! Taking one copies the chunks that changed, which is all that the fold waits for. It then waits until the effects
//! of everything that it covers are durable; only then is it compressed and written, beside the fold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{gauge, histogram};
use tokio::sync::Semaphore;
use waypost_runtime::{
    broker::Boxed,
    clock::{Clock, Monotonic},
    lifecycle::blocking,
};

use crate::{
    machine::Chunk,
    snapshots::{ChunkRef, Error, Manifest, Owner, Packed, Place, Writing, Written},
};

/// How often a snapshot is due, in multiples of what the last one cost.
const COST_TIMES: u32 = 10;
/// How many snapshots a process writes at once: they share processors and disk with the folds.
const WRITERS: usize = 2;
/// How long one write to one place may take; its connection or disk has failed where it takes longer.
const WRITE: Duration = Duration::from_mins(1);

/// How long a place that failed is left alone: a stop would wait for it once for each partition.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Where the snapshots of a process go, and what is known of these places.
pub(crate) struct Places {
    pub(super) local: Arc<dyn Place>,
    pub(super) database: Option<Arc<dyn Place>>,
    writers: Semaphore,
    /// Places that failed last and when, so that a failure is told once, and its end too.
    failing: Mutex<BTreeMap<&'static str, Monotonic>>,
    clock: Clock,
}

impl Places {
    pub(crate) fn new(local: Arc<dyn Place>, database: Option<Arc<dyn Place>>, clock: Clock) -> Self {
        Self { local, database, writers: Semaphore::new(WRITERS), failing: Mutex::default(), clock }
    }

    /// Notes that a place works; says so where it did not.
    pub(super) fn works(&self, place: &dyn Place) {
        if self.failing().remove(place.name()).is_some() {
            tracing::info!(place = place.name(), "snapshots are kept there again");
        }
    }

    /// Notes that a place fails; says so where it worked.
    pub(super) fn fails(&self, place: &dyn Place, why: &(dyn std::error::Error + 'static)) {
        if self.failing().insert(place.name(), self.clock.monotonic()).is_none() {
            let why = waypost_runtime::telemetry::Chain(why).to_string();
            tracing::warn!(
                place = place.name(),
                why,
                "snapshots are not kept there for now; the machine goes on"
            );
        }
    }

    /// Whether a place failed a moment ago, so that trying it again only costs time.
    fn is_failing(&self, place: &dyn Place) -> bool {
        self.failing().get(place.name()).is_some_and(|at| self.clock.elapsed(*at) < LEFT_ALONE)
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<&'static str, Monotonic>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one place lacks.
#[derive(Default)]
struct Lack {
    /// Chunks that changed since its last write.
    chunks: BTreeMap<u16, Packed>,
    /// Offsets of its broken snapshots.
    flawed: BTreeSet<i64>,
}

/// What stands in the places, and what they lack; with the writer while it writes.
#[derive(Default)]
struct Book {
    /// The newest chunk of each number.
    newest: BTreeMap<u16, ChunkRef>,
    local: Lack,
    database: Lack,
}

/// A snapshot that was taken.
struct Taken {
    manifest: Manifest,
    chunks: Vec<Chunk>,
    /// How long taking it kept the fold waiting.
    took: Duration,
}

/// One partition's snapshots.
pub(super) struct Publisher {
    owner: Owner,
    places: Arc<Places>,
    clock: Clock,
    /// The least time between two snapshots.
    after: Duration,
    book: Option<Book>,
    taken: Option<Taken>,
    writing: Option<Boxed<'static, (Book, Duration)>>,
    /// When the last one was taken, up to where, and what it cost.
    last: (Monotonic, i64, Duration),
}

impl Publisher {
    /// Begins where a fold begins, in places where some snapshots were found broken.
    pub(super) fn new(
        owner: Owner,
        places: Arc<Places>,
        clock: Clock,
        after: Duration,
        next: i64,
        [local, database]: [BTreeSet<i64>; 2],
    ) -> Self {
        let lack = |flawed| Lack { flawed, ..Lack::default() };
        let book = Book { local: lack(local), database: lack(database), ..Book::default() };
        let last = (clock.monotonic(), next, Duration::ZERO);
        Self { owner, places, clock, after, book: Some(book), taken: None, writing: None, last }
    }

    /// Whether a snapshot of a fold up to `next` is due.
    pub(super) fn is_due(&self, next: i64) -> bool {
        let (at, upto, cost) = self.last;
        let idle = self.taken.is_none() && self.writing.is_none();
        idle && next > upto && self.clock.elapsed(at) >= self.after.max(cost * COST_TIMES)
    }

    /// Whether nothing of a fold up to `next` is worth a last snapshot.
    pub(super) fn covers(&self, next: i64) -> bool {
        self.last.1 >= next
    }

    /// Takes a snapshot: a manifest without chunks yet, and the chunks that changed.
    pub(super) fn take(&mut self, manifest: Manifest, chunks: impl FnOnce() -> Vec<Chunk>) {
        let began = self.clock.monotonic();
        let chunks = chunks();
        self.last = (began, manifest.next, self.last.2);
        self.taken = Some(Taken { manifest, chunks, took: self.clock.elapsed(began) });
    }

    /// Begins to write what was taken, once everything that it covers is durable.
    pub(super) fn publish(&mut self, durable: i64) {
        if self.taken.as_ref().is_none_or(|t| t.manifest.next > durable) {
            return;
        }
        let (Some(taken), Some(book)) = (self.taken.take(), self.book.take()) else { return };
        let (owner, places, clock) = (self.owner, self.places.clone(), self.clock.clone());
        self.writing = Some(Box::pin(write(owner, places, clock, book, taken)));
    }

    /// Waits until what is being written is written, or has failed; for ever where nothing is. Cancel-safe.
    pub(super) async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let (book, cost) = writing.await;
        self.writing = None;
        self.book = Some(book);
        self.last.2 = cost;
    }

    /// Writes all that was taken and is durable, for a last time.
    pub(super) async fn finish(&mut self, durable: i64) {
        self.publish(durable);
        while self.writing.is_some() {
            self.written().await;
            self.publish(durable);
        }
    }

    /// How long ago the last snapshot was taken.
    pub(super) fn age(&self) -> Duration {
        self.clock.elapsed(self.last.0)
    }
}

/// Compresses and writes a snapshot to both places; gives back what they lack and what it cost.
async fn write(
    owner: Owner,
    places: Arc<Places>,
    clock: Clock,
    mut book: Book,
    taken: Taken,
) -> (Book, Duration) {
    let _turn = places.writers.acquire().await.expect("never closed");
    let began = clock.monotonic();
    let Taken { mut manifest, chunks, took } = taken;
    let packed = blocking(move || chunks.iter().map(Packed::pack).collect::<Vec<_>>()).await;
    let mut bytes = 0;
    for chunk in packed {
        let number = chunk.named.number;
        bytes += chunk.bytes.len();
        book.newest.insert(number, chunk.named.clone());
        if places.database.is_some() {
            book.database.chunks.insert(number, chunk.clone());
        }
        book.local.chunks.insert(number, chunk);
    }
    manifest.chunks = book.newest.values().cloned().collect();
    write_to(&places, &*places.local, owner, &manifest, &mut book.local).await;
    if let Some(database) = places.database.as_deref().filter(|database| !places.is_failing(*database)) {
        write_to(&places, database, owner, &manifest, &mut book.database).await;
    }
    let cost = took + clock.elapsed(began);
    let labels = [("machine", owner.machine.to_owned()), ("partition", owner.partition.to_string())];
    gauge!("waypost_snapshot_written_bytes", &labels).set(bytes as f64);
    gauge!("waypost_snapshot_next_offset", &labels).set(manifest.next as f64);
    histogram!("waypost_snapshot_cost_seconds", "machine" => owner.machine).record(cost);
    (book, cost)
}

/// Writes to one place what it lacks. Where that fails it lacks it still.
async fn write_to(places: &Places, place: &dyn Place, owner: Owner, manifest: &Manifest, lack: &mut Lack) {
    let writing =
        Writing { manifest: manifest.clone(), chunks: lack.chunks.clone(), flawed: lack.flawed.clone() };
    let written = tokio::time::timeout(WRITE, place.write(owner, writing)).await.unwrap_or(Err(Error::Slow));
    match written {
        Ok(written) => {
            places.works(place);
            match written {
                Written::Published => *lack = Lack::default(),
                // Another owner is ahead. What this one changed is not there, and must be written before any
                // later manifest names it.
                Written::Superseded => {
                    let (machine, partition, place) = (owner.machine, owner.partition, place.name());
                    tracing::debug!(machine, partition, place, "a newer snapshot is there already");
                }
            }
        }
        Err(error) => places.fails(place, &error),
    }
}
