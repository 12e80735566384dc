//! Snapshots of a partition's state: what a machine has folded up to an offset, so that a start reads only the tail.
//!
//! A snapshot is a [`Manifest`] and the chunks that it names by hash. Only chunks that changed are written again;
//! each place keeps the newest few manifests and every chunk that they name. There are two places: the data
//! directory ([`local`]) and Postgres ([`database`]). Restoring a snapshot is trusting it, so it is published only
//! when all effects of what it covers are durable; that is the runner's duty.

pub mod database;
pub mod local;
mod manifest;
mod packed;
mod packs;

use std::collections::{BTreeMap, BTreeSet};

use database::Database;
use local::Local;
pub use manifest::{ChunkRef, Looked, Manifest};
pub use packed::Packed;
use waypost_runtime::{broker::Boxed, lifecycle::blocking};

use crate::machine::Chunk;

/// How many snapshots each place keeps at least: one may turn out broken.
const KEPT_MIN: usize = 2;

/// Why a snapshot is not used; the one before it is tried.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It, or a chunk of it, is missing, cut or changed.
    #[error("it is broken: {0}")]
    Broken(String),
    /// A newer version wrote it.
    #[error("it has format {found}, and this version reads {known}")]
    OtherFormat {
        /// The format found.
        found: u16,
        /// The format that is read.
        known: u16,
    },
}

/// Whose snapshots: one partition of one machine, in the format that it reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The machine.
    pub machine: &'static str,
    /// The partition of its driving topic.
    pub partition: i32,
    /// The format of its chunks.
    pub format: u16,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It stands, durably.
    Published,
    /// The place holds one that covers as much or more, so nothing was written.
    Superseded,
}

/// What is written to one place: a manifest and those of its chunks that the place does not hold.
#[derive(Debug, Clone)]
pub struct Writing {
    /// The manifest.
    pub manifest: Manifest,
    /// The chunks that changed since this place's last write.
    pub chunks: BTreeMap<u16, Packed>,
    /// Offsets of snapshots in this place that were found unusable: they count for nothing, and are removed.
    pub flawed: BTreeSet<i64>,
}

/// The offsets of manifests that may go, once the newest of `sound` is published.
fn outdated(sound: &BTreeSet<i64>, flawed: &BTreeSet<i64>, kept: usize) -> Vec<i64> {
    let kept: BTreeSet<i64> = sound.iter().rev().take(kept.max(KEPT_MIN)).copied().collect();
    sound.union(flawed).filter(|next| !kept.contains(next)).copied().collect()
}

/// A place that keeps snapshots.
pub trait Place: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> &'static str;
    /// The offsets of all snapshots, usable or not.
    fn list(&self, owner: Owner) -> Boxed<'_, Result<BTreeSet<i64>, Error>>;
    /// Reads a snapshot's manifest.
    fn manifest(&self, owner: Owner, next: i64) -> Boxed<'_, Result<Result<Manifest, Flaw>, Error>>;
    /// Reads and checks all chunks that a manifest names.
    fn chunks<'a>(
        &'a self,
        owner: Owner,
        manifest: &'a Manifest,
    ) -> Boxed<'a, Result<Result<Vec<Chunk>, Flaw>, Error>>;
    /// Publishes a snapshot, and removes what is no longer kept.
    fn write(&self, owner: Owner, writing: Writing) -> Boxed<'_, Result<Written, Error>>;
}

/// Why a place gives or takes nothing now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory fails.
    #[error("the data directory fails")]
    Local(#[source] local::Error),
    /// Postgres is away or fails.
    #[error("postgres fails")]
    Database(#[source] waypost_runtime::postgres::Error),
    /// It does not answer in time.
    #[error("it does not answer in time")]
    Slow,
}

impl Place for Local {
    fn name(&self) -> &'static str {
        "the data directory"
    }

    fn list(&self, owner: Owner) -> Boxed<'_, Result<BTreeSet<i64>, Error>> {
        let local = self.clone();
        Box::pin(async move { blocking(move || local.list(owner)).await.map_err(Error::Local) })
    }

    fn manifest(&self, owner: Owner, next: i64) -> Boxed<'_, Result<Result<Manifest, Flaw>, Error>> {
        let local = self.clone();
        Box::pin(async move { Ok(blocking(move || local.manifest(owner, next)).await) })
    }

    fn chunks<'a>(
        &'a self,
        owner: Owner,
        manifest: &'a Manifest,
    ) -> Boxed<'a, Result<Result<Vec<Chunk>, Flaw>, Error>> {
        let (local, manifest) = (self.clone(), manifest.clone());
        Box::pin(async move { Ok(blocking(move || local.chunks(owner, &manifest)).await) })
    }

    fn write(&self, owner: Owner, writing: Writing) -> Boxed<'_, Result<Written, Error>> {
        let local = self.clone();
        Box::pin(async move { blocking(move || local.write(owner, &writing)).await.map_err(Error::Local) })
    }
}

impl Place for Database {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn list(&self, owner: Owner) -> Boxed<'_, Result<BTreeSet<i64>, Error>> {
        Box::pin(async move { self.list(owner).await.map_err(Error::Database) })
    }

    fn manifest(&self, owner: Owner, next: i64) -> Boxed<'_, Result<Result<Manifest, Flaw>, Error>> {
        Box::pin(async move { self.manifest(owner, next).await.map_err(Error::Database) })
    }

    fn chunks<'a>(
        &'a self,
        owner: Owner,
        manifest: &'a Manifest,
    ) -> Boxed<'a, Result<Result<Vec<Chunk>, Flaw>, Error>> {
        Box::pin(async move { self.chunks(owner, manifest).await.map_err(Error::Database) })
    }

    fn write(&self, owner: Owner, writing: Writing) -> Boxed<'_, Result<Written, Error>> {
        Box::pin(async move { self.write(owner, &writing).await.map_err(Error::Database) })
    }
}
