//! Entries down, acknowledgements and messages up, on connections that hold.

use std::time::Duration;

use serde_json::json;
use waypost_schemas::client_id::ClientId;

use crate::world::{World, inbox, receipt};

#[tokio::test(start_paused = true)]
async fn an_entry_reaches_its_user_and_the_acknowledgement_the_log() {
    let world = World::new();
    let node = world.node().await;
    let (mut bob, welcome) = node.hello("bob", "phone", json!({"from": "new"})).await;
    assert_eq!((&welcome["device"], &welcome["log"]), (&json!("bob/phone"), &json!(crate::world::LOG)));
    assert_eq!((&welcome["time"], welcome.get("cursor")), (&json!("2026-07-01T12:00:00Z"), None));
    assert_eq!(bob.word().await, "caught_up -1");

    world.message("carol", "not for bob");
    let offset = world.message("bob", "Hallo, Bob\u{1f44b}");
    let entry = bob.hear().await;
    let expected = json!({"type": "entry", "offset": offset, "kind": "message", "id": entry["id"],
        "at": "2026-07-01T12:00:00Z", "conversation": "alice~bob", "number": 7, "sender": "alice", "device": "laptop",
        "client_id": "c", "content_type": "text/plain", "body": "Hallo, Bob\u{1f44b}"});
    assert_eq!(entry, expected);
    assert!(entry["id"].as_str().unwrap().starts_with("messages/"));
    bob.ack(offset).await;
    world.until_acks("bob", &["phone start -1", &format!("phone delivered {offset}")]).await;
    bob.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn every_device_of_a_user_gets_every_entry_once() {
    let world = World::new();
    let node = world.node().await;
    let (mut phone, _) = node.hello("bob", "phone", json!({"from": "new"})).await;
    let (mut tablet, _) = node.hello("bob", "tablet", json!({"from": "new"})).await;
    assert_eq!((phone.word().await, tablet.word().await), ("caught_up -1".into(), "caught_up -1".into()));
    let offsets = world.messages("bob", 0..3);
    let expected: Vec<String> = offsets.iter().map(|offset| format!("entry {offset}")).collect();
    assert_eq!((phone.words(3).await, tablet.words(3).await), (expected.clone(), expected));
    phone.ack(offsets[2]).await;
    tablet.ack(offsets[0]).await;
    phone.is_quiet().await;
    tablet.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_is_offered_than_the_window_holds() {
    let world = World::new();
    let node = world.node_with("1", &[("delivery.window_entries_max", "3")]).await;
    let mut bob = node.bob().await;
    assert_eq!(bob.word().await, "caught_up -1");
    let offsets = world.messages("bob", 0..8);
    let entry = |n: usize| format!("entry {}", offsets[n]);
    assert_eq!(bob.words(3).await, [entry(0), entry(1), entry(2)]);
    bob.is_quiet().await;
    bob.ack(offsets[0]).await;
    assert_eq!(bob.word().await, entry(3));
    bob.is_quiet().await;
    bob.ack(offsets[3]).await;
    assert_eq!(bob.words(3).await, [entry(4), entry(5), entry(6)]);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_coalesce_and_only_go_on() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let offsets = world.messages("bob", 0..20);
    bob.words(20).await;
    for offset in &offsets {
        bob.ack(*offset).await;
    }
    let (first, last) =
        (format!("phone delivered {}", offsets[0]), format!("phone delivered {}", offsets[19]));
    world.until_acks("bob", &["phone start -1", &first, &last]).await;
    bob.ack(offsets[3]).await;
    bob.ack(offsets[19]).await;
    bob.ack(offsets[19] + 1).await;
    assert_eq!(bob.words(2).await, ["refused ack_backwards", "refused ack_beyond_end"]);
    bob.is_quiet().await;
    assert_eq!(world.acks("bob").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_of_a_message_of_ones_own() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let (foreign, message) = (world.message("carol", "hers"), world.message("bob", "his"));
    let receipt = world.put("bob", receipt());
    bob.words(2).await;
    bob.ack(receipt).await;
    for upto in [foreign, receipt, message, receipt + 1] {
        bob.say(json!({"type": "read", "upto": upto})).await;
    }
    let carols = inbox("carol") == inbox("bob");
    let mut expected = vec!["refused foreign_entry"; if carols || foreign == receipt { 2 } else { 1 }];
    expected.push("refused ack_beyond_end");
    // An offset below all of bob's names nothing of his, whosever inbox it is.
    let said = bob.words(expected.len()).await;
    assert_eq!(said.last().map(String::as_str), Some("refused ack_beyond_end"), "{said:?}");
    let reads = [format!("phone delivered {receipt}"), format!("phone read {message}")];
    world.until_acks("bob", &["phone start -1", &reads[0], &reads[1]]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_device_sends_is_accepted_in_order_once_it_is_in_the_log() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let id = |n: u8| ClientId::new(world.clock.now(), u128::from(n)).to_string();
    for n in 1..=3 {
        bob.say(json!({"type": "send", "id": id(n), "to": "alice", "body": format!("{n}")})).await;
    }
    for n in 1..=3 {
        let accepted = bob.hear().await;
        assert_eq!((&accepted["type"], &accepted["id"]), (&json!("accepted"), &json!(id(n))), "{accepted}");
        let position = accepted["positions"][0].as_str().unwrap();
        assert!(
            position.starts_with("messages/") && position.ends_with(&format!("/{}", n - 1)),
            "{position}"
        );
    }
    let fix = json!({"lat": 52.5, "lon": 13.4, "at": "2026-07-01T12:00:00Z"});
    bob.say(json!({"type": "report", "id": "r1", "fixes": [fix]})).await;
    assert_eq!(bob.hear().await["id"], "r1");
    bob.say(json!({"type": "ping"})).await;
    assert_eq!(bob.word().await, "pong");
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_is_asked_whether_it_is_there() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    // A phone that is polled answers pings by itself.
    let quiet = tokio::time::timeout(Duration::from_hours(1), bob.hear()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    world.message("bob", "still there?");
    assert_eq!(bob.word().await, "entry 0");
    // One that is not read is gone, and its connection with it.
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(bob.rest().await.1, Some(1008), "ack_timeout");
}
