//! Messages by `POST /v1/messages`, and what devices' connections append.

use std::{future::Future as _, time::Duration};

use serde_json::{Value, json};
use waypost_ingest::{
    admission::{Limits, Report, Sender, report},
    appender::Error,
    code::Code,
    uplink::Uplink,
};
use waypost_runtime::{
    broker::{Outgoing, memory::Cluster},
    config,
};
use waypost_schemas::{
    client_id::ClientId,
    codec,
    event::{AckKind, EntriesAcknowledged, Event, MessageSent},
    id::{ConversationId, DeviceId, DeviceName, UserId},
    partition,
    topic::{Topic, TopicPartition},
};

use crate::node::{Node, PARTITIONS, fixes, settings};

const SEND: (reqwest::Method, &str) = (reqwest::Method::POST, "/v1/messages");

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

/// A message of the node's now to `to`.
fn body(node: &Node, random: u128, members: &str) -> String {
    format!(r#"{{"id":"{}",{members}}}"#, ClientId::new(node.clock.now(), random))
}

fn message(from: &str, to: &str, body: &str) -> MessageSent {
    MessageSent {
        conversation: ConversationId::direct(&user(from), &user(to)),
        sender: user(from),
        device: DeviceName::new("phone").unwrap(),
        client_id: "019b7600-0000-7000-8000-000000000001".into(),
        settled: None,
        content_type: "text/plain".into(),
        body: body.into(),
        reply_to: None,
        registry: -1,
    }
}

fn ack(of: &str, kind: AckKind, upto: i64) -> EntriesAcknowledged {
    let (user, device) = (user(of), DeviceName::new("phone").unwrap());
    EntriesAcknowledged { user, device, session: "s-1".into(), kind, upto, registry: -1 }
}

/// Appends entries to a user's inbox; what they say does not matter here.
fn fill_inbox(cluster: &Cluster, of: &str, entries: usize) {
    let to = TopicPartition::new(Topic::Inboxes, partition::of(of.as_bytes(), PARTITIONS));
    for _ in 0..entries {
        cluster.append(Outgoing { to, key: None, value: None, headers: Vec::new() }).unwrap();
    }
}

/// The ids under which a topic's records stand.
fn ce_ids(cluster: &Cluster, topic: Topic) -> Vec<String> {
    let partitions = (0..PARTITIONS).map(|p| TopicPartition::new(topic, p));
    let records = partitions.flat_map(|p| cluster.records(p));
    records.map(|r| String::from_utf8(r.header("ce_id").unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_message_that_is_accepted_is_in_the_log_under_an_id_that_a_resend_repeats() {
    let node = Node::start().await;
    let rule = r#"{"on":["enter"],"zones":"all","subjects":"all","notify":["warden"]}"#;
    node.put("/v1/rules/r", rule).await.ok();
    let text = body(&node, 7, r#""to":"alice","body":"gr\u00fc\u00df dich","reply_to":3"#);
    for _ in 0..2 {
        let accepted = node.call(SEND.0, SEND.1, &node.device, text.clone()).await.ok();
        let place = node.log(Topic::Messages).last().unwrap().0.clone();
        let id = ClientId::new(node.clock.now(), 7).to_string();
        assert_eq!(accepted, json!({"type": "accepted", "id": id, "positions": [place]}));
    }
    let log = node.log(Topic::Messages);
    let (_, key, Event::MessageSent(said)) = &log[0] else { panic!("{log:?}") };
    assert_eq!((key.as_str(), said.sender.as_str(), said.device.as_str()), ("alice~depot", "depot", "van-7"));
    assert_eq!((said.registry, said.reply_to, &said.body[..]), (0, Some(3), "grüß dich".as_bytes()));
    let ids = ce_ids(&node.cluster, Topic::Messages);
    assert_eq!(ids, vec![format!("depot/van-7/{}", said.client_id); 2]);
    let record = &node
        .cluster
        .records(TopicPartition::new(Topic::Messages, partition::of(key.as_bytes(), PARTITIONS)))[0];
    let header = |name| record.header(name).map(|v| std::str::from_utf8(v).unwrap());
    assert_eq!(header("ce_type"), Some("waypost.MessageSent"));
    assert_eq!(
        (header("ce_source"), header("ce_time")),
        (Some("/waypost/ingest"), Some("2026-07-01T12:00:00Z"))
    );
    assert_eq!((header("ce_specversion"), header("content-type")), (Some("1.0"), Some("application/avro")));
}

#[tokio::test]
async fn bad_messages_are_refused_with_their_code_and_nothing_is_appended() {
    let node = Node::start().await;
    let mut late = node.clock.now();
    late.0 -= 7 * 24 * waypost_schemas::time::Micros::HOUR;
    let old = format!(r#"{{"id":"{}","to":"alice","body":"x"}}"#, ClientId::new(late, 0));
    for (text, status, code) in [
        ("{".to_owned(), 400, "bad_json"),
        (body(&node, 1, r#""to":"alice","body":NaN"#), 400, "bad_json"),
        (body(&node, 1, r#""to":"alice","body":"x","type":"send""#), 400, "bad_field"),
        (body(&node, 1, r#""to":"alice","body":"x","sender":"alice""#), 400, "bad_field"),
        (r#"{"id":"1","to":"alice","body":"x"}"#.to_owned(), 422, "bad_client_id"),
        (old, 422, "clock"),
        (body(&node, 1, r#""to":"alice","body":"x","settled":"1""#), 422, "bad_settled"),
        (body(&node, 1, r#""body":"x""#), 422, "bad_recipient"),
        (body(&node, 1, r#""conversation":"alice~bob","body":"x""#), 403, "not_a_member"),
        (body(&node, 1, r#""to":"alice","body":"x","content_type":"x""#), 422, "bad_media_type"),
        (body(&node, 1, r#""to":"alice","body":"""#), 422, "empty_body"),
        (
            body(&node, 1, &format!(r#""to":"alice","body":"{}""#, "x".repeat(65_537))),
            413,
            "message_too_large",
        ),
        (" ".repeat((1 << 20) + 1), 413, "body_too_large"),
    ] {
        let refused = node.call(SEND.0, SEND.1, &node.device, text).await;
        let (was, refused_with, _) = refused.problem();
        assert_eq!((was, refused_with), (status, code));
        let time = (code == "clock").then(|| Value::from("2026-07-01T12:00:00Z"));
        assert_eq!(refused.body.get("time"), time.as_ref(), "{code}");
    }
    assert_eq!(node.log(Topic::Messages), []);
}

#[tokio::test]
async fn nobody_writes_as_another_and_no_forged_token_writes() {
    let node = Node::start().await;
    let text = body(&node, 1, r#""to":"alice","body":"x""#);
    let operator = node.call(SEND.0, SEND.1, &node.operator, text.clone()).await;
    operator.ok();
    assert_eq!(node.log(Topic::Messages)[0].1, "alice~warden", "an operator writes as himself");

    for (token, code) in node.forged() {
        let refused = node.call(SEND.0, SEND.1, &token, text.clone()).await;
        assert_eq!((refused.problem().0, refused.problem().1), (401, code), "{token}");
    }
    node.clock.advance(Duration::from_hours(25));
    assert_eq!(node.call(SEND.0, SEND.1, &node.device, text.clone()).await.problem().1, "token_expired");
    assert_eq!(node.call(SEND.0, SEND.1, "", text).await.problem().0, 401);
    assert_eq!(node.log(Topic::Messages).len(), 1);
}

#[tokio::test]
async fn what_a_connection_appends_is_stamped_and_in_the_log() {
    let node = Node::start().await;
    let rule = r#"{"on":["enter"],"zones":"all","subjects":"all","notify":["warden"]}"#;
    node.put("/v1/rules/r", rule).await.ok();
    let uplink = node.ingest.uplink();
    let said = uplink.append_message(message("alice", "bob", "hallo")).await.unwrap();
    let fixes = uplink.append_report(a_report(&node)).await.unwrap();
    fill_inbox(&node.cluster, "bob", 3);
    let mut acked = Vec::new();
    for (kind, upto) in
        [(AckKind::Start, -1), (AckKind::Delivered, 2), (AckKind::Delivered, 2), (AckKind::Read, 0)]
    {
        acked.extend(uplink.acknowledge(ack("bob", kind, upto)).await.unwrap());
    }
    for (topic, positions) in [(Topic::Messages, said), (Topic::Positions, fixes), (Topic::Acks, acked)] {
        let log = node.log(topic);
        let places: Vec<_> = log.iter().map(|(place, ..)| place.clone()).collect();
        assert_eq!(places, positions.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(log.iter().all(|(.., event)| event.registry() == Some(0)), "{log:?}");
    }
    assert_eq!(
        ce_ids(&node.cluster, Topic::Acks),
        [
            "bob/phone/s-1/start/-1",
            "bob/phone/s-1/delivered/2",
            "bob/phone/s-1/delivered/2",
            "bob/phone/s-1/read/0"
        ]
    );
    assert!(node.log(Topic::Acks).iter().all(|(_, key, _)| key == "bob"));
}

fn a_report(node: &Node) -> Report {
    let device = DeviceId::new("depot/van-7").unwrap();
    let sender = Sender { device: &device, operator: false };
    report(fixes(&[46.1, 46.2]).as_bytes(), sender, &Limits::default(), node.clock.now()).unwrap()
}

#[tokio::test]
async fn an_acknowledgement_beyond_the_inboxs_end_is_refused_until_the_entry_is_there() {
    let node = Node::start().await;
    let uplink = node.ingest.uplink();
    let check = async |upto, end: Option<i64>| {
        let answer = uplink.acknowledge(ack("bob", AckKind::Delivered, upto)).await;
        assert_eq!(answer.err(), end.map(|end| Error::AckBeyondEnd { upto, end }), "{upto}");
    };
    check(0, Some(0)).await;
    fill_inbox(&node.cluster, "bob", 1);
    check(0, None).await;
    check(1, Some(1)).await;
    check(i64::MAX, Some(1)).await;
    fill_inbox(&node.cluster, "bob", 2);
    check(2, None).await;
    check(3, Some(3)).await;
    assert_eq!(node.log(Topic::Acks).len(), 2);

    let error = uplink.acknowledge(ack("bob", AckKind::Read, 3)).await.unwrap_err();
    let told = serde_json::to_value(error.frame(None)).unwrap();
    assert_eq!(
        told,
        json!({"type": "refused", "code": "ack_beyond_end", "detail": "upto is 3, and the inbox ends before 3"})
    );
}

#[tokio::test]
async fn an_end_that_is_known_is_not_asked_for_and_one_that_is_not_waits_for_the_broker() {
    let node = Node::start().await;
    let uplink = node.ingest.uplink();
    fill_inbox(&node.cluster, "bob", 5);
    node.cluster.set_away(true);
    // The log is away, so that what could be asked stays unanswered.
    assert_eq!(uplink.acknowledge(ack("bob", AckKind::Delivered, 4)).await, Err(Error::Unavailable));
    uplink.inbox_reaches(partition::of(b"bob", PARTITIONS), 4);
    uplink.inbox_reaches(partition::of(b"bob", PARTITIONS), 2);
    let line = uplink.queue_ack(ack("bob", AckKind::Delivered, 3)).await.unwrap();
    assert_eq!(uplink.acknowledge(ack("bob", AckKind::Delivered, 4)).await, Err(Error::Unavailable));
    node.cluster.set_away(false);
    assert_eq!(line.await.unwrap().len(), 1);
    // Many at once share the answers.
    let acks = (0..100).map(|upto| {
        let uplink = uplink.clone();
        async move { uplink.acknowledge(ack("bob", AckKind::Delivered, upto)).await.is_ok() }
    });
    let taken = futures_util::future::join_all(acks).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 5);
}

#[tokio::test]
async fn while_the_log_is_away_appends_say_so_and_what_was_sent_lands_when_it_is_back() {
    let node = Node::start().await;
    let uplink = node.ingest.uplink();
    node.cluster.set_away(true);
    let error = uplink.append_message(message("alice", "bob", "hallo")).await.unwrap_err();
    assert_eq!((error.row().code, error.retry_after_s()), (Code::LogUnavailable.as_str(), Some(1)));
    let told = serde_json::to_value(error.frame(Some("7".into()))).unwrap();
    assert_eq!(
        (&told["id"], &told["code"], &told["retry_after"]),
        (&json!("7"), &json!("log_unavailable"), &json!(1))
    );
    assert_eq!(uplink.append_report(a_report(&node)).await, Err(Error::Unavailable));
    assert_eq!(node.log(Topic::Messages).len(), 0);
    node.cluster.set_away(false);
    node.until("landed", |node| {
        node.log(Topic::Messages).len() == 1 && node.log(Topic::Positions).len() == 2
    })
    .await;
    uplink.append_message(message("alice", "bob", "hallo")).await.unwrap();
}

#[tokio::test]
async fn messages_that_are_put_in_line_keep_their_order_and_are_accepted_when_the_log_has_them() {
    let node = Node::start().await;
    let uplink = node.ingest.uplink();
    node.cluster.set_held("ingest", true);
    let mut line = Vec::new();
    for n in 0..50 {
        line.push(uplink.queue_message(message("alice", "bob", &n.to_string())).await.unwrap());
    }
    let mut first = std::pin::pin!(line.remove(0));
    let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
    assert!(waits, "nothing is accepted before the log has it");
    node.cluster.set_held("ingest", false);
    assert_eq!(first.await.unwrap()[0].offset, 0);
    for (n, appending) in line.into_iter().enumerate() {
        assert_eq!(appending.await.unwrap()[0].offset, n as i64 + 1);
    }
    let said = node.log(Topic::Messages).into_iter().map(|(.., event)| match event {
        Event::MessageSent(said) => String::from_utf8(said.body).unwrap(),
        event => panic!("{event:?}"),
    });
    assert_eq!(said.collect::<Vec<_>>(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_wait_for_the_log_than_may_and_who_finds_no_place_is_told_to_come_again() {
    let settings = config::Ingest { appends_in_flight_max: 2, ..settings() };
    let node = Node::start_on(Cluster::new(PARTITIONS), "ingest", settings).await;
    node.until("ready", |node| node.health.is_ready()).await;
    let uplink: Uplink = node.ingest.uplink();
    node.cluster.set_held("ingest", true);
    let one = uplink.queue_message(message("alice", "bob", "1")).await.unwrap();
    let two = uplink.queue_message(message("alice", "bob", "2")).await.unwrap();
    let error = uplink.append_message(message("alice", "bob", "3")).await.unwrap_err();
    assert_eq!((error.row().code, error.retry_after_s()), ("overloaded", Some(1)));
    // A place is free again as soon as its holder gives up.
    drop(two);
    let four = uplink.queue_message(message("alice", "bob", "4")).await.unwrap();
    node.cluster.set_held("ingest", false);
    assert_eq!(one.await.unwrap()[0].offset, 0);
    assert_eq!(four.await.unwrap()[0].offset, 2);
}

#[tokio::test]
async fn before_the_registry_was_read_nothing_is_stamped() {
    let cluster = Cluster::new(PARTITIONS);
    cluster.set_away(true);
    let node = Node::start_on(cluster, "ingest", settings()).await;
    let uplink = node.ingest.uplink();
    let error = uplink.append_message(message("alice", "bob", "x")).await.unwrap_err();
    assert_eq!((&error, error.row().code), (&Error::RegistryBehind, Code::RegistryBehind.as_str()));
    assert_eq!(uplink.acknowledge(ack("bob", AckKind::Start, -1)).await, Err(Error::RegistryBehind));
    let text = body(&node, 1, r#""to":"alice","body":"x""#);
    let refused = node.call(SEND.0, SEND.1, &node.device, text).await;
    assert_eq!(refused.problem().1, Code::RegistryBehind.as_str());
}

#[test]
fn a_message_of_the_largest_body_fits_its_topic() {
    let largest = message("alice", "bob", &"x".repeat(131_072));
    assert!(codec::encode(&largest.into()).len() < Topic::Messages.spec().message_bytes_max as usize / 2);
}
