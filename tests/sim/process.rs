//! The processes of a world: real processors, and real nodes that append and serve devices, each behind a gate.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use waypost_delivery::Delivery;
use waypost_ingest::{Ingest, uplink::Uplink};
use waypost_processor::{
    Processor, Stores, alerts::AlertsMachine, conversations::ConversationsMachine, inboxes::InboxesMachine,
    spatial::SpatialMachine,
};
use waypost_runtime::{
    auth::Keys,
    broker::{self, memory::Cluster},
    clock::Clock,
    config::{Config, Settings, Sources},
    health::Health,
    lifecycle::{Cause, Lifecycle, Outcome, Tasks},
    telemetry::Chain,
};

use crate::{
    DRIVES, KEYED,
    broker::Broker,
    bug::{Amnesiac, Bug, Forgetful, Hasty, Stutterer},
    catchup,
    dice::Dice,
    gate::Gate,
    journal::Journal,
    models::{self, Tables},
    phones::Node,
    places::{self, Shelf},
};

/// How long a stop may take, in the world's time.
const DRAIN: Duration = Duration::from_secs(20);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Folds and projects.
    Processor,
    /// Appends, and serves devices.
    Node,
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
    /// Where devices come, if they do.
    pub(crate) node: Option<Node>,
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
        let delivery = &mut settings.delivery;
        delivery.ack_interval = Duration::from_millis(dice.within(1..=60));
        delivery.ack_timeout = Duration::from_millis(dice.within(300..=3_000));
        delivery.write_timeout = Duration::from_millis(dice.within(100..=1_000));
        delivery.silence = Duration::from_millis(dice.within(2_000..=20_000));
        delivery.window_entries_max = dice.within(2..=20) as usize;
        delivery.newest_entries = dice.within(2..=60) as usize;
        delivery.ring_entries_max = dice.within(3..=100) as usize;
        delivery.cursors_max = dice.within(1..=20) as usize;
        delivery.tail_linger = Duration::from_millis(dice.within(50..=5_000));
        delivery.tail_keep = Duration::from_millis(dice.within(300..=5_000));
        delivery.catchups_max = dice.within(1..=4) as usize;
        delivery.drain = Duration::from_millis(dice.within(20..=2_000));
        let keys = Keys::from_seed(&[7; 32], &settings.auth).expect("any seed is a key");
        let slow_ms_max = *dice.pick(&[0, 1, 4, 15]).expect("there are some");
        let (keys, ends) = (Arc::new(keys), JoinSet::new());
        Self { cluster, clock, journal, settings, bug, slow_ms_max, keys, lives: 0, ends }
    }

    fn life(&mut self, role: Role, instance: u32, dice: &mut Dice) -> (Process, Broker) {
        self.lives += 1;
        let name = format!("{role:?}-{instance}.{}", self.lives).to_lowercase();
        let gate = Gate::new(dice.split(), self.slow_ms_max, self.journal.order.of(&name));
        let broker = Broker::new(self.cluster.connect(&name), gate.clone(), self.journal.clone(), self.bug);
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let (zombie, held, uplink, node) = (false, false, None, None);
        (Process { role, instance, name, gate, zombie, held, uplink, node, lifecycle, tasks }, broker)
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
        let tasks = &process.tasks;
        match self.bug {
            Some(Bug::EffectByMemory) => processor.spawn_machine::<Forgetful>(tasks),
            _ => processor.spawn_machine::<SpatialMachine>(tasks),
        }
        processor.spawn_machine::<AlertsMachine>(tasks);
        match self.bug {
            Some(Bug::IdsForgotten) => processor.spawn_machine::<Amnesiac>(tasks),
            _ => processor.spawn_machine::<ConversationsMachine>(tasks),
        }
        match self.bug {
            Some(Bug::ReceiptTwice) => processor.spawn_machine::<Stutterer>(tasks),
            Some(Bug::AckSeesAhead) => processor.spawn_machine::<Hasty>(tasks),
            _ => processor.spawn_machine::<InboxesMachine>(tasks),
        }
        processor.spawn_readers(tasks);
        self.watch(&process);
        process
    }

    /// Starts a node that takes input and serves devices, and keeps its tails in a directory.
    pub(crate) fn node(&mut self, instance: u32, tables: &Tables, dir: PathBuf, dice: &mut Dice) -> Process {
        let (mut process, broker) = self.life(Role::Node, instance, dice);
        let broker: Arc<dyn broker::Broker> = Arc::new(broker);
        // What serves devices stops before what it appends by.
        let stage = process.tasks.stage("delivery");
        let below = process.tasks.stage("ingest");
        let ingest = Ingest::build(waypost_ingest::Deps {
            broker: broker.clone(),
            clock: self.clock.clone(),
            health: Health::default(),
            keys: self.keys.clone(),
            partitions: KEYED,
            settings: self.settings.ingest.clone(),
        });
        let ingest = ingest.expect("the twin gives what it is asked for");
        process.uplink = Some(ingest.uplink());
        let (running, lifecycle) = (ingest.clone(), below.lifecycle().clone());
        below.spawn("ingest", async move { running.run(lifecycle).await });
        let (gate, bug) = (process.gate.clone(), self.bug);
        let delivery = Delivery::build(waypost_delivery::Deps {
            broker,
            store: Arc::new(catchup::Reached { tables: tables.clone(), gate, bug }),
            ingest,
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            health: Health::default(),
            dir,
            name: process.name.clone(),
            partitions: KEYED,
            settings: self.settings.delivery.clone(),
            tasks: stage.clone(),
        });
        let delivery = delivery.expect("the twin gives what it is asked for");
        delivery.spawn();
        process.node = Some(Node { delivery, stage });
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
