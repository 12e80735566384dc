//! What the routes answer.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use waypost_processor::{projector::Heads, reads};
use waypost_runtime::{
    auth::{Auth, Claims, Keys, Role},
    clock::Clock,
    http,
    lifecycle::Lifecycle,
    postgres::Pool,
};
use waypost_schemas::{
    event::{MessageSent, ReceiptKind},
    id::UserId,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::{
    postgres::{Postgres, settings},
    world::{KEYED, Running, World, after_s, day, entering, fix, saying, told, until, until_projected},
};

/// The routes, served; dropped, they end.
struct Served {
    url: String,
    auth: Auth,
    client: Client,
    _server: JoinSet<()>,
}

impl Served {
    async fn start(world: &World, pool: &Pool, heads: Heads) -> Self {
        let clock = Clock::manual(after_s(60));
        let keys = Keys::from_seed(&[7; 32], &settings().auth).unwrap();
        let auth = Auth { keys: Arc::new(keys), clock: clock.clone() };
        let broker = Arc::new(world.cluster.connect("reads"));
        let router =
            reads::router(reads::Reads::new(auth.clone(), pool.clone(), broker, heads, clock.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            http::serve(listener, router, http::Limits::default(), clock, Lifecycle::new()).await.unwrap();
        });
        Self { url, auth, client: Client::new(), _server: server }
    }

    /// Asks as a user; `op` is the operator.
    async fn get(&self, user: &str, path: &str) -> (StatusCode, Value) {
        let role = if user == "op" { Role::Operator } else { Role::Device };
        let claims = Claims { user: UserId::new(user).unwrap(), device: None, role };
        self.get_by(&self.auth.keys.mint(&claims, day()).unwrap().token, path).await
    }

    /// Asks by a token.
    async fn get_by(&self, token: &str, path: &str) -> (StatusCode, Value) {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(token);
        let response = request.timeout(Duration::from_secs(30)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn ok(&self, user: &str, path: &str) -> Value {
        let (status, body) = self.get(user, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// All items of a list, page by page.
    async fn all(&self, path: &str, items: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let mut page = self.ok("op", &format!("{path}{after}")).await;
            all.append(page[items].as_array_mut().unwrap());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
                None => return all,
            }
        }
    }
}

fn texts(items: &[Value], field: &str) -> Vec<String> {
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_device_is_and_was_can_be_asked_by_its_user_and_by_operators() {
    let Some(postgres) = Postgres::start() else { return };
    let (world, pool) = (World::new(), postgres.pool().await);
    for second in [3, 1, 2, 4] {
        world.report(&fix("ann/phone", second, 10.0, 50.0));
    }
    let mut other = fix("ann/phone", 2, 11.0, 50.0);
    other.attributes = [("fuel".to_owned(), "12".to_owned())].into();
    let conflict = world.report(&other);
    for device in ["ann/watch", "bob"] {
        world.report(&fix(device, 1, 10.0, 50.0));
    }
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    let served = Served::start(&world, &pool, running.heads.clone()).await;

    let here = served.ok("ann", "/v1/devices/ann%2Fphone/position").await;
    let partition = conflict.partition;
    assert_eq!(
        here,
        json!({
            "device": "ann/phone", "at": "2026-03-01T00:00:04Z", "lat": 50.0, "lon": 10.0, "accuracy_m": 4.5,
            "appended": "2026-03-01T00:00:00Z", "position": format!("positions/{partition}/3"),
        })
    );

    for limit in [1, 2, 3, 100] {
        let devices = served.all(&format!("/v1/devices?limit={limit}"), "devices").await;
        assert_eq!(texts(&devices, "device"), ["ann/phone", "ann/watch", "bob"], "{limit}");
        assert_eq!(devices[0], here);
    }

    let seconds = |fixes: &[Value]| -> Vec<(String, bool)> {
        let second = |fix: &Value| fix["at"].as_str().unwrap()[17..19].to_owned();
        fixes.iter().map(|fix| (second(fix), fix["conflict"] == true)).collect()
    };
    let is = |expected: &[(&str, bool)]| -> Vec<(String, bool)> {
        expected.iter().map(|(second, conflict)| ((*second).to_owned(), *conflict)).collect()
    };
    let all = [("01", false), ("02", false), ("02", true), ("03", false), ("04", false)];
    for limit in [1, 2, 3, 5, 100] {
        let path = format!("/v1/devices/ann%2Fphone/track?limit={limit}");
        assert_eq!(seconds(&served.all(&path, "fixes").await), is(&all), "{limit}");
    }
    let path = "/v1/devices/ann%2Fphone/track?from=2026-03-01T00:00:02Z&to=2026-03-01T00:00:04Z";
    let part = served.ok("ann", path).await;
    assert_eq!(seconds(part["fixes"].as_array().unwrap()), is(&all[1..4]));
    assert_eq!(part["fixes"][1]["attributes"], json!({"fuel": "12"}));

    for (user, path, status, code) in [
        ("ann", "/v1/devices", 403, "forbidden"),
        ("op", "/v1/devices?after=a%20b", 400, "bad_request"),
        ("bob", "/v1/devices/ann%2Fphone/position", 403, "forbidden"),
        ("bob", "/v1/devices/ann%2Fphone/track", 403, "forbidden"),
        ("eve", "/v1/devices/eve/position", 404, "not_found"),
        ("op", "/v1/devices/nobody/position", 404, "not_found"),
        ("op", "/v1/devices/a%20b/position", 400, "bad_request"),
        ("op", "/v1/devices/ann%2Fphone/track?limit=0", 400, "bad_request"),
        ("op", "/v1/devices/ann%2Fphone/track?limit=10001", 400, "bad_request"),
        ("op", "/v1/devices/ann%2Fphone/track?from=yesterday", 400, "bad_request"),
        ("op", "/v1/devices/ann%2Fphone/track?form=2026-03-01T00:00:02Z", 400, "bad_request"),
        ("op", "/v1/devices/ann%2Fphone/track?after=x", 400, "bad_request"),
        ("bob", "/v1/matches", 403, "forbidden"),
        ("bob", "/v1/status", 403, "forbidden"),
        ("op", "/v1/matches?after=1~2~3", 400, "bad_request"),
        ("op", "/v1/matches?rule=%20", 400, "bad_request"),
    ] {
        let (found, problem) = served.get(user, path).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &json!(code)), "{user} {path}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matches_come_in_the_order_of_their_fixes_whatever_the_page() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let fired = [
        ("bob", 2, "R"),
        ("ann/phone", 3, "S"),
        ("ann/phone", 1, "R"),
        ("bob", 1, "S"),
        ("ann/phone", 2, "R"),
    ];
    let mut positions = Vec::new();
    for (device, second, rule) in fired {
        let mut matched = entering(device, second, "A", rule);
        matched.parts = 2;
        positions.push(world.derive(Topic::Matches, 0, device, matched.clone()).to_string());
        // The second half of its audience is no second match.
        matched.part = 1;
        world.derive(Topic::Matches, 0, device, matched);
    }
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    let served = Served::start(&world, &pool, running.heads.clone()).await;
    for limit in [1, 2, 5, 100] {
        let all = served.all(&format!("/v1/matches?limit={limit}"), "matches").await;
        assert_eq!(texts(&all, "device"), ["ann/phone", "bob", "ann/phone", "bob", "ann/phone"], "{limit}");
        let of_rule = served.all(&format!("/v1/matches?rule=S&limit={limit}"), "matches").await;
        assert_eq!(texts(&of_rule, "device"), ["bob", "ann/phone"], "{limit}");
    }
    let first = &served.ok("op", "/v1/matches?limit=1").await["matches"][0];
    assert_eq!(first["position"], json!(positions[2]));
    let fields = ["at", "zone", "event", "rule", "rule_version", "initial", "lat", "lon"];
    assert_eq!(
        Value::Array(fields.map(|field| first[field].clone()).to_vec()),
        json!(["2026-03-01T00:00:01Z", "A", "enter", "R", 2, false, 50.0, 10.0])
    );
    assert!(first["cause"].as_str().unwrap().starts_with("positions/0/"), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_read_by_its_members_newest_first_with_its_marks() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let mut numbers = Vec::new();
    for (from, to, body) in [
        ("ann", "bob", &b"hallo"[..]),
        ("bob", "ann", b"\xff\x00"),
        ("bob", "ann", b"a\0b"),
        ("ann", "bob", b"bye"),
    ] {
        let message = MessageSent { reply_to: numbers.last().copied(), ..saying(from, to, body) };
        numbers.push(world.say(&message).offset);
    }
    world.say(&saying("ann", "ann", b"note"));
    world.receipt("bob", "ann", ReceiptKind::Delivered, numbers[3]);
    world.receipt("bob", "ann", ReceiptKind::Read, numbers[0]);
    world.receipt("ann", "bob", ReceiptKind::Delivered, numbers[1]);
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    let served = Served::start(&world, &pool, running.heads.clone()).await;

    let path = "/v1/conversations/ann~bob/messages";
    let page = served.ok("bob", path).await;
    assert_eq!(page, served.ok("ann", path).await);
    let message = |n: usize, from: &str, body: &str, delivered: &[&str], read: &[&str]| {
        json!({"number": numbers[n], "sender": from, "device": "phone", "at": "2026-03-01T00:00:00Z",
            "id": "019b7600-0000-7000-8000-000000000001", "content_type": "text/plain", "body": body,
            "reply_to": n.checked_sub(1).map(|n| numbers[n]), "delivered": delivered, "read": read})
    };
    let mut oldest = message(0, "ann", "hallo", &["bob"], &["bob"]);
    oldest.as_object_mut().unwrap().remove("reply_to");
    let mut bytes = message(1, "bob", "/wA=", &["ann"], &[]);
    bytes["base64"] = json!(true);
    let all = [message(3, "ann", "bye", &["bob"], &[]), message(2, "bob", "a\0b", &[], &[]), bytes, oldest];
    assert_eq!(page, json!({"messages": all, "next": null}));

    for limit in [1, 2, 3, 4, 5] {
        let (mut paged, mut before) = (Vec::new(), String::new());
        loop {
            let mut page = served.ok("ann", &format!("{path}?limit={limit}{before}")).await;
            paged.append(page["messages"].as_array_mut().unwrap());
            match page["next"].as_i64() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        assert_eq!(paged, all, "{limit}");
    }
    let notes = served.ok("ann", "/v1/conversations/ann~ann/messages").await;
    assert_eq!(notes["messages"].as_array().unwrap().len(), 1);
    let claims = Claims { user: UserId::new("ann").unwrap(), device: None, role: Role::Device };
    let good = served.auth.keys.mint(&claims, day()).unwrap().token;
    let parts: Vec<&str> = good.split('.').collect();
    let foreign = Keys::from_seed(&[8; 32], &settings().auth).unwrap().mint(&claims, day()).unwrap().token;
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let expired = served.auth.keys.mint(&claims, Micros(0)).unwrap().token;
    for (token, code) in [(foreign, "token_bad"), (unsigned, "token_bad"), (expired, "token_expired")] {
        let (found, problem) = served.get_by(&token, path).await;
        assert_eq!((found.as_u16(), &problem["code"]), (401, &json!(code)));
    }
    assert_eq!(served.get_by(&good, path).await.0, StatusCode::OK);

    let none = json!({"messages": [], "next": null});
    assert_eq!(served.ok("cid", "/v1/conversations/bob~cid/messages").await, none);
    assert_eq!(served.ok("ann", &format!("{path}?before={}", numbers[0])).await, none);

    for (user, path, status, code) in [
        ("cid", path, 403, "forbidden"),
        ("op", path, 403, "forbidden"),
        ("cid", "/v1/conversations/nobody~noone/messages", 403, "forbidden"),
        ("ann", "/v1/conversations/ann/messages", 400, "bad_request"),
        ("ann", "/v1/conversations/bob~ann/messages", 400, "bad_request"),
        ("ann", "/v1/conversations/ann~bob/messages?limit=0", 400, "bad_request"),
        ("ann", "/v1/conversations/ann~bob/messages?limit=1001", 400, "bad_request"),
        ("ann", "/v1/conversations/ann~bob/messages?before=x", 400, "bad_request"),
        ("ann", "/v1/conversations/ann~bob/messages?after=1", 400, "bad_request"),
    ] {
        let (found, problem) = served.get(user, path).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &json!(code)), "{user} {path}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_large_messages_ends_early_and_says_where_the_next_begins() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    for _ in 0..40 {
        world.say(&saying("ann", "bob", &vec![b'x'; 64 << 10]));
    }
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    let served = Served::start(&world, &pool, running.heads.clone()).await;
    let (mut pages, mut before) = (Vec::new(), i64::MAX);
    while pages.iter().sum::<usize>() < 40 {
        let page = served.ok("ann", &format!("/v1/conversations/ann~bob/messages?before={before}")).await;
        pages.push(page["messages"].as_array().unwrap().len());
        before = page["next"].as_i64().unwrap_or(-1);
    }
    assert_eq!((pages, before), (vec![16, 16, 8], -1));
}

fn partition_of(key: &str) -> i32 {
    waypost_schemas::partition::of(key.as_bytes(), KEYED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_who_lags_how_much_and_when_nothing_does() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let served = Served::start(&world, &pool, Heads::default()).await;
    let empty = served.ok("op", "/v1/status").await;
    assert_eq!(
        (&empty["idle"], &empty["freshness_ms"], &empty["connections"]),
        (&json!(true), &json!(0), &json!(1))
    );
    assert_eq!(empty["cluster"], json!("memory"));

    // A minute ago, and nobody has read it.
    world.report(&fix("ann", 0, 10.0, 50.0));
    world.derive(Topic::Matches, 0, "ann", entering("ann", 0, "A", "R"));
    let behind = served.ok("op", "/v1/status").await;
    assert_eq!((&behind["idle"], &behind["freshness_ms"]), (&json!(false), &json!(60_000)));
    let partition = partition_of("ann");
    let of = |list: &Value, topic: &str| -> Value {
        let list = list.as_array().unwrap().iter();
        list.filter(|i| i["topic"] == topic && i["partition"] == partition).cloned().collect()
    };
    let lagging = |machine: &str, topic: &str| json!([{"machine": machine, "topic": topic, "partition": partition, "committed": null, "lag": 1}]);
    assert_eq!(of(&behind["machines"], "positions"), lagging("spatial", "positions"));
    assert_eq!(of(&behind["machines"], "matches"), lagging("alerts", "matches"));
    assert_eq!(
        of(&behind["topics"], "positions"),
        json!([{"topic": "positions", "partition": partition, "low": 0, "high": 1}])
    );

    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    let projected = served.ok("op", "/v1/status").await;
    assert_eq!((&projected["idle"], &projected["freshness_ms"]), (&json!(false), &json!(0)));
    assert_eq!(
        of(&projected["projector"], "positions"),
        json!([{"topic": "positions", "partition": partition, "next": 1, "lag": 0}])
    );
    for (group, topic) in [("waypost.spatial", Topic::Positions), ("waypost.alerts", Topic::Matches)] {
        world.cluster.set_committed(group, TopicPartition::new(topic, partition), Some(1));
    }
    assert_eq!(served.ok("op", "/v1/status").await["idle"], json!(true));
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_reads_say_so_and_the_status_says_the_rest() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    world.derive(Topic::Inboxes, 0, "warden", told("warden", &entering("ann", 0, "A", "R")));
    let served = Served::start(&world, &pool, Heads::default()).await;
    served.ok("op", "/v1/matches").await;
    postgres.stop("immediate");
    for (user, path) in [
        ("op", "/v1/matches"),
        ("op", "/v1/devices"),
        ("op", "/v1/devices/ann/position"),
        ("op", "/v1/devices/ann/track"),
        ("ann", "/v1/conversations/ann~bob/messages"),
    ] {
        let (status, problem) = served.get(user, path).await;
        assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("postgres_unavailable")), "{problem}");
        assert!(problem["retry_after"].is_number(), "{problem}");
    }
    let status = served.ok("op", "/v1/status").await;
    assert_eq!(
        (&status["projector"], &status["freshness_ms"], &status["idle"]),
        (&json!(null), &json!(null), &json!(false))
    );
    assert!(status["detail"].as_str().unwrap().contains("postgres"), "{status}");
    assert!(!status["topics"].as_array().unwrap().is_empty());
    postgres.resume();
    until("reads are answered again", || async { served.get("op", "/v1/matches").await.0 == StatusCode::OK })
        .await;

    world.cluster.set_away(true);
    let (status, problem) = served.get("op", "/v1/status").await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("log_unavailable")), "{problem}");
}
