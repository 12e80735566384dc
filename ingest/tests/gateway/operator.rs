//! What operators say of the log, and what of it is refused because of how the log stands.

use reqwest::Method;
use serde_json::{Value, json};
use waypost_runtime::broker::{Broker as _, GroupSpec, Membership, Outgoing};
use waypost_schemas::{
    event::Event,
    topic::{Topic, TopicPartition},
};

use crate::node::{Answer, Node};

const GROUP: &str = "waypost.spatial";

async fn say(node: &Node, path: &str, body: &Value) -> Answer {
    node.call(Method::POST, path, &node.operator, body.to_string()).await
}

/// Appends some records without sense to a partition.
fn fill(node: &Node, to: TopicPartition, records: usize) {
    for _ in 0..records {
        let headers = Vec::new();
        node.cluster.append(Outgoing { to, key: None, value: Some("x".into()), headers }).unwrap();
    }
}

#[tokio::test]
async fn a_hole_is_accepted_once_and_only_where_the_log_has_a_record() {
    let node = Node::start().await;
    let inbox = TopicPartition::new(Topic::Inboxes, 3);
    fill(&node, inbox, 5);
    let hole = |position: &str| json!({"position": position});
    for (position, status, code) in [
        ("inboxes/3/5", 409, "not_in_the_log"),
        ("inboxes/4/0", 409, "not_in_the_log"),
        ("inboxes/2/0", 409, "not_in_the_log"),
        ("positions/3/4", 422, "bad_position"),
        ("inboxes/3/x", 422, "bad_position"),
    ] {
        let refused = say(&node, "/v1/holes", &hole(position)).await;
        assert_eq!((refused.problem().0, refused.problem().1), (status, code), "{position}");
    }
    let accepted = say(&node, "/v1/holes", &hole("inboxes/3/4")).await.ok();
    assert_eq!(accepted, json!({"id": "inboxes/3/4", "version": 0, "changed": true}));
    let again = say(&node, "/v1/holes", &hole("inboxes/3/4")).await.ok();
    assert_eq!(again, json!({"id": "inboxes/3/4", "version": 0, "changed": false}));
    let listed = json!({"holes": [{"position": "inboxes/3/4", "version": 0, "by": "warden"}]});
    assert_eq!(node.get("/v1/holes").await.ok(), listed);
    let log = node.log(Topic::Registry);
    let [(_, key, Event::HoleAccepted(said))] = &log[..] else { panic!("{log:?}") };
    assert_eq!((key.as_str(), said.position().to_string().as_str()), ("hole/inboxes/3/4", "inboxes/3/4"));
    node.cluster.cut(inbox, 2);
    let removed = say(&node, "/v1/holes", &hole("inboxes/3/1")).await;
    assert_eq!(removed.problem().1, "not_in_the_log", "retention took the record");
}

#[tokio::test]
async fn a_record_is_skipped_only_where_its_machine_is_stopped_and_has_not_folded_it() {
    let node = Node::start().await;
    let source = TopicPartition::new(Topic::Positions, 3);
    fill(&node, source, 5);
    let skip = |position: &str| json!({"machine": "spatial", "position": position});
    let spec = GroupSpec { group: GROUP.into(), instance: "p-1".into(), topics: vec![Topic::Positions] };
    let mut member = node.cluster.connect("processor").join(spec).unwrap();
    assert!(matches!(member.next().await, Membership::Assigned(_)));
    node.cluster.crash("processor");

    let runs = say(&node, "/v1/skips", &skip("positions/3/4")).await;
    assert_eq!((runs.problem().0, runs.problem().1), (409, "machine_runs"));
    assert!(runs.problem().2.contains("the group waypost.spatial still has members (1)"), "{}", runs.body);
    assert_eq!(runs.retry_after.as_deref(), Some("6"));
    node.cluster.expire("processor");
    node.cluster.set_committed(GROUP, source, Some(3));
    for (position, code) in [
        ("positions/3/2", "already_folded"),
        ("positions/3/5", "not_in_the_log"),
        ("positions/9/0", "not_in_the_log"),
        ("matches/3/0", "bad_position"),
    ] {
        assert_eq!(say(&node, "/v1/skips", &skip(position)).await.problem().1, code, "{position}");
    }
    assert_eq!(node.log(Topic::Registry), []);
    let skipped = say(&node, "/v1/skips", &skip("positions/3/3")).await.ok();
    assert_eq!(skipped, json!({"id": "positions/3/3", "version": 0, "changed": true}));
    assert_eq!(say(&node, "/v1/skips", &skip("positions/3/3")).await.ok()["changed"], false);
    let listed = json!({"skips": [
        {"machine": "spatial", "position": "positions/3/3", "version": 0, "by": "warden"}
    ]});
    assert_eq!(node.get("/v1/skips").await.ok(), listed);
    assert_eq!(node.log(Topic::Registry)[0].1, "skip/spatial/positions/3/3");
}

#[tokio::test]
async fn a_record_that_a_machine_looks_at_is_skipped_where_it_has_not_been_folded() {
    let node = Node::start().await;
    let looked_at = TopicPartition::new(Topic::Inboxes, 3);
    fill(&node, looked_at, 5);
    node.cluster.set_committed("waypost.inboxes", looked_at, Some(3));
    let skip = |position: &str| json!({"machine": "inboxes", "position": position});
    let folded = say(&node, "/v1/skips", &skip("inboxes/3/2")).await;
    assert_eq!(folded.problem().1, "already_folded");
    assert_eq!(say(&node, "/v1/skips", &skip("inboxes/3/3")).await.ok()["changed"], true);
}

#[tokio::test]
async fn a_behaviour_is_set_where_this_version_has_it() {
    let node = Node::start().await;
    let set = |machine: &str, number: i64| json!({"machine": machine, "number": number});
    for (machine, number, code) in [
        ("spatial", 2, "unknown_behaviour"),
        ("spatial", 0, "unknown_behaviour"),
        ("nobody", 1, "unknown_machine"),
    ] {
        let refused = say(&node, "/v1/behaviours", &set(machine, number)).await;
        assert_eq!(refused.problem().1, code, "{machine} {number}");
    }
    let of = |listed: &Value, machine: &str| -> Value {
        let all = listed["behaviours"].as_array().unwrap();
        all.iter().find(|b| b["machine"] == machine).unwrap().clone()
    };
    let unset = json!({"machine": "spatial", "number": 1, "known": [1], "version": null, "by": null});
    assert_eq!(of(&node.get("/v1/behaviours").await.ok(), "spatial"), unset);
    assert_eq!(say(&node, "/v1/behaviours", &set("spatial", 1)).await.ok()["changed"], true);
    assert_eq!(say(&node, "/v1/behaviours", &set("spatial", 1)).await.ok()["changed"], false);
    let stands = json!({"machine": "spatial", "number": 1, "known": [1], "version": 0, "by": "warden"});
    assert_eq!(of(&node.get("/v1/behaviours").await.ok(), "spatial"), stands);
    assert_eq!(node.log(Topic::Registry)[0].1, "behaviour/spatial");
}

#[tokio::test]
async fn while_the_log_is_away_nothing_is_said_of_it() {
    let node = Node::start().await;
    node.cluster.set_away(true);
    for (path, body) in [
        ("/v1/holes", json!({"position": "inboxes/3/4"})),
        ("/v1/skips", json!({"machine": "spatial", "position": "positions/3/4"})),
        ("/v1/behaviours", json!({"machine": "spatial", "number": 1})),
    ] {
        assert_eq!(say(&node, path, &body).await.problem().1, "log_unavailable", "{path}");
    }
}
