//! What goes wrong: connections, nodes, the store, the log, and what clients say.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, time::sleep};
use tokio_tungstenite::tungstenite::Message;
use waypost_runtime::{broker::Outgoing, lifecycle::Cause};
use waypost_schemas::{client_id::ClientId, codec, event::HoleAccepted, time::Micros, topic::Topic};

use crate::world::{World, inbox, said, user};

#[tokio::test(start_paused = true)]
async fn the_newest_connection_of_a_device_wins_on_one_node() {
    let world = World::new();
    let node = world.node().await;
    let mut first = node.bob().await;
    assert_eq!(first.word().await, "caught_up -1");
    let mut second = node.bob().await;
    assert_eq!(first.rest().await, (vec!["goodbye replaced".to_owned()], Some(1008)));
    assert_eq!(second.word().await, "caught_up -1");
    world.message("bob", "to the second");
    assert_eq!(second.word().await, "entry 0");
}

#[tokio::test(start_paused = true)]
async fn the_newest_connection_of_a_device_wins_on_two_nodes() {
    let world = World::new();
    let (one, two) = (world.node_with("1", &[]).await, world.node_with("2", &[]).await);
    let mut first = one.bob().await;
    first.word().await;
    sleep(Duration::from_secs(1)).await;
    let mut second = two.bob().await;
    second.word().await;
    world.message("bob", "to both, for neither knows of the other");
    assert_eq!((first.word().await, second.word().await), ("entry 0".into(), "entry 0".into()));
    // An acknowledgement that the older session made late closes nothing.
    first.ack(0).await;
    second.is_quiet().await;
    second.ack(0).await;
    assert_eq!(first.rest().await, (vec!["goodbye replaced".to_owned()], Some(1008)));
    second.is_quiet().await;
    // Neither does one that was made without a session.
    world.acknowledged("bob", "", 0);
    second.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_acknowledges_nothing_is_let_go_and_offered_it_again() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    world.message("bob", "a");
    assert_eq!(bob.word().await, "entry 0");
    assert_eq!(bob.rest().await, (vec!["goodbye ack_timeout".to_owned()], Some(1008)));
    let mut bob = node.bob().await;
    assert_eq!(bob.words(2).await, ["entry 0", "caught_up 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_reads_nothing_is_let_go_and_others_are_served() {
    let world = World::new();
    let node = world.node_with("1", &[("delivery.sessions_max", "2")]).await;
    let mut slow = node.connect_through("bob", "slow", 256).await;
    slow.say_hello(json!({"from": "start"})).await;
    slow.words(2).await;
    let mut bob = node.bob().await;
    bob.word().await;
    for n in 0..20 {
        world.message("bob", &"x".repeat(100 + n));
        bob.word().await;
    }
    // It has its place until it is let go.
    let mut third = node.connect("bob", "third").await;
    assert_eq!(third.rest().await.1, None);
    sleep(Duration::from_secs(15)).await;
    let mut third = node.hello("bob", "third", json!({"from": "new"})).await.0;
    assert_eq!(third.word().await, "caught_up 19");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_those_are_served_whose_place_is_known() {
    let world = World::new();
    world.message("bob", "old");
    world.project("bob").await;
    let node = world.node().await;
    let mut bob = node.bob().await;
    assert_eq!(bob.words(2).await, ["entry 0", "caught_up 0"]);
    world.store.set_away(true);
    // Who is connected notices nothing.
    world.message("bob", "live");
    assert_eq!(bob.word().await, "entry 1");
    bob.ack(0).await;
    world.until_acks("bob", &["phone start -1", "phone delivered 0"]).await;
    drop(bob);
    // Its cursor lies in the ring, and the node knows it.
    let (mut bob, welcome) = node.hello("bob", "phone", json!({})).await;
    assert_eq!(welcome["cursor"], 0);
    assert_eq!(bob.words(2).await, ["entry 1", "caught_up 1"]);
    // A device of which nothing is known waits, unless it says itself what it has.
    let mut tablet = node.connect("bob", "tablet").await;
    tablet.say_hello(json!({})).await;
    assert_eq!(tablet.rest().await, (vec!["goodbye unavailable".to_owned()], Some(1013)));
    assert!(!node.health.is_ready());
    let mut tablet = node.hello("bob", "tablet", json!({"offset": 0})).await.0;
    assert_eq!(tablet.words(2).await, ["entry 1", "caught_up 1"]);
    world.store.set_away(false);
    let mut watch = node.hello("bob", "watch", json!({"from": "start"})).await.0;
    assert_eq!(watch.words(3).await, ["entry 0", "entry 1", "caught_up 1"]);
    assert!(node.health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_while_the_store_is_away_begins_where_it_stood() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    world.messages("bob", 0..3);
    bob.words(3).await;
    bob.ack(0).await;
    world.until_acks("bob", &["phone start -1", "phone delivered 0"]).await;
    world.store.set_away(true);
    assert!(node.stop().await.is_clean());
    assert_eq!(bob.rest().await, (vec!["goodbye stopping".to_owned()], Some(1001)));

    world.message("bob", "while it was away");
    let node = world.node().await;
    let (mut bob, welcome) = node.hello("bob", "phone", json!({})).await;
    assert_eq!(welcome["cursor"], 0);
    assert_eq!(bob.words(4).await, ["entry 1", "entry 2", "entry 3", "caught_up 3"]);
    // Another node has never stood anywhere.
    let other = world.node_with("2", &[]).await;
    let mut tablet = other.connect("bob", "phone").await;
    tablet.say_hello(json!({"offset": 3})).await;
    assert_eq!(tablet.rest().await, (vec!["goodbye unavailable".to_owned()], Some(1013)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_goodbye_and_loses_no_acknowledgement() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    world.messages("bob", 0..3);
    bob.words(3).await;
    bob.ack(0).await;
    world.until_acks("bob", &["phone start -1", "phone delivered 0"]).await;
    // This one waits for its turn.
    bob.ack(2).await;
    bob.say(json!({"type": "ping"})).await;
    assert_eq!(bob.word().await, "pong");
    node.lifecycle.stop(Cause::Asked("the test".to_owned()));
    let stopped = node.ended();
    let goodbye = async {
        let goodbye = bob.hear().await;
        assert_eq!((&goodbye["type"], &goodbye["code"]), (&json!("goodbye"), &json!("stopping")));
        assert!((1..=10).contains(&goodbye["retry_after"].as_u64().unwrap()), "{goodbye}");
        bob.rest().await
    };
    let (outcome, rest) = tokio::join!(stopped, goodbye);
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(rest, (vec![], Some(1001)));
    assert_eq!(world.acks("bob"), ["phone start -1", "phone delivered 0", "phone delivered 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_hole_stops_the_node_unless_an_operator_accepts_it() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    world.message("bob", "a");
    assert_eq!(bob.word().await, "entry 0");
    let offset = world.put_as("bob", said("bob", "c"), 3);
    let outcome = node.ended().await;
    assert!(
        outcome.cause.is_failure() && outcome.cause.to_string().contains("records are missing"),
        "{outcome:?}"
    );

    let topic = Topic::Inboxes;
    let partition = inbox("bob").partition;
    let accepted = HoleAccepted { topic, partition, offset, by: user("operator") };
    let to = waypost_schemas::topic::TopicPartition::new(Topic::Registry, 0);
    let value = Some(codec::encode(&accepted.into()).into());
    world.cluster.append(Outgoing { to, key: None, value, headers: Vec::new() }).unwrap();
    let node = world.node().await;
    let mut bob = node.bob().await;
    assert_eq!(
        bob.words(3).await,
        ["entry 0".to_owned(), format!("entry {offset}"), format!("caught_up {offset}")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_delays_and_loses_nothing() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    world.message("bob", "a");
    assert_eq!(bob.word().await, "entry 0");
    world.cluster.set_away(true);
    bob.ack(0).await;
    let mut tablet = node.connect("bob", "tablet").await;
    tablet.say_hello(json!({})).await;
    assert_eq!(tablet.rest().await, (vec!["goodbye unavailable".to_owned()], Some(1013)));
    world.cluster.set_away(false);
    world.message("bob", "b");
    assert_eq!(bob.word().await, "entry 1");
    let mut acks = world.acks("bob");
    acks.dedup();
    assert_eq!(acks[..2], ["phone start -1", "phone delivered 0"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_refused_and_the_connection_goes_on() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.connect("bob", "phone").await;
    bob.say(json!({"type": "ack", "upto": 0})).await;
    assert_eq!(bob.word().await, "refused hello_first");
    bob.say_hello(json!({})).await;
    assert_eq!(bob.words(2).await, ["welcome", "caught_up -1"]);
    let check = async |bob: &mut crate::world::Phone, text: &str, code: &str| {
        bob.say_text(text).await;
        assert_eq!(bob.word().await, format!("refused {code}"), "{text}");
    };
    check(&mut bob, "{", "bad_json").await;
    check(&mut bob, "", "bad_json").await;
    check(&mut bob, r#"{"type":"shout"}"#, "unknown_frame").await;
    check(&mut bob, r#"{"upto":1}"#, "bad_field").await;
    check(&mut bob, r#"{"type":"hello"}"#, "hello_again").await;
    check(&mut bob, r#"{"type":"ack","upto":NaN}"#, "bad_json").await;
    check(&mut bob, r#"{"type":"ack","upto":-1}"#, "bad_offset").await;
    check(&mut bob, r#"{"type":"ack","upto":0}"#, "ack_beyond_end").await;
    check(&mut bob, r#"{"type":"read","upto":0}"#, "ack_beyond_end").await;
    check(
        &mut bob,
        r#"{"type":"report","id":"r","fixes":[{"lat":NaN,"lon":0,"at":"2026-07-01T12:00:00Z"}]}"#,
        "bad_json",
    )
    .await;
    let now = world.clock.now();
    let (week, minutes) = (7 * 24 * Micros::HOUR, Micros::HOUR / 10);
    for (at, body, code) in [
        (now.0 - week, "from the past", "clock"),
        (now.0 + minutes, "from the future", "clock"),
        (now.0, "", "empty_body"),
    ] {
        let id = ClientId::new(Micros(at), 1).to_string();
        let send = json!({"type": "send", "id": id, "to": "alice", "body": body});
        check(&mut bob, &send.to_string(), code).await;
    }
    bob.socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(bob.word().await, "refused binary_frame");
    bob.socket.send(Message::Ping(vec![1].into())).await.unwrap();
    world.message("bob", "still here");
    assert_eq!(bob.word().await, "entry 0");
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_ends_the_connection_with_its_code() {
    let world = World::new();
    let node = world.node_with("1", &[("ingest.frame_bytes_max", "2048")]).await;
    let check = async |bytes: &[u8], goodbye: &str, close: u16| {
        let mut bob = node.bob().await;
        bob.word().await;
        bob.socket.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(bob.rest().await, (vec![format!("goodbye {goodbye}")], Some(close)), "{bytes:?}");
    };
    check(&[0x81, 0x81, 0, 0, 0, 0, 0xff], "bad_utf8", 1007).await;
    check(&[0x81, 0xfe, 0x08, 0x01, 0, 0, 0, 0], "frame_too_large", 1009).await;
    check(&[0x81, 0x01, b'x'], "bad_websocket", 1002).await;
    check(&[0xf1, 0x80, 0, 0, 0, 0], "bad_websocket", 1002).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_let_go() {
    let world = World::new();
    let node = world.node().await;
    let mut mute = node.connect("bob", "phone").await;
    assert_eq!(mute.rest().await, (vec!["goodbye hello_timeout".to_owned()], Some(1008)));
}
