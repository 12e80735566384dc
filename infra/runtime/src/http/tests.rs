//! The server before clients of all kinds, over real connections.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use super::{
    Json, Limits, PROBLEMS, Path, Problem, Query, body_bytes_max, codes,
    testing::{PATIENCE, Server, answer},
};
use crate::{lifecycle::Cause, telemetry};

const POST: &str = "POST /echo HTTP/1.1\r\ncontent-type: application/json";

fn limits() -> Limits {
    Limits { request_bytes_max: 1_000, ..Limits::default() }
}

fn short(limits: Limits) -> Limits {
    let short = Duration::from_millis(200);
    Limits { header_timeout: short, body_timeout: short, write_timeout: short, ..limits }
}

async fn echo(Json(value): Json<serde_json::Value>) -> Json<serde_json::Value> {
    Json(value)
}

async fn panics() -> &'static str {
    panic!("as it should, for this test")
}

fn router() -> Router {
    Router::new()
        .route("/echo", post(echo))
        .route("/large", put(echo).layer(body_bytes_max(100_000)))
        .route("/panics", get(panics))
        .route("/zones/{id}", get(|Path(id): Path<String>| async move { id }))
        .route("/numbers/{n}", get(|Path(n): Path<u8>| async move { n.to_string() }))
        .route("/query", get(|Query(pairs): Query<Vec<(String, u8)>>| async move { format!("{pairs:?}") }))
        .route("/busy", get(|| async { Problem::new(&codes::OVERLOADED).retry_after_s(7) }))
        .route("/huge", get(|| async { "x".repeat(64 << 20) }))
}

#[tokio::test]
async fn what_cannot_be_taken_is_a_problem_with_a_stable_code() {
    let server = Server::start(router(), limits()).await;
    let check = async |head: &str, body: &[u8], expected: (u16, &str)| {
        let (status, code) = server.ask(head, body).await.problem();
        assert_eq!((status, code.as_str()), expected, "{head}");
    };
    check(POST, b"{\"a\":", (400, "bad_json")).await;
    check(POST, b"", (400, "bad_json")).await;
    check(POST, "[".repeat(900).as_bytes(), (400, "bad_json")).await;
    check(POST, b"\"\xff\"", (400, "bad_utf8")).await;
    check(POST, &[b' '; 1_001], (413, "body_too_large")).await;
    check("POST /echo HTTP/1.1", b"{}", (415, "bad_content_type")).await;
    check("POST /echo HTTP/1.1\r\ncontent-type: text/json", b"{}", (415, "bad_content_type")).await;
    check("GET /nothing HTTP/1.1", b"", (404, "not_found")).await;
    check("DELETE /echo HTTP/1.1", b"", (405, "method_not_allowed")).await;
    check("GET /numbers/999 HTTP/1.1", b"", (400, "bad_request")).await;
    check("GET /zones/%FF HTTP/1.1", b"", (400, "bad_request")).await;
    check("GET /query?a=x HTTP/1.1", b"", (400, "bad_request")).await;
    check("GET /panics HTTP/1.1", b"", (500, "internal")).await;
    check("GET /busy HTTP/1.1", b"", (503, "overloaded")).await;
}

#[tokio::test]
async fn what_can_be_taken_is() {
    let server = Server::start(router(), limits()).await;
    let check = async |head: &str, body: &str, expected: &str| {
        let answer = server.ask(head, body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{head}");
    };
    check(POST, "{\"a\":[1,2]}", "{\"a\":[1,2]}").await;
    check("POST /echo HTTP/1.1\r\ncontent-type: application/geo+json; charset=utf-8", "1", "1").await;
    check("PUT /large HTTP/1.1\r\ncontent-type: application/json", &format!("{}7", " ".repeat(99_999)), "7")
        .await;
    check("GET /zones/C%C3%B4te%20d%27Ivoire%2Fnorth HTTP/1.1", "", "Côte d'Ivoire/north").await;
    check("GET /query?a=1&b=2 HTTP/1.1", "", "[(\"a\", 1), (\"b\", 2)]").await;
}

#[tokio::test]
async fn a_problem_says_when_to_try_again_and_which_methods_there_are() {
    let server = Server::start(router(), limits()).await;
    let busy = server.get("/busy", "").await;
    assert_eq!(
        (busy.headers["retry-after"].as_str(), &busy.json()["retry_after"]),
        ("7", &serde_json::json!(7))
    );
    assert_eq!(busy.json()["type"], "urn:waypost:problem:overloaded");
    assert_eq!(server.ask("DELETE /echo HTTP/1.1", "").await.headers["allow"], "POST");
}

#[tokio::test]
async fn a_body_far_over_its_limit_is_refused_before_it_is_sent() {
    let server = Server::start(router(), limits()).await;
    for more in ["", "\r\nexpect: 100-continue"] {
        let mut stream = server.connect().await;
        let head = format!("{POST}{more}\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await.problem(), (413, "body_too_large".to_owned()));
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_bounded_too() {
    let server = Server::start(router(), limits()).await;
    let mut stream = server.connect().await;
    let head = format!("{POST}\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..20 {
        stream.write_all(format!("64\r\n{}\r\n", " ".repeat(100)).as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut stream).await.problem(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_let_go() {
    let server = Server::start(router(), short(limits())).await;

    let mut idle = server.connect().await;
    let mut half_a_head = server.connect().await;
    half_a_head.write_all(b"GET /zones/a HTTP/1.1\r\nhost:").await.unwrap();
    let mut half_a_body = server.connect().await;
    half_a_body
        .write_all(format!("{POST}\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{").as_bytes())
        .await
        .unwrap();

    answer(&mut idle).await;
    answer(&mut half_a_head).await;
    assert_eq!(answer(&mut half_a_body).await.problem(), (408, "body_too_slow".to_owned()));
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_gives_its_place_to_the_next() {
    let server = Server::start(router(), Limits { connections_max: 1, ..short(limits()) }).await;
    let mut drips = server.connect().await;
    let handshake = "GET /zones/a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let drip = async {
        drips.write_all(handshake.as_bytes()).await.unwrap();
        // Each byte is progress, and none of them buys time.
        while drips.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let next = async {
        let answer = timeout(PATIENCE, server.get("/zones/a", "")).await;
        assert_eq!(answer.expect("the place should become free").status, 200);
    };
    tokio::select! {
        () = next => {}
        () = async { drip.await; std::future::pending().await } => {}
    }
}

#[tokio::test]
async fn ten_thousand_headers_are_refused_and_the_server_goes_on() {
    let server = Server::start(router(), limits()).await;
    let mut stream = server.connect().await;
    let head: String = (0..10_000).map(|i| format!("x-{i}: 1\r\n")).collect();
    // The server need not read all of it.
    let _ = stream.write_all(format!("GET /zones/a HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).await;
    let mut answered = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answered)).await.expect("the server should close");
    let answered = String::from_utf8(answered).unwrap();
    assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 431"), "{answered}");
    assert_eq!(server.get("/zones/a", "").await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_gives_its_place_to_the_next() {
    let server = Server::start(router(), Limits { connections_max: 1, ..short(limits()) }).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let next = timeout(PATIENCE, server.get("/zones/a", "")).await.expect("the place should become free");
    assert_eq!(next.status, 200);
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let server = Server::start(router(), limits()).await;
    let large = format!("x-large: {}", "x".repeat(17 << 10));
    assert_eq!(server.get("/zones/a", &large).await.status, 431);
    let many = (0..70).map(|i| format!("x-{i}: 1")).collect::<Vec<_>>().join("\r\n");
    assert_eq!(server.get("/zones/a", &many).await.status, 431);
    assert_eq!(server.ask("GET \u{1}", "").await.status, 400);
}

#[tokio::test]
async fn a_soft_stop_answers_what_was_begun_and_takes_nothing_new() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (begun.clone(), go_on.clone());
    let slow = get(|| async move {
        tell.notify_one();
        wait.notified().await;
        "done"
    });
    let server = Server::start(Router::new().route("/slow", slow), limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    begun.notified().await;

    server.lifecycle.stop(Cause::Asked("the test".to_owned()));
    let tasks = server.tasks.clone();
    let waits = async move { tasks.wait(PATIENCE).await };
    let answers = async {
        while tokio::net::TcpStream::connect(server.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        go_on.notify_one();
        answer(&mut stream).await
    };
    let (outcome, answer) = tokio::join!(waits, answers);
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    assert!(outcome.is_clean(), "{outcome:?}");
}

#[tokio::test]
async fn a_hard_stop_does_not_wait_for_anyone() {
    let never = get(|| async { std::future::pending::<&str>().await });
    let server = Server::start(Router::new().route("/never", never), limits()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.lifecycle.stop(Cause::Asked("the test".to_owned()));
    let outcome = timeout(PATIENCE, server.tasks.wait(Duration::from_millis(50))).await.unwrap();
    assert!(outcome.aborted.is_empty(), "{outcome:?}");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection should be closed");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn requests_are_counted_by_template_and_not_by_path() {
    let telemetry = telemetry::init(telemetry::Format::Json, "off").unwrap();
    let server = Server::start(router(), limits()).await;
    server.get("/zones/secret-place", "").await;
    server.get("/no/such/path", "").await;
    let text = telemetry.render();
    assert!(
        text.contains(r#"waypost_http_requests_total{method="GET",route="/zones/{id}",status="200"}"#),
        "{text}"
    );
    assert!(text.contains(r#"route="none",status="404""#), "{text}");
    assert!(!text.contains("secret-place") && !text.contains("/no/such"), "{text}");
}

#[test]
fn codes_are_unique_and_in_one_form() {
    let mut seen: Vec<&str> = PROBLEMS.iter().map(|code| code.code).collect();
    seen.sort_unstable();
    let all = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all);
    for code in seen {
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{code}");
    }
}
