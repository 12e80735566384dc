//! The way down on real Kafka and Postgres: what is in an inbox reaches its devices, once each and in order, whatever
//! is killed meanwhile; and what the devices acknowledge reaches who wrote it.

use std::{thread::sleep, time::Duration};

use serde_json::Value;
use waypost_e2e::{
    input::Input,
    phone::Phone,
    stack::{Process, Stack, alone, free_address, path, rows},
};

/// What a phone is waited for at most: a restart of everything, several times over.
const LONG: Duration = Duration::from_mins(2);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Waits for a state; fails where it does not come.
fn until(done: impl Fn() -> bool) {
    for _ in 0..LONG.as_millis() / LOOK.as_millis() {
        if done() {
            return;
        }
        sleep(LOOK);
    }
    panic!("what was waited for did not come");
}

/// The entries that a tail printed with `--json`.
fn printed(tail: &Process) -> Vec<Value> {
    let log = tail.log();
    log.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Matches as the rows of `waypost matches --format csv`, sorted.
fn as_rows(entries: &[Value]) -> Vec<String> {
    let mut csv = csv::Writer::from_writer(b"head\n".to_vec());
    for entry in entries {
        let fields = [&entry["device"], &entry["fix"]["at"], &entry["zone"], &entry["event"]];
        csv.write_record(fields.map(|field| field.as_str().unwrap())).unwrap();
    }
    rows(std::str::from_utf8(&csv.into_inner().unwrap()).unwrap())
}

#[test]
fn each_match_reaches_the_wardens_phone_once_though_it_stops_halfway_and_the_stack_is_killed() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let port = free_address().unwrap();
    let mut up = stack.up(&["--listen", &port]).unwrap();
    let input = Input::at_hand(&stack.beside("")).unwrap();
    input.prepare(&stack).unwrap();
    let mut importing = stack.begin(&["import", path(&input.fixes)]).unwrap();
    let all = input.expected.len();
    let (half, rest) = ((all / 2).to_string(), (all - all / 2).to_string());
    let tail = ["tail", "--user", "warden", "--device", "phone", "--json", "--for", "3m", "--count"];
    let mut first = stack.begin(&[&tail[..], &[&half]].concat()).unwrap();
    first.ended().unwrap();
    let mut second = stack.begin(&[&tail[..], &[&rest]].concat()).unwrap();
    until(|| !printed(&second).is_empty());
    up.kill().unwrap();
    let mut up = stack.up(&["--listen", &port]).unwrap();
    importing.ended().unwrap();
    second.ended().unwrap();
    assert_eq!(as_rows(&[printed(&first), printed(&second)].concat()), input.expected);
    // Nothing is left for the device, and all of it for another one.
    let mut third =
        stack.begin(&["tail", "--user", "warden", "--device", "phone", "--json", "--for", "2s"]).unwrap();
    third.ended().unwrap();
    assert_eq!(printed(&third), [Value::Null; 0]);
    let mut other = ["tail", "--user", "warden", "--device", "desk", "--json", "--for", "1m", "--count", ""];
    let count = all.to_string();
    other[9] = &count;
    let mut other = stack.begin(&other).unwrap();
    other.ended().unwrap();
    assert_eq!(as_rows(&printed(&other)), input.expected);
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

#[test]
fn a_message_waits_for_who_is_offline_and_its_sender_learns_of_delivery_and_reading() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let position = stack.waypost(&["send", "--from", "alice", "--to", "bob", "on my way"]).unwrap();
    assert!(position.starts_with("messages/"), "{position}");
    let url = stack.json().unwrap()["url"].as_str().unwrap().to_owned();
    let phone = |user, name| Phone::new(&stack, user, name, vec![url.clone()]).unwrap();
    runtime().block_on(async {
        let (mut alice, mut bob) = (phone("alice", "phone"), phone("bob", "phone"));
        alice.until(LONG, |alice| alice.bodies("alice") == ["on my way"]).await.unwrap();
        assert_eq!((alice.marked("delivered"), alice.marked("read")), (-1, -1), "nobody has it yet");
        bob.until(LONG, |bob| bob.bodies("alice") == ["on my way"]).await.unwrap();
        let (mut bob, mut alice) = (bob, alice);
        let meanwhile = async { while bob.step().await.is_ok() {} };
        tokio::select! {
            () = meanwhile => panic!("bob's phone ended"),
            told = alice.until(LONG, |alice| alice.marked("delivered") == 0) => told.unwrap(),
        }
        assert_eq!(alice.marked("read"), -1, "it is not read yet");
        bob.read_last();
        let meanwhile = async { while bob.step().await.is_ok() {} };
        tokio::select! {
            () = meanwhile => panic!("bob's phone ended"),
            told = alice.until(LONG, |alice| alice.marked("read") == 0) => told.unwrap(),
        }
        assert_eq!(bob.bodies("alice"), ["on my way"], "once");
        let mut tablet = phone("bob", "tablet");
        tablet.until(LONG, |tablet| tablet.bodies("alice") == ["on my way"]).await.unwrap();
    });
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}
