//! A log with known input, processes that fold it and die, and the straight fold that all of it must equal.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;
use waypost_runtime::{
    broker::{Broker, Headers, Incoming, Outgoing, memory::Cluster},
    clock::Clock,
    config,
    facts::Facts,
    health::Health,
    intake::Hole,
    lifecycle::{Cause as StopCause, Lifecycle},
};
use waypost_schemas::{
    cause::{Cause, Position, Seq, SeqMap, Taken},
    codec,
    event::{
        AckKind, Circle, Crossing, EntriesAcknowledged, Entry, EntryAdded, Event, FixReported, Geometry,
        MessageArrived, RuleDefined, ZoneDefined,
    },
    header,
    id::{ConversationId, DeviceId, DeviceName, RuleId, UserId, ZoneId},
    partition,
    place::Place as At,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::super::{
    Deps, Error, Places, Runner,
    fault::{Faults, Step},
    fold::owner,
};
use crate::{
    machine::{Effects, Input, Machine},
    registry::{Change, Registry, What},
    snapshots::{Manifest, local::Local},
    spatial::zone::Zone,
};

/// How many partitions keyed topics have here.
pub(super) const KEYED: i32 = 3;
/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn micros(seconds: i64) -> Micros {
    Micros(1_500_000_000_000_000 + seconds * Micros::SECOND)
}

/// A fix that is inside zone `home` where `inside`, else far from every zone.
pub(super) fn fix(device: &str, second: i64, inside: bool, registry: i64) -> Event {
    FixReported {
        device: DeviceId::new(device).unwrap(),
        lat: if inside { 48.0 } else { 10.0 },
        lon: 16.0,
        at_us: micros(second),
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
        attributes: BTreeMap::new(),
        registry,
    }
    .into()
}

fn zone(id: &str, radius_m: f64) -> Event {
    let centre = At { lon: 16.0, lat: 48.0 };
    let geometry = Geometry::Circle(Circle { centre, radius_m });
    ZoneDefined { zone: ZoneId::new(id).unwrap(), geometry, by: UserId::new("boss").unwrap() }.into()
}

fn rule(id: &str) -> Event {
    RuleDefined {
        rule: RuleId::new(id).unwrap(),
        on: vec![Crossing::Exit, Crossing::Enter],
        zones: None,
        subjects: None,
        notify: vec![UserId::new("warden").unwrap(), UserId::new("boss").unwrap()],
        by: UserId::new("boss").unwrap(),
    }
    .into()
}

/// A message in a user's inbox.
pub(super) fn arrived(of: &str, sender: &str, conversation: &ConversationId, number: i64) -> Event {
    let arrived = MessageArrived {
        conversation: conversation.clone(),
        number,
        sender: UserId::new(sender).unwrap(),
        device: DeviceName::new("phone").unwrap(),
        client_id: String::new(),
        content_type: String::new(),
        body: Vec::new(),
        reply_to: None,
    };
    EntryAdded { user: UserId::new(of).unwrap(), entry: Entry::MessageArrived(arrived) }.into()
}

/// The place of a user's records on a keyed topic.
pub(super) fn place_of(topic: Topic, user: &str) -> TopicPartition {
    TopicPartition::new(topic, partition::of(user.as_bytes(), KEYED))
}

/// A seeded choice, the same everywhere.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A process of `World`.
pub(super) struct Process {
    pub(super) lifecycle: Lifecycle,
    tasks: JoinSet<Result<(), Error>>,
}

impl Process {
    /// Waits until it ends of its own accord.
    pub(super) async fn ended(&mut self) -> Result<(), Error> {
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.expect("it ends in time");
        ended.expect("it runs").expect("it does not panic")
    }

    /// Stops it cleanly.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.lifecycle.stop(StopCause::Asked("the test is over".into()));
        self.ended().await
    }
}

/// A cluster, a data directory, and what was appended so far.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) directory: TempDir,
    pub(super) dice: Dice,
    /// How often snapshots are taken.
    pub(super) snapshot_interval: Duration,
    pub(super) slice_records: usize,
    second: i64,
    /// The records that were removed from the beginning of partitions.
    removed: BTreeMap<TopicPartition, Vec<Incoming>>,
    /// What stands for the conversations machine: the last number that each of its streams has.
    numbers: BTreeMap<(i32, TopicPartition), u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let cluster = Cluster::new(KEYED);
        cluster.set_time(micros(0));
        let mut world = Self {
            cluster,
            directory: tempfile::tempdir().unwrap(),
            dice: Dice(seed),
            snapshot_interval: Duration::from_millis(2),
            slice_records: 4,
            second: 0,
            removed: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        world.change(&zone("home", 5_000.0));
        world.change(&rule("watch"));
        world
    }

    /// Appends a record; returns its offset.
    pub(super) fn append(
        &self,
        to: TopicPartition,
        key: &str,
        value: impl Into<Bytes>,
        headers: Headers,
    ) -> i64 {
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        self.cluster.append(Outgoing { to, key, value: Some(value.into()), headers }).unwrap()
    }

    /// Changes the registry.
    pub(super) fn change(&mut self, event: &Event) {
        self.append(TopicPartition::new(Topic::Registry, 0), "x", codec::encode(event), Vec::new());
    }

    pub(super) fn report(&self, device: &str, event: &Event) {
        let partition = partition::of(device.as_bytes(), KEYED);
        self.append(
            TopicPartition::new(Topic::Positions, partition),
            device,
            codec::encode(event),
            Vec::new(),
        );
    }

    /// Appends fixes of several devices, changes of the registry between them, and now and then junk.
    pub(super) fn reports(&mut self, records: usize) {
        for _ in 0..records {
            self.second += 1;
            self.cluster.set_time(micros(self.second));
            let device = format!("van-{}", self.dice.below(7));
            match self.dice.below(40) {
                0 => {
                    let event = rule(&format!("rule-{}", self.dice.below(3)));
                    self.change(&event);
                }
                1 => {
                    let event = zone(&format!("zone-{}", self.dice.below(2)), 1_000.0);
                    self.change(&event);
                }
                2 => {
                    let partition = partition::of(device.as_bytes(), KEYED);
                    let to = TopicPartition::new(Topic::Positions, partition);
                    self.append(to, &device, &b"\0\0\0\0junk"[..], Vec::new());
                }
                // Device time out of range.
                3 => self.report(&device, &fix(&device, 5_000_000_000, true, 1)),
                _ => {
                    let inside = self.dice.below(2) == 0;
                    let end = self.end(TopicPartition::new(Topic::Registry, 0));
                    // Nodes of ingest lag.
                    let registry = (end - 1 - self.dice.below(3) as i64).max(1);
                    self.report(&device, &fix(&device, self.second, inside, registry));
                }
            }
        }
    }

    /// Appends what drives a machine, and what it looks at.
    pub(super) fn feed<M: Machine>(&mut self, records: usize) {
        match M::DRIVES {
            Topic::Acks => self.chats(records),
            _ => self.reports(records),
        }
    }

    /// Appends messages to inboxes, copies of them, acknowledgements, and now and then junk to both.
    pub(super) fn chats(&mut self, records: usize) {
        for _ in 0..records {
            self.second += 1;
            self.cluster.set_time(micros(self.second));
            let user = format!("u{}", self.dice.below(6));
            let other = format!("u{}", self.dice.below(6));
            let (inbox, acks) = (place_of(Topic::Inboxes, &user), place_of(Topic::Acks, &user));
            match self.dice.below(40) {
                0 => {
                    self.append(inbox, &user, &b"\0\0\0\0junk"[..], Vec::new());
                }
                1 => {
                    self.append(acks, &user, &b"\0\0\0\0junk"[..], Vec::new());
                }
                2 => self.acknowledge(&user, AckKind::Read, -1),
                3..=5 => self.copy(inbox),
                6..=20 => self.message(&user, &other),
                _ => {
                    let end = self.end(inbox);
                    let upto = if self.dice.below(3) > 0 {
                        end - 1
                    } else {
                        self.dice.below(end.max(1) as u64) as i64
                    };
                    let kind = [AckKind::Start, AckKind::Delivered, AckKind::Delivered, AckKind::Read];
                    let kind = kind[self.dice.below(4) as usize];
                    if upto < end && (upto >= 0 || kind == AckKind::Start) {
                        self.acknowledge(&user, kind, upto);
                    }
                }
            }
        }
    }

    /// Puts a message into the inboxes of both members, as the conversations machine does.
    pub(super) fn message(&mut self, sender: &str, other: &str) {
        let id = |name: &str| UserId::new(name).unwrap();
        let conversation = ConversationId::direct(&id(sender), &id(other));
        let (a, b) = conversation.members();
        let number = self.second;
        for user in std::iter::once(&a).chain((a != b).then_some(&b)) {
            self.enter(user.as_str(), &arrived(user.as_str(), sender, &conversation, number), number);
        }
    }

    /// Puts an entry into a user's inbox in the name of the conversations machine; returns its offset.
    pub(super) fn enter(&mut self, user: &str, event: &Event, number: i64) -> i64 {
        let to = place_of(Topic::Inboxes, user);
        let source = TopicPartition::new(Topic::Messages, (number % i64::from(KEYED)) as i32);
        let last = self.numbers.entry((source.partition, to)).or_insert(0);
        *last += 1;
        let seq = Seq { machine: "conversations".into(), partition: source.partition, number: *last };
        let position = Position { topic: source.topic, partition: source.partition, offset: number };
        let headers = header::derived(event, Cause { position, ordinal: 0 }, &seq, micros(number), None);
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.append(to, user, codec::encode(event), headers)
    }

    /// Loses an entry of a user's inbox, of the stream in which the next message comes.
    pub(super) fn lose_entry(&mut self, user: &str) {
        let stream = ((self.second % i64::from(KEYED)) as i32, place_of(Topic::Inboxes, user));
        *self.numbers.entry(stream).or_insert(0) += 1;
    }

    /// Appends a record of a partition again, as its writer does that has died.
    fn copy(&mut self, of: TopicPartition) {
        let records = self.records(of);
        if !records.is_empty() {
            let Incoming { key, value, headers, .. } =
                records[self.dice.below(records.len() as u64) as usize].clone();
            self.cluster.append(Outgoing { to: of, key, value, headers }).unwrap();
        }
    }

    pub(super) fn acknowledge(&self, user: &str, kind: AckKind, upto: i64) {
        let (session, registry) = ("s".into(), -1);
        let device = DeviceName::new("phone").unwrap();
        let ack =
            EntriesAcknowledged { user: UserId::new(user).unwrap(), device, session, kind, upto, registry };
        self.append(place_of(Topic::Acks, user), user, codec::encode(&ack.into()), Vec::new());
    }

    /// Every record that a partition ever had.
    pub(super) fn records(&self, of: TopicPartition) -> Vec<Incoming> {
        let removed = self.removed.get(&of).cloned().unwrap_or_default();
        removed.into_iter().chain(self.cluster.records(of)).collect()
    }

    /// Removes the records of a partition below an offset.
    pub(super) fn cut(&mut self, of: TopicPartition, low: i64) {
        let removed = self.cluster.records(of).into_iter().filter(|record| record.offset < low);
        self.removed.entry(of).or_default().extend(removed);
        self.cluster.cut(of, low);
    }

    pub(super) fn end(&self, of: TopicPartition) -> i64 {
        self.records(of).len() as i64
    }

    /// The snapshots of a process.
    pub(super) fn local(&self, instance: &str) -> Local {
        Local::new(self.directory.path().join(instance), 2)
    }

    /// Starts a process that runs a machine, and dies where it is told to.
    pub(super) fn start<M: Machine>(&self, name: &str, planted: Option<(Step, u32)>) -> Process {
        let broker: Arc<dyn Broker> = Arc::new(self.cluster.connect(name));
        let registry = Registry::new(broker.clone());
        let deps = Deps {
            broker,
            registry: registry.clone(),
            places: Arc::new(Places::new(Arc::new(self.local(name)), None, Clock::system())),
            clock: Clock::system(),
            settings: config::Processor {
                commit_interval: Duration::from_millis(1),
                batch_records_max: self.slice_records,
            },
            snapshot_interval: self.snapshot_interval,
            health: Health::default(),
            instance: name.to_owned(),
        };
        let faults = Arc::new(Faults { planted: std::sync::Mutex::new(planted) });
        let lifecycle = Lifecycle::new();
        let runner = Runner::<M>::new(deps).run_with(lifecycle.clone(), faults);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tokio::select! {
                ended = runner => ended,
                error = registry.follow() => panic!("{error}"),
            }
        });
        Process { lifecycle, tasks }
    }

    /// Waits until a machine has committed everything that there is.
    pub(super) async fn idle<M: Machine>(&self, process: &mut Process) -> Result<(), Error> {
        let broker = self.cluster.connect("observer");
        let idle = async {
            loop {
                let committed = broker.committed(group::<M>(), vec![M::DRIVES]).await.unwrap();
                if Self::sources::<M>().all(|p| committed.get(&p) == Some(&self.end(p))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            ended = process.tasks.join_next() => ended.expect("it runs").expect("it does not panic"),
            waited = tokio::time::timeout(PATIENCE, idle) => {
                waited.expect("all is folded and committed in time");
                Ok(())
            }
        }
    }

    pub(super) fn sources<M: Machine>() -> impl Iterator<Item = TopicPartition> {
        (0..KEYED).map(|p| TopicPartition::new(M::DRIVES, p))
    }

    /// The topics that a machine writes to.
    pub(super) fn outputs<M: Machine>() -> impl Iterator<Item = Topic> {
        Topic::ALL
            .into_iter()
            .filter(|topic| topic.is_derived() || *topic == Topic::DeadLetters)
            .filter(|topic| topic.spec().writers.contains(&M::NAME))
    }

    /// Compares what a reader takes from the outputs with the straight fold, and both with their numbers.
    pub(super) fn check<M: Machine>(&self) {
        let expected = straight::<M>(self);
        let mut taken: BTreeMap<TopicPartition, Vec<Derived>> = BTreeMap::new();
        for topic in Self::outputs::<M>() {
            for partition in 0..KEYED {
                let to = TopicPartition::new(topic, partition);
                for (seq, record) in self.read(to).into_iter().filter(|(seq, _)| *seq.machine == *M::NAME) {
                    let source = TopicPartition::new(M::DRIVES, seq.partition);
                    taken.entry(source).or_default().push(Derived::of(to, &record));
                }
            }
        }
        for (source, mut derived) in expected {
            let mut taken = taken.remove(&source).unwrap_or_default();
            // The order inside of each output partition is the log's; the outputs themselves have none.
            derived.sort_by_key(|d| d.to);
            taken.sort_by_key(|d| d.to);
            assert_eq!(taken, derived, "{source}");
        }
        assert!(taken.is_empty(), "effects without a cause: {taken:?}");
    }

    /// The newest snapshot of a partition that a process keeps.
    pub(super) fn newest<M: Machine>(&self, instance: &str, partition: i32) -> Option<Manifest> {
        let (local, owner) = (self.local(instance), owner::<M>(partition));
        let next = local.list(owner).unwrap().pop_last()?;
        Some(local.manifest(owner, next).unwrap())
    }

    /// Compares the newest snapshots that a process keeps with the straight fold up to where each stands.
    pub(super) fn check_snapshots<M: Machine>(&self, instance: &str) {
        let newest = |source: TopicPartition| Some((source, self.newest::<M>(instance, source.partition)?));
        let snapshots: Vec<_> = Self::sources::<M>().filter_map(newest).collect();
        assert!(!snapshots.is_empty(), "there is no snapshot");
        for (source, manifest) in snapshots {
            let (_, mut machine) = straight_of::<M>(self, source, manifest.next);
            let asked = |record: &Incoming| M::asks(&codec::decode(record.value.as_deref()?).ok()?);
            let folded = self.records(source).into_iter().filter(|record| record.offset < manifest.next);
            let seen = folded.filter_map(|record| asked(&record)).max().unwrap_or(-1);
            let looked = manifest.looked.as_ref().map_or(0, |looked| looked.next);
            assert!(seen < looked, "{source}: {seen} was asked for, and {looked} is next");
            for (offset, event) in self.looked::<M>(source.partition) {
                if offset > seen && offset < looked {
                    machine.look_at(offset, &event);
                }
            }
            let owner = owner::<M>(source.partition);
            let chunks = self.local(instance).chunks(owner, &manifest).unwrap();
            assert_eq!(machine.changed_chunks(), chunks, "{source} at {} and {looked}", manifest.next);
        }
    }

    /// The offset of the first record of each partition from which something is derived.
    pub(super) fn first_causes<M: Machine>(&self) -> BTreeMap<TopicPartition, i64> {
        let offset =
            |derived: &Derived| derived.cause.split('/').nth(2).and_then(|offset| offset.parse().ok());
        let first = |(source, derived): (TopicPartition, Vec<Derived>)| {
            Some((source, derived.iter().filter_map(offset).min()?))
        };
        straight::<M>(self).into_iter().filter_map(first).collect()
    }

    /// What a machine sees of the partition that it looks at.
    pub(super) fn looked<M: Machine>(&self, partition: i32) -> Vec<(i64, Event)> {
        let Some(topic) = M::LOOKS_AT else { return Vec::new() };
        let source = TopicPartition::new(topic, partition);
        let skipped = self.facts().skipped(M::NAME, source);
        let event = |record: &Incoming| codec::decode(record.value.as_deref().unwrap()).unwrap();
        let taken = self.read(source).into_iter().filter(|(_, record)| !skipped.contains(&record.offset));
        taken.map(|(_, record)| (record.offset, event(&record))).collect()
    }

    /// What operators have said of the log.
    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        let records = self.cluster.records(TopicPartition::new(Topic::Registry, 0));
        records.iter().for_each(|record| facts.fold(record));
        facts
    }

    /// What a reader takes from a partition: no copy, nothing foreign, and no hole but those that are accepted.
    pub(super) fn read(&self, of: TopicPartition) -> Vec<(Seq, Incoming)> {
        let (mut map, facts) = (SeqMap::default(), self.facts());
        let mut taken = Vec::new();
        for record in self.records(of) {
            let belongs = |event: Event| of.topic.spec().records.contains(&event.name());
            let fits = codec::decode(record.value.as_deref().unwrap_or_default()).is_ok_and(belongs);
            let fits = fits || of.topic == Topic::DeadLetters;
            let Some(seq) = record.header("seq").filter(|_| fits) else { continue };
            let seq: Seq = std::str::from_utf8(seq).unwrap().parse().unwrap();
            let hole = |expected| Hole { partition: of, offset: record.offset, seq: seq.clone(), expected };
            if let Taken::Hole { expected } = map.clone().take(&seq)
                && facts.accepts(&hole(expected))
            {
                map.pass(&seq);
            }
            match map.take(&seq) {
                Taken::Next => taken.push((seq, record)),
                Taken::Copy => {}
                Taken::Hole { expected } => panic!("{of}: {seq} where {expected} should come"),
            }
        }
        taken
    }
}

pub(super) fn group<M: Machine>() -> String {
    format!("waypost.{}", M::NAME)
}

/// A derived record, as far as the straight fold can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derived {
    to: TopicPartition,
    cause: String,
    key: Option<Bytes>,
    value: Option<Bytes>,
    reason: Option<Bytes>,
}

impl Derived {
    fn of(to: TopicPartition, record: &Incoming) -> Self {
        let text = |name: &str| record.header(name).map(Bytes::copy_from_slice);
        Self {
            to,
            cause: String::from_utf8(text("ce_id").unwrap().to_vec()).unwrap(),
            key: record.key.clone(),
            value: record.value.clone(),
            reason: text("waypost_reason"),
        }
    }
}

/// What a machine derives from the log as it stands: each record once, in order, and nothing else.
fn straight<M: Machine>(world: &World) -> BTreeMap<TopicPartition, Vec<Derived>> {
    let derived = |source| (source, straight_of::<M>(world, source, i64::MAX).0);
    World::sources::<M>().map(derived).collect()
}

/// What is changed in the registry.
fn changes(world: &World) -> Vec<Arc<Change>> {
    world
        .cluster
        .records(TopicPartition::new(Topic::Registry, 0))
        .iter()
        .filter_map(|record| {
            let what = match codec::decode(record.value.as_deref()?).ok()? {
                Event::ZoneDefined(zone) => What::Zone(Arc::new(Zone::new(zone, record.offset))),
                Event::RuleDefined(rule) => What::Rule(Arc::new(rule)),
                _ => return None,
            };
            Some(Arc::new(Change { offset: record.offset, what }))
        })
        .collect()
}

/// What a machine derives from the records of a partition below an offset, and what it is then.
fn straight_of<M: Machine>(world: &World, source: TopicPartition, upto: i64) -> (Vec<Derived>, M) {
    let changes = changes(world);
    let (mut machine, mut effects, mut view, mut derived) = (M::new(), Effects::default(), -1, Vec::new());
    let mut looked = world.looked::<M>(source.partition).into_iter().peekable();
    let records: Vec<Incoming> = if source.topic.is_derived() {
        world.read(source).into_iter().map(|(_, record)| record).collect()
    } else {
        world.records(source)
    };
    let skipped = world.facts().skipped(M::NAME, source);
    for record in records.into_iter().filter(|r| r.offset < upto && !skipped.contains(&r.offset)) {
        let position = Position { topic: source.topic, partition: source.partition, offset: record.offset };
        let mut dead = |code: &str| {
            derived.push(Derived {
                to: TopicPartition::new(Topic::DeadLetters, source.partition),
                cause: format!("{position}/0"),
                key: record.key.clone(),
                value: record.value.clone(),
                reason: Some(Bytes::copy_from_slice(code.as_bytes())),
            });
        };
        let event = match codec::decode(record.value.as_deref().unwrap_or_default()) {
            Ok(event) => event,
            Err(error) => {
                dead(error.code());
                continue;
            }
        };
        let stamp = event.registry().unwrap_or(-1);
        if M::LOOKS_AT_REGISTRY {
            changes.iter().filter(|c| c.offset > view && c.offset <= stamp).for_each(|c| machine.look(c));
        }
        view = view.max(stamp);
        if !source.topic.spec().records.contains(&event.name()) {
            dead("wrong_type");
            continue;
        }
        // Exactly as far as it asks.
        let asked = M::asks(&event);
        while let Some((offset, entry)) = looked.next_if(|(offset, _)| Some(*offset) <= asked) {
            machine.look_at(offset, &entry);
        }
        let input = Input { position, append: record.append, event: &event, registry: view };
        if let Err(unfit) = machine.apply(input, &mut effects) {
            dead(unfit.code);
            continue;
        }
        for (ordinal, effect) in effects.drain().enumerate() {
            derived.push(Derived {
                to: TopicPartition::new(effect.topic, partition::of(&effect.key, KEYED)),
                cause: format!("{position}/{ordinal}"),
                key: Some(effect.key),
                value: Some(codec::encode(&effect.event).into()),
                reason: None,
            });
        }
    }
    (derived, machine)
}

/// The files of a directory and those below it.
pub(super) fn files(below: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
