//! An example of every record: what documents show, what every machine is tried with, and whose bytes are golden.

use std::collections::BTreeMap;

use crate::{
    event::{
        AckKind, BehaviourSet, Circle, Crossing, EntriesAcknowledged, Entry, EntryAdded, Event, Fix,
        FixReported, Geometry, HoleAccepted, LogFounded, MatchArrived, MessageArrived, MessageSent,
        MultiPolygon, Polygon, ReceiptArrived, ReceiptKind, RecordSkipped, RuleDefined, RuleMatched,
        RuleRemoved, SystemNotice, ZoneDefined, ZoneRemoved,
    },
    id::{ConversationId, DeviceId, DeviceName, RuleId, UserId, ZoneId},
    place::Place,
    time::Micros,
    topic::Topic,
};

fn user(name: &str) -> UserId {
    UserId::new(name).expect("an example's name is valid")
}
fn zone(name: &str) -> ZoneId {
    ZoneId::new(name).expect("an example's name is valid")
}
fn rule(name: &str) -> RuleId {
    RuleId::new(name).expect("an example's name is valid")
}
fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("an example's name is valid")
}

/// A square of `half` degrees around a place, as a closed ring.
fn square(lon: f64, lat: f64, half: f64) -> Vec<Place> {
    [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
        .map(|(x, y)| Place { lon: lon + x, lat: lat + y })
        .to_vec()
}

fn bare_fix() -> Fix {
    Fix {
        lat: 52.5,
        lon: 13.375,
        at_us: Micros(1_767_225_600_000_000),
        accuracy_m: None,
        speed_mps: None,
        heading_deg: None,
        altitude_m: None,
    }
}

fn full_fix() -> Fix {
    Fix {
        lat: 52.515_625,
        lon: 13.375,
        at_us: Micros(1_767_226_200_250_000),
        accuracy_m: Some(4.5),
        speed_mps: Some(13.75),
        heading_deg: Some(270.0),
        altitude_m: Some(34.25),
    }
}

fn reported(fix: Fix, attributes: BTreeMap<String, String>) -> Event {
    FixReported {
        device: device("depot/van-7"),
        lat: fix.lat,
        lon: fix.lon,
        at_us: fix.at_us,
        accuracy_m: fix.accuracy_m,
        speed_mps: fix.speed_mps,
        heading_deg: fix.heading_deg,
        altitude_m: fix.altitude_m,
        attributes,
        registry: 5,
    }
    .into()
}

fn zones_and_rules() -> Vec<(&'static str, Event)> {
    let by = user("operator");
    let polygon = |lon, lat| Polygon { rings: vec![square(lon, lat, 0.5), square(lon, lat, 0.125)] };
    let defined = |id, geometry| Event::from(ZoneDefined { zone: zone(id), geometry, by: user("operator") });
    vec![
        ("log-founded", LogFounded { log: "019b7600-0000-7000-8000-000000000001".into() }.into()),
        (
            "zone-circle",
            defined(
                "depot",
                Geometry::Circle(Circle { centre: Place { lon: 13.375, lat: 52.5 }, radius_m: 250.0 }),
            ),
        ),
        ("zone-polygon", defined("Åland", Geometry::Polygon(polygon(20.0, 60.25)))),
        (
            "zone-multipolygon",
            defined(
                "harbour, east & west",
                Geometry::MultiPolygon(MultiPolygon {
                    polygons: vec![polygon(10.0, 53.5), polygon(12.0, 53.5)],
                }),
            ),
        ),
        ("zone-removed", ZoneRemoved { zone: zone("depot"), by: by.clone() }.into()),
        (
            "rule-defined",
            RuleDefined {
                rule: rule("vans at the depot"),
                on: vec![Crossing::Exit, Crossing::Enter],
                zones: Some(vec![zone("depot")]),
                subjects: Some(vec![device("depot/van-7")]),
                notify: vec![user("alice"), user("warden")],
                by: by.clone(),
            }
            .into(),
        ),
        (
            "rule-defined-all",
            RuleDefined {
                rule: rule("borders"),
                on: vec![Crossing::Enter],
                zones: None,
                subjects: None,
                notify: vec![user("warden")],
                by: by.clone(),
            }
            .into(),
        ),
        ("rule-removed", RuleRemoved { rule: rule("borders"), by }.into()),
    ]
}

fn operators_words() -> Vec<(&'static str, Event)> {
    let by = user("operator");
    let hole = HoleAccepted { topic: Topic::Inboxes, partition: 3, offset: 1_288, by: by.clone() };
    let skipped = RecordSkipped {
        machine: "spatial".into(),
        topic: Topic::Positions,
        partition: 3,
        offset: 1_288,
        by: by.clone(),
    };
    let behaviour = BehaviourSet { machine: "spatial".into(), number: 2, by };
    vec![
        ("hole-accepted", hole.into()),
        ("record-skipped", skipped.into()),
        ("behaviour-set", behaviour.into()),
    ]
}

fn messages_and_acks() -> Vec<(&'static str, Event)> {
    let sent = |settled: Option<&str>, reply_to| {
        Event::from(MessageSent {
            conversation: ConversationId::direct(&user("alice"), &user("bob")),
            sender: user("alice"),
            device: DeviceName::new("phone").expect("valid"),
            client_id: "019b7600-0000-7000-8000-000000000003".into(),
            settled: settled.map(Into::into),
            content_type: "text/plain".into(),
            body: "grüß dich".into(),
            reply_to,
            registry: 5,
        })
    };
    let acked = |kind| {
        Event::from(EntriesAcknowledged {
            user: user("bob"),
            device: DeviceName::new("phone").expect("valid"),
            session: "019b7600-0000-7000-8000-000000000004".into(),
            kind,
            upto: 41,
            registry: 5,
        })
    };
    vec![
        ("message-sent", sent(None, None)),
        ("message-sent-answer", sent(Some("019b7600-0000-7000-8000-000000000002"), Some(17))),
        ("acknowledged-start", acked(AckKind::Start)),
        ("acknowledged-delivered", acked(AckKind::Delivered)),
        ("acknowledged-read", acked(AckKind::Read)),
    ]
}

fn matches_and_entries() -> Vec<(&'static str, Event)> {
    let matched = |event, initial, previous| {
        Event::from(RuleMatched {
            rule: rule("vans at the depot"),
            rule_version: 5,
            zone: Some(zone("depot")),
            event,
            initial,
            device: device("depot/van-7"),
            fix: full_fix(),
            previous,
            audience: vec![user("alice"), user("warden")],
            part: 0,
            parts: 1,
            registry: 5,
        })
    };
    let entry = |entry| Event::from(EntryAdded { user: user("alice"), entry });
    let conversation = ConversationId::direct(&user("alice"), &user("bob"));
    vec![
        ("matched-enter-initial", matched(Crossing::Enter, true, None)),
        ("matched-exit", matched(Crossing::Exit, false, Some(bare_fix()))),
        (
            "entry-message",
            entry(Entry::MessageArrived(MessageArrived {
                conversation: conversation.clone(),
                number: 17,
                sender: user("bob"),
                device: DeviceName::new("bob").expect("valid"),
                client_id: "019b7600-0000-7000-8000-000000000005".into(),
                content_type: "text/plain".into(),
                body: "hallo".into(),
                reply_to: None,
            })),
        ),
        (
            "entry-receipt",
            entry(Entry::ReceiptArrived(ReceiptArrived {
                conversation,
                user: user("bob"),
                kind: ReceiptKind::Read,
                upto: 18,
            })),
        ),
        (
            "entry-match",
            entry(Entry::MatchArrived(MatchArrived {
                rule: rule("vans at the depot"),
                zone: Some(zone("depot")),
                event: Crossing::Enter,
                initial: false,
                device: device("depot/van-7"),
                fix: full_fix(),
            })),
        ),
        (
            "entry-notice",
            entry(Entry::SystemNotice(SystemNotice {
                code: "not_taken".into(),
                client_id: Some("019b7600-0000-7000-8000-000000000002".into()),
                detail: "the log has not taken this send".into(),
            })),
        ),
    ]
}

/// Every example with its name; each record type has at least one, each optional part is there and missing.
pub fn all() -> Vec<(&'static str, Event)> {
    let telemetry = BTreeMap::from([("battery".into(), "0.82".into()), ("ignition".into(), "on".into())]);
    let mut examples = zones_and_rules();
    examples.push(("fix-bare", reported(bare_fix(), BTreeMap::new())));
    examples.push(("fix-full", reported(full_fix(), telemetry)));
    examples.extend(matches_and_entries());
    examples.extend(messages_and_acks());
    examples.extend(operators_words());
    examples
}
