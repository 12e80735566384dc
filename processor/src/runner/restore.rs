//! How a partition begins: from the newest usable snapshot, if the log is still the one that it was made of.

use std::{collections::BTreeSet, time::Duration};

use waypost_runtime::{
    broker::{self, Batch, Bounds, Feed},
    lifecycle::blocking,
};
use waypost_schemas::topic::{Topic, TopicPartition};

use super::{error::Refusal, publish::Places};
use crate::{
    checkpoint::Checkpoint,
    machine::Machine,
    snapshots::{self, Flaw, Looked, Manifest, Owner, Place},
};

/// How long a place is waited for that could only give a newer snapshot than the one at hand.
const NEWER_WITHIN: Duration = Duration::from_secs(3);
/// How long Postgres is left alone after it did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What all places hold of an owner.
pub(super) struct Best<M> {
    /// The newest usable snapshot.
    pub(super) restored: Option<Restored<M>>,
    /// The offset of the newest one, usable or not.
    pub(super) newest: Option<i64>,
    /// The offsets of the broken ones, in the data directory and in Postgres.
    pub(super) flawed: [BTreeSet<i64>; 2],
}

/// Looks for the newest usable snapshot in all places; waits for Postgres only where the data directory has none.
pub(super) async fn newest_of_all<M: Machine>(
    places: &Places,
    owner: Owner,
    cluster: &str,
) -> Result<Best<M>, Refusal> {
    let mut best = Best { restored: None, newest: None, flawed: Default::default() };
    match newest(&*places.local, owner, cluster, None).await {
        Ok(found) => best.add(0, found?),
        Err(error) => places.fails(&*places.local, &error),
    }
    if let Some(database) = places.database.as_deref() {
        let above = best.restored.as_ref().map(|r| r.manifest.next);
        let found = async {
            loop {
                match newest(database, owner, cluster, above).await {
                    Ok(found) => return Some(found),
                    Err(error) => places.fails(database, &error),
                }
                if above.is_some() {
                    return None;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let patience = if above.is_some() { NEWER_WITHIN } else { Duration::MAX };
        if let Ok(Some(found)) = tokio::time::timeout(patience, found).await {
            best.add(1, found?);
        }
    }
    if let (None, Some(newest)) = (&best.restored, best.newest) {
        let Owner { machine, partition, .. } = owner;
        tracing::warn!(
            machine,
            partition,
            newest,
            "no snapshot is usable: the log is folded from its beginning"
        );
    }
    Ok(best)
}

impl<M> Best<M> {
    fn add(&mut self, place: usize, found: Found<M>) {
        self.newest = self.newest.max(found.newest);
        self.flawed[place] = found.flawed;
        if found.restored.is_some() {
            self.restored = found.restored;
        }
    }
}

/// What one place holds of an owner.
pub(super) struct Found<M> {
    /// The newest usable snapshot that was looked for.
    pub(super) restored: Option<Restored<M>>,
    /// The offset of the newest one, usable or not.
    pub(super) newest: Option<i64>,
    /// The offsets of those that are broken.
    pub(super) flawed: BTreeSet<i64>,
}

/// A usable snapshot, read.
pub(super) struct Restored<M> {
    pub(super) machine: M,
    pub(super) manifest: Manifest,
}

/// Looks for the newest usable snapshot at offsets above `above`; says which ones are not, and why.
///
/// One of another cluster is a refusal, not a flaw: its place belongs to another log.
pub(super) async fn newest<M: Machine>(
    place: &dyn Place,
    owner: Owner,
    cluster: &str,
    above: Option<i64>,
) -> Result<Result<Found<M>, Refusal>, snapshots::Error> {
    let offsets = place.list(owner).await?;
    let mut found = Found { restored: None, newest: offsets.last().copied(), flawed: BTreeSet::new() };
    for next in offsets.into_iter().rev().filter(|next| above.is_none_or(|above| *next > above)) {
        let flaw = match read(place, owner, next, cluster).await? {
            Ok(Ok(restored)) => {
                found.restored = Some(restored);
                break;
            }
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            Err(flaw) => flaw,
        };
        let (machine, partition, place) = (owner.machine, owner.partition, place.name());
        tracing::warn!(machine, partition, place, offset = next, why = %flaw, "a snapshot is not used");
        if matches!(flaw, Flaw::Broken(_)) {
            found.flawed.insert(next);
        }
    }
    Ok(Ok(found))
}

type Read<M> = Result<Result<Restored<M>, Refusal>, Flaw>;

async fn read<M: Machine>(
    place: &dyn Place,
    owner: Owner,
    next: i64,
    cluster: &str,
) -> Result<Read<M>, snapshots::Error> {
    let manifest = match place.manifest(owner, next).await? {
        Ok(manifest) => manifest,
        Err(flaw) => return Ok(Err(flaw)),
    };
    if manifest.cluster != cluster {
        let (found, here) = (manifest.cluster, cluster.to_owned());
        return Ok(Ok(Err(Refusal::OtherCluster { next, place: place.name(), found, here })));
    }
    if manifest.looked.as_ref().map(|looked| looked.topic.as_str()) != M::LOOKS_AT.map(Topic::name) {
        return Ok(Err(Flaw::Broken("it was made of other inputs".into())));
    }
    let chunks = match place.chunks(owner, &manifest).await? {
        Ok(chunks) => chunks,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let machine = blocking(move || M::restore(chunks)).await;
    Ok(match machine {
        Ok(machine) => Ok(Ok(Restored { machine, manifest })),
        Err(unreadable) => Err(Flaw::Broken(unreadable.to_string())),
    })
}

/// What is known when a partition is about to begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) group: &'a str,
    pub(super) partition: TopicPartition,
    pub(super) bounds: Bounds,
    /// What the group has committed.
    pub(super) committed: Option<i64>,
    /// The offset of the newest snapshot anywhere, usable or not.
    pub(super) newest: Option<i64>,
    /// The snapshot that is restored.
    pub(super) manifest: Option<&'a Manifest>,
}

/// How a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Where reading begins: at the snapshot's checkpoint, so that it is read again, or at the log's first record.
    pub(super) from: i64,
    /// Effects of causes below this are folded, not sent.
    pub(super) floor: i64,
    /// Whether this is the group's first assignment, so that 0 is committed before anything is folded.
    pub(super) first: bool,
}

/// Decides how a partition begins, or why it must not.
pub(super) fn judge(facts: Facts<'_>) -> Result<Beginning, Refusal> {
    let Facts { group, partition, bounds: Bounds { low, high }, committed, newest, manifest } = facts;
    if let (None, Some(next)) = (committed, newest) {
        let partition = format!("{}:{}", partition.topic, partition.partition);
        return Err(Refusal::CommitMissing { group: group.to_owned(), partition, next });
    }
    let ends_before = |what, next| (next > high).then_some(Refusal::EndLost { what, next, high });
    if let Some(refusal) = manifest.and_then(|m| ends_before("the snapshot", m.next)) {
        return Err(refusal);
    }
    if let Some(refusal) = committed.and_then(|c| ends_before("the group's committed offset", c)) {
        return Err(refusal);
    }
    let from = match manifest {
        Some(manifest) => manifest.checkpoint.as_ref().map_or(manifest.next, |c| c.offset),
        None => 0,
    };
    if from < low {
        return Err(Refusal::Cut { low, from });
    }
    Ok(Beginning { from, floor: committed.unwrap_or(0), first: committed.is_none() })
}

/// Decides where reading of the topic begins that a machine looks at, or why it must not.
///
/// What the group has committed of it says nothing: it belongs to the snapshot, or begins at 0.
pub(super) fn judge_looked(bounds: Bounds, looked: Option<&Looked>) -> Result<i64, Refusal> {
    let Bounds { low, high } = bounds;
    let (next, from) = match looked {
        Some(looked) => (looked.next, looked.checkpoint.as_ref().map_or(looked.next, |c| c.offset)),
        None => (0, 0),
    };
    if next > high {
        return Err(Refusal::EndLost { what: "the snapshot", next, high });
    }
    if from < low {
        return Err(Refusal::Cut { low, from });
    }
    Ok(from)
}

/// Reads a checkpoint's record again; gives what came with it.
pub(super) async fn verify(
    feed: &mut dyn Feed,
    checkpoint: &Checkpoint,
) -> Result<Result<Batch, Refusal>, broker::Error> {
    let differs = Refusal::Differs { offset: checkpoint.offset };
    loop {
        let mut batch = feed.next().await?;
        if batch.records.is_empty() {
            if batch.next > checkpoint.offset {
                return Ok(Err(differs));
            }
            continue;
        }
        if Checkpoint::of(&batch.records[0]) != *checkpoint {
            return Ok(Err(differs));
        }
        batch.records.remove(0);
        return Ok(Ok(batch));
    }
}
