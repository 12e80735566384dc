//! What a run was, as one number: two runs of a seed that differ in anything differ in it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/index.html>.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Hashes bytes behind what was hashed before.
fn hash(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The digest of some texts.
pub(crate) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    texts.fold(OFFSET, |before, text| hash(hash(before, text.as_bytes()), &[0]))
}

/// The order in which the processes of a run asked the world for something; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Order(Arc<AtomicU64>);

impl Order {
    /// The steps of one process.
    pub(crate) fn of(&self, name: &str) -> Steps {
        Steps { order: self.clone(), name: hash(OFFSET, name.as_bytes()) }
    }

    /// The digest of all steps so far.
    pub(crate) fn digest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one process asked for.
pub(crate) struct Steps {
    order: Order,
    name: u64,
}

impl Steps {
    /// The next step.
    pub(crate) fn one(&self) {
        let before = self.order.digest();
        self.order.0.store(hash(before, &self.name.to_le_bytes()), Ordering::Relaxed);
    }
}
