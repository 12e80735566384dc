//! Up to where devices have acknowledged, by the acknowledgements that a tail has read.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use waypost_schemas::id::DeviceId;

/// What is known of one device's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The highest acknowledgement; nothing where there is none.
    pub(crate) upto: Option<i64>,
    /// Whether it is the highest of all, or of those that were read here only: before them may stand higher ones, for a
    /// late one can be lower.
    pub(crate) whole: bool,
    /// The offset of the last acknowledgement that was read here.
    last: Option<i64>,
}

/// The highest acknowledgement of each device among those from `since` to `next`, and what the store knew of those
/// before. Bounded: the device that has been silent for the longest is forgotten, and `since` says so.
#[derive(Debug)]
pub(crate) struct Cursors {
    devices_max: usize,
    since: i64,
    next: i64,
    devices: HashMap<DeviceId, Known>,
    /// Every device under its last acknowledgement; those of which none was read here go first.
    order: BTreeSet<(Option<i64>, DeviceId)>,
}

/// A device's cursor as it is written to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written(DeviceId, Option<i64>, bool, Option<i64>);

impl Cursors {
    /// Those of a reader that begins at an offset of `acks`.
    pub(crate) fn new(devices_max: usize, next: i64) -> Self {
        Self { devices_max, since: next, next, devices: HashMap::new(), order: BTreeSet::new() }
    }

    /// Those that were written.
    pub(crate) fn read(devices_max: usize, since: i64, next: i64, written: Vec<Written>) -> Self {
        let mut cursors = Self { since, ..Self::new(devices_max, next) };
        for Written(device, upto, whole, last) in written {
            cursors.put(device, Known { upto, whole, last });
        }
        cursors
    }

    /// What is to be written: the offset since which they hold every acknowledgement, and each device's.
    pub(crate) fn written(&self) -> (i64, Vec<Written>) {
        let of = |(_, device): &(Option<i64>, DeviceId)| {
            let known = self.devices.get(device)?;
            Some(Written(device.clone(), known.upto, known.whole, known.last))
        };
        (self.since, self.order.iter().filter_map(of).collect())
    }

    /// The next offset of `acks` to be read.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Takes the news that everything below an offset was read.
    pub(crate) fn reach(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// What is known of a device.
    pub(crate) fn get(&self, device: &DeviceId) -> Option<Known> {
        self.devices.get(device).copied()
    }

    /// Takes an acknowledgement that stands at an offset of `acks`.
    pub(crate) fn acknowledged(&mut self, device: DeviceId, offset: i64, upto: i64) {
        self.reach(offset + 1);
        let known = match self.get(&device) {
            Some(known) => Known { upto: known.upto.max(Some(upto)), last: Some(offset), ..known },
            None => Known { upto: Some(upto), whole: false, last: Some(offset) },
        };
        self.put(device, known);
    }

    /// Takes what the store knew of a device when it had applied everything below `next`, and gives the highest;
    /// `Err` where acknowledgements between the store's and these were read by neither.
    pub(crate) fn merge(
        &mut self,
        device: &DeviceId,
        upto: Option<i64>,
        next: i64,
    ) -> Result<Option<i64>, Gap> {
        if next < self.since {
            return Err(Gap);
        }
        let known = self.get(device);
        let upto = upto.max(known.and_then(|known| known.upto));
        self.put(device.clone(), Known { upto, whole: true, last: known.and_then(|known| known.last) });
        Ok(upto)
    }

    fn put(&mut self, device: DeviceId, known: Known) {
        if let Some(old) = self.devices.insert(device.clone(), known) {
            self.order.remove(&(old.last, device.clone()));
        }
        self.order.insert((known.last, device));
        while self.devices.len() > self.devices_max {
            let Some((last, device)) = self.order.pop_first() else { return };
            self.devices.remove(&device);
            if let Some(last) = last {
                self.since = self.since.max(last + 1);
            }
        }
    }
}

/// The store is behind what is remembered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    fn upto(cursors: &Cursors, name: &str) -> Option<(i64, bool)> {
        let known = cursors.get(&device(name))?;
        Some((known.upto?, known.whole))
    }

    #[test]
    fn a_cursor_is_the_highest_of_what_was_read_and_what_the_store_knew() {
        let mut cursors = Cursors::new(10, 100);
        cursors.acknowledged(device("a"), 100, 7);
        cursors.acknowledged(device("a"), 101, 5);
        assert_eq!((upto(&cursors, "a"), cursors.next()), (Some((7, false)), 102));
        assert_eq!(cursors.merge(&device("a"), Some(6), 100), Ok(Some(7)));
        assert_eq!(upto(&cursors, "a"), Some((7, true)));
        assert_eq!(cursors.merge(&device("b"), Some(-1), 104), Ok(Some(-1)));
        cursors.acknowledged(device("b"), 102, 9);
        assert_eq!(upto(&cursors, "b"), Some((9, true)));
        assert_eq!(cursors.merge(&device("c"), None, 100), Ok(None));
        let never = Known { upto: None, whole: true, last: None };
        assert_eq!(cursors.get(&device("c")), Some(never));
        cursors.acknowledged(device("c"), 103, -1);
        assert_eq!(upto(&cursors, "c"), Some((-1, true)), "what it has since is all");
        assert_eq!(
            cursors.merge(&device("d"), Some(1), 99),
            Err(Gap),
            "what stands at 99 was read by nobody"
        );
    }

    #[test]
    fn the_silent_are_forgotten_and_a_store_that_does_not_know_them_is_not_believed() {
        let mut cursors = Cursors::new(2, 0);
        cursors.merge(&device("stored"), Some(3), 0).unwrap();
        cursors.acknowledged(device("a"), 0, 1);
        cursors.acknowledged(device("b"), 1, 1);
        assert_eq!((upto(&cursors, "stored"), cursors.since), (None, 0));
        cursors.acknowledged(device("a"), 2, 2);
        cursors.acknowledged(device("c"), 3, 1);
        assert_eq!((upto(&cursors, "b"), upto(&cursors, "a")), (None, Some((2, false))));
        assert_eq!(cursors.merge(&device("b"), None, 1), Err(Gap));
        assert_eq!(cursors.merge(&device("b"), Some(1), 2), Ok(Some(1)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut cursors = Cursors::new(10, 5);
        cursors.acknowledged(device("a"), 5, 1);
        cursors.merge(&device("b"), Some(2), 6).unwrap();
        let (since, written) = cursors.written();
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(text, r#"[["b",2,true,null],["a",1,false,5]]"#);
        let again = Cursors::read(10, since, cursors.next(), serde_json::from_str(&text).unwrap());
        assert_eq!((again.written(), again.next()), ((since, written), 6));
    }
}
