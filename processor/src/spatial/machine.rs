//! The fold of `positions`: each fix moves its device, and a border crossed fires the rules that watch it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use waypost_schemas::{
    event::{Crossing, Event, FixReported, RuleMatched},
    id::{UserId, ZoneId},
    place::Place,
    time::Micros,
    topic::Topic,
};

use super::{
    Generation,
    state::{Device, Devices},
    view::View,
};
use crate::{
    machine::{Chunk, Effects, Input, Machine, Unfit, Unreadable},
    registry::Change,
};

/// The most users that one part of a match names: with ids of 64 bytes, which take 66 each, and rule and zone ids of
/// 128 characters a part stays below the 256 KiB that a derived record may have. How audiences are cut is behaviour.
pub const AUDIENCE_PART_USERS_MAX: usize = 3_000;

/// How far a fix may be ahead of its append and still move its device, in microseconds: five minutes.
const AHEAD_US_MAX: i64 = 5 * Micros::MINUTE;
/// 2000-01-01T00:00:00Z: the clock of a device that says less has not been set.
const DEVICE_TIME_MIN: Micros = Micros(946_684_800_000_000);
/// 2100-01-01T00:00:00Z.
const DEVICE_TIME_MAX: Micros = Micros(4_102_444_800_000_000);

/// Keeps the newest fix of each device and the zones that it is inside, and derives a `RuleMatched` for each rule
/// that a crossing fires.
///
/// Late fixes (not newer than the newest) and fixes more than five minutes ahead of their append are history only.
/// Of one fix, exits come before enters, then zones in byte order, then rules.
#[derive(Debug, Default)]
pub struct SpatialMachine {
    devices: Devices,
    view: View,
    /// The zones that the fix at hand is inside; kept to spare an allocation a fix.
    inside: Vec<Generation>,
}

impl Machine for SpatialMachine {
    const NAME: &'static str = "spatial";
    const DRIVES: Topic = Topic::Positions;
    const LOOKS_AT_REGISTRY: bool = true;
    const FORMAT: u16 = 1;

    fn new() -> Self {
        Self::default()
    }

    fn look(&mut self, change: &Arc<Change>) {
        self.view.fold(change);
    }

    fn apply(&mut self, input: Input<'_>, effects: &mut Effects) -> Result<(), Unfit> {
        let fix = fit(input.event)?;
        let shard = self.devices.shard_of(&fix.device);
        let before = shard.kept.get_mut(&fix.device);
        let late = before.as_ref().is_some_and(|device| fix.at_us <= device.newest.at_us);
        if late || is_ahead(fix, input.append) {
            return Ok(());
        }
        self.view.find(Place { lon: fix.lon, lat: fix.lat }, &mut self.inside);
        shard.changed = true;
        match before {
            Some(device) if *device.inside == self.inside[..] => {
                device.newest = fix.fix();
                device.registry = input.registry;
            }
            before => {
                derive(&self.view, input, fix, before.as_deref(), &self.inside, effects);
                let inside = self.inside.as_slice().into();
                let after = Device { newest: fix.fix(), registry: input.registry, inside };
                shard.kept.insert(fix.device.clone(), after);
            }
        }
        Ok(())
    }

    fn changed_chunks(&mut self) -> Vec<Chunk> {
        self.devices.take_changed()
    }

    fn restore(chunks: Vec<Chunk>) -> Result<Self, Unreadable> {
        Ok(Self { devices: Devices::read(&chunks)?, ..Self::default() })
    }
}

/// Whether a fix is so far ahead of its append that it is history only, and never says where its device is.
pub(crate) fn is_ahead(fix: &FixReported, append: Micros) -> bool {
    fix.at_us.0.saturating_sub(append.0) > AHEAD_US_MAX
}

/// The fix of a record, where it is one that can be: nothing has changed when it is not.
pub(crate) fn fit(event: &Event) -> Result<&FixReported, Unfit> {
    let Event::FixReported(fix) = event else {
        let detail = format!("positions carries FixReported, not {}", event.name());
        return Err(Unfit { code: "unexpected_record", detail });
    };
    if let Err(error) = Place::new(fix.lon, fix.lat) {
        return Err(Unfit { code: "bad_place", detail: error.to_string() });
    }
    if !(DEVICE_TIME_MIN..DEVICE_TIME_MAX).contains(&fix.at_us) {
        return Err(Unfit {
            code: "bad_device_time",
            detail: "device time is in the years 2000 to 2099".into(),
        });
    }
    Ok(fix)
}

/// Emits a match for each rule that is fired by what changed between the device's last fix and this one.
///
/// A zone of before that is no more is left without a word, and one that was removed and defined again is another:
/// only the same generation on both sides is the same zone.
fn derive(
    view: &View,
    input: Input<'_>,
    fix: &FixReported,
    before: Option<&Device>,
    inside: &[Generation],
    effects: &mut Effects,
) {
    let was_inside = before.map_or(&[][..], |device| &device.inside);
    let left = was_inside.iter().filter(|g| inside.binary_search(g).is_err());
    let entered = inside.iter().filter(|g| was_inside.binary_search(g).is_err());
    let named = |g: &Generation| view.zone(*g).map(|zone| (zone, *g));
    let exits: BTreeMap<&ZoneId, Generation> = left.filter_map(named).collect();
    let enters: BTreeMap<&ZoneId, Generation> = entered.filter_map(named).collect();

    let exits = exits.into_keys().map(|zone| (Crossing::Exit, zone, false));
    // A device whose newest fix did not see the zone has no fix since the zone was defined.
    let initial = |generation| before.is_none_or(|device| device.registry < generation);
    let enters = enters.into_iter().map(|(zone, generation)| (Crossing::Enter, zone, initial(generation)));
    for (event, zone, initial) in exits.chain(enters) {
        for rule in view.rules(zone, event, &fix.device) {
            let matched = RuleMatched {
                rule: rule.defined.rule.clone(),
                rule_version: rule.version,
                zone: Some(zone.clone()),
                event,
                initial,
                device: fix.device.clone(),
                fix: fix.fix(),
                previous: before.map(|device| device.newest),
                audience: Vec::new(),
                part: 0,
                parts: 1,
                registry: input.registry,
            };
            emit_parts(&matched, &rule.defined.notify, effects);
        }
    }
}

/// Emits a match in as many parts as its audience needs; an audience of nobody is one part, for the record.
fn emit_parts(matched: &RuleMatched, audience: &[UserId], effects: &mut Effects) {
    let key = Bytes::copy_from_slice(matched.device.as_str().as_bytes());
    let parts = audience.len().div_ceil(AUDIENCE_PART_USERS_MAX).max(1);
    for part in 0..parts {
        let users = audience.chunks(AUDIENCE_PART_USERS_MAX).nth(part).unwrap_or_default();
        let matched = RuleMatched {
            audience: users.to_vec(),
            part: part as i32,
            parts: parts as i32,
            ..matched.clone()
        };
        effects.emit(Topic::Matches, key.clone(), matched);
    }
}
