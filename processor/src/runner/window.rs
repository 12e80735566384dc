//! Effects on their way: up to where everything before is durable.

use std::collections::VecDeque;

use futures_util::FutureExt;
use waypost_runtime::broker::{Delivery, Error};

/// How many sends of one partition may be on their way. Each carries the effects of at most one slice of records, so
/// the bound is on memory; the producer's own queue is the one that is felt first.
const SENDS_MAX: usize = 256;

/// The sends of one partition that are not known to be durable, oldest first.
#[derive(Default)]
pub(super) struct Window {
    /// The offset of the first cause of each, and the promise.
    sends: VecDeque<(i64, Delivery)>,
}

impl Window {
    /// Remembers a send whose first cause stands at an offset.
    pub(super) fn push(&mut self, first: i64, delivery: Delivery) {
        self.sends.push_back((first, delivery));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.sends.len() < SENDS_MAX
    }

    /// The offset up to which all effects of causes are durable, where records up to `folded` were folded and
    /// their effects sent.
    pub(super) fn durable(&self, folded: i64) -> i64 {
        self.sends.front().map_or(folded, |(first, _)| (*first).min(folded))
    }

    /// Waits until the oldest send is durable; for ever where there is none. Cancel-safe.
    pub(super) async fn oldest(&mut self) -> Result<(), Error> {
        let Some((_, delivery)) = self.sends.front_mut() else { return std::future::pending().await };
        let delivered = delivery.await;
        self.sends.pop_front();
        delivered.map(drop)
    }

    /// Forgets the sends that are durable by now.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        while !self.sends.is_empty() {
            let Some(delivered) = self.oldest().now_or_never() else { break };
            delivered?;
        }
        Ok(())
    }
}
