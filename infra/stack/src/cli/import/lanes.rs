//! Which fixes go next: one lane per device, in file order, with one request in flight per lane.
//!
//! Pure: rows go in, requests come out. A file sorted by time interleaves its devices, so lanes fill up side by
//! side: a full request goes first, and where room is short or the file has ended the lane that has waited longest.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The most fixes of one request, as the stack takes them.
pub(super) const BATCH_FIXES_MAX: usize = 1_000;
/// The most fixes that are held, in lanes and in flight. At some 60 to 250 bytes each, tens of megabytes; and at
/// ten thousand interleaved devices still 25 fixes a request.
pub(super) const HELD_FIXES_MAX: usize = 262_144;

/// The fixes of one request, all of one device and in file order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Line number and end in `text` of each fix.
    fixes: Vec<(u64, usize)>,
    /// The fixes as JSON objects, with a comma after each.
    text: Vec<u8>,
}

impl Batch {
    fn push(&mut self, line: u64, fix: &[u8]) {
        self.text.extend_from_slice(fix);
        self.text.push(b',');
        self.fixes.push((line, self.text.len()));
    }
    /// How many fixes it has.
    pub(super) fn len(&self) -> usize {
        self.fixes.len()
    }
    /// The numbers of its lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = u64> {
        self.fixes.iter().map(|(line, _)| *line)
    }
    /// The fixes as the elements of a JSON array.
    pub(super) fn elements(&self) -> &[u8] {
        self.text.strip_suffix(b",").unwrap_or(&self.text)
    }
    /// Takes one fix out, and names its line; `None` where there is no such fix.
    pub(super) fn remove(&mut self, index: usize) -> Option<u64> {
        let (line, end) = *self.fixes.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.fixes[before].1);
        self.text.drain(start..end);
        self.fixes.remove(index);
        for (_, later) in &mut self.fixes[index..] {
            *later -= end - start;
        }
        Some(line)
    }
}

/// A request that may go out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Whose lane it is: to be given back by [`Lanes::answered`].
    pub(super) device: Box<str>,
    /// Its fixes.
    pub(super) batch: Batch,
}

#[derive(Debug, Default)]
struct Lane {
    /// Not empty, but for the lane whose last request is in flight; all but the last are full.
    batches: VecDeque<Batch>,
    in_flight: usize,
    /// Its place in the queue of those that wait; held only while nothing is in flight.
    ticket: u64,
}

/// All devices that have fixes held. A lane without any is forgotten, so that memory follows what is held.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_device: HashMap<Box<str>, Lane>,
    /// Lanes that are not in flight and whose first batch is full, in the order in which that became so.
    full: VecDeque<Box<str>>,
    /// Lanes that are not in flight, by ticket: in the order in which they began to wait.
    waiting: BTreeMap<u64, Box<str>>,
    tickets: u64,
    held: usize,
}

impl Lanes {
    /// Whether there is room for more fixes.
    pub(super) fn has_room(&self) -> bool {
        self.held < HELD_FIXES_MAX
    }
    /// Whether nothing is held and nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Puts the fix of a line, by its number, at the end of its device's lane.
    pub(super) fn push(&mut self, device: &str, number: u64, fix: &[u8]) {
        if !self.by_device.contains_key(device) {
            self.by_device.insert(device.into(), Lane::default());
            self.wait(device.into());
        }
        let lane = self.by_device.get_mut(device).expect("it was put there");
        if lane.batches.back().is_none_or(|last| last.len() == BATCH_FIXES_MAX) {
            lane.batches.push_back(Batch::default());
        }
        let last = lane.batches.back_mut().expect("one was pushed");
        last.push(number, fix);
        if last.len() == BATCH_FIXES_MAX && lane.batches.len() == 1 && lane.in_flight == 0 {
            self.full.push_back(device.into());
        }
        self.held += 1;
    }

    /// The next request: a full one, or with `hurry` also the fixes of the lane that has waited longest.
    pub(super) fn next(&mut self, hurry: bool) -> Option<Request> {
        let device = match self.full.pop_front() {
            Some(device) => device,
            None if hurry => self.waiting.first_key_value()?.1.clone(),
            None => return None,
        };
        let lane = self.by_device.get_mut(&device).expect("a queued lane is held");
        let batch = lane.batches.pop_front().expect("a queued lane has fixes");
        lane.in_flight = batch.len();
        self.waiting.remove(&lane.ticket);
        Some(Request { device, batch })
    }

    /// The request of a lane has been answered, for good: the lane may go on.
    pub(super) fn answered(&mut self, device: &str) {
        let Some(lane) = self.by_device.get_mut(device) else { return };
        self.held -= std::mem::take(&mut lane.in_flight);
        match lane.batches.front().map(Batch::len) {
            None => drop(self.by_device.remove(device)),
            Some(next) => {
                if next == BATCH_FIXES_MAX {
                    self.full.push_back(device.into());
                }
                self.wait(device.into());
            }
        }
    }

    fn wait(&mut self, device: Box<str>) {
        self.tickets += 1;
        if let Some(lane) = self.by_device.get_mut(&device) {
            lane.ticket = self.tickets;
            self.waiting.insert(self.tickets, device);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn elements(batch: &Batch) -> &str {
        std::str::from_utf8(batch.elements()).unwrap()
    }

    #[test]
    fn a_fix_is_taken_out_of_a_batch_without_touching_the_others() {
        let batch = || {
            let mut batch = Batch::default();
            for (line, fix) in [(2, "{1}"), (5, "{22}"), (7, "{3}")] {
                batch.push(line, fix.as_bytes());
            }
            batch
        };
        assert_eq!(elements(&batch()), "{1},{22},{3}");
        for (index, line, rest) in [(0, 2, "{22},{3}"), (1, 5, "{1},{3}"), (2, 7, "{1},{22}")] {
            let mut batch = batch();
            assert_eq!(batch.remove(index), Some(line));
            assert_eq!(elements(&batch), rest);
            assert_eq!(batch.remove(2), None);
            batch.remove(0);
            batch.remove(0);
            assert_eq!((batch.len(), elements(&batch)), (0, ""));
        }
    }

    #[test]
    fn a_full_lane_goes_first_and_a_hurry_takes_the_one_that_has_waited_longest() {
        let mut lanes = Lanes::default();
        lanes.push("a", 2, b"{}");
        lanes.push("b", 3, b"{}");
        assert_eq!(lanes.next(false), None);
        for line in 0..BATCH_FIXES_MAX as u64 {
            lanes.push("c", 4 + line, b"{}");
        }
        let order: Vec<_> =
            std::iter::from_fn(|| lanes.next(true)).map(|r| (r.device, r.batch.len())).collect();
        assert_eq!(order, [("c".into(), BATCH_FIXES_MAX), ("a".into(), 1), ("b".into(), 1)]);
    }

    #[test]
    fn room_is_counted_in_fixes_until_they_are_answered() {
        let mut lanes = Lanes::default();
        for line in 0..HELD_FIXES_MAX as u64 {
            assert!(lanes.has_room());
            lanes.push("a", line, b"{}");
        }
        assert!(!lanes.has_room());
        let request = lanes.next(false).unwrap();
        assert!(!lanes.has_room());
        lanes.answered(&request.device);
        assert!(lanes.has_room() && !lanes.is_empty());
    }

    proptest::proptest! {
        /// Whatever interleaving of devices, answers and hurries: each device's lines go out once, in order, at most
        /// a thousand a request, and never two requests of a device at a time.
        #[test]
        fn a_lane_is_never_reordered(steps in proptest::collection::vec((0_u8..5, 0_u8..8, 1_usize..900), 1..60)) {
            let mut lanes = Lanes::default();
            let mut line = 0;
            let mut given: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut sent: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut flying: Vec<Box<str>> = vec![];
            let mut send = |request: Request, flying: &mut Vec<Box<str>>| {
                assert!((1..=BATCH_FIXES_MAX).contains(&request.batch.len()));
                assert!(!flying.contains(&request.device), "two in flight");
                sent.entry(request.device.to_string()).or_default().extend(request.batch.lines());
                flying.push(request.device);
            };
            for (device, action, count) in steps {
                let device = format!("van-{device}");
                match action {
                    0..4 => for _ in 0..count {
                        line += 1;
                        lanes.push(&device, line, b"{}");
                        given.entry(device.clone()).or_default().push(line);
                    },
                    4..7 => if let Some(request) = lanes.next(action == 4) { send(request, &mut flying) },
                    _ => if !flying.is_empty() { lanes.answered(&flying.swap_remove(count % flying.len())) },
                }
            }
            while !lanes.is_empty() {
                while let Some(request) = lanes.next(true) { send(request, &mut flying) }
                lanes.answered(&flying.pop().expect("what is held can go out"));
            }
            proptest::prop_assert_eq!(given, sent);
            proptest::prop_assert!(lanes.by_device.is_empty() && lanes.waiting.is_empty() && lanes.full.is_empty());
        }
    }
}
