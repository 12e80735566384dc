//! Snapshots in the data directory: `MACHINE/PARTITION/`, with a file for each manifest and one for the chunks that
//! were written with it ([`packs`]).
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

use super::{
    ChunkRef, Flaw, Manifest, Owner, Packed, Writing, Written, outdated, packed,
    packs::{self, Packs},
};
use crate::machine::Chunk;

const MANIFEST: &str = "manifest-";
const TEMPORARY: &str = "new-";
const LOCK: &str = "lock";
/// How many times the newest snapshot's bytes its files may have, beside [`DEAD_BYTES_MIN`], before all of its chunks
/// are written again, so that older files can go.
const BYTES_TIMES_MAX: u64 = 4;
const DEAD_BYTES_MIN: u64 = 1 << 20;

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
        let packs = names(&directory).map(|names| Packs::of(&directory, &names));
        let packs = packs.map_err(|e| Flaw::Broken(format!("its chunks cannot be read: {e}")))?;
        let read = |named: &ChunkRef| {
            let stored = packs
                .read(&directory, named)
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
        // A chunk is written even where a file holds it: a start writes all of them once, and thereby mends what the disk
        // may have changed.
        let mut packs = Packs::of(&directory, &names(&directory)?);
        let carried = carried(&directory, &packs, writing);
        if !writing.chunks.is_empty() || !carried.is_empty() {
            let chunks = writing.chunks.values().chain(&carried);
            replace(&directory, &packs::name(next), &packs::pack(chunks))?;
            packs = Packs::of(&directory, &names(&directory)?);
        }
        // A newer owner may have removed chunks that this one, which does not know of it, counts on.
        if !writing.manifest.chunks.iter().all(|named| packs.has(named)) {
            return Ok(Written::Superseded);
        }
        replace(&directory, &manifest_name(next), &writing.manifest.to_bytes())?;
        File::open(&directory).and_then(|d| d.sync_all()).map_err(failed("sync", &directory))?;
        sound.insert(next);
        let flawed: BTreeSet<i64> = writing.flawed.iter().copied().filter(|f| *f != next).collect();
        self.collect(owner, &directory, &packs, (&sound, &flawed))?;
        Ok(Written::Published)
    }

    /// The offsets of the snapshots whose manifest is readable and which nobody found flawed.
    fn sound(&self, owner: Owner, flawed: &BTreeSet<i64>) -> Result<BTreeSet<i64>, Error> {
        let mut all = self.list(owner)?;
        all.retain(|next| !flawed.contains(next) && self.manifest(owner, *next).is_ok());
        Ok(all)
    }

    /// Removes manifests that are outdated, then files of which no manifest names a chunk.
    fn collect(
        &self,
        owner: Owner,
        directory: &Path,
        packs: &Packs,
        (sound, flawed): (&BTreeSet<i64>, &BTreeSet<i64>),
    ) -> Result<(), Error> {
        for next in outdated(sound, flawed, self.kept) {
            remove(&directory.join(manifest_name(next)))?;
        }
        let mut named = Vec::new();
        for next in self.list(owner)? {
            match self.manifest(owner, next) {
                Ok(manifest) => named.extend(manifest.chunks),
                // Another version's: what it names is unknown, so every chunk may be one of its own.
                Err(Flaw::OtherFormat { .. }) => return Ok(()),
                Err(Flaw::Broken(_)) => {}
            }
        }
        let left = names(directory)?.into_iter().filter(|name| name.starts_with(TEMPORARY));
        let mut stale = packs.without(named.iter()).into_iter().map(str::to_owned).chain(left);
        stale.try_for_each(|name| remove(&directory.join(name)))
    }
}

/// The chunks of a manifest that are written again though they have not changed, because what is no longer read has
/// come to be most of what the disk keeps.
fn carried(directory: &Path, packs: &Packs, writing: &Writing) -> Vec<Packed> {
    let unchanged = || writing.manifest.chunks.iter().filter(|c| !writing.chunks.contains_key(&c.number));
    let live =
        packs.bytes_of(unchanged()) + writing.chunks.values().map(|c| c.bytes.len() as u64).sum::<u64>();
    if packs.bytes() <= live * BYTES_TIMES_MAX + DEAD_BYTES_MIN {
        return Vec::new();
    }
    let read = |named: &ChunkRef| {
        let packed = Packed { named: named.clone(), bytes: packs.read(directory, named).ok()?.into() };
        // One that the disk has changed stays where it is, for the next start to find.
        packed.unpack().is_ok().then_some(packed)
    };
    unchanged().filter_map(read).collect()
}

fn manifest_name(next: i64) -> String {
    format!("{MANIFEST}{next:020}")
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
