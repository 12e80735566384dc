//! The newest entries of one partition of the inboxes, by user, within bounds.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use waypost_schemas::{
    cause::{Cause, SeqMap},
    id::UserId,
    time::Micros,
};

/// What a ring holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) entries_max: usize,
    pub(crate) bytes_max: usize,
}

/// An entry as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) offset: i64,
    /// The append time of its cause.
    pub(crate) at: Micros,
    pub(crate) cause: Cause,
    pub(crate) user: UserId,
    pub(crate) value: Bytes,
}

impl Kept {
    fn bytes(&self) -> usize {
        // Twice its reference: it stands in the ring and under its user.
        size_of::<Self>() + 2 * size_of::<Arc<Self>>() + self.user.as_str().len() + self.value.len()
    }
}

/// Entries of a user out of a ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulled {
    pub(crate) entries: Vec<Arc<Kept>>,
    /// Up to where there are no others of this user.
    pub(crate) through: i64,
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum At {
    Entry(Arc<Kept>),
    /// No entry that was taken.
    Nothing,
    /// The ring begins later.
    Before,
    /// Nothing has been read there yet.
    After,
}

/// Every entry of a partition from `base` to `next`, and the places at which a reader could begin again.
#[derive(Debug)]
pub(crate) struct Ring {
    bounds: Bounds,
    base: i64,
    next: i64,
    bytes: usize,
    entries: VecDeque<Arc<Kept>>,
    users: HashMap<UserId, VecDeque<Arc<Kept>>>,
    /// Offsets with the numbers that were taken below them, a quarter of the bounds apart.
    marks: VecDeque<(i64, SeqMap)>,
    /// How much has come since the last mark.
    unmarked: Bounds,
}

impl Ring {
    /// An empty ring that begins where a reader does.
    pub(crate) fn new(bounds: Bounds, next: i64, seqs: SeqMap) -> Self {
        Self {
            bounds,
            base: next,
            next,
            bytes: 0,
            entries: VecDeque::new(),
            users: HashMap::new(),
            marks: VecDeque::from([(next, seqs)]),
            unmarked: Bounds { entries_max: 0, bytes_max: 0 },
        }
    }

    /// The next offset to be read.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Takes an entry; the oldest ones go where it has no room.
    pub(crate) fn push(&mut self, kept: Kept) {
        let bytes = kept.bytes();
        let kept = Arc::new(kept);
        self.next = kept.offset + 1;
        self.bytes += bytes;
        self.unmarked.entries_max += 1;
        self.unmarked.bytes_max += bytes;
        match self.users.get_mut(&kept.user) {
            Some(theirs) => theirs.push_back(kept.clone()),
            None => drop(self.users.insert(kept.user.clone(), VecDeque::from([kept.clone()]))),
        }
        self.entries.push_back(kept);
        while self.entries.len() > self.bounds.entries_max || self.bytes > self.bounds.bytes_max {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.bytes -= oldest.bytes();
        self.base = oldest.offset + 1;
        if let Some(theirs) = self.users.get_mut(&oldest.user) {
            theirs.pop_front();
            if theirs.is_empty() {
                self.users.remove(&oldest.user);
            }
        }
    }

    /// Takes the news that everything below an offset was read, with the numbers taken below it.
    pub(crate) fn reach(&mut self, next: i64, seqs: &SeqMap) {
        self.next = self.next.max(next);
        let Bounds { entries_max, bytes_max } = self.unmarked;
        if entries_max >= self.bounds.entries_max / 4 || bytes_max >= self.bounds.bytes_max / 4 {
            self.unmarked = Bounds { entries_max: 0, bytes_max: 0 };
            self.marks.push_back((self.next, seqs.clone()));
        }
        // The last one stays, though the ring begins after it: a reader must begin somewhere.
        while self.marks.len() > 1 && self.marks[0].0 < self.base {
            self.marks.pop_front();
        }
    }

    /// The lowest place from which a reader would hold what this ring holds, as far as it is known.
    pub(crate) fn mark(&self) -> &(i64, SeqMap) {
        &self.marks[0]
    }

    /// A user's entries after an offset: at most so many, and so many bytes but for a first one that is larger.
    /// `None` where the ring begins later.
    pub(crate) fn pull(
        &self,
        user: &UserId,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Option<Pulled> {
        if after + 1 < self.base {
            return None;
        }
        let mut pulled = Pulled { entries: Vec::new(), through: after };
        let mut bytes = 0;
        for kept in self.users.get(user).into_iter().flat_map(|theirs| later(theirs, after)) {
            if pulled.entries.len() == entries_max || bytes >= bytes_max {
                return Some(pulled);
            }
            bytes += kept.value.len();
            pulled.through = kept.offset;
            pulled.entries.push(kept.clone());
        }
        pulled.through = after.max(self.next - 1);
        Some(pulled)
    }

    /// The offsets of a user's entries after an offset; `None` where the ring begins later.
    pub(crate) fn offsets(&self, user: &UserId, after: i64) -> Option<Vec<i64>> {
        (after + 1 >= self.base).then(|| {
            let theirs = self.users.get(user).into_iter().flat_map(|theirs| later(theirs, after));
            theirs.map(|kept| kept.offset).collect()
        })
    }

    /// What stands at an offset.
    pub(crate) fn at(&self, offset: i64) -> At {
        if offset < self.base {
            return At::Before;
        }
        if offset >= self.next {
            return At::After;
        }
        let place = self.entries.partition_point(|kept| kept.offset < offset);
        match self.entries.get(place).filter(|kept| kept.offset == offset) {
            Some(kept) => At::Entry(kept.clone()),
            None => At::Nothing,
        }
    }
}

fn later(entries: &VecDeque<Arc<Kept>>, after: i64) -> impl Iterator<Item = &Arc<Kept>> {
    entries.range(entries.partition_point(|kept| kept.offset <= after)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { entries_max: 8, bytes_max: 100_000 };

    fn kept(offset: i64, user: &str, bytes: usize) -> Kept {
        let value = Bytes::from(vec![0; bytes]);
        let cause = format!("messages/0/{offset}/0").parse().unwrap();
        Kept { offset, at: Micros(0), cause, user: UserId::new(user).unwrap(), value }
    }

    fn seqs(number: u64) -> SeqMap {
        let mut seqs = SeqMap::default();
        for n in 1..=number {
            seqs.take(&format!("alerts/0/{n}").parse().unwrap());
        }
        seqs
    }

    fn offsets(ring: &Ring, user: &str, after: i64, entries: usize, bytes: usize) -> Option<(Vec<i64>, i64)> {
        let pulled = ring.pull(&UserId::new(user).unwrap(), after, entries, bytes)?;
        Some((pulled.entries.iter().map(|kept| kept.offset).collect(), pulled.through))
    }

    fn filled(offsets: std::ops::Range<i64>) -> Ring {
        let mut ring = Ring::new(BOUNDS, offsets.start, seqs(0));
        for offset in offsets {
            ring.push(kept(offset, if offset % 2 == 0 { "even" } else { "odd" }, 10));
            ring.reach(offset + 1, &seqs(offset as u64 + 1));
        }
        ring
    }

    #[test]
    fn a_user_is_given_its_own_entries_in_order_as_many_as_are_asked_for() {
        let mut ring = filled(10..16);
        ring.reach(20, &seqs(20));
        assert_eq!(offsets(&ring, "even", 9, 10, 1_000), Some((vec![10, 12, 14], 19)));
        assert_eq!(offsets(&ring, "even", 10, 10, 1_000), Some((vec![12, 14], 19)));
        assert_eq!(offsets(&ring, "even", 9, 2, 1_000), Some((vec![10, 12], 12)));
        assert_eq!(offsets(&ring, "even", 9, 10, 11), Some((vec![10, 12], 12)));
        assert_eq!(offsets(&ring, "even", 14, 10, 10), Some((vec![], 19)));
        assert_eq!(offsets(&ring, "none", 9, 10, 10), Some((vec![], 19)));
        assert_eq!(offsets(&ring, "even", 30, 10, 10), Some((vec![], 30)));
        assert_eq!(offsets(&ring, "even", 8, 10, 10), None, "9 is not here");
        assert_eq!(ring.offsets(&UserId::new("odd").unwrap(), 11), Some(vec![13, 15]));
        assert_eq!(ring.offsets(&UserId::new("odd").unwrap(), 3), None);
    }

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let ring = filled(10..30);
        assert_eq!(offsets(&ring, "even", 20, 10, 1_000), None);
        assert_eq!(offsets(&ring, "even", 21, 10, 1_000), Some((vec![22, 24, 26, 28], 29)));
        assert_eq!(ring.users.len(), 2);
        let mut ring = Ring::new(Bounds { entries_max: 8, bytes_max: 3_000 }, 0, seqs(0));
        for offset in 0..5 {
            ring.push(kept(offset, &format!("u{offset}"), 1_000));
        }
        assert_eq!((ring.base, ring.users.len()), (3, 2));
        ring.push(kept(5, "large", 10_000));
        assert_eq!((ring.base, ring.entries.len(), ring.bytes, ring.users.len()), (6, 0, 0, 0));
    }

    #[test]
    fn an_offset_within_names_an_entry_or_nothing() {
        let mut ring = filled(10..12);
        assert_eq!((ring.at(9), ring.at(14)), (At::Before, At::After));
        assert_eq!(ring.at(11), At::Entry(Arc::new(kept(11, "odd", 10))));
        ring.push(kept(13, "odd", 1));
        assert_eq!(ring.at(12), At::Nothing);
    }

    #[test]
    fn a_reader_that_begins_at_the_mark_holds_most_of_what_the_ring_holds() {
        let ring = filled(10..12);
        assert_eq!(ring.mark(), &(10, seqs(0)));
        let ring = filled(10..30);
        let (offset, taken) = ring.mark();
        assert!((22..=24).contains(offset), "{offset}: the ring begins at 22");
        assert_eq!(*taken, seqs(*offset as u64));
        assert!(ring.marks.len() <= 5);
    }
}
