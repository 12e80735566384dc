//! The devices of users as their holders use them: each comes to some node, receives, acknowledges and reads as its
//! dice say, says things, is cut off, goes deaf, and comes again elsewhere. What each connection told is written down.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{io::DuplexStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as Side},
};
use waypost_delivery::Delivery;
use waypost_runtime::{
    auth::{Identity, Role},
    broker::memory::Cluster,
    lifecycle::Tasks,
    watch,
};
use waypost_schemas::{
    codec,
    event::{AckKind, EntriesAcknowledged, Event, MessageSent},
    frame::{Begin, Down, Up},
    id::{DeviceName, UserId},
    topic::Topic,
};

use crate::{dice::Dice, load::of, met::Met, users::Users, world::Accepted};

/// How long a node may read nothing of what a device says before the device gives it up.
const SAY: Duration = Duration::from_millis(500);
/// An offset that no inbox of this world reaches.
const BEYOND: i64 = 1 << 40;

/// What the world wants of a connection's device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// It is cut off without a word.
    pub(crate) cut: bool,
    /// It reads nothing and says nothing.
    pub(crate) deaf: bool,
    /// It acknowledges at once, and does nothing odd.
    pub(crate) calm: bool,
}

/// What one connection told its device.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Up to where the log had the device's acknowledgements when it said hello.
    pub(crate) acknowledged: Option<i64>,
    /// Where its inbox ended then.
    pub(crate) end: i64,
    /// The offset that it named, of this log.
    pub(crate) named: Option<i64>,
    /// The cursor that it was told, and up to where the log had its acknowledgements by then.
    pub(crate) welcome: Option<(i64, Option<i64>)>,
    /// The entries that it was offered, with their causes.
    pub(crate) entries: Vec<(i64, String)>,
    /// How many there were when it was told that these are all.
    pub(crate) caught_up: Option<usize>,
    /// What should not have been said.
    pub(crate) odd: Option<String>,
}

/// A device; a cheap clone.
#[derive(Clone)]
pub(crate) struct Phone(Arc<Mutex<Has>>);

/// What a device has.
pub(crate) struct Has {
    pub(crate) user: UserId,
    pub(crate) name: DeviceName,
    /// The newest entry that it has received.
    newest: Option<i64>,
    /// Every offset up to which it has said that it has all.
    pub(crate) acknowledged: BTreeSet<i64>,
    /// Every offset up to which it has said that it has read.
    pub(crate) read: BTreeSet<i64>,
    pub(crate) connections: Vec<Told>,
    /// The connections that are open, by their places among all.
    open: BTreeMap<usize, watch::Sender<Order>>,
    /// What it is to send.
    outbox: VecDeque<MessageSent>,
}

/// The node that a device comes to, and what it needs beside.
pub(crate) struct Node {
    pub(crate) delivery: Delivery,
    /// Where connections run.
    pub(crate) stage: Tasks,
}

/// What all devices stand on; a cheap clone.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) cluster: Cluster,
    pub(crate) log: &'static str,
    pub(crate) users: Users,
    pub(crate) accepted: Accepted,
    pub(crate) met: Met,
}

impl Phone {
    pub(crate) fn new(user: UserId, name: DeviceName) -> Self {
        Self(Arc::new(Mutex::new(Has {
            user,
            name,
            newest: None,
            acknowledged: BTreeSet::new(),
            read: BTreeSet::new(),
            connections: Vec::new(),
            open: BTreeMap::new(),
            outbox: VecDeque::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Has> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ever said hello.
    pub(crate) fn is_known(&self) -> bool {
        !self.lock().connections.is_empty()
    }

    /// Whether it is this device.
    pub(crate) fn is_of(&self, user: &UserId, name: &DeviceName) -> bool {
        let has = self.lock();
        (&has.user, &has.name) == (user, name)
    }

    /// Its name, with its user's.
    pub(crate) fn name(&self) -> String {
        let has = self.lock();
        format!("{}/{}", has.user, has.name)
    }

    /// Whether a connection of it is open.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().open.is_empty()
    }

    /// Gives an order to all its connections.
    pub(crate) fn order(&self, change: impl Fn(&mut Order)) {
        self.lock().open.values().for_each(|orders| orders.send_modify(&change));
    }

    /// Says a message on its newest connection; false where it has none.
    pub(crate) fn say(&self, message: MessageSent) -> bool {
        let mut has = self.lock();
        let Some(orders) = has.open.last_entry().map(|newest| newest.get().clone()) else { return false };
        has.outbox.push_back(message);
        drop(has);
        orders.send_modify(|_| {});
        true
    }

    /// Comes to a node, and lives there until the connection ends. What it has open elsewhere stays open.
    pub(crate) fn come(
        &self,
        node: &Node,
        ground: Ground,
        mut dice: Dice,
        calm: bool,
    ) -> impl Future<Output = ()> + use<> {
        let (orders, ordered) = watch::channel(Order { calm, ..Order::default() });
        let mut has = self.lock();
        let at = has.connections.len();
        has.connections.push(Told::default());
        has.open.insert(at, orders);
        let role = Role::Device;
        let identity = Identity { user: has.user.clone(), device: has.name.clone(), role };
        drop(has);
        let room = *dice.pick(&[300, 4_096, 1 << 16]).expect("there are some");
        let (ours, theirs) = tokio::io::duplex(room);
        let delivery = node.delivery.clone();
        node.stage.spawn("phone", async move {
            // A node that has no place or stops closes the connection, which is its answer.
            let _ = delivery.serve(identity, theirs).await;
            Ok::<(), Infallible>(())
        });
        let phone = self.clone();
        async move {
            let socket = WebSocketStream::from_raw_socket(ours, Side::Client, None).await;
            let sent = BTreeMap::new();
            let mut line = Line { phone: phone.clone(), at, ground, dice, ordered, socket, sent };
            line.live().await;
            phone.lock().open.remove(&at);
        }
    }
}

impl Has {
    /// Up to where the log has its acknowledgements.
    fn acknowledged(&self, cluster: &Cluster) -> Option<i64> {
        let records = cluster.records(of(Topic::Acks, self.user.as_str()));
        let mine = |ack: &EntriesAcknowledged| {
            ack.user == self.user && ack.device == self.name && ack.kind != AckKind::Read
        };
        let acks = records.iter().filter_map(|record| {
            match codec::decode(record.value.as_deref().unwrap_or_default()) {
                Ok(Event::EntriesAcknowledged(ack)) if mine(&ack) => Some(ack.upto),
                _ => None,
            }
        });
        acks.max()
    }
}

/// The connection is over.
struct Over;

/// One connection, from its device's side.
struct Line {
    phone: Phone,
    /// Its place among all connections of the device.
    at: usize,
    ground: Ground,
    dice: Dice,
    ordered: watch::Receiver<Order>,
    socket: WebSocketStream<DuplexStream>,
    /// What was sent and not answered, by client id.
    sent: BTreeMap<String, MessageSent>,
}

impl Line {
    /// Writes down what it was told.
    fn told<T>(&self, write: impl FnOnce(&mut Told) -> T) -> T {
        write(&mut self.phone.lock().connections[self.at])
    }

    async fn live(&mut self) {
        let hello = self.hello();
        if self.say(&hello).await.is_err() {
            return;
        }
        while self.step().await.is_ok() {}
    }

    /// What it says first: nothing in particular, or where it wants to begin, or what it has already.
    fn hello(&mut self) -> Up {
        let Ground { cluster, log, .. } = self.ground.clone();
        let choice = self.dice.below(8);
        let mut has = self.phone.lock();
        let acknowledged = has.acknowledged(&cluster);
        let end = cluster.end(of(Topic::Inboxes, has.user.as_str()));
        let newest = has.newest;
        let (from, offset, named) = match choice {
            0 | 1 => (None, None, None),
            2 => (Some(Begin::Start), None, None),
            3 => (Some(Begin::New), None, None),
            4 => (Some(Begin::Resume), newest, Some("another log".to_owned())),
            5 => (None, newest, None),
            _ => (Some(Begin::Resume), newest, Some(log.to_owned())),
        };
        let ours = named.as_deref().is_none_or(|named| named == log);
        if let Some(offset) = offset.filter(|_| ours) {
            has.acknowledged.insert(offset);
        }
        let told = &mut has.connections[self.at];
        (told.acknowledged, told.end, told.named) = (acknowledged, end, offset.filter(|_| ours));
        Up::Hello { from, offset, log: named }
    }

    async fn say(&mut self, frame: &Up) -> Result<(), Over> {
        let text = serde_json::to_string(frame).expect("a frame is JSON");
        let said = timeout(SAY, self.socket.send(Message::text(text))).await;
        said.ok().and_then(Result::ok).ok_or(Over)
    }

    /// Waits for what comes, or does something by itself.
    async fn step(&mut self) -> Result<(), Over> {
        let order = *self.ordered.borrow_and_update();
        if order.cut {
            return Err(Over);
        }
        if order.deaf {
            return self.ordered.changed().await.map_err(|_| Over);
        }
        let welcome = self.told(|told| told.welcome.is_some());
        let newest = self.phone.lock().open.last_key_value().is_some_and(|(at, _)| *at == self.at);
        if welcome && newest {
            self.send_all().await?;
        }
        let pause =
            if order.calm { Duration::from_secs(1) } else { Duration::from_millis(self.dice.within(1..=25)) };
        tokio::select! {
            biased;
            changed = self.ordered.changed() => changed.map_err(|_| Over),
            heard = timeout(pause, self.socket.next()) => match heard {
                Err(_) if welcome => self.idle(order.calm).await,
                Ok(Some(Ok(Message::Text(text)))) => {
                    let frame = serde_json::from_str(&text);
                    self.heard(frame.expect("what a node says is a frame"), order.calm).await
                }
                Err(_) | Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => Ok(()),
                Ok(_) => Err(Over),
            },
        }
    }

    async fn send_all(&mut self) -> Result<(), Over> {
        loop {
            let Some(message) = self.phone.lock().outbox.pop_front() else { return Ok(()) };
            self.send(message).await?;
        }
    }

    async fn send(&mut self, message: MessageSent) -> Result<(), Over> {
        // One answer at a time: it says no more than the id.
        if self.sent.contains_key(&message.client_id) {
            return Ok(());
        }
        let frame = Up::Send {
            id: message.client_id.clone(),
            settled: message.settled.clone(),
            to: None,
            conversation: Some(message.conversation.clone()),
            content_type: None,
            body: String::from_utf8_lossy(&message.body).into_owned(),
            reply_to: message.reply_to,
        };
        self.sent.insert(message.client_id.clone(), message);
        self.say(&frame).await
    }

    /// Acknowledges all that came on this connection.
    async fn acknowledge(&mut self) -> Result<(), Over> {
        let Some(upto) = self.told(|told| told.entries.last().map(|(offset, _)| *offset)) else {
            return Ok(());
        };
        self.phone.lock().acknowledged.insert(upto);
        self.say(&Up::Ack { upto }).await
    }

    /// Does something by itself.
    async fn idle(&mut self, calm: bool) -> Result<(), Over> {
        match if calm { 0 } else { self.dice.below(10) } {
            0..=3 => self.acknowledge().await,
            4 => {
                let offsets: Vec<i64> =
                    self.told(|told| told.entries.iter().map(|(offset, _)| *offset).collect());
                let Some(upto) = self.dice.pick(&offsets).copied() else { return Ok(()) };
                self.phone.lock().read.insert(upto);
                self.say(&Up::Read { upto }).await
            }
            5 if self.dice.once_in(4) => self.say(&Up::Ack { upto: BEYOND }).await,
            6 if self.dice.once_in(4) => self.say(&Up::Read { upto: BEYOND }).await,
            7 => self.say(&Up::Ping).await,
            _ => Ok(()),
        }
    }

    /// Takes a frame.
    async fn heard(&mut self, frame: Down, calm: bool) -> Result<(), Over> {
        match frame {
            Down::Welcome { cursor, .. } => {
                let mut has = self.phone.lock();
                let acknowledged = has.acknowledged(&self.ground.cluster);
                has.connections[self.at].welcome = Some((cursor.unwrap_or(-1), acknowledged));
                self.ground.met.one("welcomes");
            }
            Down::Entry { offset, id, .. } => {
                {
                    let mut has = self.phone.lock();
                    has.newest = has.newest.max(Some(offset));
                    has.connections[self.at].entries.push((offset, id));
                }
                self.ground.met.one("offers");
                if calm || self.dice.once_in(3) {
                    return self.acknowledge().await;
                }
            }
            Down::CaughtUp { .. } => self.told(|told| told.caught_up = Some(told.entries.len())),
            Down::Accepted { id, positions } => self.accepted(&id, &positions),
            Down::Refused { id, code, .. } => self.refused(id.as_deref(), &code),
            Down::Goodbye { code, .. } => match goodbye(&code) {
                Some(goodbye) => self.ground.met.one(goodbye),
                None => self.told(|told| told.odd = Some(format!("goodbye {code}"))),
            },
            Down::Pong => {}
        }
        Ok(())
    }

    fn accepted(&mut self, id: &str, positions: &[String]) {
        let Some(message) = self.sent.remove(id) else {
            return self.told(|told| told.odd = Some(format!("accepted {id}, which was not sent here")));
        };
        let at = positions.iter().map(|at| at.parse().expect("a position"));
        let mut accepted = self.ground.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.extend(at.map(|at| (at, Event::from(message.clone()))));
        self.ground.users.accepted(id);
        self.ground.met.one("accepted by socket");
    }

    fn refused(&mut self, id: Option<&str>, code: &str) {
        if let Some(id) = id {
            self.sent.remove(id);
        }
        let expected = match code {
            "registry_behind" | "log_unavailable" | "overloaded" => id.is_some(),
            "ack_beyond_end" | "foreign_entry" | "other_log" | "ack_backwards" => true,
            _ => false,
        };
        if expected {
            self.ground.met.one("refused by socket");
        } else {
            self.told(|told| told.odd = Some(format!("refused {id:?} by {code}")));
        }
    }
}

/// The goodbyes that a device of this world may hear.
fn goodbye(code: &str) -> Option<&'static str> {
    Some(match code {
        "replaced" => "goodbye replaced",
        "ack_timeout" => "goodbye ack_timeout",
        "slow_consumer" => "goodbye slow_consumer",
        "unavailable" => "goodbye unavailable",
        "stopping" => "goodbye stopping",
        "hello_timeout" => "goodbye hello_timeout",
        _ => return None,
    })
}
