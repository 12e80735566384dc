//! The world of one seed: the log, the processes on it, those who send, and everything that can go wrong.

mod faults;
mod input;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::task::JoinSet;
use waypost_processor::projector;
use waypost_runtime::{broker::memory::Cluster, clock::Clock};
use waypost_schemas::{
    cause::Position,
    codec,
    event::Event,
    id::UserId,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::{
    DRIVES, KEYED,
    bug::Bug,
    dice::Dice,
    journal::Journal,
    load::{self, Load, USERS},
    met::Met,
    models::Tables,
    oracle::{self, Facts, Log},
    phones::Phone,
    places::Shelf,
    process::{Ended, Maker, Process, Role},
    users::{self, DEVICES, Users},
};

/// When the world begins: 2026-01-01T00:00:00Z.
const BEGINNING: Micros = Micros(1_767_225_600_000_000);
/// How many processors there are at most, zombies left out.
const PROCESSORS_MAX: usize = 3;
/// How many nodes take input and serve devices.
const NODES: u32 = 2;
/// How often the world looks whether everything is drained, and how often at most: half a minute and more of its time.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 2_000;

/// What was accepted: where it stands, and what it must say.
pub(crate) type Accepted = Arc<Mutex<Vec<(Position, Event)>>>;

/// What happened, line by line.
#[derive(Default)]
pub(crate) struct Trace {
    /// Whether each line is printed at once, so that a run which never ends has told what it did.
    aloud: bool,
    lines: Vec<String>,
}

impl Trace {
    /// A trace that is printed as it grows.
    pub(crate) fn aloud() -> Self {
        Self { aloud: true, lines: Vec::new() }
    }

    fn tell(&mut self, line: String) {
        if self.aloud {
            println!("{line}");
        }
        self.lines.push(line);
    }
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) dice: Dice,
    pub(crate) met: Met,
    clock: Clock,
    journal: Journal,
    maker: Maker,
    tables: Tables,
    /// Data directories, by instance of a processor.
    shelves: BTreeMap<u32, Shelf>,
    database: Shelf,
    processes: Vec<Process>,
    /// The names of dead processes, of which something may still be on the wire.
    dead: Vec<String>,
    load: Load,
    users: Users,
    phones: Vec<Phone>,
    /// Whether phones come again by themselves when nothing goes wrong any more.
    phones_come: bool,
    /// What nodes keep on their own disks.
    directory: TempDir,
    sends: JoinSet<()>,
    /// The connections of phones.
    lines: JoinSet<()>,
    accepted: Accepted,
    /// Whether a commit went back below what its owner has committed, who will not commit it again.
    went_back: bool,
    /// Every message that was accepted, with its conversation's members.
    said: BTreeMap<String, BTreeSet<UserId>>,
    trace: Option<Trace>,
}

/// Something that the world can do, and how likely it is.
type Act = (u64, &'static str, fn(&mut World) -> String);

const ACTS: &[Act] = &[
    (60, "report", World::report),
    (60, "say", World::say),
    (15, "say again", World::say_again),
    (10, "acknowledge", World::acknowledge),
    (40, "a phone comes", World::phone_comes),
    (10, "a phone is cut off", World::phone_is_cut_off),
    (6, "a phone goes deaf", World::phone_goes_deaf),
    (10, "change the registry", World::change_registry),
    (6, "spoil", World::spoil),
    (6, "crash", World::crash),
    (14, "crash soon", World::crash_soon),
    (8, "a zombie", World::make_zombie),
    (6, "a zombie wakes or dies", World::end_zombie),
    (14, "hold", World::hold),
    (30, "land some", World::land),
    (12, "what the dead sent lands or is lost", World::land_or_lose),
    (6, "a commit goes backwards", World::commit_backwards),
    (6, "a snapshot is harmed", World::harm_snapshot),
    (8, "postgres", World::flip_postgres),
    (4, "the broker", World::flip_broker),
    (5, "one more", World::one_more),
    (4, "one less", World::one_less),
    (3, "an append is refused", World::refuse_append),
    (3, "an append lands twice", World::double_append),
    (40, "mend", World::mend),
];

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, trace: Option<Trace>) -> Self {
        let mut dice = Dice::new(seed);
        let (cluster, clock, met) = (Cluster::new(KEYED), Clock::tokio(BEGINNING), Met::default());
        cluster.set_time(BEGINNING);
        let load = Load::found(&cluster);
        let journal = Journal::new(cluster.clone(), KEYED, met.clone());
        let maker = Maker::new(cluster.clone(), clock.clone(), journal.clone(), bug, &mut dice);
        let phone = |(user, device)| Phone::new(load::user(user), users::device(device));
        let phones =
            (0..USERS).flat_map(|user| (0..DEVICES).map(move |device| (user, device))).map(phone).collect();
        let mut world = Self {
            cluster,
            dice,
            met,
            clock,
            journal,
            maker,
            tables: Tables::default(),
            shelves: BTreeMap::new(),
            database: Shelf::default(),
            processes: Vec::new(),
            dead: Vec::new(),
            load,
            users: Users::default(),
            phones,
            phones_come: true,
            directory: tempfile::tempdir().expect("a directory can be made"),
            sends: JoinSet::new(),
            lines: JoinSet::new(),
            accepted: Accepted::default(),
            went_back: false,
            said: BTreeMap::new(),
            trace,
        };
        world.mend();
        world
    }

    /// Takes what was traced.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().map(|trace| trace.lines).unwrap_or_default()
    }

    /// The digest of the order of everything that processes asked for.
    pub(crate) fn steps(&self) -> u64 {
        self.journal.order.digest()
    }

    /// Does so many things, and lets time pass between them.
    pub(crate) async fn live(&mut self, acts: u64) -> Result<(), String> {
        self.phones.iter().for_each(|phone| phone.order(|order| order.calm = false));
        for _ in 0..acts {
            let (_, name, act) = ACTS[self.dice.weighted(ACTS.iter().map(|(weight, ..)| *weight))];
            let what = act(self);
            self.trace(name, &what);
            match self.dice.below(4) {
                0 => {}
                1 => {
                    for _ in 0..self.dice.within(1..=6) {
                        tokio::task::yield_now().await;
                    }
                }
                _ => tokio::time::sleep(Duration::from_millis(self.dice.within(1..=12))).await,
            }
            self.look_after()?;
        }
        Ok(())
    }

    fn trace(&mut self, name: &str, what: &str) {
        if let Some(trace) = &mut self.trace {
            let ms = (self.clock.now().0 - BEGINNING.0) / 1_000;
            trace.tell(format!("{ms:>7} ms  {name}: {what}"));
        }
    }

    /// Moves the log's clock, and buries who has died.
    fn look_after(&mut self) -> Result<(), String> {
        self.cluster.set_time(self.clock.now());
        let dying: Vec<Process> = self.processes.extract_if(.., |p| p.gate.is_dead()).collect();
        for process in dying {
            process.die(&self.cluster);
            self.trace("died", &process.name.clone());
            self.met.one("crashes");
            self.dead.push(process.name);
        }
        while let Some(ended) = self.maker.ends.try_join_next() {
            let Ended { name, failure } = ended.map_err(|e| e.to_string())?;
            let Some(at) = self.processes.iter().position(|p| p.name == name) else { continue };
            let process = self.processes.remove(at);
            process.die(&self.cluster);
            self.trace("ended", &format!("{name}: {failure:?}"));
            self.dead.push(name.clone());
            match failure {
                None => self.met.one("clean stops"),
                Some(why) if is_harmless(&why) => self.met.one("loud stops"),
                Some(why) => return Err(format!("W11: {name} stopped: {why}")),
            }
        }
        for tasks in [&mut self.sends, &mut self.lines] {
            while let Some(ended) = tasks.try_join_next() {
                ended.map_err(|e| format!("a device failed: {e}"))?;
            }
        }
        Ok(())
    }

    /// Lets everything come to its end, and checks what must hold then.
    pub(crate) async fn quiet(&mut self) -> Result<(), String> {
        self.calm();
        self.trace("calm", "");
        let mut quiet = 0;
        for _ in 0..LOOKS_MAX {
            tokio::time::sleep(LOOK).await;
            self.look_after()?;
            self.bury_the_dead();
            self.mend_all();
            self.resend_all();
            self.phones_come_again();
            quiet = if self.stirring().is_none() { quiet + 1 } else { 0 };
            if quiet == 2 {
                return self.check();
            }
        }
        Err(format!("W10: no quiet in {LOOKS_MAX} looks: {}", self.stirring().unwrap_or_default()))
    }

    /// Checks everything that must hold at a quiet point.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let log = Log::of(&self.cluster);
        self.met.one("quiet points");
        for (at, event) in self.accepted.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let record = log.of_partition(at.topic, at.partition).get(at.offset as usize);
            let found = record.and_then(|r| codec::decode(r.value.as_deref().unwrap_or_default()).ok());
            if !found.as_ref().is_some_and(|found| is_same(found, &event)) {
                return Err(format!("W1: {event:?} was accepted at {at}, where {found:?} stands"));
            }
            self.met.one("accepted");
            if let Event::MessageSent(message) = event {
                let (a, b) = message.conversation.members();
                self.said.insert(message.client_id, BTreeSet::from([a, b]));
            }
        }
        let promises = self.journal.take();
        oracle::check(&Facts {
            log: &log,
            junk: &self.load.junk,
            promises: &promises,
            said: &self.said,
            tables: &self.tables,
            phones: &self.phones,
            met: &self.met,
        })
    }

    /// Throws away everything but the log, makes it again, and compares (W3).
    pub(crate) async fn rebuild(&mut self) -> Result<(), String> {
        self.phones_come = false;
        self.stop_all().await?;
        let before = self.state();
        let tables = std::mem::take(&mut self.tables);
        (self.shelves, self.database) = (BTreeMap::new(), Shelf::default());
        for (machine, topic) in DRIVES {
            for topic in [topic, Topic::Inboxes] {
                for of in (0..KEYED).map(|p| TopicPartition::new(topic, p)) {
                    self.cluster.set_committed(&format!("waypost.{machine}"), of, None);
                }
            }
        }
        self.maker.slow_ms_max = 0;
        self.quiet().await?;
        self.stop_all().await?;
        let after = self.state();
        for (owner, state) in &before {
            if after.get(owner) != Some(state) {
                return Err(format!("W3: {owner:?} was {state}, and is rebuilt as {:?}", after.get(owner)));
            }
        }
        self.met.some("states compared", before.len() as u64);
        let (old, new) = (tables.lock(), self.tables.lock());
        if old.entries != new.entries || old.cursors != new.cursors {
            return Err("W3: the read models were rebuilt, and differ".into());
        }
        self.met.one("rebuilds");
        Ok(())
    }

    /// State and numbers of every machine, by partition, as the newest snapshots have them. One whose last snapshot was
    /// lost takes none at a clean stop, which it believes to stand; of that there is nothing to compare.
    fn state(&self) -> BTreeMap<(&'static str, i32), String> {
        let mut newest = self.database.newest();
        for (owner, manifest) in self.shelves.values().flat_map(Shelf::newest) {
            let older = newest.get(&owner).is_none_or(|m| m.next < manifest.next);
            if older {
                newest.insert(owner, manifest);
            }
        }
        let told = |m: waypost_processor::snapshots::Manifest| {
            let chunks: Vec<String> = m.chunks.into_iter().map(|c| c.hash).collect();
            format!("view {} taken {:?} given {:?} chunks {chunks:?}", m.view, m.taken, m.given)
        };
        newest.retain(|(machine, partition), manifest| {
            let drives = DRIVES.iter().find(|(name, _)| name == machine);
            let end = |topic| self.cluster.end(TopicPartition::new(topic, *partition));
            let looked = manifest.looked.as_ref();
            drives.is_some_and(|(_, topic)| manifest.next == end(*topic))
                && looked.is_none_or(|looked| looked.next == end(Topic::Inboxes))
        });
        newest.into_iter().map(|(owner, manifest)| (owner, told(manifest))).collect()
    }

    async fn stop_all(&mut self) -> Result<(), String> {
        self.processes.iter().for_each(Process::stop);
        for _ in 0..LOOKS_MAX {
            if self.processes.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
            self.look_after()?;
        }
        Err("W10: a clean stop does not end".into())
    }

    /// Ends everything that goes wrong.
    fn calm(&mut self) {
        self.cluster.set_away(false);
        self.set_postgres(false);
        for phone in &self.phones {
            phone.order(|order| (order.calm, order.deaf) = (true, false));
        }
        for at in (0..self.processes.len()).rev() {
            let process = &mut self.processes[at];
            process.gate.calm();
            process.held = false;
            self.cluster.set_held(&process.name, false);
            if process.zombie && self.dice.once_in(2) {
                let process = self.processes.remove(at);
                process.die(&self.cluster);
                self.dead.push(process.name);
            } else {
                process.zombie = false;
                self.cluster.set_suspended(&process.name, false);
            }
        }
        // Whoever owns what was taken back finds out at its next start.
        if std::mem::take(&mut self.went_back) {
            for process in self.processes.extract_if(.., |p| p.role == Role::Processor) {
                process.die(&self.cluster);
                self.dead.push(process.name);
            }
        }
        self.bury_the_dead();
    }

    /// Lands or loses what the dead had on the wire, and ends their sessions.
    fn bury_the_dead(&mut self) {
        for name in std::mem::take(&mut self.dead) {
            if self.dice.once_in(2) {
                self.cluster.lose_held(&name);
            }
            self.cluster.set_held(&name, false);
            self.cluster.expire(&name);
        }
    }

    /// What is not drained.
    fn stirring(&self) -> Option<String> {
        for (machine, topic) in DRIVES {
            for of in (0..KEYED).map(|p| TopicPartition::new(topic, p)) {
                let group = format!("waypost.{machine}");
                let (committed, end) = (self.cluster.committed(&group, of), self.cluster.end(of));
                if committed != Some(end) {
                    let members = self.cluster.members(&group);
                    return Some(format!(
                        "{machine} has committed {committed:?} of {of}, which ends at {end}; {members}"
                    ));
                }
            }
        }
        let stored = self.tables.lock();
        for topic in projector::topics() {
            for of in (0..topic.partitions(KEYED)).map(|p| TopicPartition::new(topic, p)) {
                let (next, end) = (stored.rows.get(&of).map(|row| row.next), self.cluster.end(of));
                if next != Some(end) {
                    return Some(format!("the read models are at {next:?} of {of}, which ends at {end}"));
                }
            }
        }
        if self.users.outstanding() > 0 {
            return Some(format!("{} sends are not accepted", self.users.outstanding()));
        }
        for phone in self.phones.iter().filter(|phone| self.phones_come && phone.is_known()) {
            let has = phone.lock();
            let mut mine = stored.entries.iter().rev().filter(|(_, kept)| kept.user == has.user);
            let last = mine.next().map(|((_, offset), _)| *offset);
            let cursor = stored.cursors.get(&(has.user.clone(), has.name.clone())).copied();
            if cursor < last || has.connections.is_empty() {
                return Some(format!(
                    "{}/{} has acknowledged {cursor:?} of an inbox whose last entry is {last:?}",
                    has.user, has.name
                ));
            }
        }
        None
    }

    fn alive(&self, role: Role) -> Vec<usize> {
        let is = |p: &Process| p.role == role && !p.zombie && !p.is_stopping();
        (0..self.processes.len()).filter(|at| is(&self.processes[*at])).collect()
    }

    fn some(&mut self, role: Option<Role>) -> Option<usize> {
        let all: Vec<usize> = (0..self.processes.len())
            .filter(|at| role.is_none_or(|role| self.processes[*at].role == role))
            .collect();
        self.dice.pick(&all).copied()
    }

    fn start_processor(&mut self, instance: u32) -> String {
        let local = self.shelves.entry(instance).or_default().clone();
        let process = self.maker.processor(instance, &self.tables, &local, &self.database, &mut self.dice);
        let name = process.name.clone();
        self.processes.push(process);
        name
    }

    fn start_node(&mut self, instance: u32) -> String {
        let dir = self.directory.path().join(format!("node-{instance}"));
        let process = self.maker.node(instance, &self.tables, dir, &mut self.dice);
        let name = process.name.clone();
        self.processes.push(process);
        name
    }

    /// Starts what is missing: one of those that have died, as a supervisor does.
    fn mend(&mut self) -> String {
        let nodes: BTreeSet<u32> =
            self.alive(Role::Node).into_iter().map(|at| self.processes[at].instance).collect();
        if let Some(missing) = (1..=NODES).find(|instance| !nodes.contains(instance)) {
            return self.start_node(missing);
        }
        if self.alive(Role::Processor).is_empty() {
            let instance = self.dice.within(1..=PROCESSORS_MAX as u64) as u32;
            return self.start_processor(instance);
        }
        if let Some(name) = self.dice.pick(&self.dead) {
            self.cluster.expire(name);
            return format!("the session of {name} is over");
        }
        String::new()
    }

    fn mend_all(&mut self) {
        while !self.mend().is_empty() && self.alive(Role::Node).len() < NODES as usize {}
        if self.alive(Role::Processor).is_empty() {
            self.mend();
        }
    }
}

/// Whether a process may stop for this: another has its name, an append was refused, nobody gives it partitions.
fn is_harmless(why: &str) -> bool {
    ["another process has joined", "was refused", "let partitions be fenced"]
        .iter()
        .any(|may| why.contains(may))
}

/// Whether a record says what was accepted; its stamp is ingest's.
fn is_same(found: &Event, accepted: &Event) -> bool {
    match (found.clone(), accepted.clone()) {
        (Event::FixReported(a), Event::FixReported(b)) => {
            a == waypost_schemas::event::FixReported { registry: a.registry, ..b }
        }
        (Event::MessageSent(a), Event::MessageSent(b)) => {
            a == waypost_schemas::event::MessageSent { registry: a.registry, ..b }
        }
        (Event::EntriesAcknowledged(a), Event::EntriesAcknowledged(b)) => {
            a == waypost_schemas::event::EntriesAcknowledged { registry: a.registry, ..b }
        }
        _ => false,
    }
}
