use std::collections::VecDeque;

use super::{Limits, Room};

/// What was offered and not acknowledged. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<(i64, u32)>,
    bytes: usize,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn room(&self, limits: &Limits) -> Option<Room> {
        let entries = limits.window_entries_max.saturating_sub(self.entries.len());
        let bytes = limits.window_bytes_max.saturating_sub(self.bytes);
        (entries > 0 && bytes > 0).then_some(Room { entries, bytes })
    }

    /// Whether an entry of a size has room; one that is larger than all there may be, where it is alone.
    pub(super) fn takes(&self, bytes: usize, limits: &Limits) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < limits.window_entries_max
                && self.bytes.saturating_add(bytes) <= limits.window_bytes_max)
    }

    pub(super) fn push(&mut self, offset: i64, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.entries.push_back((offset, bytes));
        self.bytes += bytes as usize;
    }

    /// Lets go what is acknowledged up to an offset; `false` where nothing is.
    pub(super) fn release(&mut self, upto: i64) -> bool {
        let before = self.entries.len();
        while let Some((offset, bytes)) = self.entries.front().copied()
            && offset <= upto
        {
            self.bytes -= bytes as usize;
            self.entries.pop_front();
        }
        let released = self.entries.len() < before;
        if released && self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        released
    }
}
