//! Single connections on real Kafka and Postgres: one that is cut, or dead without knowing it, loses nothing.

use std::{thread::sleep, time::Duration};

use serde_json::{Value, json};
use waypost_e2e::{
    input::Input,
    link::Link,
    socket::Socket,
    stack::{Stack, alone, free_address, get, metric, path, signal},
    tail::{as_rows, bodies, entries, until},
};

/// How often a tail is killed at least, and at most until it has printed all.
const KILLS_MIN: usize = 6;
const KILLS_MAX: usize = 100;

fn send(stack: &Stack, body: &str) {
    stack.waypost(&["send", "--from", "alice", "--to", "bob", body]).unwrap();
}

#[test]
fn each_match_is_printed_once_though_the_tail_and_its_node_are_killed_again_and_again() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&["--only", "ingest", "--only", "processor"]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    let listen = free_address().unwrap();
    let url = format!("http://{listen}");
    let node_args = ["--only", "ingest", "--only", "delivery", "--listen", &listen];
    let mut node = stack.join(&node_args).unwrap();
    let mut importing = stack.begin(&["import", path(&input.fixes)]).unwrap();
    let tail = ["tail", "--user", "warden", "--json"];
    let mut seen: Vec<Value> = Vec::new();
    let mut kills = 0;
    while seen.len() < input.expected.len() || kills < KILLS_MIN {
        assert!(kills < KILLS_MAX, "{} of {} came", seen.len(), input.expected.len());
        until("the node is ready", || get(&url, "/readyz").is_ok());
        let mut phone = stack.begin_of(&url, &tail).unwrap();
        // Faults at some moment of the work: how far it is then is not asked.
        sleep(Duration::from_secs(1));
        if kills % 2 == 0 {
            node.kill().unwrap();
            node = stack.join(&node_args).unwrap();
            sleep(Duration::from_secs(1));
        }
        phone.kill().unwrap();
        kills += 1;
        let mut more = entries(&phone);
        // Killed between the print and the note of it, a tail prints that one entry again.
        if more.first().is_some_and(|entry| seen.last() == Some(entry)) {
            more.remove(0);
        }
        seen.extend(more);
    }
    importing.ended().unwrap();
    stack.waypost(&["wait", "--idle", "--timeout", "2m"]).unwrap();
    until("the node is ready", || get(&url, "/readyz").is_ok());
    let mut rest = stack.begin_of(&url, &[&tail[..], &["--for", "2s"]].concat()).unwrap();
    rest.ended().unwrap();
    assert_eq!(entries(&rest), [Value::Null; 0]);
    assert_eq!(as_rows(&seen).unwrap(), input.expected);
    node.stop().unwrap();
    up.stop().unwrap();
    assert_eq!((up.errors(), node.errors()), (Vec::new(), Vec::new()));
}

#[test]
fn an_entry_is_offered_on_every_connection_to_any_node_until_it_is_acknowledged() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let other = free_address().unwrap();
    let mut second = stack.part("delivery", 2, &other).unwrap();
    let nodes = [stack.url().unwrap(), format!("http://{other}")];
    until("the second node is ready", || get(&nodes[1], "/readyz").is_ok());
    let (alice, bob) = (stack.token("alice", "phone").unwrap(), stack.token("bob", "phone").unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut alice = Socket::open(&nodes[1], &alice, json!({"from": "new"})).await.unwrap();
        alice.hear_of("caught_up").await.unwrap();
        send(&stack, "hold on");
        let hello = json!({"from": "start"});
        let mut cut = Socket::open(&nodes[0], &bob, hello.clone()).await.unwrap();
        let entry = cut.hear_of("entry").await.unwrap();
        assert_eq!(entry["body"], "hold on");
        drop(cut);
        let mut left = Socket::open(&nodes[1], &bob, hello.clone()).await.unwrap();
        assert_eq!(left.hear_of("entry").await.unwrap(), entry, "cut before the acknowledgement");
        let mut newest = Socket::open(&nodes[0], &bob, hello.clone()).await.unwrap();
        assert_eq!(
            newest.hear_of("entry").await.unwrap(),
            entry,
            "connected anew before the acknowledgement"
        );
        newest.say(&json!({"type": "ack", "upto": entry["offset"]})).await.unwrap();
        assert_eq!(left.hear_of("goodbye").await.unwrap()["code"], "replaced", "on another node, by the ack");
        assert_eq!(alice.hear_of("entry").await.unwrap()["kind"], "message");
        let receipt = alice.hear_of("entry").await.unwrap();
        assert_eq!((&receipt["kind"], &receipt["upto"]), (&json!("delivered"), &entry["number"]));
        drop(newest);
        for node in &nodes {
            let mut again = Socket::open(node, &bob, hello.clone()).await.unwrap();
            assert_eq!(again.hear().await.unwrap()["cursor"], entry["offset"], "the welcome of {node}");
            assert_eq!(again.hear().await.unwrap()["type"], "caught_up", "what is acknowledged stays away");
        }
    });
    for process in [&mut second, &mut up] {
        process.stop().unwrap();
        assert_eq!(process.errors(), [""; 0]);
    }
}

#[test]
fn a_node_that_sleeps_while_its_phone_moves_on_repeats_nothing_and_forgets_nothing() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let other = free_address().unwrap();
    let mut sleeper = stack.part("delivery", 2, &other).unwrap();
    let (awake, asleep) = (stack.url().unwrap(), format!("http://{other}"));
    until("the second node is ready", || get(&asleep, "/readyz").is_ok());
    let token = stack.token("bob", "phone").unwrap();
    send(&stack, "before");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut old = Socket::open(&asleep, &token, json!({"from": "start"})).await.unwrap();
        let log = old.hear_of("welcome").await.unwrap()["log"].clone();
        let before = old.hear_of("entry").await.unwrap();
        // Whether the node hears of it before it falls asleep is not asked.
        old.say(&json!({"type": "ack", "upto": before["offset"]})).await.unwrap();
        signal(sleeper.pid(), "STOP").unwrap();
        send(&stack, "meanwhile");
        let hello = json!({"from": "resume", "offset": before["offset"], "log": log});
        let mut new = Socket::open(&awake, &token, hello).await.unwrap();
        let meanwhile = new.hear_of("entry").await.unwrap();
        assert_eq!(meanwhile["body"], "meanwhile", "and nothing before it");
        new.say(&json!({"type": "ack", "upto": meanwhile["offset"]})).await.unwrap();
        // Longer than a member of a group may be silent.
        sleep(Duration::from_secs(8));
        signal(sleeper.pid(), "CONT").unwrap();
        assert_eq!(
            old.hear_of("goodbye").await.unwrap()["code"],
            "replaced",
            "it learns what it slept through"
        );
        send(&stack, "after");
        let after = new.hear_of("entry").await.unwrap();
        assert_eq!(after["body"], "after");
        new.say(&json!({"type": "ack", "upto": after["offset"]})).await.unwrap();
        new.say(&json!({"type": "ping"})).await.unwrap();
        assert_eq!(new.hear_of("pong").await.unwrap(), json!({"type": "pong"}), "it is not replaced in turn");
        until("V of the last", || {
            let told = stack.waypost(&["tail", "--user", "alice", "--json", "--for", "1s"]).unwrap();
            let told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            told.into_iter().any(|told| told["kind"] == "delivered" && told["upto"] == after["number"])
        });
        drop(new);
        let mut again = Socket::open(&asleep, &token, json!({})).await.unwrap();
        assert_eq!(again.hear().await.unwrap()["cursor"], after["offset"]);
        assert_eq!(again.hear().await.unwrap()["type"], "caught_up", "nothing is offered again");
    });
    for process in [&mut sleeper, &mut up] {
        process.stop().unwrap();
        assert_eq!(process.errors(), [""; 0]);
    }
}

#[test]
fn what_a_dead_connection_swallows_is_offered_again_once_the_device_is_back() {
    let _alone = alone();
    let link = match Link::new() {
        Ok(link) => link,
        Err(error) => {
            eprintln!("skipped: no network that can be cut: {error}");
            return;
        }
    };
    let mut stack = Stack::new().unwrap();
    let listen = format!("{}:0", link.here());
    let mut up = stack.up(&["--listen", &listen, "--set", "delivery.ack_timeout_ms=2000"]).unwrap();
    let url = stack.url().unwrap();
    let sessions = || metric(&url, "waypost_delivery_sessions").unwrap();
    let timeouts = || metric(&url, "waypost_delivery_goodbyes_total{code=\"ack_timeout\"}").unwrap();
    let tail = ["tail", "--user", "bob", "--device", "phone", "--json"];
    let mut phone = stack.begin_beyond(&link, &tail).unwrap();
    send(&stack, "heard");
    until("the phone hears", || bodies(&phone) == ["heard"]);

    // The phone dies out there, and nobody is told.
    link.cut().unwrap();
    send(&stack, "swallowed");
    until("the dead connection is let go", || sessions() < 1.0);
    assert!((timeouts() - 1.0).abs() < 0.1, "by its silence: {}", get(&url, "/metrics").unwrap());
    phone.kill().unwrap();
    link.mend().unwrap();
    let mut phone = stack.begin_beyond(&link, &tail).unwrap();
    until("it is offered again", || bodies(&phone) == ["swallowed"]);

    // The phone lives, and what was on its way may still come: it takes neither twice.
    link.cut().unwrap();
    send(&stack, "late");
    until("the dead connection is let go again", || timeouts() > 1.5 && sessions() < 1.0);
    assert!(phone.runs() && bodies(&phone) == ["swallowed"], "it does not know: {}", phone.log());
    link.mend().unwrap();
    send(&stack, "afterwards");
    until("it is back", || bodies(&phone).len() >= 3);
    assert_eq!(bodies(&phone), ["swallowed", "late", "afterwards"]);
    phone.stop().unwrap();
    let told = stack.waypost(&["tail", "--user", "alice", "--json", "--for", "3s"]).unwrap();
    let upto: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = |kind: &str, member: &str| {
        upto.iter().filter(|entry| entry["kind"] == kind).filter_map(|entry| entry[member].as_i64()).max()
    };
    assert_eq!(last("delivered", "upto"), last("message", "number"), "each with V: {told}");
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}
