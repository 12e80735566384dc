//! A partition of the log in memory.

use waypost_schemas::time::Micros;

use super::super::{Bounds, Incoming, Outgoing};

/// The records of one partition, without holes.
#[derive(Default)]
pub(super) struct Partition {
    low: i64,
    records: Vec<Incoming>,
}

impl Partition {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { low: self.low, high: self.low + self.records.len() as i64 }
    }

    pub(super) fn records(&self) -> &[Incoming] {
        &self.records
    }

    pub(super) fn append(&mut self, record: Outgoing, append: Micros) -> i64 {
        let offset = self.bounds().high;
        let Outgoing { to: _, key, value, headers } = record;
        self.records.push(Incoming { offset, append, key, value, headers });
        offset
    }

    /// At most `max` records from `offset` on; `None` where the log does not reach there.
    pub(super) fn read(&self, offset: i64, max: usize) -> Option<&[Incoming]> {
        let start = usize::try_from(offset - self.low).ok()?;
        let records = self.records.get(start..)?;
        Some(&records[..records.len().min(max)])
    }

    pub(super) fn cut(&mut self, low: i64) {
        let low = low.clamp(self.low, self.bounds().high);
        self.records.drain(..(low - self.low) as usize);
        self.low = low;
    }

    pub(super) fn lose_end(&mut self, high: i64) {
        let high = high.clamp(self.low, self.bounds().high);
        self.records.truncate((high - self.low) as usize);
    }
}
