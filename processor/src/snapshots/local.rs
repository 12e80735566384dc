//! Snapshots in the data directory: `MACHINE/PARTITION/`, with a file for each manifest and each chunk.
//!
//! Files are written beside their place, forced to the disk and renamed, the manifest last: a crash leaves the
//! snapshots before it whole. A lock on the directory keeps a second writer, which may be a process that does not
//! know yet that it lost the partition, from removing chunks that a manifest is about to name.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{ChunkRef, Flaw, Manifest, Owner, Writing, Written, outdated, packed};
use crate::machine::Chunk;

const MANIFEST: &str = "manifest-";
const CHUNK: &str = "chunk-";
const TEMPORARY: &str = "new-";
const LOCK: &str = "lock";

/// Why the data directory does not take or give a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process writes snapshots of the same partition here.
    #[error("another process writes to {0}")]
    Locked(PathBuf),
}

/// The snapshots in one directory.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
    kept: usize,
}

impl Local {
    /// The snapshots below a directory, which is made at the first write; of each owner the newest `kept`, at least
    /// two.
    pub fn new(root: impl Into<PathBuf>, kept: usize) -> Self {
        Self { root: root.into(), kept }
    }

    /// Where an owner's snapshots are.
    pub fn directory(&self, owner: Owner) -> PathBuf {
        self.root.join(owner.machine).join(owner.partition.to_string())
    }

    /// The offsets of all snapshots, usable or not, lowest first.
    pub fn list(&self, owner: Owner) -> Result<BTreeSet<i64>, Error> {
        let names = names(&self.directory(owner))?;
        Ok(names.iter().filter_map(|n| n.strip_prefix(MANIFEST)?.parse().ok()).collect())
    }

    /// Reads a snapshot's manifest.
    pub fn manifest(&self, owner: Owner, next: i64) -> Result<Manifest, Flaw> {
        let path = self.directory(owner).join(manifest_name(next));
        let bytes = fs::read(&path).map_err(|e| Flaw::Broken(format!("its manifest cannot be read: {e}")))?;
        let manifest = Manifest::from_bytes(&bytes, owner)?;
        if manifest.next == next {
            Ok(manifest)
        } else {
            Err(Flaw::Broken("its manifest stands under another offset's name".to_owned()))
        }
    }

    /// Reads and checks all chunks that a manifest names.
    pub fn chunks(&self, owner: Owner, manifest: &Manifest) -> Result<Vec<Chunk>, Flaw> {
        let directory = self.directory(owner);
        let read = |named: &ChunkRef| {
            let stored = fs::read(directory.join(chunk_name(named)))
                .map_err(|e| Flaw::Broken(format!("chunk {} cannot be read: {e}", named.number)))?;
            packed::unpack(named, &stored)
        };
        manifest.chunks.iter().map(read).collect()
    }

    /// Publishes a snapshot, and removes what is no longer kept.
    pub fn write(&self, owner: Owner, writing: &Writing) -> Result<Written, Error> {
        let directory = self.directory(owner);
        fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        let lock = directory.join(LOCK);
        let lock = File::create(&lock).map_err(failed("open", &lock))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(directory)),
            Err(TryLockError::Error(e)) => return Err(failed("lock", &directory)(e)),
        }
        let next = writing.manifest.next;
        let mut sound = self.sound(owner, &writing.flawed)?;
        if sound.last().is_some_and(|newest| *newest >= next) {
            return Ok(Written::Superseded);
        }
        // A chunk is written even where a file of its name is there: a start writes all of them once, and thereby
        // mends what the disk may have changed.
        for chunk in writing.chunks.values() {
            replace(&directory, &chunk_name(&chunk.named), &chunk.bytes)?;
        }
        // A newer owner may have removed chunks that this one, which does not know of it, counts on.
        if !writing.manifest.chunks.iter().all(|named| directory.join(chunk_name(named)).exists()) {
            return Ok(Written::Superseded);
        }
        replace(&directory, &manifest_name(next), &writing.manifest.to_bytes())?;
        File::open(&directory).and_then(|d| d.sync_all()).map_err(failed("sync", &directory))?;
        sound.insert(next);
        let flawed: BTreeSet<i64> = writing.flawed.iter().copied().filter(|f| *f != next).collect();
        self.collect(owner, &directory, &sound, &flawed)?;
        Ok(Written::Published)
    }

    /// The offsets of the snapshots whose manifest is readable and which nobody found flawed.
    fn sound(&self, owner: Owner, flawed: &BTreeSet<i64>) -> Result<BTreeSet<i64>, Error> {
        let mut all = self.list(owner)?;
        all.retain(|next| !flawed.contains(next) && self.manifest(owner, *next).is_ok());
        Ok(all)
    }

    /// Removes manifests that are outdated, then chunks that no manifest names.
    fn collect(
        &self,
        owner: Owner,
        directory: &Path,
        sound: &BTreeSet<i64>,
        flawed: &BTreeSet<i64>,
    ) -> Result<(), Error> {
        for next in outdated(sound, flawed, self.kept) {
            remove(&directory.join(manifest_name(next)))?;
        }
        let mut named = BTreeSet::new();
        for next in self.list(owner)? {
            match self.manifest(owner, next) {
                Ok(manifest) => named.extend(manifest.chunks.iter().map(chunk_name)),
                // Another version's: what it names is unknown, so every chunk may be one of its own.
                Err(Flaw::OtherFormat { .. }) => return Ok(()),
                Err(Flaw::Broken(_)) => {}
            }
        }
        for name in names(directory)? {
            let stale = name.starts_with(CHUNK) && !named.contains(&name) || name.starts_with(TEMPORARY);
            if stale {
                remove(&directory.join(name))?;
            }
        }
        Ok(())
    }
}

fn manifest_name(next: i64) -> String {
    format!("{MANIFEST}{next:020}")
}

fn chunk_name(named: &ChunkRef) -> String {
    format!("{CHUNK}{:05}-{}", named.number, named.hash)
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// The names in a directory, none where there is no such directory.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", directory)(e)),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|e| e.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<Result<_, _>>().map_err(failed("list", directory))
}

/// Writes a file beside its place, forces it to the disk and renames it.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (temporary, place) = (directory.join(format!("{TEMPORARY}{name}")), directory.join(name));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &place)
    };
    write().map_err(failed("write", &place))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}
