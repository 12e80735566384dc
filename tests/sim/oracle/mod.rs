//! What must hold of the log at a quiet point, said by plain folds that know nothing of the machines' code.

mod conversations;
mod offers;
mod receipts;
mod spatial;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use waypost_runtime::broker::{Incoming, memory::Cluster};
use waypost_schemas::{
    cause::Position,
    codec,
    event::{AckKind, Entry, EntryAdded, Event, MatchArrived},
    id::{ConversationId, UserId},
    topic::{Topic, TopicPartition},
};

pub(crate) use self::view::{First, View};
use crate::{KEYED, journal::Promise, load::Junk, met::Met, models::Tables, phones::Phone};

/// The log as it stands.
pub(crate) struct Log(BTreeMap<TopicPartition, Vec<Incoming>>);

impl Log {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let all = Topic::ALL.into_iter().flat_map(|t| (0..t.partitions(KEYED)).map(move |p| (t, p)));
        Self(all.map(|(t, p)| TopicPartition::new(t, p)).map(|of| (of, cluster.records(of))).collect())
    }

    /// The records of a partition.
    pub(crate) fn of_partition(&self, topic: Topic, partition: i32) -> &[Incoming] {
        &self.0[&TopicPartition::new(topic, partition)]
    }

    /// Every partition with its records.
    pub(crate) fn all(&self) -> impl Iterator<Item = (TopicPartition, &[Incoming])> {
        self.0.iter().map(|(of, records)| (*of, &records[..]))
    }
}

/// One record that a machine should have derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// `topic/partition/offset/ordinal`.
    cause: String,
    key: Option<Bytes>,
    value: Option<Bytes>,
    /// The code of a dead letter.
    reason: Option<String>,
}

/// What should stand on each output, by the machine and the partition of its driving topic that caused it.
#[derive(Default)]
struct Derived(BTreeMap<(String, i32, TopicPartition), Vec<Expected>>);

impl Derived {
    /// An effect, with its ordinal among those of its cause.
    fn effect(
        &mut self,
        machine: &str,
        cause: Position,
        ordinal: usize,
        topic: Topic,
        key: &str,
        event: &Event,
    ) {
        let to = crate::load::of(topic, key);
        let expected = Expected {
            cause: format!("{cause}/{ordinal}"),
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(codec::encode(event).into()),
            reason: None,
        };
        self.0.entry((machine.to_owned(), cause.partition, to)).or_default().push(expected);
    }

    /// An entry in a user's inbox.
    fn entry(&mut self, machine: &str, cause: Position, ordinal: usize, user: &UserId, entry: Entry) {
        let added = EntryAdded { user: user.clone(), entry };
        self.effect(machine, cause, ordinal, Topic::Inboxes, user.as_str(), &added.into());
    }

    fn dead(&mut self, machine: &str, cause: Position, record: &Incoming, code: &str) {
        let to = TopicPartition::new(Topic::DeadLetters, cause.partition);
        let expected = Expected {
            cause: format!("{cause}/0"),
            key: record.key.clone(),
            value: record.value.clone(),
            reason: Some(code.to_owned()),
        };
        self.0.entry((machine.to_owned(), cause.partition, to)).or_default().push(expected);
    }
}

/// A record's place.
fn position(of: TopicPartition, offset: i64) -> Position {
    Position { topic: of.topic, partition: of.partition, offset }
}

/// Everything that a check looks at.
pub(crate) struct Facts<'a> {
    pub(crate) log: &'a Log,
    pub(crate) junk: &'a Junk,
    pub(crate) promises: &'a [Promise],
    /// Every message that was accepted, by its client id, with its conversation's members.
    pub(crate) said: &'a BTreeMap<String, BTreeSet<UserId>>,
    pub(crate) tables: &'a Tables,
    pub(crate) phones: &'a [Phone],
    pub(crate) met: &'a Met,
}

/// Checks the log, what was promised of it, and the read models.
pub(crate) fn check(facts: &Facts<'_>) -> Result<(), String> {
    let mut views = BTreeMap::new();
    for (of, records) in facts.log.all() {
        if of.topic.is_derived() || of.topic == Topic::DeadLetters {
            views.insert(of, View::of(of, records)?);
        }
    }
    let copies: usize = views.values().map(|view: &View| view.copies).sum();
    facts.met.some("copies dropped", copies as u64);

    let mut derived = Derived::default();
    for p in 0..KEYED {
        spatial::fold(facts, p, &mut derived);
        conversations::fold(facts, p, &mut derived);
        alerts(facts, &views, p, &mut derived);
        receipts::fold(facts, &views, p, &mut derived);
    }
    same_effects(&views, derived)?;
    arrivals(facts, &views)?;
    kept_promises(facts, &views)?;
    letters_of_the_projector(facts, &views)?;
    read_models(facts, &views)?;
    cursors(facts)?;
    offers::check(facts, &views)
}

/// A match goes to each of its audience, once.
fn alerts(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>, p: i32, derived: &mut Derived) {
    let of = TopicPartition::new(Topic::Matches, p);
    let firsts = views[&of].firsts.iter().map(|first| first.offset);
    let mut offsets: Vec<i64> =
        firsts.chain(facts.junk.range((of, 0)..=(of, i64::MAX)).map(|((_, o), _)| *o)).collect();
    offsets.sort_unstable();
    for offset in offsets {
        let (record, cause) =
            (&facts.log.of_partition(Topic::Matches, p)[offset as usize], position(of, offset));
        if let Some(code) = facts.junk.get(&(of, offset)) {
            derived.dead("alerts", cause, record, code);
            continue;
        }
        let Ok(Event::RuleMatched(m)) = codec::decode(record.value.as_deref().unwrap_or_default()) else {
            unreachable!("what is no match was junk")
        };
        for (ordinal, user) in m.audience.iter().enumerate() {
            let arrived = MatchArrived {
                rule: m.rule.clone(),
                zone: m.zone.clone(),
                event: m.event,
                initial: m.initial,
                device: m.device.clone(),
                fix: m.fix,
            };
            derived.entry("alerts", cause, ordinal, user, Entry::MatchArrived(arrived));
        }
    }
}

/// Each output holds exactly what each machine should have derived, once, in order.
fn same_effects(views: &BTreeMap<TopicPartition, View>, mut derived: Derived) -> Result<(), String> {
    let mut taken: BTreeMap<(String, i32, TopicPartition), Vec<Expected>> = BTreeMap::new();
    for (to, view) in views {
        for First { seq, cause, record, .. } in &view.firsts {
            let reason =
                record.header("waypost_reason").map(|code| String::from_utf8_lossy(code).into_owned());
            let (key, value) = (record.key.clone(), record.value.clone());
            let expected = Expected { cause: cause.clone(), key, value, reason };
            taken.entry((seq.machine.to_string(), seq.partition, *to)).or_default().push(expected);
        }
    }
    for (stream, taken) in taken {
        let expected = derived.0.remove(&stream).unwrap_or_default();
        if taken != expected {
            let at = taken
                .iter()
                .zip(&expected)
                .position(|(a, b)| a != b)
                .unwrap_or(taken.len().min(expected.len()));
            let (machine, p, to) = stream;
            return Err(format!(
                "W4 W8: {machine}/{p} put {} records into {to} where {} should be; they differ at {at}: {:?} where {:?} should be",
                taken.len(),
                expected.len(),
                taken.get(at).map(told),
                expected.get(at).map(told),
            ));
        }
    }
    match derived.0.into_iter().next() {
        None => Ok(()),
        Some(((machine, p, to), expected)) => Err(format!(
            "W4 W8: {machine}/{p} put nothing into {to}, where {} records should be",
            expected.len()
        )),
    }
}

fn told(expected: &Expected) -> String {
    let what = codec::decode(expected.value.as_deref().unwrap_or_default());
    format!("{} {:?} {:?}", expected.cause, expected.reason, what)
}

/// W2, W4: every message that was accepted is in the inbox of each member once, and nobody else's; and all members have
/// a conversation's messages in the order of the log.
fn arrivals(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>) -> Result<(), String> {
    let mut arrived: BTreeMap<String, BTreeSet<UserId>> = BTreeMap::new();
    let mut last: BTreeMap<(UserId, ConversationId), i64> = BTreeMap::new();
    for p in 0..KEYED {
        for First { record, .. } in &views[&TopicPartition::new(Topic::Inboxes, p)].firsts {
            let decoded = codec::decode(record.value.as_deref().unwrap_or_default());
            let Ok(Event::EntryAdded(EntryAdded { user, entry })) = decoded else { continue };
            let Entry::MessageArrived(m) = entry else { continue };
            let before = last.insert((user.clone(), m.conversation.clone()), m.number);
            if before.is_some_and(|before| before >= m.number) {
                return Err(format!("W2: {user} has {} of {} after {before:?}", m.number, m.conversation));
            }
            if !arrived.entry(m.client_id.clone()).or_default().insert(user.clone()) {
                return Err(format!("W4: {user} has {} twice", m.client_id));
            }
        }
    }
    for (id, members) in facts.said {
        if arrived.get(id) != Some(members) {
            return Err(format!(
                "W4: {id} was accepted for {members:?}, and has arrived at {:?}",
                arrived.get(id)
            ));
        }
    }
    facts.met.some("messages arrived", arrived.len() as u64);
    Ok(())
}

/// W9: when an offset was committed or a snapshot published, all effects of causes below it were in the log.
fn kept_promises(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>) -> Result<(), String> {
    // By machine and driving partition, for each output: the offset of each cause and of its effect, in order.
    type Effects = BTreeMap<TopicPartition, Vec<(i64, i64)>>;
    let mut effects: BTreeMap<(&str, TopicPartition), Effects> = BTreeMap::new();
    for (to, view) in views {
        for First { offset, seq, at, .. } in &view.firsts {
            let source = TopicPartition::new(at.topic, seq.partition);
            effects
                .entry((&seq.machine, source))
                .or_default()
                .entry(*to)
                .or_default()
                .push((at.offset, *offset));
        }
    }
    for Promise { by, machine, source, next, ends } in facts.promises {
        for (to, pairs) in effects.get(&(machine.as_str(), *source)).into_iter().flatten() {
            let below = pairs.partition_point(|(cause, _)| cause < next);
            let Some((cause, effect)) = pairs[..below].last() else { continue };
            if *effect >= ends[to] {
                return Err(format!(
                    "W9: a {by} of {machine} at {source}:{next} came before the effect of {cause} was in {to}, where it stands at {effect}"
                ));
            }
        }
    }
    facts.met.some("promises checked", facts.promises.len() as u64);
    Ok(())
}

/// W11: what does not belong on a topic that the projector answers for is a dead letter of its.
fn letters_of_the_projector(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>) -> Result<(), String> {
    let mut letters: BTreeMap<&str, &str> = BTreeMap::new();
    for view in views.values() {
        letters.extend(view.unnumbered.iter().map(|(cause, code)| (cause.as_str(), code.as_str())));
    }
    for ((of, offset), code) in facts.junk {
        if of.topic.spec().dead_letters_by == Some("projector") {
            let cause = format!("{}/0", position(*of, *offset));
            match letters.remove(cause.as_str()) {
                Some(found) if found == *code => {}
                found => return Err(format!("W11: {cause} is {code}, and its dead letter says {found:?}")),
            }
        }
    }
    match letters.into_iter().next() {
        None => Ok(()),
        Some((cause, code)) => Err(format!("W11: {cause} became a dead letter ({code}) and should not have")),
    }
}

/// The read models hold each entry once, and numbers and offset as a plain reader has them.
fn read_models(facts: &Facts<'_>, views: &BTreeMap<TopicPartition, View>) -> Result<(), String> {
    let stored = facts.tables.lock();
    let mut entries = 0;
    for p in 0..KEYED {
        let of = TopicPartition::new(Topic::Inboxes, p);
        for First { offset, cause, record, .. } in &views[&of].firsts {
            entries += 1;
            let kept = stored.entries.get(&(p, *offset));
            let same = kept.is_some_and(|kept| {
                kept.cause == *cause
                    && Some(&kept.value) == record.value.as_ref()
                    && kept.append_us == record.append.0
            });
            if !same {
                return Err(format!("W4: the entry {of}:{offset} ({cause}) is {kept:?} in the read models"));
            }
        }
    }
    if entries != stored.entries.len() {
        return Err(format!(
            "W4: there are {} entries in the read models, and {entries} in the log",
            stored.entries.len()
        ));
    }
    for (of, row) in &stored.rows {
        if let Some(view) = views.get(of).filter(|view| view.numbers != row.seqs) {
            return Err(format!(
                "the read models' numbers of {of} are {:?}, and should be {:?}",
                row.seqs, view.numbers
            ));
        }
    }
    facts.met.some("entries checked", entries as u64);
    Ok(())
}

/// The read models' cursors are the highest that each device has acknowledged.
fn cursors(facts: &Facts<'_>) -> Result<(), String> {
    let mut cursors = BTreeMap::new();
    for p in 0..KEYED {
        for record in facts.log.of_partition(Topic::Acks, p) {
            let decoded = codec::decode(record.value.as_deref().unwrap_or_default());
            let Ok(Event::EntriesAcknowledged(ack)) = decoded else { continue };
            if ack.kind != AckKind::Read {
                let cursor = cursors.entry((ack.user, ack.device)).or_insert(ack.upto);
                *cursor = ack.upto.max(*cursor);
            }
        }
    }
    let stored = &facts.tables.lock().cursors;
    if *stored == cursors {
        return Ok(());
    }
    Err(format!("W5: the read models' cursors are {stored:?}, and should be {cursors:?}"))
}

impl Log {
    /// Every record's bytes, for a comparison of runs.
    pub(crate) fn text(&self) -> String {
        let records =
            self.0.iter().flat_map(|(of, records)| records.iter().map(move |r| format!("{of} {r:?}\n")));
        records.collect()
    }
}
