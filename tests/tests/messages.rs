//! The way down on real Kafka and Postgres: what is in an inbox reaches its devices, once each and in order, whatever
//! is killed meanwhile; and what the devices acknowledge reaches who wrote it.

use std::{pin::pin, thread::sleep, time::Duration};

use serde_json::Value;
use tokio::sync::Barrier;
use waypost_e2e::{
    input::Input,
    phone::Phone,
    stack::{Process, Stack, alone, free_address, path, signal},
    tail::{LONG, as_rows, entries, until},
};

/// How long a user waits between two messages.
const BETWEEN: Duration = Duration::from_millis(40);
/// How often something is killed.
const KILL_EVERY: Duration = Duration::from_secs(3);
/// How long a chat may go on after the last kill.
const CHAT_MAX: Duration = Duration::from_mins(5);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
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
    until("an entry is printed", || !entries(&second).is_empty());
    up.kill().unwrap();
    let mut up = stack.up(&["--listen", &port]).unwrap();
    importing.ended().unwrap();
    second.ended().unwrap();
    assert_eq!(as_rows(&[entries(&first), entries(&second)].concat()).unwrap(), input.expected);
    // Nothing is left for the device, and all of it for another one.
    let mut third =
        stack.begin(&["tail", "--user", "warden", "--device", "phone", "--json", "--for", "2s"]).unwrap();
    third.ended().unwrap();
    assert_eq!(entries(&third), [Value::Null; 0]);
    let mut other = ["tail", "--user", "warden", "--device", "desk", "--json", "--for", "1m", "--count", ""];
    let count = all.to_string();
    other[9] = &count;
    let mut other = stack.begin(&other).unwrap();
    other.ended().unwrap();
    assert_eq!(as_rows(&entries(&other)).unwrap(), input.expected);
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

/// What runs as processes of their own, and is killed in turn.
struct Node {
    part: &'static str,
    instance: u32,
    listen: String,
    process: Process,
}

impl Node {
    fn start(stack: &mut Stack, part: &'static str, instance: u32) -> Self {
        let listen = free_address().unwrap();
        let process = stack.part(part, instance, &listen).unwrap();
        Self { part, instance, listen, process }
    }

    fn kill(&mut self, stack: &mut Stack) {
        self.process.kill().unwrap();
        self.process = stack.part(self.part, self.instance, &self.listen).unwrap();
    }

    fn url(&self) -> String {
        format!("http://{}", self.listen)
    }
}

/// Has two users write `count` numbered messages each to the other, one after another, until each has all of both and
/// V for the last of its own.
async fn chat(mut phones: [&mut Phone; 2], count: usize) -> anyhow::Result<()> {
    let [alice, bob] = &mut phones;
    let both = Barrier::new(2);
    tokio::try_join!(
        chats(alice, ("alice", "bob"), count, &both),
        chats(bob, ("bob", "alice"), count, &both)
    )?;
    Ok(())
}

async fn chats(
    phone: &mut Phone,
    (user, other): (&str, &str),
    count: usize,
    both: &Barrier,
) -> anyhow::Result<()> {
    let mut pause = tokio::time::interval(BETWEEN);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent = 0;
    while !has_all(phone, user, other, count) {
        tokio::select! {
            step = phone.step() => step?,
            _ = pause.tick(), if sent < count => {
                phone.send(other, format!("{user} {sent}"))?;
                sent += 1;
            }
        }
    }
    // The other may still wait for an acknowledgement.
    let mut both = pin!(both.wait());
    loop {
        tokio::select! {
            step = phone.step() => step?,
            _ = &mut both => return Ok(()),
        }
    }
}

fn has_all(phone: &Phone, user: &str, other: &str, count: usize) -> bool {
    let own = phone.entries.iter().rfind(|e| e.kind == "message" && e.text("sender") == Some(user));
    let last = own.and_then(|entry| entry.content["number"].as_i64());
    phone.bodies(user).len() >= count
        && phone.bodies(other).len() >= count
        && phone.unanswered() == 0
        && last.is_some_and(|last| phone.marked("delivered") >= last)
}

/// Has two users write `count` messages each to the other while everything is killed in turn, so many times.
fn chat_under_kills(count: usize, kills: usize) {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let port = free_address().unwrap();
    let up_args = ["--only", "ingest", "--listen", &port];
    let mut up = stack.up(&up_args).unwrap();
    let parts = [("delivery", 1), ("delivery", 2), ("processor", 1), ("processor", 2), ("ingest", 2)];
    let mut nodes = parts.map(|(part, instance)| Node::start(&mut stack, part, instance));
    let (one, two) = (nodes[0].url(), nodes[1].url());
    let mut alice = Phone::new(&stack, "alice", "phone", vec![one.clone(), two.clone()]).unwrap();
    let mut bob = Phone::new(&stack, "bob", "phone", vec![two, one]).unwrap();
    let runtime = runtime();
    let chat = runtime.spawn(async move {
        chat([&mut alice, &mut bob], count).await?;
        anyhow::Ok((alice, bob))
    });
    for kill in 0..kills {
        sleep(KILL_EVERY);
        match kill {
            3 => signal(stack.pid_of("kafka").unwrap(), "KILL").unwrap(),
            // Postgres' own fast shutdown.
            6 => signal(stack.pid_of("postgres").unwrap(), "INT").unwrap(),
            9 => {
                up.kill().unwrap();
                up = stack.up(&up_args).unwrap();
            }
            _ => nodes[kill % parts.len()].kill(&mut stack),
        }
    }
    let under_way = !chat.is_finished();
    for _ in 0..CHAT_MAX.as_secs() {
        if chat.is_finished() {
            break;
        }
        sleep(Duration::from_secs(1));
    }
    assert!(chat.is_finished(), "the chat does not come to its end");
    let (alice, bob) = runtime.block_on(chat).unwrap().unwrap();
    eprintln!(
        "{kills} kills, the chat {} at the last; the phones came again {} and {} times",
        if under_way { "under way" } else { "over" },
        alice.lost(),
        bob.lost()
    );
    stack.waypost(&["wait", "--idle", "--timeout", "5m"]).unwrap();
    let url = nodes[0].url();
    let said = |user: &str| (0..count).map(|n| format!("{user} {n}")).collect::<Vec<_>>();
    for (mut phone, user, other) in [(alice, "alice", "bob"), (bob, "bob", "alice")] {
        assert_eq!(phone.bodies(other), said(other), "{user}'s phone has each once, in order");
        // What the inbox holds, as a device finds it that was never there.
        let mut desk = Phone::new(&stack, user, "desk", vec![url.clone()]).unwrap();
        let last = phone.entries.last().unwrap().offset;
        runtime.block_on(async {
            desk.until(LONG, |desk| desk.entries.last().is_some_and(|entry| entry.offset >= last))
                .await
                .unwrap();
        });
        assert_eq!(desk.bodies(other), said(other), "{user}'s inbox has each once, in order");
        assert_eq!(desk.bodies(user), said(user));
        let numbers: Vec<i64> =
            desk.entries.iter().filter_map(|e| e.content.get("number")?.as_i64()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() == 2 * count);
        let own = |e: &&waypost::device::Entry| e.text("sender") == Some(user);
        let last_own = desk.entries.iter().rfind(own).unwrap().content["number"].as_i64().unwrap();
        assert_eq!(desk.marked("delivered").max(last_own), desk.marked("delivered"), "each with V");
        let others: Vec<_> =
            desk.entries.iter().filter(|e| !["message", "delivered"].contains(&&*e.kind)).collect();
        assert!(others.is_empty(), "nothing else is in the inbox: {others:?}");
        phone.entries.clear();
        runtime.block_on(phone.close());
    }
    for node in &mut nodes {
        node.process.stop().unwrap();
        assert_eq!(node.process.errors(), [""; 0], "{} {}", node.part, node.instance);
    }
    up.stop().unwrap();
}

#[test]
fn two_users_miss_and_repeat_nothing_while_everything_is_killed_in_turn() {
    chat_under_kills(600, 14);
}

#[test]
#[ignore = "takes minutes; run it with -- --ignored"]
fn two_users_miss_and_repeat_none_of_ten_thousand_messages_while_everything_is_killed_in_turn() {
    chat_under_kills(5_000, 60);
}

#[test]
fn messages_between_connected_users_arrive_while_the_store_is_away_and_the_read_models_follow() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let url = stack.json().unwrap()["url"].as_str().unwrap().to_owned();
    let mut alice = Phone::new(&stack, "alice", "phone", vec![url.clone()]).unwrap();
    let mut bob = Phone::new(&stack, "bob", "phone", vec![url]).unwrap();
    let runtime = runtime();
    runtime.block_on(chat([&mut alice, &mut bob], 1)).unwrap();
    // Stopped, it answers nobody, and nothing starts it again.
    let postgres = stack.pid_of("postgres").unwrap();
    for pid in family(postgres) {
        signal(pid, "STOP").unwrap();
    }
    alice.entries.clear();
    bob.entries.clear();
    let chat = chat([&mut alice, &mut bob], 50);
    runtime.block_on(async { tokio::time::timeout(LONG, chat).await }).unwrap().unwrap();
    for pid in family(postgres) {
        signal(pid, "CONT").unwrap();
    }
    stack.waypost(&["wait", "--idle", "--timeout", "2m"]).unwrap();
    up.stop().unwrap();
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    std::iter::once(pid).chain(children).collect()
}
