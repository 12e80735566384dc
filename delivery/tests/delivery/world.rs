//! Delivery nodes on the broker's twin and read models in memory, and phones that speak WebSocket to them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::DuplexStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as Side},
};
use waypost_delivery::{Delivery, Deps, catchup::memory::Memory};
use waypost_ingest::Ingest;
use waypost_runtime::{
    auth::{Identity, Keys, Role},
    broker::{Broker as _, Outgoing, memory::Cluster},
    clock::Clock,
    config::{Config, Settings, Sources},
    health::Health,
    lifecycle::{Cause, Lifecycle, Outcome, Tasks},
};
use waypost_schemas::{
    cause::{self, Position, Seq},
    codec,
    event::{
        AckKind, EntriesAcknowledged, Entry, EntryAdded, Event, MessageArrived, ReceiptArrived, ReceiptKind,
    },
    header,
    id::{ConversationId, DeviceName, UserId},
    partition,
    time::Micros,
    topic::{Topic, TopicPartition},
};

pub(crate) const PARTITIONS: i32 = 4;
/// The log's name.
pub(crate) const LOG: &str = "019b7600-0000-7000-8000-000000000001";
/// How long a frame is waited for at most. With tokio's time paused this passes at once where none comes.
const PATIENCE: Duration = Duration::from_mins(10);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn inbox(of: &str) -> TopicPartition {
    TopicPartition::new(Topic::Inboxes, partition::of(of.as_bytes(), PARTITIONS))
}

fn acks_of(of: &str) -> TopicPartition {
    TopicPartition::new(Topic::Acks, inbox(of).partition)
}

/// The log and the read models, which outlive every node.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) store: Arc<Memory>,
    pub(crate) clock: Clock,
    pub(crate) keys: Arc<Keys>,
    dir: TempDir,
    /// By partition of the inboxes, how many entries were put there.
    numbers: Mutex<BTreeMap<i32, u64>>,
}

pub(crate) struct Node {
    pub(crate) delivery: Delivery,
    pub(crate) health: Health,
    pub(crate) settings: Settings,
    pub(crate) lifecycle: Lifecycle,
    tasks: Tasks,
    /// The stage of delivery, in which connections run.
    stage: Tasks,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Clock::tokio(Micros::parse("2026-07-01T12:00:00Z").unwrap());
        let keys = Arc::new(Keys::from_seed(&[7; 32], &settings(&[]).auth).unwrap());
        let (cluster, store) = (Cluster::new(PARTITIONS), Arc::default());
        cluster.set_time(clock.now());
        let (dir, numbers) = (tempfile::tempdir().unwrap(), Mutex::default());
        Self { cluster, store, clock, keys, dir, numbers }
    }

    pub(crate) async fn node(&self) -> Node {
        self.node_with("1", &[]).await
    }

    /// A node of a name, with settings that differ; the same name is the same node, started again.
    pub(crate) async fn node_with(&self, name: &str, differing: &[(&str, &str)]) -> Node {
        let (node, ingest) = self.nameless(name, differing);
        ingest.found(LOG).await.unwrap();
        node
    }

    /// A node on a log that has no name yet, and what can name it.
    pub(crate) fn nameless(&self, name: &str, differing: &[(&str, &str)]) -> (Node, Ingest) {
        let settings = settings(differing);
        let broker: Arc<dyn waypost_runtime::broker::Broker> = Arc::new(self.cluster.connect(name));
        let (health, lifecycle) = (Health::default(), Lifecycle::new());
        let tasks = Tasks::new(&lifecycle);
        let stage = tasks.stage("delivery");
        let uplink = tasks.stage("ingest");
        let ingest = Ingest::build(waypost_ingest::Deps {
            broker: broker.clone(),
            clock: self.clock.clone(),
            health: health.clone(),
            keys: self.keys.clone(),
            partitions: PARTITIONS,
            settings: settings.ingest.clone(),
        })
        .unwrap();
        let (running, lived) = (ingest.clone(), uplink.lifecycle().clone());
        uplink.spawn("ingest", async move { running.run(lived).await });
        let delivery = Delivery::build(Deps {
            broker,
            store: self.store.clone(),
            ingest: ingest.clone(),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            health: health.clone(),
            dir: self.dir(name),
            name: format!("node-{name}"),
            partitions: PARTITIONS,
            settings: settings.delivery.clone(),
            tasks: stage.clone(),
        })
        .unwrap();
        delivery.spawn();
        (Node { delivery, health, settings, lifecycle, tasks, stage }, ingest)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts an entry into a user's inbox as a machine does; gives its offset.
    pub(crate) fn put(&self, to: &str, entry: Entry) -> i64 {
        let partition = inbox(to);
        let number = {
            let mut numbers = self.numbers.lock().unwrap();
            let number = numbers.entry(partition.partition).or_insert(0);
            *number += 1;
            *number
        };
        self.put_as(to, entry, number)
    }

    /// Puts an entry of a number into a user's inbox: a copy, or one after a hole.
    pub(crate) fn put_as(&self, to: &str, entry: Entry, number: u64) -> i64 {
        let partition = inbox(to);
        let event = Event::from(EntryAdded { user: user(to), entry });
        let position =
            Position { topic: Topic::Messages, partition: partition.partition, offset: number as i64 };
        let cause = cause::Cause { position, ordinal: 0 };
        let seq = Seq { machine: "conversations".into(), partition: partition.partition, number };
        let headers = header::derived(&event, cause, &seq, self.clock.now(), None);
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let (key, value) = (Some(to.to_owned().into()), Some(codec::encode(&event).into()));
        self.cluster.append(Outgoing { to: partition, key, value, headers }).unwrap()
    }

    /// Puts a message of alice into a user's inbox; gives its offset.
    pub(crate) fn message(&self, to: &str, body: &str) -> i64 {
        self.put(to, said(to, body))
    }

    /// Puts messages of alice into a user's inbox, each of which says its number.
    pub(crate) fn messages(&self, to: &str, numbers: std::ops::Range<i64>) -> Vec<i64> {
        numbers.map(|number| self.message(to, &number.to_string())).collect()
    }

    /// Puts an acknowledgement into the log as another node does.
    pub(crate) fn acknowledged(&self, by: &str, session: &str, upto: i64) {
        let (user, device) = (user(by), DeviceName::new("phone").unwrap());
        let (session, kind) = (session.to_owned(), AckKind::Delivered);
        let event = Event::from(EntriesAcknowledged { user, device, session, kind, upto, registry: 0 });
        let (key, value) = (Some(by.to_owned().into()), Some(codec::encode(&event).into()));
        let to = acks_of(by);
        self.cluster.append(Outgoing { to, key, value, headers: Vec::new() }).unwrap();
    }

    /// The acknowledgements of a user in the log, a word each.
    pub(crate) fn acks(&self, of: &str) -> Vec<String> {
        let records = self.cluster.records(acks_of(of));
        let acks = records.iter().filter_map(|record| match codec::decode(record.value.as_deref()?) {
            Ok(Event::EntriesAcknowledged(ack)) if ack.user.as_str() == of => Some(ack),
            _ => None,
        });
        acks.map(|ack| format!("{} {:?} {}", ack.device, ack.kind, ack.upto).to_lowercase()).collect()
    }

    /// Waits until the log holds these acknowledgements of a user.
    pub(crate) async fn until_acks(&self, of: &str, expected: &[&str]) {
        let wait = async {
            while self.acks(of) != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(Duration::from_mins(1), wait).await.is_err() {
            assert_eq!(self.acks(of), expected);
        }
    }

    /// Brings the read models of a user's partition up to the log's end.
    pub(crate) async fn project(&self, of: &str) {
        let cluster = self.cluster.connect("projector").cluster_id().await.unwrap();
        for partition in [inbox(of), acks_of(of)] {
            self.store.project(&cluster, partition, &self.cluster.records(partition)).unwrap();
        }
    }
}

/// A message of alice.
pub(crate) fn said(to: &str, body: &str) -> Entry {
    Entry::MessageArrived(MessageArrived {
        conversation: ConversationId::direct(&user("alice"), &user(to)),
        number: 7,
        sender: user("alice"),
        device: DeviceName::new("laptop").unwrap(),
        client_id: "c".to_owned(),
        content_type: "text/plain".to_owned(),
        body: body.as_bytes().to_vec(),
        reply_to: None,
    })
}

pub(crate) fn receipt() -> Entry {
    let conversation = ConversationId::direct(&user("alice"), &user("bob"));
    Entry::ReceiptArrived(ReceiptArrived {
        conversation,
        user: user("alice"),
        kind: ReceiptKind::Delivered,
        upto: 7,
    })
}

pub(crate) fn settings(differing: &[(&str, &str)]) -> Settings {
    let flags = differing.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap().settings().clone()
}

pub(crate) fn identity(of: &str, device: &str) -> Identity {
    Identity { user: user(of), device: DeviceName::new(device).unwrap(), role: Role::Device }
}

impl Node {
    /// Connects a phone; it has not said hello.
    pub(crate) async fn connect(&self, of: &str, device: &str) -> Phone {
        self.connect_through(of, device, 1 << 16).await
    }

    /// Connects a phone through a pipe that holds so many bytes.
    pub(crate) async fn connect_through(&self, of: &str, device: &str, bytes: usize) -> Phone {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let (delivery, identity) = (self.delivery.clone(), identity(of, device));
        self.stage.spawn("phone", async move { delivery.serve(identity, theirs).await });
        Phone { socket: WebSocketStream::from_raw_socket(ours, Side::Client, None).await }
    }

    /// Connects bob's phone and says hello as a device does that names nothing.
    pub(crate) async fn bob(&self) -> Phone {
        self.hello("bob", "phone", json!({})).await.0
    }

    /// Connects a phone and says hello with these members; gives the welcome.
    pub(crate) async fn hello(&self, of: &str, device: &str, hello: Value) -> (Phone, Value) {
        let mut phone = self.connect(of, device).await;
        phone.say_hello(hello).await;
        let welcome = phone.hear().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (phone, welcome)
    }

    /// Stops softly, and waits until all has ended.
    pub(crate) async fn stop(self) -> Outcome {
        self.lifecycle.stop(Cause::Asked("the test".to_owned()));
        self.tasks.wait(Duration::from_secs(30)).await
    }

    /// Waits until something stops the node.
    pub(crate) async fn ended(self) -> Outcome {
        self.tasks.wait(Duration::from_secs(30)).await
    }
}

/// The other side of a connection.
pub(crate) struct Phone {
    pub(crate) socket: WebSocketStream<DuplexStream>,
}

impl Phone {
    pub(crate) async fn say(&mut self, frame: Value) {
        self.say_text(&frame.to_string()).await;
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn say_hello(&mut self, mut hello: Value) {
        hello["type"] = "hello".into();
        self.say(hello).await;
    }

    pub(crate) async fn ack(&mut self, upto: i64) {
        self.say(json!({"type": "ack", "upto": upto})).await;
    }

    /// The next frame of the server.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} instead of a frame"),
        }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("nothing was said");
            match next.transpose().ok().flatten() {
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => return other,
            }
        }
    }

    /// The next frame, in few words.
    pub(crate) async fn word(&mut self) -> String {
        word(&self.hear().await)
    }

    /// The next frames, in few words.
    pub(crate) async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(self.word().await);
        }
        words
    }

    /// That nothing is said for a while, and the connection stays.
    pub(crate) async fn is_quiet(&mut self) {
        let said = timeout(Duration::from_secs(1), self.socket.next()).await;
        assert!(said.is_err(), "{said:?}");
    }

    /// What is said until the connection ends, and the code by which it is closed.
    pub(crate) async fn rest(&mut self) -> (Vec<String>, Option<u16>) {
        let mut words = Vec::new();
        loop {
            match self.next().await {
                Some(Message::Text(text)) => words.push(word(&serde_json::from_str(&text).unwrap())),
                Some(Message::Close(close)) => return (words, close.map(|close| close.code.into())),
                _ => return (words, None),
            }
        }
    }
}

fn word(frame: &Value) -> String {
    let text = |name: &str| frame[name].as_str().unwrap_or_default();
    match text("type") {
        "entry" => format!("entry {}", frame["offset"]),
        "caught_up" => format!("caught_up {}", frame["offset"]),
        "refused" | "goodbye" => format!("{} {}", text("type"), text("code")),
        other => other.to_owned(),
    }
}
