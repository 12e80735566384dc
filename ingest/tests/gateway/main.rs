//! The gateway through a real listener, on the broker's deterministic twin.

mod messages;
mod node;
mod operator;

use std::time::Duration;

use bytes::Bytes;
use node::{Node, PARTITIONS, fixes, settings};
use reqwest::{Method, header};
use serde_json::{Value, json};
use waypost_ingest::code::Code;
use waypost_runtime::{
    auth::Role,
    broker::{Outgoing, memory::Cluster},
    config,
};
use waypost_schemas::{
    event::Event,
    topic::{Topic, TopicPartition},
};

const RULE: &str = r#"{"on":["enter","exit"],"zones":"all","subjects":"all","notify":["warden"]}"#;
const SQUARE: &str = r#"{"type":"Polygon","coordinates":[[[7,46],[7.5,46],[7.5,46.5],[7,46.5],[7,46]]]}"#;

#[tokio::test]
async fn what_is_accepted_is_in_the_log() {
    let node = Node::start().await;
    let accepted = node.report(fixes(&[46.1, 46.2, 46.1])).await.ok();
    let log = node.log(Topic::Positions);
    let places: Vec<_> = log.iter().map(|(place, ..)| place.as_str()).collect();
    assert_eq!(accepted, json!({"type": "accepted", "id": "r-1", "positions": places}));
    for ((_, key, event), lat) in log.iter().zip([46.1, 46.2, 46.1]) {
        let Event::FixReported(fix) = event else { panic!("{event:?}") };
        assert_eq!((key.as_str(), fix.device.as_str()), ("depot/van-7", "depot/van-7"));
        assert_eq!((fix.lat, fix.lon, fix.registry), (lat, 7.25, -1));
    }
    node.stop();
    assert!(node.stopped().await.is_clean());
}

#[tokio::test]
async fn one_bad_fix_refuses_the_request_and_nothing_is_appended() {
    let node = Node::start().await;
    let refused = node.report(fixes(&[46.1, 91.0])).await;
    let (status, code, detail) = refused.problem();
    assert_eq!((status, code), (422, "bad_latitude"));
    assert!(detail.contains("fixes[1].lat"), "{detail}");
    assert_eq!(node.log(Topic::Positions), []);
}

#[tokio::test]
async fn a_log_that_is_away_is_said_to_be_and_what_was_sent_lands_when_it_is_back() {
    let node = Node::start().await;
    node.cluster.set_away(true);
    let refused = node.report(fixes(&[46.1])).await;
    assert_eq!(refused.problem().1, Code::LogUnavailable.as_str());
    assert_eq!((refused.status.as_u16(), refused.retry_after.as_deref()), (503, Some("1")));
    assert_eq!(node.put("/v1/rules/r", RULE).await.problem().1, Code::LogUnavailable.as_str());
    assert_eq!(node.log(Topic::Positions).len(), 0);
    node.cluster.set_away(false);
    node.until("landed", |node| node.log(Topic::Positions).len() == 1).await;
    node.report(fixes(&[46.1])).await.ok();
}

#[tokio::test]
async fn a_fix_after_a_rule_is_stamped_with_it() {
    let node = Node::start().await;
    node.report(fixes(&[46.1])).await.ok();
    assert_eq!(node.newest_stamp(), -1);
    for id in ["a", "b"] {
        let version = node.put(&format!("/v1/rules/{id}"), RULE).await.ok()["version"].as_i64().unwrap();
        node.report(fixes(&[46.1])).await.ok();
        assert_eq!(node.newest_stamp(), version);
    }
    let other = Node::start_on(node.cluster.clone(), "other", settings()).await;
    other.until("ready", |other| other.health.is_ready()).await;
    let version = other.put("/v1/rules/c", RULE).await.ok()["version"].as_i64().unwrap();
    node.until("read by the first node", |node| node.ingest.registry().stamp() == version).await;
}

#[tokio::test]
async fn a_zone_is_read_as_it_was_written_and_written_once() {
    let node = Node::start().await;
    let path = "/v1/zones/depot%2F7%20%C3%A9";
    for absent in [node.get(path).await, node.delete(path).await] {
        assert_eq!(absent.problem(), (404, "not_found", "there is no zone depot/7 é"));
    }
    let id = "depot/7 é";
    assert_eq!(node.put(path, SQUARE).await.ok(), json!({"id": id, "version": 0, "changed": true}));
    assert_eq!(node.put(path, SQUARE).await.ok(), json!({"id": id, "version": 0, "changed": false}));
    let feature = node.get(path).await.ok();
    let geometry: Value = serde_json::from_str(SQUARE).unwrap();
    assert_eq!((&feature["type"], &feature["id"]), (&json!("Feature"), &json!(id)));
    assert_eq!(
        feature["geometry"].to_string(),
        json!({"type": "Polygon", "coordinates":
        geometry["coordinates"].as_array().unwrap().iter().map(as_floats).collect::<Vec<_>>()})
        .to_string()
    );
    assert_eq!(feature["properties"], json!({"version": 0}));
    assert_eq!(node.put(path, feature.to_string()).await.ok()["changed"], false);

    let circle = r#"{"type":"Feature","properties":{"radius_m":250},"geometry":{"type":"Point","coordinates":[7,46]}}"#;
    assert_eq!(node.put(path, circle).await.ok(), json!({"id": id, "version": 1, "changed": true}));
    let feature = node.get(path).await.ok();
    assert_eq!(feature["properties"], json!({"version": 1, "radius_m": 250.0}));
    assert_eq!(node.put(path, feature.to_string()).await.ok()["changed"], false);
    let listed = node.get("/v1/zones").await.ok();
    let zone = &listed["zones"][0];
    assert_eq!((&zone["id"], &zone["version"], &zone["type"]), (&json!(id), &json!(1), &json!("Circle")));

    assert_eq!(node.delete(path).await.ok(), json!({"id": id, "version": 2, "changed": true}));
    assert_eq!(node.get("/v1/zones").await.ok(), json!({"zones": []}));
    let log = node.log(Topic::Registry);
    let written: Vec<_> = log.iter().map(|(_, key, event)| (key.as_str(), event.name())).collect();
    let key = "zone/depot/7 é";
    assert_eq!(written, [(key, "ZoneDefined"), (key, "ZoneDefined"), (key, "ZoneRemoved")]);
}

fn as_floats(ring: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(ring.clone()).unwrap()
}

#[tokio::test]
async fn a_rule_is_read_as_it_was_written_and_written_once() {
    let node = Node::start().await;
    let rule = r#"{"on":["exit"],"zones":["A"],"subjects":["b","a"],"notify":["warden"]}"#;
    assert_eq!(node.put("/v1/rules/r", rule).await.ok()["changed"], true);
    assert_eq!(node.put("/v1/rules/r", rule).await.ok()["changed"], false);
    assert_eq!(node.get("/v1/rules/q").await.problem().2, "there is no rule q");
    let stands = json!({"id": "r", "version": 0, "on": ["exit"], "zones": ["A"], "subjects": ["a", "b"],
        "notify": ["warden"], "by": "warden"});
    assert_eq!(node.get("/v1/rules/r").await.ok(), stands);
    assert_eq!(node.get("/v1/rules").await.ok(), json!({"rules": [stands]}));
    assert_eq!(node.delete("/v1/rules/r").await.ok()["version"], 1);
    assert_eq!(node.delete("/v1/rules/r").await.problem().1, "not_found");
    assert_eq!(node.log(Topic::Registry).len(), 2);
}

#[tokio::test]
async fn a_rule_that_names_an_unknown_zone_is_taken_and_the_answer_says_so() {
    let node = Node::start().await;
    node.put("/v1/zones/A", SQUARE).await.ok();
    let rule =
        |zones: &str| format!(r#"{{"on":["exit"],"zones":{zones},"subjects":"all","notify":["warden"]}}"#);
    for (zones, unknown) in [
        (r#"["A","B","C"]"#, json!(["B", "C"])),
        (r#"["A"]"#, json!([])),
        (r#""all""#, json!([])),
        (r#"["B"]"#, json!(["B"])),
    ] {
        let answer = node.put("/v1/rules/r", rule(zones)).await.ok();
        assert_eq!((&answer["unknown_zones"], &answer["changed"]), (&unknown, &json!(true)), "{zones}");
    }
    assert_eq!(node.put("/v1/rules/r", rule(r#"["B"]"#)).await.ok()["unknown_zones"], json!(["B"]));
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let node = Node::start().await;
    let device = &node.device;
    for (method, path) in [
        (Method::PUT, "/v1/zones/A"),
        (Method::GET, "/v1/zones/A"),
        (Method::DELETE, "/v1/zones/A"),
        (Method::GET, "/v1/zones"),
        (Method::PUT, "/v1/rules/r"),
        (Method::GET, "/v1/rules/r"),
        (Method::DELETE, "/v1/rules/r"),
        (Method::GET, "/v1/rules"),
        (Method::POST, "/v1/tokens"),
        (Method::POST, "/v1/holes"),
        (Method::GET, "/v1/holes"),
        (Method::POST, "/v1/skips"),
        (Method::GET, "/v1/skips"),
        (Method::POST, "/v1/behaviours"),
        (Method::GET, "/v1/behaviours"),
    ] {
        let refused = node.call(method.clone(), path, device, "{}").await;
        assert_eq!(refused.problem().1, "forbidden", "{method} {path}");
        let refused = node.call(method.clone(), path, "nonsense", "{}").await;
        assert_eq!(refused.problem().1, "token_bad", "{method} {path}");
    }
    let foreign = fixes(&[46.1]).replacen('{', r#"{"device":"depot/van-8","#, 1);
    assert_eq!(node.report(foreign.clone()).await.problem().1, "foreign_device");
    node.call(Method::POST, "/v1/positions", &node.operator, foreign).await.ok();
    assert_eq!(node.log(Topic::Positions)[0].1, "depot/van-8");
    node.clock.advance(Duration::from_hours(25));
    let expired = node.report(fixes(&[46.1])).await;
    assert_eq!((expired.status.as_u16(), expired.problem().1), (401, "token_expired"));
}

#[tokio::test]
async fn a_minted_token_reports_for_its_device() {
    let node = Node::start().await;
    let mint = |body: &'static str| node.call(Method::POST, "/v1/tokens", &node.operator, body);
    let minted = mint(r#"{"user":"depot","device":"van-9"}"#).await.ok();
    assert_eq!(minted["expires"], "2026-07-02T12:00:00Z");
    node.call(Method::POST, "/v1/positions", minted["token"].as_str().unwrap(), fixes(&[46.1])).await.ok();
    assert_eq!(node.log(Topic::Positions)[0].1, "depot/van-9");
    let operator = mint(r#"{"user":"boss","role":"operator"}"#).await.ok();
    node.call(Method::GET, "/v1/rules", operator["token"].as_str().unwrap(), "").await.ok();
    for bad in [r#"{"user":"a b"}"#, r#"{"user":"a","role":"king"}"#, r#"{"user":"a","exp":1}"#, "{}"] {
        assert_eq!(mint(bad).await.problem().1, "bad_json", "{bad}");
    }
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_the_node_goes_on() {
    let node = Node::start().await;
    let deep = "[".repeat(500_000);
    let strip = |n: usize| {
        let places: Vec<_> = (0..n).map(|i| format!("[{},{}]", i as f64 / 1e4, i % 2)).collect();
        format!(r#"{{"type":"Polygon","coordinates":[[{}]]}}"#, places.join(","))
    };
    for (path, body, status, code) in [
        ("/v1/positions", " ".repeat((1 << 20) + 1), 413, "body_too_large"),
        ("/v1/positions", deep.clone(), 400, "bad_field"),
        ("/v1/positions", format!(r#"{{"fixes":{deep}"#), 400, "bad_field"),
        ("/v1/rules/r", deep.clone(), 400, "bad_field"),
        ("/v1/rules/r", " ".repeat((1 << 20) + 1), 413, "body_too_large"),
        ("/v1/rules/%20", RULE.into(), 400, "bad_id"),
        ("/v1/zones/A", " ".repeat((8 << 20) + 1), 413, "body_too_large"),
        ("/v1/zones/A", deep.clone(), 422, "bad_geojson"),
        ("/v1/zones/A", format!(r#"{{"type":"Polygon","coordinates":{deep}"#), 400, "bad_json"),
        ("/v1/zones/A", SQUARE.replace(",[7,46]]]", "]]"), 422, "unclosed_ring"),
        ("/v1/zones/A", strip(100_001), 422, "too_many_vertices"),
        ("/v1/zones/%E2%80%AE", SQUARE.into(), 400, "bad_id"),
    ] {
        let method = if path == "/v1/positions" { Method::POST } else { Method::PUT };
        let refused = node.call(method, path, &node.operator, body).await;
        let (was, refused_with, _) = refused.problem();
        assert_eq!((was, refused_with), (status, code), "{path}");
    }
    let typed = |kind: &'static str, body: Vec<u8>| {
        let request = node.request(Method::POST, "/v1/positions", &node.device);
        node.send(request.header(header::CONTENT_TYPE, kind).body(body))
    };
    assert_eq!(typed("text/plain", fixes(&[46.1]).into()).await.problem().1, "bad_content_type");
    assert_eq!(typed("application/json", vec![0xff; 10]).await.problem().1, "bad_utf8");
    let large = format!("{}{SQUARE}", " ".repeat(2 << 20));
    assert_eq!(node.put("/v1/zones/A", large).await.ok()["changed"], true);
    node.report(fixes(&[46.1])).await.ok();
}

#[tokio::test]
async fn a_zone_whose_record_its_topic_does_not_take_is_refused_and_the_node_goes_on() {
    let settings =
        config::Ingest { zone_vertices_max: 300_000, accept_timeout: Duration::from_secs(20), ..settings() };
    let node = Node::start_on(Cluster::new(PARTITIONS), "ingest", settings).await;
    node.until("ready", |node| node.health.is_ready()).await;
    let n = 270_000;
    let mut places: Vec<_> = (0..n).map(|i| format!("[{:.4},{}]", f64::from(i) / 1e4, i % 2)).collect();
    places.push("[26.9999,-1],[0,-1],[0.0000,0]".to_owned());
    let refused = node
        .put("/v1/zones/A", format!(r#"{{"type":"Polygon","coordinates":[[{}]]}}"#, places.join(",")))
        .await;
    assert_eq!(refused.problem().1, Code::RecordTooLarge.as_str());
    node.put("/v1/zones/A", SQUARE).await.ok();
}

#[tokio::test]
async fn nothing_is_accepted_before_the_registry_was_read_to_its_end() {
    let cluster = Cluster::new(PARTITIONS);
    cluster.set_away(true);
    let node = Node::start_on(cluster, "ingest", settings()).await;
    let behind = Code::RegistryBehind.as_str();
    assert_eq!(node.report(fixes(&[46.1])).await.problem().1, behind);
    assert_eq!(node.get("/v1/rules").await.problem().1, behind);
    node.until("seen that the log is away", |node| {
        node.check("log").reason.is_some_and(|reason| reason.contains("did not answer"))
    })
    .await;
    assert!(!node.check("registry").ready);
    node.cluster.set_away(false);
    node.until("ready", |node| node.health.is_ready()).await;
    node.report(fixes(&[46.1])).await.ok();
    node.cluster.set_away(true);
    node.clock.advance(Duration::from_secs(6));
    node.until("not ready", |node| !node.check("registry").ready && !node.check("log").ready).await;
}

#[tokio::test]
async fn more_requests_than_may_wait_are_told_to_come_again() {
    let settings = config::Ingest { in_flight_max: 1, accept_timeout: Duration::from_secs(20), ..settings() };
    let node = Node::start_on(Cluster::new(PARTITIONS), "ingest", settings).await;
    node.until("ready", |node| node.health.is_ready()).await;
    node.cluster.set_held("ingest", true);
    let (first, refused) = tokio::join!(node.report(fixes(&[46.1])), async {
        loop {
            let answer = node.report(fixes(&[46.2])).await;
            if answer.status != 200 {
                node.cluster.set_held("ingest", false);
                break answer;
            }
        }
    });
    assert_eq!((refused.problem().1, refused.retry_after.as_deref()), ("overloaded", Some("1")));
    first.ok();
}

#[tokio::test]
async fn foreign_records_in_the_registry_are_passed_by() {
    let node = Node::start().await;
    let to = TopicPartition::new(Topic::Registry, 0);
    let outside = |value: Option<Bytes>| Outgoing { to, key: None, value, headers: Vec::new() };
    for value in [None, Some(Bytes::from_static(b"hello")), Some(Bytes::from_static(&[0, 0, 0, 0, 3, 1]))] {
        node.cluster.append(outside(value)).unwrap();
    }
    assert_eq!(node.put("/v1/rules/r", RULE).await.ok()["version"], 3);
    node.report(fixes(&[46.1])).await.ok();
    assert_eq!(node.newest_stamp(), 3);
}

#[tokio::test]
async fn a_log_is_named_once() {
    let node = Node::start().await;
    assert_eq!(node.ingest.found("first").await.unwrap(), "first");
    let other = Node::start_on(node.cluster.clone(), "other", settings()).await;
    assert_eq!(other.ingest.found("second").await.unwrap(), "first");
    assert_eq!(node.log(Topic::Registry).len(), 1);
}

#[tokio::test]
async fn a_refused_append_stops_the_node() {
    let node = Node::start().await;
    node.cluster.refuse_next("ingest");
    assert_eq!(node.report(fixes(&[46.1])).await.problem().1, Code::LogUnavailable.as_str());
    let outcome = node.stopped().await;
    assert!(outcome.cause.is_failure(), "{:?}", outcome.cause);
}

#[tokio::test]
async fn an_operators_token_reports_under_its_own_name_too() {
    let node = Node::start().await;
    let token = node.token("alice", None, Role::Operator);
    node.call(Method::POST, "/v1/positions", &token, fixes(&[46.1])).await.ok();
    assert_eq!(node.log(Topic::Positions)[0].1, "alice");
}
