//! A machine's state by id, cut into a fixed number of chunks, of which a snapshot writes those that changed.

use std::{collections::HashMap, hash::Hash};

use waypost_schemas::id::{DeviceId, UserId};

use crate::machine::{Chunk, Unreadable};

/// How many chunks the state is cut into, by a hash of the id. It is part of the format of who uses it.
const CHUNKS: usize = 64;

/// What state is kept by.
pub(crate) trait Id: Clone + Ord + Hash {
    /// Its text, at most 255 bytes.
    fn text(&self) -> &str;
    /// The id of a text, where it is one.
    fn read(text: &str) -> Option<Self>;
}

impl Id for UserId {
    fn text(&self) -> &str {
        self.as_str()
    }
    fn read(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }
}

impl Id for DeviceId {
    fn text(&self) -> &str {
        self.as_str()
    }
    fn read(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }
}

/// What is kept of an id.
pub(crate) trait Kept: Sized {
    /// Appends its bytes, the same for equal states.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes its bytes from the front; `None` where they are none that `write` makes.
    fn read(from: &mut Bytes<'_>) -> Option<Self>;
}

/// State by id.
#[derive(Debug)]
pub(crate) struct Shards<K, V>(Vec<Shard<K, V>>);

/// The state of one chunk.
#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    pub(crate) kept: HashMap<K, V>,
    /// Whether something changed since the chunk was last written; who changes it says so.
    pub(crate) changed: bool,
}

impl<K: Id, V: Kept> Default for Shards<K, V> {
    fn default() -> Self {
        Self((0..CHUNKS).map(|_| Shard { kept: HashMap::new(), changed: true }).collect())
    }
}

impl<K: Id, V: Kept> Shards<K, V> {
    /// The state among which an id's is.
    pub(crate) fn shard_of(&mut self, id: &K) -> &mut Shard<K, V> {
        &mut self.0[chunk_of(id)]
    }

    /// What is kept of an id, to be changed; new where nothing was.
    pub(crate) fn change(&mut self, id: &K) -> &mut V
    where
        V: Default,
    {
        let shard = self.shard_of(id);
        shard.changed = true;
        if !shard.kept.contains_key(id) {
            shard.kept.insert(id.clone(), V::default());
        }
        shard.kept.get_mut(id).expect("it was put there")
    }

    /// What is kept of an id, to be changed, where anything is.
    pub(crate) fn change_known(&mut self, id: &K) -> Option<&mut V> {
        let shard = &mut self.0[chunk_of(id)];
        let kept = shard.kept.get_mut(id)?;
        shard.changed = true;
        Some(kept)
    }

    /// The chunks that changed since the last call; all of them at the first.
    pub(crate) fn take_changed(&mut self) -> Vec<Chunk> {
        let written = |(number, shard): (u16, &mut Shard<K, V>)| {
            let changed = std::mem::take(&mut shard.changed);
            changed.then(|| Chunk { number, bytes: write(&shard.kept) })
        };
        (0..).zip(&mut self.0).filter_map(written).collect()
    }

    /// The state of a whole snapshot.
    pub(crate) fn read(chunks: &[Chunk]) -> Result<Self, Unreadable> {
        let Self(mut shards) = Self::default();
        for (number, shard) in (0..).zip(&mut shards) {
            let chunk = chunks.get(usize::from(number)).filter(|chunk| chunk.number == number);
            let missing = || Unreadable { number, detail: "it is missing".into() };
            shard.kept = read(chunk.ok_or_else(missing)?)?;
        }
        if let Some(chunk) = chunks.get(CHUNKS) {
            return Err(Unreadable { number: chunk.number, detail: format!("there are only {CHUNKS}") });
        }
        Ok(Self(shards))
    }
}

/// FNV-1a in 64 bits, folded: fixed for ever by the format, and unlike the hash that chose the partition.
fn chunk_of(id: &impl Id) -> usize {
    let hash = id.text().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) ^ hash) as usize % CHUNKS
}

/// A chunk: the number of ids (u32), then each in order: its length (u8), its text, what is kept of it. Numbers are
/// little-endian.
fn write<K: Id, V: Kept>(kept: &HashMap<K, V>) -> Vec<u8> {
    let mut sorted: Vec<_> = kept.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    let mut out = Vec::new();
    out.extend((sorted.len() as u32).to_le_bytes());
    for (id, value) in sorted {
        put_text(&mut out, id.text());
        value.write(&mut out);
    }
    out
}

fn read<K: Id, V: Kept>(chunk: &Chunk) -> Result<HashMap<K, V>, Unreadable> {
    let unreadable = |detail: &str| Unreadable { number: chunk.number, detail: detail.into() };
    let mut from = Bytes(&chunk.bytes);
    let count = from.u32().ok_or_else(|| unreadable("it has no number of ids"))?;
    let mut kept = HashMap::new();
    let mut last: Option<K> = None;
    for _ in 0..count {
        let read = from.text().and_then(K::read).and_then(|id| Some((id, V::read(&mut from)?)));
        let (id, value) =
            read.ok_or_else(|| unreadable("what it keeps is cut short or is not what it should be"))?;
        if chunk_of(&id) != usize::from(chunk.number) || last.as_ref().is_some_and(|last| *last >= id) {
            return Err(unreadable("an id is not in its place"));
        }
        last = Some(id.clone());
        kept.insert(id, value);
    }
    if !from.0.is_empty() {
        return Err(unreadable("it goes on after its last id"));
    }
    Ok(kept)
}

/// Appends a text of at most 255 bytes, behind its length (u8).
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("ids are shorter"));
    out.extend(text.bytes());
}

/// The bytes of a chunk that are still to be read. Nothing is allocated but for bytes that are there.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// The next bytes, so many.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
    /// The next bytes, as many as are asked for.
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    /// A text behind its length.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.array::<1>()?[0];
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
    pub(crate) fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Kept for u32 {
        fn write(&self, out: &mut Vec<u8>) {
            out.extend(self.to_le_bytes());
        }
        fn read(from: &mut Bytes<'_>) -> Option<Self> {
            from.u32()
        }
    }

    fn user(n: u32) -> UserId {
        UserId::new(format!("user-{n}")).unwrap()
    }

    fn of(users: u32) -> Shards<UserId, u32> {
        let mut shards = Shards::default();
        for n in 0..users {
            *shards.change(&user(n)) = n;
        }
        shards
    }

    #[test]
    fn what_is_written_is_read_and_only_what_changed_is_written_again() {
        let mut shards = of(1_000);
        let all = shards.take_changed();
        assert_eq!(all.len(), CHUNKS);
        assert_eq!(shards.take_changed(), []);
        let mut read = Shards::<UserId, u32>::read(&all).unwrap();
        assert_eq!(read.take_changed(), all);
        assert_eq!(read.change_known(&user(7)), Some(&mut 7));
        assert_eq!(read.change_known(&user(1_000)), None);
        let changed = read.take_changed();
        assert_eq!(changed.len(), 1);
        assert_eq!(usize::from(changed[0].number), chunk_of(&user(7)));
    }

    #[test]
    fn what_is_cut_or_out_of_place_is_unreadable() {
        let all = of(500).take_changed();
        let unreadable = |chunks: Vec<Chunk>| Shards::<UserId, u32>::read(&chunks).is_err();
        assert!(unreadable(all[1..].to_vec()));
        let more = Chunk { number: CHUNKS as u16, bytes: vec![0; 4] };
        assert!(unreadable(all.iter().cloned().chain([more]).collect()));
        let mut swapped = all.clone();
        let (left, right) = swapped.split_at_mut(1);
        std::mem::swap(&mut left[0].bytes, &mut right[0].bytes);
        assert!(unreadable(swapped));
        for length in 0..all[0].bytes.len() {
            let mut cut = all.clone();
            cut[0].bytes.truncate(length);
            assert!(unreadable(cut), "{length}");
        }
        let mut longer = all.clone();
        longer[0].bytes.push(0);
        assert!(unreadable(longer));
    }
}
