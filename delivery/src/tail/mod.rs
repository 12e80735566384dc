//! The ends of the log that connected users need: a tail for each of their partitions, of `inboxes` and of `acks`.
//!
//! A tail begins only where the read models stand, with their map of numbers, or where this node itself stood before;
//! it keeps a bounded [`ring`] of entries and the [`cursors`] of devices, and rings the bells of those whose entries
//! come. It is opened when a user of its partition comes, and closed a while after the last has gone.

pub(crate) mod cursors;
mod disk;
mod ends;
mod follow;
pub(crate) mod ring;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use waypost_ingest::uplink::Uplink;
use waypost_runtime::{
    broker::{self, Broker, Incoming, Reader},
    clock::Clock,
    datadir,
    intake::{Admitted, Hole, Intake},
    lifecycle::Tasks,
    watch,
};
use waypost_schemas::{
    cause::SeqMap,
    event::{AckKind, Event},
    id::{DeviceId, UserId},
    topic::{Topic, TopicPartition},
};

pub(crate) use self::ends::{Asker, Ends};
use self::{
    cursors::Cursors,
    disk::{Disk, Stood},
    ring::{Bounds, Kept, Ring},
};
use crate::{
    catchup::Catchup,
    registry::{Connection, lock},
};

/// What tails are bound by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ring: Bounds,
    /// How many devices' cursors a tail knows.
    pub(crate) cursors_max: usize,
    /// How long a tail stays open without users.
    pub(crate) linger: Duration,
    /// How often it is written to the disk.
    pub(crate) keep_every: Duration,
}

/// Why a tail cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker failed, or the log no longer holds what is to be read.
    #[error("a tail cannot read the log")]
    Broker(#[from] broker::Error),
    /// The log misses records.
    #[error(transparent)]
    Hole(#[from] Hole),
    /// The read models cannot be understood.
    #[error("a tail cannot begin where the read models stand")]
    Catchup(#[from] crate::catchup::Error),
    /// The read models were made from another cluster's log.
    #[error(
        "the read models of inboxes/{partition} were made from Kafka cluster {stored}, and this is {found}: name the right broker, or empty the read models so that they are rebuilt"
    )]
    OtherCluster {
        /// The partition.
        partition: i32,
        /// The cluster that they were made from.
        stored: String,
        /// The cluster that was found.
        found: String,
    },
}

/// How far a tail has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether it has begun.
    open: bool,
    inbox: i64,
    acks: i64,
}

/// The tail of one partition.
pub(crate) struct Tail {
    partition: i32,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

struct State {
    /// Nothing while it is not known where to begin.
    read: Option<Read>,
    listeners: HashMap<UserId, Vec<Arc<Connection>>>,
    /// How many hold it, with a connection or without.
    leases: usize,
}

/// What has been read.
struct Read {
    ring: Ring,
    intake: Intake,
    cursors: Cursors,
}

impl Tail {
    fn new(partition: i32) -> Self {
        let state = State { read: None, listeners: HashMap::new(), leases: 0 };
        Self { partition, state: Mutex::new(state), progress: watch::Sender::default() }
    }

    fn topic(&self, topic: Topic) -> TopicPartition {
        TopicPartition::new(topic, self.partition)
    }

    fn begin(&self, limits: &Limits, stood: Stood) {
        let Stood { inbox_next, seqs, acks_since, acks_next, cursors, .. } = stood;
        let ring = Ring::new(limits.ring, inbox_next, seqs.clone());
        let intake = Intake::new(self.topic(Topic::Inboxes), seqs);
        let cursors = Cursors::read(limits.cursors_max, acks_since, acks_next, cursors);
        lock(&self.state).read = Some(Read { ring, intake, cursors });
        self.progress.send_replace(Progress { open: true, inbox: inbox_next, acks: acks_next });
    }

    /// Takes entries, and rings for whom they are; at a hole, those from it on are left.
    fn take_entries(&self, records: &mut std::vec::IntoIter<Incoming>) -> Result<(), Hole> {
        let mut state = lock(&self.state);
        let State { read, listeners, .. } = &mut *state;
        let Some(Read { ring, intake, .. }) = read else { return Ok(()) };
        while let Some(record) = records.as_slice().first() {
            match intake.admit(record)? {
                Admitted::Event { event: Event::EntryAdded(added), cause: Some(cause) } => {
                    if let Some(theirs) = listeners.get(&added.user) {
                        theirs.iter().for_each(|connection| connection.ring());
                    }
                    ring.push(Kept {
                        offset: record.offset,
                        at: crate::entry::at(record),
                        cause,
                        user: added.user,
                        value: record.value.clone().unwrap_or_default(),
                    });
                }
                Admitted::Copy => metrics::counter!("waypost_delivery_copies_total").increment(1),
                // The projector makes dead letters of what does not belong here.
                Admitted::Event { .. } | Admitted::Unfit(_) => {}
            }
            let next = record.offset + 1;
            ring.reach(next, intake.seqs());
            records.next();
        }
        Ok(())
    }

    fn pass(&self, hole: &Hole) {
        if let Some(read) = &mut lock(&self.state).read {
            read.intake.pass(hole);
        }
    }

    fn reached_entries(&self, next: i64) {
        if let Some(Read { ring, intake, .. }) = &mut lock(&self.state).read {
            ring.reach(next, intake.seqs());
        }
        self.progress.send_modify(|progress| progress.inbox = progress.inbox.max(next));
    }

    /// Takes acknowledgements: cursors move, and a connection whose device has a newer session is told.
    fn take_acks(&self, records: &[Incoming], next: i64) {
        {
            let mut state = lock(&self.state);
            let State { read, listeners, .. } = &mut *state;
            let Some(Read { cursors, .. }) = read else { return };
            let mut intake = Intake::new(self.topic(Topic::Acks), SeqMap::default());
            for record in records {
                // What does not belong here is a dead letter of the machine that this topic drives.
                let Ok(Admitted::Event { event: Event::EntriesAcknowledged(ack), .. }) = intake.admit(record)
                else {
                    continue;
                };
                let device = DeviceId::of(&ack.user, &ack.device);
                let theirs = listeners.get(&ack.user).into_iter().flatten();
                theirs
                    .filter(|connection| connection.device == device && *ack.session > *connection.session)
                    .for_each(|connection| connection.replace());
                if ack.kind != AckKind::Read {
                    cursors.acknowledged(device, record.offset, ack.upto);
                }
            }
            cursors.reach(next);
        }
        self.progress.send_modify(|progress| progress.acks = progress.acks.max(next));
    }

    /// How it stands: the numbers from where the ring could begin again.
    fn stands(&self, cluster: &str) -> Option<Stood> {
        let state = lock(&self.state);
        let Read { ring, cursors, .. } = state.read.as_ref()?;
        let (inbox_next, seqs) = ring.mark().clone();
        let (acks_since, written) = cursors.written();
        let cluster = cluster.to_owned();
        Some(Stood { cluster, inbox_next, seqs, acks_since, acks_next: cursors.next(), cursors: written })
    }

    fn offsets(&self) -> Option<(i64, i64)> {
        lock(&self.state).read.as_ref().map(|read| (read.ring.next(), read.cursors.next()))
    }
}

/// The tails of this node.
pub(crate) struct Tails(Arc<Shared>);

struct Shared {
    broker: Arc<dyn Broker>,
    reader: Arc<dyn Reader>,
    /// Of acknowledgements, which move cursors, and make no device wait.
    bulk: Arc<dyn Reader>,
    catchup: Arc<Catchup>,
    uplink: Uplink,
    clock: Clock,
    disk: Disk,
    limits: Limits,
    ends: Asker,
    tasks: Tasks,
    open: Mutex<BTreeMap<i32, Arc<Tail>>>,
}

impl Tails {
    /// Prepares tails that run as `tasks` and are kept in a directory.
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        catchup: Arc<Catchup>,
        uplink: Uplink,
        clock: Clock,
        (dir, limits): (&Path, Limits),
        tasks: Tasks,
    ) -> Result<Self, NotMade> {
        let (disk, ends) = (Disk::open(dir)?, Asker::new(broker.clone()));
        let (reader, bulk) = (broker.reader()?, broker.bulk_reader()?);
        let open = Mutex::default();
        Ok(Self(Arc::new(Shared {
            broker,
            reader,
            bulk,
            catchup,
            uplink,
            clock,
            disk,
            limits,
            ends,
            tasks,
            open,
        })))
    }

    /// Where a partition ends at a moment after the call.
    pub(crate) async fn ends(&self, partition: i32) -> Result<Ends, broker::Error> {
        self.0.ends.ask(partition).await
    }

    /// Holds the tail of a partition, which is opened where it is not open.
    pub(crate) fn hold(&self, partition: i32) -> Lease {
        let mut open = lock(&self.0.open);
        let tail = open.entry(partition).or_insert_with(|| {
            let tail = Arc::new(Tail::new(partition));
            let (following, lifecycle) =
                (follow::follow(self.0.clone(), tail.clone()), self.0.tasks.lifecycle());
            let lifecycle = lifecycle.clone();
            self.0.tasks.spawn(format!("tail {partition}"), async move { following.run(lifecycle).await });
            tail
        });
        lock(&tail.state).leases += 1;
        Lease { tail: tail.clone(), listener: None }
    }
}

/// Why tails cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// The broker refuses.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] datadir::Error),
}

/// Holds a tail open; dropped, its connection's bell is rung no more.
pub(crate) struct Lease {
    tail: Arc<Tail>,
    listener: Option<Box<(UserId, Arc<Connection>)>>,
}

impl Lease {
    /// Rings a connection's bell when entries of a user come.
    pub(crate) fn listen(&mut self, user: UserId, connection: Arc<Connection>) {
        let mut state = lock(&self.tail.state);
        state.listeners.entry(user.clone()).or_default().push(connection.clone());
        self.listener = Some(Box::new((user, connection)));
    }

    /// Resolves when the tail has read everything below these offsets of `inboxes` and `acks`.
    pub(crate) async fn reaches(&self, inbox: i64, acks: i64) {
        let mut progress = self.tail.progress.subscribe();
        let reached = |progress: &Progress| progress.open && progress.inbox >= inbox && progress.acks >= acks;
        // The sender lives as long as the tail, which this holds.
        let _ = progress.wait_for(reached).await;
    }

    /// Looks at the ring; `None` while the tail has not begun.
    pub(crate) fn ring<T>(&self, look: impl FnOnce(&Ring) -> T) -> Option<T> {
        lock(&self.tail.state).read.as_ref().map(|read| look(&read.ring))
    }

    /// Looks at the cursors; `None` while the tail has not begun.
    pub(crate) fn cursors<T>(&self, look: impl FnOnce(&mut Cursors) -> T) -> Option<T> {
        lock(&self.tail.state).read.as_mut().map(|read| look(&mut read.cursors))
    }

    /// The partition.
    pub(crate) fn partition(&self) -> i32 {
        self.tail.partition
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = lock(&self.tail.state);
        state.leases -= 1;
        let Some((user, connection)) = self.listener.take().map(|listener| *listener) else { return };
        if let Some(theirs) = state.listeners.get_mut(&user) {
            theirs.retain(|other| !Arc::ptr_eq(other, &connection));
            if theirs.is_empty() {
                state.listeners.remove(&user);
            }
        }
    }
}
