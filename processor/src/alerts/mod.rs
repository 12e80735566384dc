//! The alerts machine: a match goes into the inbox of each user of its audience.

use std::sync::Arc;

use bytes::Bytes;
use waypost_schemas::{
    event::{Entry, EntryAdded, Event, MatchArrived},
    topic::Topic,
};

use crate::{
    machine::{Chunk, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
};

/// Derives an `EntryAdded` for each user that a part of a match names, in the part's order. It remembers nothing:
/// that a match was not seen before is what the `seq` of its record says.
#[derive(Debug, Default)]
pub struct AlertsMachine;

impl Machine for AlertsMachine {
    const NAME: &'static str = "alerts";
    const DRIVES: Topic = Topic::Matches;
    const LOOKS_AT_REGISTRY: bool = false;
    const FORMAT: u16 = 1;

    fn new() -> Self {
        Self
    }

    fn look(&mut self, _change: &Arc<Change>) {}

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let Event::RuleMatched(matched) = input.event else {
            let detail = format!("matches carries RuleMatched, not {}", input.event.name());
            return Err(Unfit { code: "unexpected_record", detail });
        };
        for user in &matched.audience {
            let entry = Entry::MatchArrived(MatchArrived {
                rule: matched.rule.clone(),
                zone: matched.zone.clone(),
                event: matched.event,
                initial: matched.initial,
                device: matched.device.clone(),
                fix: matched.fix,
            });
            let key = Bytes::copy_from_slice(user.as_str().as_bytes());
            effects.emit(Topic::Inboxes, key, EntryAdded { user: user.clone(), entry });
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        Vec::new()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        match chunks.first() {
            None => Ok(Self),
            Some(chunk) => Err(Unreadable { number: chunk.number, detail: "alerts has no state".into() }),
        }
    }
}
