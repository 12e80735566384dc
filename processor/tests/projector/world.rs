//! A log in memory, what stands on it, and a projector that reads it into a Postgres.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;
use waypost_processor::projector::{self, Heads, Postgres, Projector};
use waypost_runtime::{
    broker::{
        Outgoing,
        memory::{Broker, Cluster},
    },
    health::Health,
    lifecycle::{Cause as Why, Lifecycle},
    postgres::Pool,
};
use waypost_schemas::{
    cause::{Cause, Position, Seq},
    codec,
    event::{
        AckKind, Circle, Crossing, EntriesAcknowledged, Entry, EntryAdded, Event, FixReported, Geometry,
        MatchArrived, MessageArrived, MessageSent, ReceiptArrived, ReceiptKind, RuleMatched, ZoneDefined,
    },
    header,
    id::{ConversationId, DeviceId, DeviceName, RuleId, UserId, ZoneId},
    partition,
    place::Place,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::postgres::settings;

/// How many partitions keyed topics have here.
pub(crate) const KEYED: i32 = 3;
/// The log's time when it begins.
pub(crate) const DAY: &str = "2026-03-01T00:00:00Z";
/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A log and the numbers of the machines that write to it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    numbers: BTreeMap<(String, i32, TopicPartition), u64>,
}

pub(crate) fn day() -> Micros {
    Micros::parse(DAY).unwrap()
}

pub(crate) fn after_s(seconds: i64) -> Micros {
    Micros(day().0 + seconds * Micros::SECOND)
}

/// A fix of `device`, some seconds into the day.
pub(crate) fn fix(device: &str, at_s: i64, lon: f64, lat: f64) -> FixReported {
    FixReported {
        device: DeviceId::new(device).unwrap(),
        lat,
        lon,
        at_us: after_s(at_s),
        accuracy_m: Some(4.5),
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
        attributes: BTreeMap::new(),
        registry: -1,
    }
}

/// A device that enters `zone`, some seconds into the day.
pub(crate) fn entering(device: &str, at_s: i64, zone: &str, rule: &str) -> RuleMatched {
    RuleMatched {
        rule: RuleId::new(rule).unwrap(),
        rule_version: 2,
        zone: Some(ZoneId::new(zone).unwrap()),
        event: Crossing::Enter,
        initial: at_s == 0,
        device: DeviceId::new(device).unwrap(),
        fix: fix(device, at_s, 10.0, 50.0).fix(),
        previous: None,
        audience: vec![UserId::new("warden").unwrap()],
        part: 0,
        parts: 1,
        registry: 2,
    }
}

/// The entry that tells `user` of a match.
pub(crate) fn told(user: &str, matched: &RuleMatched) -> EntryAdded {
    EntryAdded {
        user: UserId::new(user).unwrap(),
        entry: Entry::MatchArrived(MatchArrived {
            rule: matched.rule.clone(),
            zone: matched.zone.clone(),
            event: matched.event,
            initial: matched.initial,
            device: matched.device.clone(),
            fix: matched.fix,
        }),
    }
}

/// What `from` says to `to` on a phone.
pub(crate) fn saying(from: &str, to: &str, body: &[u8]) -> MessageSent {
    let (sender, to) = (UserId::new(from).unwrap(), UserId::new(to).unwrap());
    MessageSent {
        conversation: ConversationId::direct(&sender, &to),
        sender,
        device: DeviceName::new("phone").unwrap(),
        client_id: "019b7600-0000-7000-8000-000000000001".into(),
        settled: None,
        content_type: "text/plain".into(),
        body: body.to_vec(),
        reply_to: None,
        registry: -1,
    }
}

/// What a device of `user` acknowledges.
pub(crate) fn acknowledging(user: &str, device: &str, kind: AckKind, upto: i64) -> EntriesAcknowledged {
    EntriesAcknowledged {
        user: UserId::new(user).unwrap(),
        device: DeviceName::new(device).unwrap(),
        session: "s".into(),
        kind,
        upto,
        registry: -1,
    }
}

pub(crate) fn circle(zone: &str, radius_m: f64) -> ZoneDefined {
    let centre = Place::new(10.0, 50.0).unwrap();
    ZoneDefined {
        zone: ZoneId::new(zone).unwrap(),
        geometry: Geometry::Circle(Circle { centre, radius_m }),
        by: UserId::new("op").unwrap(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let cluster = Cluster::new(KEYED);
        cluster.set_time(day());
        Self { cluster, numbers: BTreeMap::new() }
    }

    /// Appends what ingest would.
    pub(crate) fn append(&self, topic: Topic, key: &str, event: impl Into<Event>) -> Position {
        self.append_raw(topic, key, &codec::encode(&event.into()), Vec::new())
    }

    pub(crate) fn report(&self, fix: &FixReported) -> Position {
        self.append(Topic::Positions, fix.device.as_str(), fix.clone())
    }

    /// Appends what a machine derives from partition `input`, with the next number of its stream.
    pub(crate) fn derive(
        &mut self,
        topic: Topic,
        input: i32,
        key: &str,
        event: impl Into<Event>,
    ) -> Position {
        let to = TopicPartition::new(topic, partition::of(key.as_bytes(), KEYED));
        let machine = if topic == Topic::Matches { "spatial" } else { "alerts" };
        let number = self.numbers.entry((machine.to_owned(), input, to)).or_default();
        *number += 1;
        let seq = Seq { machine: machine.into(), partition: input, number: *number };
        self.append_derived(topic, key, &event.into(), &seq)
    }

    /// Appends a message, and the entries by which its members get it.
    pub(crate) fn say(&mut self, message: &MessageSent) -> Position {
        let said = self.append(Topic::Messages, message.conversation.as_str(), message.clone());
        let arrived = MessageArrived {
            conversation: message.conversation.clone(),
            number: said.offset,
            sender: message.sender.clone(),
            device: message.device.clone(),
            client_id: message.client_id.clone(),
            content_type: message.content_type.clone(),
            body: message.body.clone(),
            reply_to: message.reply_to,
        };
        let (a, b) = message.conversation.members();
        let members = if a == b { vec![a] } else { vec![a, b] };
        for (ordinal, user) in members.into_iter().enumerate() {
            let cause = Cause { position: said, ordinal: ordinal as u32 };
            let added = EntryAdded { user: user.clone(), entry: Entry::MessageArrived(arrived.clone()) };
            self.enter(&user, "conversations", cause, &added.into());
        }
        said
    }

    /// Appends an acknowledgement, and the receipts in `of`'s inbox that it makes.
    pub(crate) fn receipt(&mut self, by: &str, of: &str, kind: ReceiptKind, upto: i64) {
        let (user, of) = (UserId::new(by).unwrap(), UserId::new(of).unwrap());
        let ack = match kind {
            ReceiptKind::Delivered => AckKind::Delivered,
            ReceiptKind::Read => AckKind::Read,
        };
        let position = self.append(Topic::Acks, by, acknowledging(by, "phone", ack, upto));
        let conversation = ConversationId::direct(&user, &of);
        let receipt = ReceiptArrived { conversation, user, kind, upto };
        let added = EntryAdded { user: of.clone(), entry: Entry::ReceiptArrived(receipt) };
        self.enter(&of, "inboxes", Cause { position, ordinal: 0 }, &added.into());
    }

    fn enter(&mut self, user: &UserId, machine: &str, cause: Cause, event: &Event) {
        let key = user.as_str();
        let to = TopicPartition::new(Topic::Inboxes, partition::of(key.as_bytes(), KEYED));
        let number = self.numbers.entry((machine.to_owned(), cause.position.partition, to)).or_default();
        *number += 1;
        let seq = Seq { machine: machine.into(), partition: cause.position.partition, number: *number };
        self.append_caused(Topic::Inboxes, key, event, &seq, cause);
    }

    /// Appends a derived record with any seq.
    pub(crate) fn append_derived(&self, topic: Topic, key: &str, event: &Event, seq: &Seq) -> Position {
        let driving = if topic == Topic::Matches { Topic::Positions } else { Topic::Matches };
        let position = Position { topic: driving, partition: seq.partition, offset: seq.number as i64 };
        self.append_caused(topic, key, event, seq, Cause { position, ordinal: 0 })
    }

    fn append_caused(&self, topic: Topic, key: &str, event: &Event, seq: &Seq, cause: Cause) -> Position {
        let headers = header::derived(event, cause, seq, day(), None);
        let headers = headers.into_iter().map(|(name, value)| (name.into(), Bytes::from(value))).collect();
        self.append_raw(topic, key, &codec::encode(event), headers)
    }

    pub(crate) fn append_raw(
        &self,
        topic: Topic,
        key: &str,
        value: &[u8],
        headers: Vec<(Box<str>, Bytes)>,
    ) -> Position {
        let number = partition::of(key.as_bytes(), topic.partitions(KEYED));
        let to = TopicPartition::new(topic, number);
        let (key, value) =
            (Some(Bytes::copy_from_slice(key.as_bytes())), Some(Bytes::copy_from_slice(value)));
        let offset = self.cluster.append(Outgoing { to, key, value, headers }).unwrap();
        Position { topic, partition: number, offset }
    }

    /// The ends of all that is projected.
    pub(crate) fn ends(&self) -> BTreeMap<(String, i32), i64> {
        let partitions = projector::topics().into_iter().flat_map(|topic| {
            (0..topic.partitions(KEYED)).map(move |partition| TopicPartition::new(topic, partition))
        });
        let end = |of| self.cluster.records(of).last().map_or(0, |last| last.offset + 1);
        partitions.map(|of| ((of.topic.to_string(), of.partition), end(of))).collect()
    }
}

/// A projector that runs; dropped, it ends as a process does that is killed.
pub(crate) struct Running {
    cluster: Cluster,
    name: String,
    task: JoinSet<Result<(), projector::Error>>,
    lifecycle: Lifecycle,
    pub(crate) health: Health,
    pub(crate) heads: Heads,
}

impl Running {
    pub(crate) fn start(world: &World, name: &str, pool: &Pool) -> Self {
        Self::start_with(world, name, pool, 5_000)
    }

    pub(crate) fn start_with(world: &World, name: &str, pool: &Pool, batch_records_max: usize) -> Self {
        let mut settings = settings().projector;
        settings.batch_records_max = batch_records_max;
        settings.batch_wait = Duration::from_millis(5);
        let (health, lifecycle) = (Health::default(), Lifecycle::new());
        let broker: Arc<Broker> = Arc::new(world.cluster.connect(name));
        let models = Arc::new(Postgres::new(pool.clone(), settings.connections_max));
        let projector = Projector::build(broker, models, settings, &health, name).unwrap();
        let (heads, mut task) = (projector.heads(), JoinSet::new());
        task.spawn(projector.run(lifecycle.clone()));
        Self { cluster: world.cluster.clone(), name: name.to_owned(), task, lifecycle, health, heads }
    }

    /// Stops it softly.
    pub(crate) async fn stop(mut self) {
        self.lifecycle.stop(Why::Asked("the test is over".to_owned()));
        self.task.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Why it stopped by itself.
    pub(crate) async fn failure(mut self) -> projector::Error {
        let ended = tokio::time::timeout(PATIENCE, self.task.join_next()).await;
        ended.expect("it runs on").unwrap().unwrap().expect_err("it stopped without an error")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort_all();
        self.cluster.crash(&self.name);
        self.cluster.expire(&self.name);
    }
}

/// Waits until `holds` says so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "it never came: {what}");
}

/// Waits until all that is on the log is in Postgres.
pub(crate) async fn until_projected(world: &World, pool: &Pool) {
    until("all is projected", || async {
        let Ok(client) = pool.get().await else { return false };
        let select = "SELECT topic, partition, next_offset FROM waypost.projection";
        let Ok(rows) = client.query(select, &[]).await else { return false };
        let next: BTreeMap<(String, i32), i64> =
            rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        next == world.ends()
    })
    .await;
}

/// The read models' tables.
pub(crate) const TABLES: [&str; 10] = [
    "projection",
    "positions",
    "tracks",
    "matches",
    "inbox_entries",
    "zones",
    "rules",
    "cursors",
    "messages",
    "receipts",
];

/// Everything that stands in the read models, row by row.
pub(crate) async fn all_rows(pool: &Pool) -> BTreeMap<&'static str, Vec<String>> {
    let client = pool.get().await.unwrap();
    let mut all = BTreeMap::new();
    for table in TABLES {
        let select = format!("SELECT to_jsonb(t)::text COLLATE \"C\" FROM waypost.{table} AS t ORDER BY 1");
        let rows = client.query(&select, &[]).await.unwrap();
        all.insert(table, rows.iter().map(|row| row.get(0)).collect());
    }
    all
}

/// Throws the read models away.
pub(crate) async fn forget(pool: &Pool) {
    let tables = TABLES.map(|table| format!("waypost.{table}")).join(", ");
    pool.get().await.unwrap().batch_execute(&format!("TRUNCATE {tables}")).await.unwrap();
}
