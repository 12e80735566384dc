//! What all connections of a node share, and the questions that take time: where a device begins, what it lacks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use waypost_ingest::{registry, uplink};
use waypost_runtime::{auth::Auth, clock::Clock, config, telemetry::Chain};
use waypost_schemas::{
    codec,
    event::{AckKind, EntriesAcknowledged, Entry, Event},
    frame::Down,
    id::{DeviceId, DeviceName, UserId},
    partition,
};

use crate::{
    catchup::{Catchup, Mailbox, Reached, Stored},
    code::{Code, Goodbye},
    entry,
    registry::{Connection, Registry},
    session::{self, Ack, Beginning, Claim, Cursor, Failure, Hello, Looked, Offer, Room},
    tail::{
        Lease, Tails,
        cursors::{Gap, Known},
        ring::{At, Kept},
    },
};

/// How long a beginning that could not be appended waits before it is tried again.
const APPEND_AGAIN: Duration = Duration::from_millis(200);

/// What all connections of a node share.
pub(crate) struct Node {
    pub(crate) tails: Tails,
    pub(crate) catchup: Arc<Catchup>,
    pub(crate) uplink: uplink::Uplink,
    /// Ingest's view of the registry, which knows the log's name.
    pub(crate) facts: Arc<registry::Registry>,
    pub(crate) connections: Arc<Registry>,
    pub(crate) auth: Auth,
    pub(crate) settings: config::Delivery,
    pub(crate) limits: Arc<session::Limits>,
    /// How many partitions keyed topics have.
    pub(crate) partitions: i32,
    /// Tells this node's sessions from those of others.
    pub(crate) name: Box<str>,
    pub(crate) numbered: AtomicU64,
}

/// A user's device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) name: DeviceName,
}

impl Device {
    /// Its acknowledgement, of a session or of none.
    pub(crate) fn acknowledges(&self, session: &str, kind: AckKind, upto: i64) -> EntriesAcknowledged {
        let Self { user, name } = self.clone();
        EntriesAcknowledged { user, device: name, session: session.to_owned(), kind, upto, registry: -1 }
    }
}

/// Entries to be offered.
pub(crate) struct Found {
    pub(crate) offers: Vec<Offer>,
    /// Up to where there are no others of the user.
    pub(crate) through: i64,
}

/// Where a device begins.
pub(crate) struct Begun {
    pub(crate) lease: Lease,
    pub(crate) log: Box<str>,
    pub(crate) cursor: i64,
    /// What was in the inbox when it came lies below.
    pub(crate) target: i64,
    /// What it is told after its welcome.
    pub(crate) said: Vec<Down>,
}

impl Node {
    pub(crate) fn clock(&self) -> &Clock {
        &self.auth.clock
    }

    pub(crate) fn partition(&self, user: &UserId) -> i32 {
        partition::of(user.as_str().as_bytes(), self.partitions)
    }

    /// A name for a new session, higher than those before it.
    pub(crate) fn session(&self) -> Box<str> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{}-{number:x}", self.clock().now().0.max(0), self.name).into()
    }

    /// Finds where a device begins, and makes that stand in the log where it does not yet.
    pub(crate) async fn begin(
        &self,
        device: &Device,
        hello: Hello,
        connection: &Arc<Connection>,
    ) -> Result<Begun, Goodbye> {
        let begins = self.find(device, hello, connection);
        tokio::time::timeout(self.settings.begin_timeout, begins).await.unwrap_or(Err(Goodbye::Unavailable))
    }

    async fn find(
        &self,
        device: &Device,
        mut hello: Hello,
        connection: &Arc<Connection>,
    ) -> Result<Begun, Goodbye> {
        // A stack that just began has no name yet.
        let log = self.facts.log().await;
        let mut said = Vec::new();
        if hello.is_of_another(&log) {
            said.push(
                Code::OtherLog.frame(format!("offsets are of log {log} here; the one in hello was ignored")),
            );
        }
        let mut lease = self.tails.hold(self.partition(&device.user));
        lease.listen(device.user.clone(), connection.clone());
        let ends = self.tails.ends(lease.partition()).await.map_err(|_| Goodbye::Unavailable)?;
        // Up to their ends at this moment: what is read later is live.
        let target = ends.inbox.high;
        lease.reaches(target, ends.acks.high).await;
        let cursor = self.cursor(&lease, device).await;
        loop {
            let (cursor, append) =
                match session::begin(&hello, &session::Known { log: &log, cursor, end: target }) {
                    Beginning::After { cursor, append } => (cursor, append),
                    Beginning::Newest => {
                        (self.newest(&lease, &device.user, target).await?, Some(AckKind::Start))
                    }
                    Beginning::Later => return Err(Goodbye::Unavailable),
                };
            let Some(kind) = append else { return Ok(Begun { lease, log, cursor, target, said }) };
            match self.uplink.acknowledge(device.acknowledges(&connection.session, kind, cursor)).await {
                Ok(_) => return Ok(Begun { lease, log, cursor, target, said }),
                Err(refused @ uplink::Error::AckBeyondEnd { .. }) => {
                    said.push(refused.frame(None));
                    hello.offset = None;
                }
                // The log, or the view of the registry, is on its way; how long is waited is bounded.
                Err(error) if error.retry_after_s().is_some() => tokio::time::sleep(APPEND_AGAIN).await,
                Err(_) => return Err(Goodbye::Unavailable),
            }
        }
    }

    /// The highest of what the store and the tail know. What the tail alone has read may be lower than what was
    /// acknowledged before it: a late acknowledgement of less can stand behind one of more.
    async fn cursor(&self, lease: &Lease, device: &Device) -> Cursor {
        let id = DeviceId::of(&device.user, &device.name);
        let known = lease.cursors(|cursors| cursors.get(&id)).flatten();
        if let Some(Known { upto, whole: true, .. }) = known {
            return upto.map_or(Cursor::Never, Cursor::At);
        }
        let read_here = Cursor::Unknown(known.and_then(|known| known.upto));
        let of = Mailbox { user: &device.user, partition: lease.partition() };
        let Ok(Reached { upto, next }) = self.catchup.reached(of, &device.name).await else {
            return read_here;
        };
        match lease.cursors(|cursors| cursors.merge(&id, upto, next)) {
            Some(Ok(upto)) => upto.map_or(Cursor::Never, Cursor::At),
            Some(Err(Gap)) | None => read_here,
        }
    }

    /// The offset before the newest entries of a user below an offset.
    async fn newest(&self, lease: &Lease, user: &UserId, end: i64) -> Result<i64, Goodbye> {
        let (of, count) = (Mailbox { user, partition: lease.partition() }, self.settings.newest_entries);
        let stored = self.catchup.newest(of, count).await.map_err(|_| Goodbye::Unavailable)?;
        let later = lease.ring(|ring| ring.offsets(user, stored.next - 1)).flatten();
        let mut offsets = stored.offsets;
        offsets.extend(later.ok_or(Goodbye::Unavailable)?);
        offsets.retain(|offset| *offset < end);
        Ok(if offsets.len() >= count { offsets[offsets.len() - count] - 1 } else { -1 })
    }

    /// What the store holds of a user after an offset; `None` where neither it nor the ring can go on from there now.
    pub(crate) async fn stored(
        &self,
        user: &UserId,
        partition: i32,
        after: i64,
        room: Room,
    ) -> Option<Found> {
        let of = Mailbox { user, partition };
        let page = self.catchup.page(of, after, room.entries, room.bytes).await.ok()?;
        metrics::counter!("waypost_delivery_caught_up_entries_total").increment(page.entries.len() as u64);
        let through = page.through;
        let found = || Found { offers: page.entries.into_iter().filter_map(offer_stored).collect(), through };
        (through > after).then(found)
    }

    /// What an offset names in a user's inbox.
    pub(crate) async fn look(&self, lease: &Lease, user: &UserId, offset: i64) -> Looked {
        match lease.ring(|ring| ring.at(offset)) {
            Some(At::Entry(kept)) if kept.user == *user => looked(&kept.value),
            Some(At::Entry(_) | At::Nothing) => Looked::Foreign,
            // Admission knows whether it is beyond the end.
            Some(At::After) | None => Looked::Unknown,
            Some(At::Before) => {
                let of = Mailbox { user, partition: lease.partition() };
                match self.catchup.page(of, offset - 1, 1, 1).await {
                    Ok(page) => match page.entries.first() {
                        Some(entry) if entry.offset == offset => looked(&entry.value),
                        Some(_) => Looked::Foreign,
                        None if page.through >= offset => Looked::Foreign,
                        None => Looked::Unknown,
                    },
                    Err(_) => Looked::Unknown,
                }
            }
        }
    }

    /// Appends acknowledgements in order, and says of each how that ended.
    pub(crate) async fn append(
        &self,
        device: &Device,
        session: &str,
        acks: Vec<Ack>,
    ) -> Vec<(Ack, Result<(), Failure>)> {
        let mut lined = Vec::with_capacity(acks.len());
        for ack in acks {
            let record = device.acknowledges(session, ack.kind(), ack.upto);
            lined.push((ack, self.uplink.queue_ack(record).await));
        }
        let mut done = Vec::with_capacity(lined.len());
        for (ack, queued) in lined {
            let ended = match queued {
                Ok(appending) => appending.await,
                Err(error) => Err(error),
            };
            metrics::counter!("waypost_delivery_acks_total", "kind" => kind(&ack)).increment(1);
            done.push((ack, ended.map(drop).map_err(|error| failure(&error))));
        }
        done
    }

    /// The frame that says goodbye to a connection.
    pub(crate) fn goodbye(&self, goodbye: Goodbye, salt: &str) -> Down {
        metrics::counter!("waypost_delivery_goodbyes_total", "code" => goodbye.as_str()).increment(1);
        // Sessions differ in their last characters, and so do the seconds after which they come again.
        let salt = salt.bytes().fold(0_u64, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
        goodbye.frame(self.settings.retry_spread, salt)
    }

    /// How long what a connection has begun may take once it ends.
    pub(crate) fn drain(&self) -> Duration {
        self.settings.drain
    }
}

/// What the ring holds of a user after an offset; `None` where it begins later.
pub(crate) fn live(lease: &Lease, user: &UserId, after: i64, room: Room) -> Option<Found> {
    let pulled = lease.ring(|ring| ring.pull(user, after, room.entries, room.bytes)).flatten()?;
    let offers = pulled.entries.iter().filter_map(|kept| offer_kept(kept)).collect();
    Some(Found { offers, through: pulled.through })
}

fn kind(ack: &Ack) -> &'static str {
    match ack.claim {
        Claim::Offered | Claim::Beyond => "delivered",
        Claim::Read(_) => "read",
    }
}

fn failure(error: &uplink::Error) -> Failure {
    if error.retry_after_s().is_some() { Failure::Later } else { Failure::Refused(error.frame(None)) }
}

/// The entry in a record of `inboxes`.
pub(crate) fn decoded(value: &[u8]) -> Option<Entry> {
    match codec::decode(value) {
        Ok(Event::EntryAdded(added)) => Some(added.entry),
        Ok(_) => None,
        Err(error) => {
            // What is no entry was kept neither in the ring nor in the store.
            tracing::error!(error = %Chain(&error), "an entry that was kept cannot be read, and is left out");
            None
        }
    }
}

fn looked(value: &[u8]) -> Looked {
    match decoded(value) {
        Some(Entry::MessageArrived(message)) => Looked::Message(message.conversation),
        _ => Looked::Foreign,
    }
}

fn offer(frame: &Down, offset: i64) -> Offer {
    let text = serde_json::to_string(frame).expect("frames are texts, numbers and maps by text");
    Offer { offset, text }
}

fn offer_kept(kept: &Kept) -> Option<Offer> {
    let frame = entry::frame(kept.offset, kept.cause.to_string(), kept.at, decoded(&kept.value)?);
    Some(offer(&frame, kept.offset))
}

fn offer_stored(stored: Stored) -> Option<Offer> {
    let frame = entry::frame(stored.offset, stored.cause, stored.at, decoded(&stored.value)?);
    Some(offer(&frame, stored.offset))
}
