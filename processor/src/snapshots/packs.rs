//! The chunks of one write as one file, so that a snapshot costs the disk two files, however many chunks changed.
//!
//! A pack is a line of JSON that names its chunks, in order, with the length of each, and then their bytes. It stands
//! in a directory under `chunks-OFFSET`. Of a chunk that several packs hold the newest copy counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::FileExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{ChunkRef, Packed};

const PACK: &str = "chunks-";
/// The longest first line that is read, in bytes: a thousand times what a pack of today's machines has.
const HEAD_BYTES_MAX: u64 = 8 << 20;

/// A chunk's place in the first line.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    number: u16,
    hash: String,
    /// Its length as it is stored, in bytes.
    stored: u64,
}

/// Where a chunk stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    pack: String,
    from: u64,
    length: u64,
}

/// The name of the pack of a write.
pub(super) fn name(next: i64) -> String {
    format!("{PACK}{next:020}")
}

/// A pack's bytes.
pub(super) fn pack<'a>(chunks: impl Iterator<Item = &'a Packed> + Clone) -> Vec<u8> {
    let entry = |chunk: &Packed| Entry {
        number: chunk.named.number,
        hash: chunk.named.hash.clone(),
        stored: chunk.bytes.len() as u64,
    };
    let entries: Vec<_> = chunks.clone().map(entry).collect();
    let mut bytes = serde_json::to_vec(&entries).expect("numbers and texts are JSON");
    bytes.push(b'\n');
    chunks.for_each(|chunk| bytes.extend_from_slice(&chunk.bytes));
    bytes
}

/// What the packs of a directory hold.
#[derive(Debug, Default)]
pub(super) struct Packs {
    places: BTreeMap<(u16, String), Place>,
    /// The size of each, in bytes.
    packs: BTreeMap<String, u64>,
}

impl Packs {
    /// Reads the first line of each pack among the names in a directory; one that cannot be read holds nothing.
    pub(super) fn of(directory: &Path, names: &[String]) -> Self {
        let mut packs = Self::default();
        let ours: BTreeSet<_> = names.iter().filter(|name| name.starts_with(PACK)).collect();
        for name in ours {
            packs.packs.insert(name.clone(), 0);
            // What is missing is told where a chunk of it is asked for.
            let _ = packs.add(directory, name);
        }
        packs
    }

    fn add(&mut self, directory: &Path, name: &str) -> io::Result<()> {
        let file = File::open(directory.join(name))?;
        let size = file.metadata()?.len();
        self.packs.insert(name.to_owned(), size);
        let mut head = Vec::new();
        BufReader::new(io::Read::take(file, HEAD_BYTES_MAX)).read_until(b'\n', &mut head)?;
        let mut from = head.len() as u64;
        for Entry { number, hash, stored } in serde_json::from_slice::<Vec<Entry>>(&head)? {
            let place = Place { pack: name.to_owned(), from, length: stored };
            from = from.saturating_add(stored);
            if from <= size {
                self.places.insert((number, hash), place);
            }
        }
        Ok(())
    }

    fn place(&self, of: &ChunkRef) -> Option<&Place> {
        self.places.get(&(of.number, of.hash.clone()))
    }

    pub(super) fn has(&self, chunk: &ChunkRef) -> bool {
        self.place(chunk).is_some()
    }

    /// The stored bytes of a chunk, which nobody has checked.
    pub(super) fn read(&self, directory: &Path, chunk: &ChunkRef) -> io::Result<Vec<u8>> {
        let place = self.place(chunk).ok_or_else(|| io::Error::other("no file holds it"))?;
        let mut bytes = vec![0; place.length as usize];
        File::open(directory.join(&place.pack))?.read_exact_at(&mut bytes, place.from)?;
        Ok(bytes)
    }

    /// How many bytes all packs have.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.values().sum()
    }

    /// How many bytes some chunks have here.
    pub(super) fn bytes_of<'a>(&self, chunks: impl Iterator<Item = &'a ChunkRef>) -> u64 {
        chunks.filter_map(|chunk| self.place(chunk)).map(|place| place.length).sum()
    }

    /// The packs of which none of these chunks is read.
    pub(super) fn without<'a>(&self, chunks: impl Iterator<Item = &'a ChunkRef>) -> Vec<&str> {
        let read: BTreeSet<&str> = chunks.filter_map(|chunk| Some(&*self.place(chunk)?.pack)).collect();
        self.packs.keys().map(|name| &**name).filter(|name| !read.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::machine::Chunk;

    fn packed(number: u16, bytes: &[u8]) -> Packed {
        Packed::pack(&Chunk { number, bytes: bytes.to_vec() })
    }

    fn packs(directory: &Path) -> Packs {
        let names: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        Packs::of(directory, &names.iter().map(|n| n.to_string_lossy().into_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_copy_of_a_chunk_is_read_and_a_pack_that_nobody_reads_may_go() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let [a, b, c] = [packed(0, b"aaa"), packed(1, b"bb"), packed(2, b"")];
        fs::write(directory.join(name(10)), pack([&a, &b].into_iter())).unwrap();
        fs::write(directory.join(name(20)), pack([&c, &b].into_iter())).unwrap();
        let both = packs(directory);
        for chunk in [&a, &b, &c] {
            assert_eq!(both.read(directory, &chunk.named).unwrap(), chunk.bytes);
        }
        assert_eq!(both.without([&b.named, &c.named].into_iter()), [name(10)]);
        assert_eq!(both.without([&a.named].into_iter()), [name(20)]);
        assert_eq!(both.bytes_of([&a.named, &b.named].into_iter()), (a.bytes.len() + b.bytes.len()) as u64);
        assert!(!both.has(&packed(0, b"bb").named), "another chunk of the number");
    }

    #[test]
    fn a_pack_that_is_cut_anywhere_holds_what_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let [a, b] = [packed(0, b"aaa"), packed(1, b"bb")];
        let whole = pack([&a, &b].into_iter());
        for length in 0..whole.len() {
            fs::write(directory.join(name(10)), &whole[..length]).unwrap();
            let cut = packs(directory);
            assert!(!cut.has(&b.named), "{length}");
            assert_eq!(cut.has(&a.named), length >= whole.len() - b.bytes.len(), "{length}");
            assert_eq!(cut.without(std::iter::empty()), [name(10)]);
        }
        fs::write(
            directory.join(name(10)),
            b"[{\"number\":0,\"hash\":\"x\",\"stored\":18446744073709551615}]\n",
        )
        .unwrap();
        assert!(packs(directory).places.is_empty());
    }
}
