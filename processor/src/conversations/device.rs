//! What is remembered of a device that sends.

use sha2::{Digest, Sha256};
use waypost_schemas::{client_id::ClientId, event::MessageSent, time::Micros};

use crate::shards::{Bytes, Kept};

/// The most ids that a device may have above what it has settled. Where it has more, the lowest are settled for it:
/// nothing is taken twice, and a device costs no more than its share.
pub(super) const UNSETTLED_MAX: usize = 64;
/// How much older than the id at hand an id is that is settled without a word: an hour.
const SETTLED_AFTER_US: i64 = Micros::HOUR;

/// Eight bytes that tell one message of an id from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest8([u8; 8]);

impl Digest8 {
    /// The first eight bytes of the SHA-256 of all that a message says, each part with its length before it.
    pub(super) fn of(message: &MessageSent) -> Self {
        let mut hasher = Sha256::new();
        for part in [message.conversation.as_str(), &message.content_type] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(message.reply_to.unwrap_or(-1).to_le_bytes());
        hasher.update(&message.body);
        Self(*hasher.finalize().first_chunk().expect("it has 32 bytes"))
    }
}

/// What a device's id says of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was not seen, and may be taken.
    No,
    /// It was taken, and said the same.
    Same,
    /// It was taken, and said something else.
    Other,
    /// It is settled, and not known any more.
    Settled,
}

/// The ids of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// The highest settled id.
    settled: Option<ClientId>,
    /// The ids above it that were taken, in order.
    taken: Vec<(ClientId, Digest8)>,
}

impl Device {
    /// Settles what a send says, or what is an hour older than it where it says nothing.
    pub(super) fn settle(&mut self, id: ClientId, settled: Option<ClientId>) {
        // The highest id that may be of that time: its random bits are all set.
        let silently = || ClientId::new(Micros(id.at().0 - SETTLED_AFTER_US), u128::MAX);
        // An id of the first hour of all has nothing below it.
        let settled = settled.or_else(|| (id.at().0 >= SETTLED_AFTER_US).then(silently));
        if let Some(settled) = settled.filter(|settled| self.settled < Some(*settled)) {
            self.settle_up_to(settled);
        }
    }

    /// What an id says of a message.
    pub(super) fn known(&self, id: ClientId, digest: Digest8) -> Known {
        match self.taken.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) if self.taken[at].1 == digest => Known::Same,
            Ok(_) => Known::Other,
            Err(_) if self.settled >= Some(id) => Known::Settled,
            Err(_) => Known::No,
        }
    }

    /// Remembers an id that is not known.
    pub(super) fn take(&mut self, id: ClientId, digest: Digest8) {
        let at = self.taken.partition_point(|(known, _)| *known < id);
        self.taken.insert(at, (id, digest));
        if self.taken.len() > UNSETTLED_MAX {
            self.settle_up_to(self.taken[0].0);
        }
    }

    fn settle_up_to(&mut self, settled: ClientId) {
        self.settled = Some(settled);
        let below = self.taken.partition_point(|(id, _)| *id <= settled);
        self.taken.drain(..below);
    }
}

/// The settled id, where there is one (a u8, then 16 bytes, big-endian as in its text); the number of ids above it
/// (u8), and each with its digest.
impl Kept for Device {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.settled.is_some()));
        out.extend(self.settled.into_iter().flat_map(ClientId::to_bytes));
        out.push(self.taken.len() as u8);
        for (id, Digest8(digest)) in &self.taken {
            out.extend(id.to_bytes());
            out.extend(digest);
        }
    }

    fn read(from: &mut Bytes<'_>) -> Option<Self> {
        let settled = match from.array()? {
            [0] => None,
            [1] => Some(ClientId::from_bytes(from.array()?).ok()?),
            _ => return None,
        };
        let [count] = from.array()?;
        let id =
            |from: &mut Bytes<'_>| Some((ClientId::from_bytes(from.array()?).ok()?, Digest8(from.array()?)));
        let taken: Vec<_> = (0..count).map(|_| id(from)).collect::<Option<_>>()?;
        let ordered = taken.is_sorted_by(|(a, _), (b, _)| a < b);
        let above = taken.first().is_none_or(|(id, _)| settled < Some(*id));
        (ordered && above && taken.len() <= UNSETTLED_MAX).then_some(Self { settled, taken })
    }
}
