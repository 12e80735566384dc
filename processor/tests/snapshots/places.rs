//! What holds of every place that keeps snapshots.

use std::collections::{BTreeMap, BTreeSet};

use waypost_processor::{
    machine::Chunk,
    snapshots::{Flaw, Manifest, Owner, Packed, Place, Writing, Written, database::Database, local::Local},
};

use crate::postgres::Postgres;

const OWNER: Owner = Owner { machine: "spatial", partition: 3, format: 2 };

fn chunk(number: u16, text: &str) -> Chunk {
    Chunk { number, bytes: text.repeat(100).into_bytes() }
}

/// A writer as a partition's task is one: it remembers the newest chunks, and writes what changed.
struct Writer {
    owner: Owner,
    newest: BTreeMap<u16, Chunk>,
}

impl Writer {
    fn new() -> Self {
        Self { owner: OWNER, newest: BTreeMap::new() }
    }

    async fn write(&mut self, place: &dyn Place, next: i64, changed: &[Chunk], flawed: &[i64]) -> Written {
        let packed = |chunk: &Chunk| (chunk.number, Packed::pack(chunk));
        self.newest.extend(changed.iter().map(|c| (c.number, c.clone())));
        let chunks = self.newest.values().map(|c| Packed::pack(c).named).collect();
        let manifest = Manifest { next, chunks, ..Manifest::new(self.owner, "memory".into()) };
        let flawed: BTreeSet<i64> = flawed.iter().copied().collect();
        let writing = Writing { manifest, chunks: changed.iter().map(packed).collect(), flawed };
        place.write(self.owner, writing).await.unwrap()
    }
}

async fn read(place: &dyn Place, next: i64) -> Result<Vec<Chunk>, Flaw> {
    let manifest = place.manifest(OWNER, next).await.unwrap()?;
    assert_eq!(manifest.next, next);
    place.chunks(OWNER, &manifest).await.unwrap()
}

async fn list(place: &dyn Place) -> Vec<i64> {
    place.list(OWNER).await.unwrap().into_iter().collect()
}

async fn keeps_the_contract(place: &dyn Place) {
    assert!(list(place).await.is_empty());

    // What is written is read back, and only what changed is written again.
    let mut writer = Writer::new();
    assert_eq!(writer.write(place, 10, &[chunk(0, "a"), chunk(7, "b")], &[]).await, Written::Published);
    assert_eq!(writer.write(place, 20, &[chunk(7, "c"), chunk(9, "")], &[]).await, Written::Published);
    assert_eq!(read(place, 10).await.unwrap(), [chunk(0, "a"), chunk(7, "b")]);
    assert_eq!(read(place, 20).await.unwrap(), [chunk(0, "a"), chunk(7, "c"), chunk(9, "")]);

    // Nothing replaces what covers as much or more.
    let mut late = Writer::new();
    for next in [5, 15, 20] {
        assert_eq!(late.write(place, next, &[chunk(0, "late")], &[]).await, Written::Superseded, "{next}");
    }
    assert_eq!(list(place).await, [10, 20]);

    // Two are kept, with the chunks that they name.
    assert_eq!(writer.write(place, 30, &[chunk(7, "d")], &[]).await, Written::Published);
    assert_eq!(list(place).await, [20, 30]);
    assert_eq!(read(place, 20).await.unwrap(), [chunk(0, "a"), chunk(7, "c"), chunk(9, "")]);
    assert_eq!(read(place, 30).await.unwrap(), [chunk(0, "a"), chunk(7, "d"), chunk(9, "")]);

    // A newer owner writes all chunks and thereby sends those of the older one away, which then cannot be named.
    let mut newer = Writer::new();
    for next in [40, 50] {
        let all = [chunk(0, "n"), chunk(7, &next.to_string()), chunk(9, "n")];
        assert_eq!(newer.write(place, next, &all, &[]).await, Written::Published);
    }
    assert_eq!(writer.write(place, 60, &[chunk(7, "z")], &[]).await, Written::Superseded);
    assert_eq!(list(place).await, [40, 50]);

    // A snapshot that was found broken blocks nothing and goes away, also where a whole one takes its offset.
    assert_eq!(newer.write(place, 45, &[chunk(7, "e")], &[50]).await, Written::Published);
    assert_eq!(list(place).await, [40, 45]);
    assert_eq!(newer.write(place, 45, &[chunk(7, "f")], &[45]).await, Written::Published);
    assert_eq!(read(place, 45).await.unwrap(), [chunk(0, "n"), chunk(7, "f"), chunk(9, "n")]);
    assert_eq!(read(place, 40).await.unwrap(), [chunk(0, "n"), chunk(7, "40"), chunk(9, "n")]);

    // Another format is not read, not in the way, and not removed.
    let mut future = Writer::new();
    future.owner.format = 3;
    assert_eq!(future.write(place, 70, &[chunk(0, "future")], &[]).await, Written::Published);
    let flaw = read(place, 70).await.unwrap_err();
    assert!(matches!(flaw, Flaw::OtherFormat { found: 3, known: 2 }), "{flaw}");
    for next in [46, 47, 48] {
        assert_eq!(newer.write(place, next, &[chunk(7, &next.to_string())], &[]).await, Written::Published);
    }
    assert_eq!(list(place).await, [47, 48, 70]);
    let (future, all) = (Owner { format: 3, ..OWNER }, [chunk(0, "future")]);
    let manifest = place.manifest(future, 70).await.unwrap().unwrap();
    assert_eq!(place.chunks(future, &manifest).await.unwrap().unwrap(), all);

    // Partitions and machines know nothing of each other.
    for other in [Owner { partition: 4, ..OWNER }, Owner { machine: "alerts", ..OWNER }] {
        assert!(place.list(other).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_data_directory_keeps_the_contract_of_a_place() {
    let directory = tempfile::tempdir().unwrap();
    keeps_the_contract(&Local::new(directory.path(), 2)).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_of_a_place() {
    let Some(postgres) = Postgres::start() else { return };
    keeps_the_contract(&Database::new(postgres.pool().await, 2)).await;
}

#[tokio::test]
async fn a_directory_that_another_process_writes_to_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let local = Local::new(directory.path(), 2);
    let place: &dyn Place = &local;
    let mut writer = Writer::new();
    writer.write(place, 10, &[chunk(0, "a")], &[]).await;
    let lock = std::fs::File::open(local.directory(OWNER).join("lock")).unwrap();
    lock.lock().unwrap();
    let manifest = Manifest { next: 20, ..Manifest::new(OWNER, "memory".into()) };
    let writing = Writing { manifest, chunks: BTreeMap::new(), flawed: BTreeSet::new() };
    let error = place.write(OWNER, writing.clone()).await.unwrap_err();
    assert!(waypost_runtime::telemetry::Chain(&error).to_string().contains("another process"), "{error}");
    drop(lock);
    assert_eq!(place.write(OWNER, writing).await.unwrap(), Written::Published);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed_and_read_by_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let local = Local::new(directory.path(), 2);
    let place: &dyn Place = &local;
    let mut writer = Writer::new();
    writer.write(place, 10, &[chunk(0, "a")], &[]).await;
    let own = local.directory(OWNER);
    std::fs::write(own.join("new-manifest-00000000000000000020"), "half").unwrap();
    std::fs::write(own.join("chunks-00000000000000000015"), "of no manifest").unwrap();
    assert_eq!(list(place).await, [10]);
    writer.write(place, 20, &[chunk(0, "b")], &[]).await;
    let names: Vec<String> = std::fs::read_dir(own)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("new-") || name.ends_with("15"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(read(place, 10).await.unwrap(), [chunk(0, "a")]);
    assert_eq!(read(place, 20).await.unwrap(), [chunk(0, "b")]);
}

/// Bytes that nothing makes smaller, other ones for each seed.
fn noise(number: u16, seed: u64, length: usize) -> Chunk {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number) << 32 | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    Chunk { number, bytes: std::iter::repeat_with(byte).take(length).collect() }
}

#[tokio::test]
async fn what_few_chunks_hold_on_to_is_written_anew_before_it_fills_the_disk() {
    const CHUNKS: u16 = 40;
    const LENGTH: usize = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let local = Local::new(directory.path(), 2);
    let mut writer = Writer::new();
    let size = || -> u64 {
        let files = std::fs::read_dir(local.directory(OWNER)).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let mut most = 0;
    // Each write leaves one chunk more as it was, so that each file keeps one that is the newest.
    for round in 0..CHUNKS {
        let changed: Vec<_> = (round..CHUNKS).map(|number| noise(number, round.into(), LENGTH)).collect();
        let next = i64::from(round) + 1;
        assert_eq!(writer.write(&local, next, &changed, &[]).await, Written::Published);
        most = most.max(size());
    }
    let live = u64::from(CHUNKS) * LENGTH as u64;
    assert!(most < 7 * live, "{most} bytes for {live}");
    let newest: Vec<_> = writer.newest.values().cloned().collect();
    assert_eq!(read(&local, CHUNKS.into()).await.unwrap(), newest);
    assert_eq!(list(&local).await, [i64::from(CHUNKS) - 1, CHUNKS.into()]);
}
