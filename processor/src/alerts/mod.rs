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

#[cfg(test)]
mod tests {
    use waypost_schemas::{
        cause::Position,
        event::{Crossing, Fix, RuleMatched, RuleRemoved},
        id::{DeviceId, RuleId, UserId},
        time::Micros,
    };

    use super::*;

    fn matched(audience: &[&str]) -> RuleMatched {
        let at_us = Micros(1_767_225_600_000_000);
        let (accuracy_m, speed_mps, heading_deg, altitude_m) = (None, None, None, None);
        RuleMatched {
            rule: RuleId::new("r").unwrap(),
            rule_version: 3,
            zone: None,
            event: Crossing::Exit,
            initial: false,
            device: DeviceId::new("van").unwrap(),
            fix: Fix { lat: 48.0, lon: 8.0, at_us, accuracy_m, speed_mps, heading_deg, altitude_m },
            previous: None,
            audience: audience.iter().map(|id| UserId::new(*id).unwrap()).collect(),
            part: 0,
            parts: 1,
            registry: 3,
        }
    }

    fn apply(event: &Event, effects: &mut Effects) -> Result<(), Unfit> {
        let position = Position { topic: Topic::Matches, partition: 0, offset: 0 };
        AlertsMachine::new().apply(Input { position, append: Micros(0), event, registry: 3 }, effects)
    }

    #[test]
    fn each_user_of_the_part_gets_one_entry_in_order() {
        let mut effects = Effects::default();
        apply(&Event::from(matched(&["bob", "alice"])), &mut effects).unwrap();
        let entries: Vec<_> = effects.drain().collect();
        let to: Vec<&[u8]> = entries.iter().map(|effect| &effect.key[..]).collect();
        assert_eq!(to, [b"bob".as_slice(), b"alice"]);
        for (effect, user) in entries.iter().zip(["bob", "alice"]) {
            let Event::EntryAdded(added) = &effect.event else { panic!("no entry") };
            assert_eq!((effect.topic, added.user.as_str()), (Topic::Inboxes, user));
            let Entry::MatchArrived(arrived) = &added.entry else { panic!("no match") };
            assert_eq!((arrived.rule.as_str(), arrived.event), ("r", Crossing::Exit));
        }
        apply(&Event::from(matched(&[])), &mut effects).unwrap();
        assert!(effects.is_empty());
    }

    #[test]
    fn what_is_no_match_is_unfit() {
        let mut effects = Effects::default();
        let removed = RuleRemoved { rule: RuleId::new("r").unwrap(), by: UserId::new("op").unwrap() };
        assert_eq!(apply(&Event::from(removed), &mut effects).unwrap_err().code, "unexpected_record");
        assert!(effects.is_empty());
    }

    #[test]
    fn there_is_no_state_to_keep_or_to_read() {
        assert_eq!(AlertsMachine::new().changed_chunks(), []);
        assert!(AlertsMachine::restore(vec![]).is_ok());
        assert!(AlertsMachine::restore(vec![Chunk { number: 0, bytes: vec![] }]).is_err());
    }
}
