//! W5, W6: what devices were offered, and what the log says that they have acknowledged.

use std::collections::BTreeMap;

use waypost_schemas::{
    codec,
    event::{AckKind, EntryAdded, Event},
    topic::{Topic, TopicPartition},
};

use super::{Facts, View};
use crate::{
    load::of,
    phones::{Has, Told},
};

/// Checks every device.
pub(super) fn check(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>) -> Result<(), String> {
    for phone in facts.phones {
        let has = phone.lock();
        let inbox = inbox(&has, &views[&of(Topic::Inboxes, has.user.as_str())]);
        for (number, told) in has.connections.iter().enumerate() {
            let failed = |why| format!("connection {number} of {}/{}: {why}; {told:?}", has.user, has.name);
            offered(told, &inbox).map_err(failed)?;
            facts.met.some("offers checked", told.entries.len() as u64);
        }
        acknowledged(facts, &has)?;
    }
    Ok(())
}

/// The entries of a device's user, with their causes.
fn inbox(has: &Has, view: &View) -> Vec<(i64, String)> {
    let is_mine = |value: Option<&[u8]>| {
        let decoded = codec::decode(value.unwrap_or_default());
        matches!(decoded, Ok(Event::EntryAdded(EntryAdded { user, .. })) if user == has.user)
    };
    let mine = view.firsts.iter().filter(|first| is_mine(first.record.value.as_deref()));
    mine.map(|first| (first.offset, first.cause.clone())).collect()
}

/// W5: a connection begins where the device has acknowledged, neither before nor behind, and offers what comes after
/// that in order: each entry once, and none left out.
fn offered(told: &Told, inbox: &[(i64, String)]) -> Result<(), String> {
    if let Some(odd) = &told.odd {
        return Err(format!("W11: it was told {odd}"));
    }
    let Some((cursor, acknowledged)) = told.welcome else {
        return if told.entries.is_empty() {
            Ok(())
        } else {
            Err("W5: entries came before the welcome".into())
        };
    };
    if told.acknowledged.max(told.named) > Some(cursor) {
        return Err("W5: it begins before what the device has acknowledged".into());
    }
    if acknowledged.is_none_or(|acknowledged| cursor > acknowledged) {
        return Err("W5: it begins behind what the device has acknowledged".into());
    }
    let from = inbox.partition_point(|(offset, _)| *offset <= cursor);
    let expected = &inbox[from..];
    if !expected.starts_with(&told.entries) {
        let same = expected.iter().zip(&told.entries).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "W5: it was offered {:?} where {:?} should come",
            told.entries.get(same),
            expected.get(same)
        ));
    }
    let there = expected.partition_point(|(offset, _)| *offset < told.end);
    match told.caught_up {
        Some(had) if had < there => Err(format!("W5: it was told that it has all of {there}, and had {had}")),
        _ => Ok(()),
    }
}

/// W6: nothing acknowledges or reads but the device.
fn acknowledged(facts: &Facts<'_>, has: &Has) -> Result<(), String> {
    let at = of(Topic::Acks, has.user.as_str());
    for record in facts.log.of_partition(at.topic, at.partition) {
        let decoded = codec::decode(record.value.as_deref().unwrap_or_default());
        let Ok(Event::EntriesAcknowledged(ack)) = decoded else { continue };
        if ack.user != has.user || ack.device != has.name {
            continue;
        }
        let said = match ack.kind {
            AckKind::Start => true,
            AckKind::Delivered => has.acknowledged.contains(&ack.upto),
            AckKind::Read => has.read.contains(&ack.upto),
        };
        if !said {
            return Err(format!("W6: {at}:{} is {ack:?}, which the device never said", record.offset));
        }
    }
    Ok(())
}
