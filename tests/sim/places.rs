//! Snapshots in memory: what a data directory or Postgres keeps, through the gate of the process that asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use waypost_processor::{
    machine::Chunk,
    snapshots::{Error, Flaw, Manifest, Owner, Packed, Place, Writing, Written},
};
use waypost_runtime::broker::Boxed;
use waypost_schemas::topic::{Topic, TopicPartition};

use crate::{bug::Bug, dice::Dice, gate::Gate, journal::Journal};

/// How many snapshots of an owner are kept: more than a real place keeps, for any of them is as good.
const KEPT: usize = 6;

type Key = (&'static str, i32);

/// A place; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    away: bool,
    manifests: BTreeMap<Key, BTreeMap<i64, Vec<u8>>>,
    chunks: BTreeMap<(Key, u16, String), Packed>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place away, or brings it back.
    pub(crate) fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Loses the newest snapshots of some owner, or spoils a byte of the newest; says of whom.
    pub(crate) fn harm(&self, dice: &mut Dice) -> Option<(Key, &'static str)> {
        let mut kept = self.lock();
        let owners: Vec<Key> = kept.manifests.keys().copied().collect();
        let owner = *dice.pick(&owners)?;
        let manifests = kept.manifests.get_mut(&owner)?;
        if dice.once_in(2) {
            let lost = dice.within(1..=manifests.len() as u64);
            (0..lost).for_each(|_| drop(manifests.pop_last()));
            if manifests.is_empty() {
                kept.manifests.remove(&owner);
            }
            return Some((owner, "lost"));
        }
        let mut newest = manifests.last_entry()?;
        let middle = newest.get().len() / 2;
        newest.get_mut()[middle] ^= 1;
        Some((owner, "spoilt"))
    }

    /// The newest snapshot of each owner, as far as it can be read.
    pub(crate) fn newest(&self) -> BTreeMap<Key, Manifest> {
        let kept = self.lock();
        let newest = |(owner, all): (&Key, &BTreeMap<i64, Vec<u8>>)| {
            let read = |bytes: &Vec<u8>| {
                let (machine, partition) = *owner;
                Manifest::from_bytes(bytes, Owner { machine, partition, format: FORMAT }).ok()
            };
            Some((*owner, all.values().rev().find_map(read)?))
        };
        kept.manifests.iter().filter_map(newest).collect()
    }
}

/// The format of every machine's chunks today.
const FORMAT: u16 = 1;

/// A place as one process reaches it.
pub(crate) struct Reached {
    pub(crate) shelf: Shelf,
    pub(crate) name: &'static str,
    pub(crate) gate: Gate,
    pub(crate) journal: Journal,
    pub(crate) bug: Option<Bug>,
    /// The topics that drive the machines, by name.
    pub(crate) drives: BTreeMap<&'static str, Topic>,
}

impl Reached {
    async fn ask<T>(&self, answer: impl FnOnce(&mut Kept) -> T + Send) -> Result<T, Error> {
        self.gate.pass().await;
        let answer = {
            let mut kept = self.shelf.lock();
            if kept.away {
                return Err(Error::Slow);
            }
            answer(&mut kept)
        };
        self.gate.pass().await;
        Ok(answer)
    }

    fn put(&self, owner: Owner, mut writing: Writing, kept: &mut Kept) -> Written {
        let key = (owner.machine, owner.partition);
        if let Some(bug) = self.bug {
            bug.written(&mut writing.manifest);
        }
        let Kept { manifests, chunks, .. } = kept;
        let manifests = manifests.entry(key).or_default();
        let sound = |next: &i64, bytes: &[u8]| {
            !writing.flawed.contains(next) && Manifest::from_bytes(bytes, owner).is_ok()
        };
        let next = writing.manifest.next;
        if manifests.iter().any(|(n, bytes)| *n >= next && sound(n, bytes)) {
            return Written::Superseded;
        }
        for (number, packed) in writing.chunks {
            chunks.insert((key, number, packed.named.hash.clone()), packed);
        }
        let there = |named: &waypost_processor::snapshots::ChunkRef| {
            chunks.contains_key(&(key, named.number, named.hash.clone()))
        };
        if !writing.manifest.chunks.iter().all(there) {
            return Written::Superseded;
        }
        manifests.retain(|n, _| !writing.flawed.contains(n));
        manifests.insert(next, writing.manifest.to_bytes());
        while manifests.len() > KEPT {
            manifests.pop_first();
        }
        let source = TopicPartition::new(self.drives[owner.machine], owner.partition);
        self.journal.promise("snapshot", owner.machine, source, next, &self.journal.ends());
        self.journal.met.one("snapshots");
        Written::Published
    }
}

impl Place for Reached {
    fn name(&self) -> &'static str {
        self.name
    }

    fn list(&self, owner: Owner) -> Boxed<'_, Result<BTreeSet<i64>, Error>> {
        let key = (owner.machine, owner.partition);
        Box::pin(self.ask(move |kept| {
            kept.manifests.get(&key).map(|all| all.keys().copied().collect()).unwrap_or_default()
        }))
    }

    fn manifest(&self, owner: Owner, next: i64) -> Boxed<'_, Result<Result<Manifest, Flaw>, Error>> {
        let key = (owner.machine, owner.partition);
        Box::pin(self.ask(move |kept| match kept.manifests.get(&key).and_then(|all| all.get(&next)) {
            Some(bytes) => Manifest::from_bytes(bytes, owner),
            None => Err(Flaw::Broken("its manifest is gone".into())),
        }))
    }

    fn chunks<'a>(
        &'a self,
        owner: Owner,
        manifest: &'a Manifest,
    ) -> Boxed<'a, Result<Result<Vec<Chunk>, Flaw>, Error>> {
        let key = (owner.machine, owner.partition);
        Box::pin(self.ask(move |kept| {
            self.journal.met.one("restores");
            let read = |named: &waypost_processor::snapshots::ChunkRef| match kept.chunks.get(&(
                key,
                named.number,
                named.hash.clone(),
            )) {
                Some(packed) => packed.unpack(),
                None => Err(Flaw::Broken(format!("chunk {} is gone", named.number))),
            };
            manifest.chunks.iter().map(read).collect()
        }))
    }

    fn write(&self, owner: Owner, writing: Writing) -> Boxed<'_, Result<Written, Error>> {
        Box::pin(self.ask(move |kept| self.put(owner, writing, kept)))
    }
}
