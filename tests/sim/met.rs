//! What a run met, so that a check that never bites is seen.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts by name; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Met(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Met {
    /// Counts one.
    pub(crate) fn one(&self, what: &'static str) {
        self.some(what, 1);
    }

    /// Counts some.
    pub(crate) fn some(&self, what: &'static str, count: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += count;
    }

    /// The counts.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds what another run met.
    pub(crate) fn add(&self, other: &BTreeMap<&'static str, u64>) {
        for (what, count) in other {
            self.some(what, *count);
        }
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        let all: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&all.join(", "))
    }
}
