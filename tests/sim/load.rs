//! What the world says to the pipeline: fixes of devices, messages of users, changes of the registry, and what nobody
//! should say.

use std::collections::BTreeMap;

use bytes::Bytes;
use waypost_ingest::admission::Report;
use waypost_runtime::broker::{Headers, Outgoing, memory::Cluster};
use waypost_schemas::{
    codec,
    event::{
        AckKind, Circle, Crossing, EntriesAcknowledged, Entry, EntryAdded, Event, FixReported, Geometry,
        LogFounded, Polygon, RuleDefined, RuleRemoved, SystemNotice, ZoneDefined, ZoneRemoved,
    },
    id::{DeviceId, DeviceName, RuleId, UserId, ZoneId},
    partition,
    place::Place,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::{KEYED, dice::Dice};

/// How many places there are, a degree apart on one parallel: each zone covers some of them, and none is near a border.
const PLACES: u64 = 5;
/// The log's name.
pub(crate) const LOG: &str = "5f0c9d0e-0000-4000-8000-000000000000";
/// How many users there are.
pub(crate) const USERS: u64 = 4;

/// A user by number.
pub(crate) fn user(number: u64) -> UserId {
    UserId::new(format!("user-{number}")).expect("a name")
}

fn place(number: u64) -> Place {
    Place { lon: 10.0 + number as f64, lat: 48.0 }
}

/// Where the world's broken and foreign records stand, and the code by which each must become a dead letter.
pub(crate) type Junk = BTreeMap<(TopicPartition, i64), &'static str>;

/// Makes input.
pub(crate) struct Load {
    pub(crate) junk: Junk,
}

impl Load {
    /// Names the log, and defines a zone and a rule to begin with.
    pub(crate) fn found(cluster: &Cluster) -> Self {
        let load = Self { junk: Junk::new() };
        change(cluster, LogFounded { log: LOG.into() });
        let centre = place(0);
        let geometry = Geometry::Circle(Circle { centre, radius_m: 1_000.0 });
        change(cluster, ZoneDefined { zone: zone(0), geometry, by: boss() });
        change(cluster, rule_defined(0, None, None, vec![user(0), user(1)]));
        load
    }

    /// A report of one fix or two; now and then late, equal, or ahead of its time.
    pub(crate) fn report(dice: &mut Dice, now: Micros) -> Report {
        let device = DeviceId::new(format!("user-{}/van", dice.below(USERS))).expect("a device");
        let fix = |dice: &mut Dice| {
            let Place { lon, lat } = place(dice.below(PLACES));
            let at = match dice.below(12) {
                0 => now.0 - dice.within(0..=40_000) as i64,
                1 => now.0 / 10_000 * 10_000,
                2 => now.0 + 6 * Micros::MINUTE,
                _ => now.0,
            };
            fix_at(device.clone(), lon, lat, Micros(at))
        };
        let fixes = (0..dice.within(1..=2)).map(|_| fix(dice)).collect();
        Report { id: None, device, fixes }
    }

    /// An acknowledgement by a device that holds no connection, of an offset that an inbox has; now and then of one that it does not have yet.
    pub(crate) fn ack(dice: &mut Dice, cluster: &Cluster) -> EntriesAcknowledged {
        let user = user(dice.below(USERS));
        let end = cluster.end(of(Topic::Inboxes, user.as_str())) as u64;
        let kind = *dice
            .pick(&[AckKind::Start, AckKind::Delivered, AckKind::Delivered, AckKind::Read])
            .expect("one");
        EntriesAcknowledged {
            user,
            device: DeviceName::new("gadget").expect("a name"),
            session: format!("session-{}", dice.below(1 << 20)),
            kind,
            upto: if dice.once_in(8) { end + dice.below(3) } else { dice.below(end + 1).saturating_sub(1) }
                as i64,
            registry: -1,
        }
    }

    /// Changes the registry.
    pub(crate) fn registry(dice: &mut Dice, cluster: &Cluster) {
        let id = dice.below(3);
        match dice.below(8) {
            0 => change(cluster, ZoneRemoved { zone: zone(id), by: boss() }),
            1 => change(cluster, RuleRemoved { rule: rule(id), by: boss() }),
            2..=4 => {
                let first = dice.below(PLACES);
                let geometry = if dice.once_in(2) {
                    Geometry::Circle(Circle { centre: place(first), radius_m: 1_000.0 })
                } else {
                    square(first, dice.within(first..=PLACES - 1))
                };
                change(cluster, ZoneDefined { zone: zone(id), geometry, by: boss() });
            }
            _ => {
                let zones = dice.once_in(2).then(|| (0..=dice.below(2)).map(zone).collect());
                let van = |n| DeviceId::new(format!("user-{n}/van")).expect("a device");
                let subjects = dice.once_in(3).then(|| (0..=dice.below(USERS)).map(van).collect());
                let notify = (0..USERS).filter(|_| dice.once_in(2)).map(user).collect();
                change(cluster, rule_defined(id, zones, subjects, notify));
            }
        }
    }

    /// Appends what nobody should, where it may do harm.
    pub(crate) fn spoil(&mut self, dice: &mut Dice, cluster: &Cluster) -> String {
        let topics =
            [Topic::Positions, Topic::Registry, Topic::Matches, Topic::Inboxes, Topic::Messages, Topic::Acks];
        let topic = *dice.pick(&topics).expect("there are some");
        let to = TopicPartition::new(topic, dice.below(topic.partitions(KEYED) as u64) as i32);
        let (value, headers, code) = junk(dice, topic);
        let record = Outgoing { to, key: Some(Bytes::from_static(b"user-0")), value, headers };
        let offset = cluster.append(record).expect("the twin takes it");
        self.junk.insert((to, offset), code);
        format!("{code} at {to}:{offset}")
    }
}

/// A record that does not belong on a topic, and the code by which it must be refused.
fn junk(dice: &mut Dice, topic: Topic) -> (Option<Bytes>, Headers, &'static str) {
    let header = |name: &str, value: &str| (name.into(), Bytes::copy_from_slice(value.as_bytes()));
    let foreign = Event::from(SystemNoticeOn::entry());
    let bytes = |event: &Event| Some(Bytes::from(codec::encode(event)));
    let own = match topic {
        Topic::Matches => waypost_schemas::example::all()
            .into_iter()
            .map(|(_, event)| event)
            .find(|event| event.name() == "RuleMatched")
            .expect("every record has an example"),
        _ => foreign.clone(),
    };
    let derived = topic.is_derived();
    let writer = topic.spec().writers[0];
    match dice.below(if derived { 6 } else { 3 }) {
        0 => (None, Vec::new(), codec::decode(&[]).expect_err("nothing is no record").code()),
        1 => {
            let value = b"\0\0\0\0junk";
            let code = codec::decode(value).expect_err("junk is no record").code();
            (Some(Bytes::from_static(value)), Vec::new(), code)
        }
        2 if topic == Topic::Positions && dice.once_in(2) => {
            let device = DeviceId::new("user-0/van").expect("a device");
            let fix = fix_at(device, 10.0, 48.0, Micros(5_000_000_000 * Micros::SECOND));
            (bytes(&fix.into()), Vec::new(), "bad_device_time")
        }
        2 => {
            let wrong: Event = LogFounded { log: "x".into() }.into();
            let wrong = if topic == Topic::Registry { foreign } else { wrong };
            (bytes(&wrong), Vec::new(), "wrong_type")
        }
        3 => (bytes(&own), Vec::new(), "no_seq"),
        4 => (bytes(&own), vec![header("seq", "ghost/0/1")], "foreign_writer"),
        _ => (bytes(&own), vec![header("seq", &format!("{writer}/0/1"))], "no_cause"),
    }
}

struct SystemNoticeOn;

impl SystemNoticeOn {
    fn entry() -> EntryAdded {
        let notice = SystemNotice { code: "forged".into(), client_id: None, detail: "forged".into() };
        EntryAdded { user: user(0), entry: Entry::SystemNotice(notice) }
    }
}

fn boss() -> UserId {
    UserId::new("boss").expect("a name")
}

fn zone(number: u64) -> ZoneId {
    ZoneId::new(format!("zone-{number}")).expect("an id")
}

fn rule(number: u64) -> RuleId {
    RuleId::new(format!("rule-{number}")).expect("an id")
}

fn rule_defined(
    number: u64,
    zones: Option<Vec<ZoneId>>,
    subjects: Option<Vec<DeviceId>>,
    notify: Vec<UserId>,
) -> RuleDefined {
    let on = vec![Crossing::Exit, Crossing::Enter];
    RuleDefined { rule: rule(number), on, zones, subjects, notify, by: boss() }
}

/// A square around some neighbouring places.
fn square(first: u64, last: u64) -> Geometry {
    let (west, east) = (place(first).lon - 0.3, place(last).lon + 0.3);
    let corner = |lon, lat| Place { lon, lat };
    let ring = vec![
        corner(west, 47.7),
        corner(east, 47.7),
        corner(east, 48.3),
        corner(west, 48.3),
        corner(west, 47.7),
    ];
    Geometry::Polygon(Polygon { rings: vec![ring] })
}

fn change(cluster: &Cluster, event: impl Into<Event>) {
    let (to, value) = (TopicPartition::new(Topic::Registry, 0), codec::encode(&event.into()));
    let record =
        Outgoing { to, key: Some(Bytes::from_static(b"x")), value: Some(value.into()), headers: Vec::new() };
    cluster.append(record).expect("the twin takes it");
}

fn fix_at(device: DeviceId, lon: f64, lat: f64, at_us: Micros) -> FixReported {
    FixReported {
        device,
        lat,
        lon,
        at_us,
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
        attributes: BTreeMap::new(),
        registry: -1,
    }
}

/// The partition of a key on a keyed topic.
pub(crate) fn of(topic: Topic, key: &str) -> TopicPartition {
    TopicPartition::new(topic, partition::of(key.as_bytes(), KEYED))
}
