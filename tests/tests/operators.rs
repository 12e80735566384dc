//! The ways past what stops a stack for good, as the commands' help tells them, on real Kafka and Postgres.

use std::sync::Arc;

use serde_json::Value;
use waypost_e2e::stack::{Stack, alone};
use waypost_runtime::broker::{Broker, Outgoing, Producer, kafka};
use waypost_schemas::{
    cause::{Cause, Position, Seq},
    codec,
    event::{Entry, EntryAdded, Event, SystemNotice},
    header,
    id::UserId,
    partition,
    time::Micros,
    topic::{Topic, TopicPartition},
};

/// How many partitions a stack's keyed topics have where nothing else is said.
const PARTITIONS: i32 = 16;

fn send(stack: &Stack, body: &str) -> String {
    let sent = stack.waypost(&["send", "--from", "alice", "--to", "bob", body]).unwrap();
    sent.trim().to_owned()
}

/// What a new device of bob finds in his inbox: the bodies of messages, and the codes of notices.
fn inbox(stack: &Stack, device: &str, count: &str) -> Vec<String> {
    let tail = ["tail", "--user", "bob", "--device", device, "--json", "--for", "1m", "--count", count];
    let printed = stack.waypost(&tail).unwrap();
    let entries = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.map(|e| e["body"].as_str().or(e["code"].as_str()).unwrap().to_owned()).collect()
}

/// Puts an entry into bob's inbox whose number says that two before it are missing.
fn leave_a_hole(stack: &Stack) {
    let bob = UserId::new("bob").unwrap();
    let to = TopicPartition::new(Topic::Inboxes, partition::of(b"bob", PARTITIONS));
    // Of a partition of which no conversation has written there.
    let conversation = partition::of(b"alice~bob", PARTITIONS);
    let from = (conversation + 1) % PARTITIONS;
    let notice = SystemNotice { code: "odd".to_owned(), client_id: None, detail: "odd".to_owned() };
    let event = Event::from(EntryAdded { user: bob, entry: Entry::SystemNotice(notice) });
    let position = Position { topic: Topic::Messages, partition: from, offset: 0 };
    let seq = Seq { machine: "conversations".into(), partition: from, number: 3 };
    let headers = header::derived(&event, Cause { position, ordinal: 0 }, &seq, Micros(0), None);
    let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let record = Outgoing { to, key: Some("bob".into()), value: Some(codec::encode(&event).into()), headers };
    let bootstrap = stack.json().unwrap()["kafka"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker: Arc<dyn Broker> =
            Arc::new(kafka::Broker::connect(kafka::Config::new(bootstrap)).unwrap());
        let producer: Arc<dyn Producer> = broker.producer().unwrap();
        producer.send(vec![record]).await.unwrap().await.unwrap();
    });
}

#[test]
fn a_stack_that_stops_at_a_hole_goes_on_once_an_operator_accepts_it() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    send(&stack, "before");
    assert_eq!(inbox(&stack, "first", "1"), ["before"]);
    leave_a_hole(&stack);
    up.ended().unwrap_err();
    let log = up.log();
    let (_, told) = log.split_once("waypost holes accept ").unwrap_or_else(|| panic!("{log}"));
    let place = told.split_whitespace().next().unwrap();

    let mut ingest = stack.up(&["--only", "ingest"]).unwrap();
    stack.waypost(&["holes", "accept", place]).unwrap();
    assert!(stack.waypost(&["holes", "list"]).unwrap().contains(place));
    ingest.stop().unwrap();
    let mut up = stack.up(&[]).unwrap();
    send(&stack, "after");
    assert_eq!(inbox(&stack, "second", "3"), ["before", "odd", "after"]);
    stack.waypost(&["wait", "--idle", "--timeout", "1m"]).unwrap();
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}

#[test]
fn a_record_that_an_operator_skips_is_never_folded_and_those_after_it_are() {
    let _alone = alone();
    let mut stack = Stack::new().unwrap();
    let mut up = stack.up(&[]).unwrap();
    let first = send(&stack, "first");
    assert_eq!(inbox(&stack, "first", "1"), ["first"]);
    up.stop().unwrap();
    let mut ingest = stack.up(&["--only", "ingest"]).unwrap();
    let killing = send(&stack, "killing");
    let skip = |record: &str| stack.waypost(&["records", "skip", "--machine", "conversations", record]);
    let folded = skip(&first).unwrap_err().to_string();
    assert!(folded.contains("already_folded"), "{folded}");
    skip(&killing).unwrap();
    assert!(stack.waypost(&["records", "list"]).unwrap().contains(&killing));
    ingest.stop().unwrap();
    let mut up = stack.up(&[]).unwrap();
    send(&stack, "next");
    assert_eq!(inbox(&stack, "second", "2"), ["first", "next"]);
    stack.waypost(&["wait", "--idle", "--timeout", "1m"]).unwrap();
    up.stop().unwrap();
    assert_eq!(up.errors(), [""; 0]);
}
