//! The processes of a world: real processors and real ingest nodes, each behind a gate.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use waypost_ingest::{Ingest, uplink::Uplink};
use waypost_processor::{
    Processor, Stores, alerts::AlertsMachine, conversations::ConversationsMachine, inboxes::InboxesMachine,
};
use waypost_runtime::{
    auth::Keys,
    broker::memory::Cluster,
    clock::Clock,
    config::{Config, Settings, Sources},
    health::Health,
    lifecycle::{Cause, Lifecycle, Outcome, Tasks},
    telemetry::Chain,
};

use crate::{
    DRIVES, KEYED,
    broker::Broker,
    bug::{Bug, Forgetful},
    dice::Dice,
    gate::Gate,
    journal::Journal,
    models::{self, Tables},
    places::{self, Shelf},
};

/// How long a stop may take, in the world's time.
const DRAIN: Duration = Duration::from_secs(20);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Folds and projects.
    Processor,
    /// Appends.
    Ingest,
}

/// One life of a process.
pub(crate) struct Process {
    pub(crate) role: Role,
    /// Which of its role it is; two lives may be at once where one is a zombie.
    pub(crate) instance: u32,
    /// Its connection's name, new with each life.
    pub(crate) name: String,
    pub(crate) gate: Gate,
    pub(crate) zombie: bool,
    pub(crate) held: bool,
    /// Where it appends, if it does.
    pub(crate) uplink: Option<Uplink>,
    lifecycle: Lifecycle,
    tasks: Tasks,
}

/// How a process ended by itself.
pub(crate) struct Ended {
    pub(crate) name: String,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
}

/// What processes are made of.
pub(crate) struct Maker {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) settings: Settings,
    pub(crate) bug: Option<Bug>,
    pub(crate) slow_ms_max: u64,
    keys: Arc<Keys>,
    lives: u64,
    pub(crate) ends: JoinSet<Ended>,
}

impl Maker {
    pub(crate) fn new(
        cluster: Cluster,
        clock: Clock,
        journal: Journal,
        bug: Option<Bug>,
        dice: &mut Dice,
    ) -> Self {
        let config = Config::load(&Sources::default()).expect("the defaults are settings");
        let mut settings = config.settings().clone();
        settings.processor.commit_interval = Duration::from_millis(dice.within(1..=30));
        settings.processor.batch_records_max = dice.within(1..=8) as usize;
        settings.projector.batch_wait = Duration::from_millis(dice.within(1..=30));
        settings.projector.batch_records_max = dice.within(1..=20) as usize;
        settings.snapshots.interval = Duration::from_millis(dice.within(5..=150));
        let keys = Keys::from_seed(&[7; 32], &settings.auth).expect("any seed is a key");
        let slow_ms_max = *dice.pick(&[0, 1, 4, 15]).expect("there are some");
        let (keys, ends) = (Arc::new(keys), JoinSet::new());
        Self { cluster, clock, journal, settings, bug, slow_ms_max, keys, lives: 0, ends }
    }

    fn life(&mut self, role: Role, instance: u32, dice: &mut Dice) -> (Process, Broker) {
        self.lives += 1;
        let name = format!("{role:?}-{instance}.{}", self.lives).to_lowercase();
        let gate = Gate::new(dice.split(), self.slow_ms_max, self.journal.order.of(&name));
        let bug = self.bug.filter(|_| role != Role::Ingest);
        let broker = Broker::new(self.cluster.connect(&name), gate.clone(), self.journal.clone(), bug);
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let (zombie, held, uplink) = (false, false, None);
        (Process { role, instance, name, gate, zombie, held, uplink, lifecycle, tasks }, broker)
    }

    fn watch(&mut self, process: &Process) {
        let (name, tasks) = (process.name.clone(), process.tasks.clone());
        self.ends.spawn(async move {
            let Outcome { cause, .. } = tasks.wait(DRAIN).await;
            let failure = match &cause {
                Cause::Failed { task, error } => Some(format!("{task}: {}", Chain(&**error))),
                Cause::Panicked { task, message } => Some(format!("{task} panicked: {message}")),
                _ => None,
            };
            Ended { name, failure }
        });
    }

    /// Starts a processor on these stores.
    pub(crate) fn processor(
        &mut self,
        instance: u32,
        tables: &Tables,
        local: &Shelf,
        database: &Shelf,
        dice: &mut Dice,
    ) -> Process {
        let (process, broker) = self.life(Role::Processor, instance, dice);
        let place = |shelf: &Shelf, name| places::Reached {
            shelf: shelf.clone(),
            name,
            gate: process.gate.clone(),
            journal: self.journal.clone(),
            bug: self.bug,
            drives: DRIVES.into(),
        };
        let met = self.journal.met.clone();
        let models = models::Reached { tables: tables.clone(), gate: process.gate.clone(), met };
        let stores = Stores {
            models: Arc::new(models),
            local: Arc::new(place(local, "the data directory")),
            database: Some(Arc::new(place(database, "postgres"))),
        };
        let settings = Settings { instance, ..self.settings.clone() };
        let processor =
            Processor::on(stores, Arc::new(broker), self.clock.clone(), Health::default(), settings);
        let processor = processor.expect("the twin gives what it is asked for");
        if self.bug == Some(Bug::EffectByMemory) {
            processor.spawn_machine::<Forgetful>(&process.tasks);
            processor.spawn_machine::<AlertsMachine>(&process.tasks);
            processor.spawn_machine::<ConversationsMachine>(&process.tasks);
            processor.spawn_machine::<InboxesMachine>(&process.tasks);
            processor.spawn_readers(&process.tasks);
        } else {
            processor.spawn(&process.tasks);
        }
        self.watch(&process);
        process
    }

    /// Starts an ingest node.
    pub(crate) fn ingest(&mut self, instance: u32, dice: &mut Dice) -> Process {
        let (mut process, broker) = self.life(Role::Ingest, instance, dice);
        let ingest = Ingest::build(waypost_ingest::Deps {
            broker: Arc::new(broker),
            clock: self.clock.clone(),
            health: Health::default(),
            keys: self.keys.clone(),
            partitions: KEYED,
            settings: self.settings.ingest.clone(),
        });
        let ingest = ingest.expect("the twin gives what it is asked for");
        process.uplink = Some(ingest.uplink());
        let lifecycle = process.tasks.lifecycle().clone();
        process.tasks.spawn("ingest", async move { ingest.run(lifecycle).await });
        self.watch(&process);
        process
    }
}

impl Process {
    /// Dies at once: nothing that it began goes on, and what it had sent may still land.
    pub(crate) fn die(&self, cluster: &Cluster) {
        self.gate.kill();
        cluster.crash(&self.name);
        self.tasks.kill();
    }

    /// Is told to stop cleanly.
    pub(crate) fn stop(&self) {
        self.lifecycle.stop(Cause::Asked("the simulation wants it".into()));
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lifecycle.is_stopping()
    }
}
