//! What the log says is what stands in the tables.

use waypost_processor::projector::Head;
use waypost_runtime::postgres::Pool;
use waypost_schemas::{
    cause::Position,
    event::{
        AckKind, Crossing, Geometry, Polygon, ReceiptKind, RuleDefined, RuleRemoved, ZoneDefined, ZoneRemoved,
    },
    id::{RuleId, UserId, ZoneId},
    place::Place,
    topic::{Topic, TopicPartition},
};

use crate::{
    postgres::Postgres,
    world::{
        Running, World, acknowledging, after_s, all_rows, circle, entering, fix, forget, saying, told, until,
        until_projected,
    },
};

/// The texts of one column.
async fn column(pool: &Pool, select: &str) -> Vec<String> {
    let client = pool.get().await.unwrap();
    client.query(select, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn rule(id: &str) -> RuleDefined {
    RuleDefined {
        rule: RuleId::new(id).unwrap(),
        on: vec![Crossing::Exit, Crossing::Enter],
        zones: None,
        subjects: None,
        notify: vec![UserId::new("warden").unwrap()],
        by: UserId::new("op").unwrap(),
    }
}

/// A log with something of everything, and what does not belong on it; and the first of two equal fixes.
fn full_world() -> (World, Position) {
    let mut world = World::new();
    let op = UserId::new("op").unwrap();
    world.append(Topic::Registry, "zone/A", circle("A", 100.0));
    world.append(Topic::Registry, "zone/B", circle("B", 100.0));
    world.append(Topic::Registry, "zone/A", circle("A", 200.0));
    let ring = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)].map(|(lon, lat)| Place { lon, lat });
    let geometry = Geometry::Polygon(Polygon { rings: vec![ring.to_vec()] });
    let zone = ZoneId::new("C, \"the\" 3rd").unwrap();
    world.append(Topic::Registry, "zone/C", ZoneDefined { zone, geometry, by: op.clone() });
    world.append(Topic::Registry, "zone/B", ZoneRemoved { zone: ZoneId::new("B").unwrap(), by: op.clone() });
    world.append(Topic::Registry, "rule/R", rule("R"));
    world.append(Topic::Registry, "rule/S", rule("S"));
    world.append(Topic::Registry, "rule/S", RuleRemoved { rule: RuleId::new("S").unwrap(), by: op });

    for device in ["ann/phone", "bob", "cid/van"] {
        for second in 0..200 {
            world.report(&fix(device, second, 10.0 + second as f64 / 1_000.0, 50.0));
        }
    }
    // The same again, another place at the same time, one that is late, one ahead of its time, and it again.
    world.report(&fix("bob", 7, 10.007, 50.0));
    world.report(&fix("bob", 7, 11.0, 50.0));
    world.report(&fix("bob", -60, 9.0, 50.0));
    let first = world.report(&fix("bob", 9_000, 12.0, 50.0));
    world.report(&fix("bob", 9_000, 12.0, 50.0));
    world.cluster.set_time(after_s(9_000));
    world.report(&fix("bob", 9_000, 12.0, 50.0));
    let mut odd = fix("odd", 0, 10.0, 50.0);
    odd.attributes = [("fuel\0".to_owned(), "1\u{0}2".to_owned())].into();
    world.report(&odd);
    for at in [-2_000_000_000, 3_000_000_000] {
        world.report(&fix("odd", at, 10.0, 50.0));
    }

    for (n, device) in ["ann/phone", "bob"].into_iter().enumerate() {
        let matched = entering(device, n as i64, "A", "R");
        world.derive(Topic::Matches, n as i32, device, matched.clone());
        world.derive(Topic::Inboxes, n as i32, "warden", told("warden", &matched));
        world.derive(Topic::Inboxes, n as i32, "deputy", told("deputy", &matched));
    }

    for (from, to, body) in [
        ("ann", "bob", &b"hallo"[..]),
        ("bob", "ann", b"\xff\0"),
        ("ann", "ann", b"note"),
        ("ann", "cid", b"ho"),
    ] {
        world.say(&saying(from, to, body));
    }
    for (kind, upto) in [
        (ReceiptKind::Delivered, 1),
        (ReceiptKind::Read, 0),
        (ReceiptKind::Delivered, 0),
        (ReceiptKind::Read, 2),
    ] {
        world.receipt("bob", "ann", kind, upto);
    }
    for (device, kind, upto) in [
        ("phone", AckKind::Start, 1),
        ("phone", AckKind::Delivered, 7),
        ("phone", AckKind::Delivered, 5),
        ("phone", AckKind::Read, 9),
        ("tablet", AckKind::Start, -1),
        ("watch", AckKind::Read, 3),
    ] {
        world.append(Topic::Acks, "ann", acknowledging("ann", device, kind, upto));
    }
    world.append_raw(Topic::Acks, "ann", b"hello", Vec::new());
    (world, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_says_stands_in_the_tables() {
    let Some(postgres) = Postgres::start() else { return };
    let ((world, first), pool) = (full_world(), postgres.pool().await);
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    until("it is ready", || async { running.health.is_ready() }).await;
    let partition = TopicPartition::new(Topic::Positions, 0);
    until("nothing is pending", || async { running.heads.of(partition) == Some(Head::Written) }).await;
    running.stop().await;

    let cases: [(&str, &[&str]); 11] = [
        (
            "SELECT concat_ws(' ', zone, version, geometry->>'type', radius_m) FROM waypost.zones ORDER BY zone",
            &["A 2 Point 200", "C, \"the\" 3rd 3 Polygon"],
        ),
        (
            "SELECT concat_ws(' ', rule, version, on_event, zones, notify) FROM waypost.rules",
            &["R 5 {exit,enter} {warden}"],
        ),
        (
            "SELECT concat_ws(' ', device, (at_us - 1772323200000000) / 1000000, lon) FROM waypost.positions \
             ORDER BY device",
            &["ann/phone 199 10.199", "bob 9000 12", "cid/van 199 10.199", "odd 0 10"],
        ),
        (
            "SELECT concat_ws(' ', device, count(*)) FROM waypost.tracks GROUP BY device ORDER BY device",
            &["ann/phone 200", "bob 203", "cid/van 200", "odd 1"],
        ),
        (
            "SELECT attributes::text FROM waypost.tracks WHERE device = 'odd'",
            &["{\"fuel\u{fffd}\": \"1\u{fffd}2\"}"],
        ),
        (
            "SELECT concat_ws(' ', device, zone, rule, event, initial, cause, audience) FROM waypost.matches \
             ORDER BY at_us",
            &["ann/phone A R enter t positions/0/1/0 {warden}", "bob A R enter f positions/1/1/0 {warden}"],
        ),
        (
            "SELECT concat_ws(' ', user_id, kind, cause) FROM waypost.inbox_entries WHERE kind = 'match' \
             ORDER BY user_id, \"offset\"",
            &[
                "deputy match matches/0/1/0",
                "deputy match matches/1/1/0",
                "warden match matches/0/1/0",
                "warden match matches/1/1/0",
            ],
        ),
        (
            "SELECT concat_ws(' ', user_id, device, upto) FROM waypost.cursors ORDER BY user_id, device",
            &["ann phone 7", "ann tablet -1", "bob phone 1"],
        ),
        (
            "SELECT concat_ws(' ', conversation, number, sender, device, client_id, append_us - 1772323200000000, \
             position('hallo'::bytea IN value) > 0) FROM waypost.messages ORDER BY conversation, number",
            &[
                "ann~ann 0 ann phone 019b7600-0000-7000-8000-000000000001 0 f",
                "ann~bob 0 ann phone 019b7600-0000-7000-8000-000000000001 0 t",
                "ann~bob 1 bob phone 019b7600-0000-7000-8000-000000000001 0 f",
                "ann~cid 1 ann phone 019b7600-0000-7000-8000-000000000001 0 f",
            ],
        ),
        (
            "SELECT concat_ws(' ', conversation, user_id, kind, upto) FROM waypost.receipts ORDER BY kind",
            &["ann~bob bob delivered 1", "ann~bob bob read 2"],
        ),
        ("SELECT count(*)::text FROM waypost.projection", &["13"]),
    ];
    for (select, expected) in cases {
        assert_eq!(column(&pool, select).await, expected, "{select}");
    }
    let equal = "SELECT \"offset\"::text FROM waypost.tracks WHERE device = 'bob' AND lon = 12";
    assert_eq!(column(&pool, equal).await, [first.offset.to_string()], "the first in the log stands");
    let letters: usize =
        (0..3).map(|p| world.cluster.records(TopicPartition::new(Topic::DeadLetters, p)).len()).sum();
    assert_eq!(letters, 0, "fixes that no machine takes are the spatial machine's to bury");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_that_were_thrown_away_are_rebuilt_equal() {
    let Some(postgres) = Postgres::start() else { return };
    let ((world, _), pool) = (full_world(), postgres.pool().await);
    let mut before = None;
    // Where batches end must not show; the second pass begins on tables that another run has filled.
    for (batch_records_max, empty) in [(5_000, true), (1, false), (7, true), (64, true)] {
        if empty {
            forget(&pool).await;
        } else {
            pool.get().await.unwrap().batch_execute("TRUNCATE waypost.projection").await.unwrap();
        }
        let running = Running::start_with(&world, "processor-1", &pool, batch_records_max);
        until_projected(&world, &pool).await;
        running.stop().await;
        let after = all_rows(&pool).await;
        assert_eq!(before.get_or_insert_with(|| after.clone()), &after, "{batch_records_max}");
    }
}
