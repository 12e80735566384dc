//! Where devices begin, and what they lack: from the store, from the ring, and after every kind of cut.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, inbox};

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_before_the_acknowledgement_is_offered_the_entry_again() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let offset = world.message("bob", "once");
    assert_eq!(bob.word().await, format!("entry {offset}"));
    drop(bob);
    let mut bob = node.bob().await;
    assert_eq!(bob.words(2).await, [format!("entry {offset}"), format!("caught_up {offset}")]);
    bob.ack(offset).await;
    world.until_acks("bob", &["phone start -1", &format!("phone delivered {offset}")]).await;
    drop(bob);
    let (mut bob, welcome) = node.hello("bob", "phone", json!({})).await;
    assert_eq!(welcome["cursor"], offset);
    assert_eq!(
        bob.word().await,
        format!("caught_up {offset}"),
        "what is acknowledged is never offered again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_before_the_log_has_its_name_waits_for_it() {
    let world = World::new();
    let (node, ingest) = world.nameless("1", &[]);
    let mut bob = node.connect("bob", "phone").await;
    bob.say_hello(json!({})).await;
    let naming = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        ingest.found("log-of-tests").await.unwrap();
    };
    let (welcome, ()) = tokio::join!(bob.hear(), naming);
    assert_eq!((&welcome["type"], &welcome["log"]), (&json!("welcome"), &json!("log-of-tests")));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_before_a_cut_is_not_forgotten() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let offsets = world.messages("bob", 0..4);
    bob.words(4).await;
    // The second waits for its turn when the connection is cut.
    bob.ack(offsets[0]).await;
    bob.ack(offsets[2]).await;
    bob.say(json!({"type": "ping"})).await;
    assert_eq!(bob.word().await, "pong");
    drop(bob);
    let delivered = [offsets[0], offsets[2]].map(|offset| format!("phone delivered {offset}"));
    world.until_acks("bob", &["phone start -1", &delivered[0], &delivered[1]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_device_begins_at_the_newest_and_keeps_to_it() {
    let world = World::new();
    let offsets = world.messages("bob", 0..10);
    for projected in [4, 10] {
        let few = &world.cluster.records(inbox("bob"))[..projected];
        world.store.project("memory", inbox("bob"), few).unwrap();
        let node = world.node_with("1", &[("delivery.newest_entries", "3")]).await;
        let device = format!("phone-{projected}");
        let (mut bob, welcome) = node.hello("bob", &device, json!({})).await;
        let begins = offsets[6];
        assert_eq!(welcome["cursor"], begins);
        assert!(
            world.acks("bob").contains(&format!("{device} start {begins}")),
            "it stands in the log first"
        );
        let expected = [7, 8, 9].map(|n| format!("entry {}", offsets[n]));
        assert_eq!(bob.words(3).await, expected);
        assert_eq!(bob.word().await, format!("caught_up {}", offsets[9]));
        drop(bob);
        // Three more do not move where it begins.
        let (mut bob, welcome) = node.hello("bob", &device, json!({})).await;
        assert_eq!(welcome["cursor"], begins);
        assert_eq!(bob.words(3).await, expected);
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_device_may_begin_at_the_first_entry_or_behind_the_last() {
    let world = World::new();
    let node = world.node().await;
    let last = world.messages("bob", 0..3).into_iter().max().unwrap();
    let (mut old, welcome) = node.hello("bob", "old", json!({"from": "start"})).await;
    assert_eq!(welcome.get("cursor"), None);
    assert_eq!(old.words(4).await, ["entry 0", "entry 1", "entry 2", "caught_up 2"]);
    let (mut new, welcome) = node.hello("bob", "new", json!({"from": "new"})).await;
    assert_eq!(welcome["cursor"], last);
    assert_eq!(new.word().await, format!("caught_up {last}"));
    assert_eq!(world.acks("bob"), ["old start -1", &format!("new start {last}")]);
}

#[tokio::test(start_paused = true)]
async fn an_offset_above_the_cursor_is_an_acknowledgement() {
    let world = World::new();
    let node = world.node().await;
    world.messages("bob", 0..5);
    let resume = |offset: i64, log: &str| json!({"from": "resume", "offset": offset, "log": log});
    let (mut bob, welcome) = node.hello("bob", "phone", resume(2, crate::world::LOG)).await;
    assert_eq!(welcome["cursor"], 2);
    assert_eq!(world.acks("bob"), ["phone delivered 2"], "before the first offer");
    assert_eq!(bob.words(3).await, ["entry 3", "entry 4", "caught_up 4"]);
    drop(bob);
    let check = async |hello, cursor: i64, said: &[&str]| {
        let (mut bob, welcome) = node.hello("bob", "phone", hello).await;
        assert_eq!(welcome["cursor"], cursor);
        assert_eq!(bob.words(said.len()).await, said);
    };
    check(resume(1, crate::world::LOG), 2, &["entry 3", "entry 4", "caught_up 4"]).await;
    check(resume(4, "another"), 2, &["refused other_log", "entry 3", "entry 4", "caught_up 4"]).await;
    check(resume(5, crate::world::LOG), 2, &["refused ack_beyond_end", "entry 3", "entry 4", "caught_up 4"])
        .await;
    check(json!({"offset": 3}), 3, &["entry 4", "caught_up 4"]).await;
    assert_eq!(world.acks("bob"), ["phone delivered 2", "phone delivered 3"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_ring_no_longer_holds_comes_from_the_store() {
    let world = World::new();
    let node = world.node_with("1", &[("delivery.ring_entries_max", "4")]).await;
    // A tail that is open holds the last four.
    let mut carol = node.hello("bob", "watch", json!({"from": "new"})).await.0;
    carol.word().await;
    world.messages("bob", 0..300);
    world.project("bob").await;
    world.messages("bob", 300..303);
    let mut phone = node.hello("bob", "phone", json!({"from": "start"})).await.0;
    for n in 0..303 {
        assert_eq!(phone.word().await, format!("entry {n}"));
        if n % 100 == 99 {
            phone.ack(n).await;
        }
    }
    assert_eq!(phone.word().await, "caught_up 302");
    world.message("bob", "live");
    assert_eq!(phone.word().await, "entry 303");
}

#[tokio::test(start_paused = true)]
async fn a_gap_between_store_and_ring_is_no_reason_to_leave_anything_out() {
    let world = World::new();
    let node = world.node_with("1", &[("delivery.ring_entries_max", "4")]).await;
    let mut watch = node.hello("bob", "watch", json!({"from": "new"})).await.0;
    watch.word().await;
    world.messages("bob", 0..10);
    let mut phone = node.hello("bob", "phone", json!({"from": "start"})).await.0;
    let (said, closed) = phone.rest().await;
    assert_eq!((said, closed), (vec!["goodbye unavailable".to_owned()], Some(1013)));
    world.project("bob").await;
    let mut phone = node.hello("bob", "phone", json!({})).await.0;
    let expected: Vec<String> = (0..10).map(|n| format!("entry {n}")).collect();
    assert_eq!(phone.words(10).await, expected);
}

#[tokio::test(start_paused = true)]
async fn copies_are_not_offered() {
    let world = World::new();
    let node = world.node().await;
    let mut bob = node.bob().await;
    bob.word().await;
    let first = world.message("bob", "a");
    world.put_as("bob", crate::world::said("bob", "a"), 1);
    let second = world.message("bob", "b");
    assert_eq!(bob.words(2).await, [format!("entry {first}"), format!("entry {second}")]);
}
