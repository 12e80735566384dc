//! The doors over real connections: handshakes, tokens, and the routes for who holds no connection.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use waypost_runtime::{
    auth::{Claims, Keys, Role},
    http::{self, Limits},
    lifecycle::{Lifecycle, Tasks},
};
use waypost_schemas::{id::DeviceName, time::Micros};

use crate::world::{Node, World, settings, user};

const PATIENCE: Duration = Duration::from_secs(20);

struct Door {
    world: World,
    node: Node,
    address: SocketAddr,
    tasks: Tasks,
}

impl Door {
    async fn open() -> Self {
        let world = World::new();
        let node = world.node().await;
        let tasks = Tasks::new(&Lifecycle::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits =
            Limits { header_timeout: Duration::from_millis(300), ..Limits::from(&node.settings.http) };
        let served = http::serve(
            listener,
            node.delivery.router(),
            limits,
            world.clock.clone(),
            tasks.lifecycle().clone(),
        );
        tasks.spawn("http", served);
        Self { world, node, address, tasks }
    }

    fn token(&self, of: &str, role: Role) -> String {
        let claims = Claims { user: user(of), device: Some(DeviceName::new("phone").unwrap()), role };
        self.world.keys.mint(&claims, self.world.clock.now()).unwrap().token
    }

    /// Sends a request as it is; gives status, headers and body.
    async fn ask(&self, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, Value) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let text = format!("{head} HTTP/1.1\r\nhost: x\r\n{lines}{length}\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it should close").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn call(&self, head: &str, token: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let headers =
            [("authorization", &*bearer), ("content-type", "application/json"), ("connection", "close")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, body) = self.ask(head, &headers, &body).await;
        (status, body)
    }

    async fn inbox(&self, query: &str, token: &str) -> (u16, Value) {
        self.call(&format!("GET /v1/inbox{query}"), token, &Value::Null).await
    }
}

const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
const VERSION: (&str, &str) = ("sec-websocket-version", "13");
const UPGRADE: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "websocket")];

#[tokio::test]
async fn a_browser_shows_its_token_as_a_subprotocol_and_it_is_not_told_back() {
    let door = Door::open().await;
    let token = door.token("bob", Role::Device);
    for browser in [false, true] {
        let mut request = format!("ws://{}/v1/socket", door.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        if browser {
            let protocols = format!("bearer.{token}, waypost.v1");
            headers.insert("sec-websocket-protocol", HeaderValue::try_from(protocols).unwrap());
        } else {
            headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
            headers.insert("sec-websocket-protocol", HeaderValue::from_static("waypost.v1"));
        }
        let stream = TcpStream::connect(door.address).await.unwrap();
        let (mut socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "waypost.v1");
        socket.send(Message::text(r#"{"type":"hello"}"#)).await.unwrap();
        let welcome = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(welcome.to_text().unwrap().contains(r#""device":"bob/phone""#), "{welcome}");
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_is_a_problem() {
    let door = Door::open().await;
    let token = door.token("bob", Role::Device);
    let bearer = format!("Bearer {token}");
    let good = [UPGRADE[0], UPGRADE[1], VERSION, KEY, ("sec-websocket-protocol", "waypost.v1")];
    let check = async |without: usize, instead: &[(&str, &str)], status: u16, code: &str| {
        let mut headers: Vec<(&str, &str)> = good.to_vec();
        headers.remove(without);
        headers.extend(instead);
        let (answered, head, body) = door.ask("GET /v1/socket", &headers, "").await;
        assert_eq!((answered, body["code"].as_str().unwrap_or_default()), (status, code), "{head}");
        if status == 426 {
            assert!(
                head.contains("sec-websocket-version: 13") && head.contains("upgrade: websocket"),
                "{head}"
            );
        }
    };
    let authorized = ("authorization", &*bearer);
    check(1, &[authorized, ("upgrade", "h2c")], 426, "upgrade_required").await;
    check(2, &[authorized, ("sec-websocket-version", "8")], 426, "upgrade_required").await;
    check(3, &[authorized], 400, "bad_request").await;
    check(4, &[authorized], 400, "bad_subprotocol").await;
    check(4, &[authorized, ("sec-websocket-protocol", "mqtt")], 400, "bad_subprotocol").await;
    check(4, &[("sec-websocket-protocol", "waypost.v1")], 401, "token_missing").await;
    check(4, &[("sec-websocket-protocol", "waypost.v1, bearer.forged")], 401, "token_bad").await;
    let claims = Claims { user: user("bob"), device: None, role: Role::Device };
    let old = door.world.keys.mint(&claims, Micros(0)).unwrap().token;
    let expired = format!("waypost.v1, bearer.{old}");
    check(4, &[("sec-websocket-protocol", &expired)], 401, "token_expired").await;
    // Of other keys, and of another issuer with ours.
    for (seed, issuer) in [([8; 32], "waypost"), ([7; 32], "elsewhere")] {
        let keys = Keys::from_seed(&seed, &settings(&[("auth.issuer", issuer)]).auth).unwrap();
        let foreign = keys.mint(&claims, door.world.clock.now()).unwrap().token;
        let foreign = format!("waypost.v1, bearer.{foreign}");
        check(4, &[("sec-websocket-protocol", &foreign)], 401, "token_bad").await;
    }
    // {"alg":"none","typ":"JWT"}
    let claims = token.split('.').nth(1).unwrap();
    let unsigned = format!("waypost.v1, bearer.eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    check(4, &[("sec-websocket-protocol", &unsigned)], 401, "token_bad").await;
}

#[tokio::test]
async fn a_handshake_that_is_swollen_or_slow_does_not_hold_a_connection() {
    let door = Door::open().await;
    let many: Vec<(String, String)> = (0..10_000).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    let (status, _, _) = door.ask("GET /v1/socket", &many, "").await;
    assert_eq!(status, 431);
    let mut slow = TcpStream::connect(door.address).await.unwrap();
    let closed = async {
        for byte in b"GET /v1/socket HTTP/1.1\r\nhost: x\r\n".iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("a slow handshake should be closed");
}

#[tokio::test]
async fn who_holds_no_connection_reads_and_acknowledges_by_requests() {
    let door = Door::open().await;
    let (bob, carol) = (door.token("bob", Role::Device), door.token("carol", Role::Device));
    let offsets = door.world.messages("bob", 0..5);
    let offset_of = |page: &Value| -> Vec<i64> {
        page["entries"].as_array().unwrap().iter().map(|entry| entry["offset"].as_i64().unwrap()).collect()
    };
    let (status, page) = door.inbox("", &bob).await;
    assert_eq!((status, offset_of(&page), &page["caught_up"]), (200, offsets.clone(), &json!(true)));
    let first = &page["entries"][0];
    assert_eq!((first.get("type"), &first["kind"], &first["body"]), (None, &json!("message"), &json!("0")));
    let (_, page) = door.inbox(&format!("?after={}&limit=2", offsets[0]), &bob).await;
    assert_eq!(
        (offset_of(&page), &page["next"], &page["caught_up"]),
        (offsets[1..3].to_vec(), &json!(offsets[2]), &json!(false),)
    );
    let (_, page) = door.inbox("?after=1000000", &bob).await;
    assert_eq!((offset_of(&page), &page["next"]), (vec![], &json!(1_000_000)));
    for (query, token, status, code) in [
        ("?limit=0", &bob, 400, "bad_request"),
        ("?limit=1001", &bob, 400, "bad_request"),
        ("?after=x", &bob, 400, "bad_request"),
        ("?user=bob", &carol, 403, "forbidden"),
        ("?user=b~b", &bob, 400, "bad_request"),
    ] {
        let (answered, body) = door.inbox(query, token).await;
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{query}");
    }
    let operator = door.token("operator", Role::Operator);
    assert_eq!(offset_of(&door.inbox("?user=bob", &operator).await.1), offsets);

    let ack = async |body: Value| door.call("POST /v1/acks", &bob, &body).await;
    let (status, answer) = ack(json!({"kind": "delivered", "upto": offsets[2]})).await;
    assert_eq!((status, answer), (200, json!({"type": "accepted"})));
    assert_eq!(ack(json!({"kind": "read", "upto": offsets[1]})).await.0, 200);
    let acks = [format!("phone delivered {}", offsets[2]), format!("phone read {}", offsets[1])];
    assert_eq!(door.world.acks("bob"), acks);
    for (body, status, code) in [
        (json!({"kind": "delivered", "upto": offsets[4] + 1}), 422, "ack_beyond_end"),
        (json!({"kind": "delivered", "upto": -1}), 422, "bad_offset"),
        (json!({"kind": "start", "upto": 1}), 400, "bad_json"),
        (json!({"kind": "read"}), 400, "bad_json"),
        (Value::Null, 400, "bad_json"),
    ] {
        let (answered, answer) = ack(body.clone()).await;
        assert_eq!((answered, &answer["code"]), (status, &json!(code)), "{body}");
    }
    drop(door.tasks);
    drop(door.node);
}
