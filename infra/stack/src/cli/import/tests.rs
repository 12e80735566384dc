//! The import against a server that speaks the routes' shapes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

use super::*;

/// What a stack would have in its log, and how it behaves.
#[derive(Default)]
struct Stack {
    /// The requests still to be failed, with this status.
    failures: Mutex<Vec<StatusCode>>,
    /// A latitude that is refused, by its text.
    refused: Option<f64>,
    /// Per device, the times of its fixes in the order of their append.
    log: Mutex<BTreeMap<String, Vec<String>>>,
    busy: Mutex<BTreeMap<String, usize>>,
}

async fn positions(Shared(stack): Shared<Arc<Stack>>, Json(body): Json<Value>) -> Response {
    let device = body["device"].as_str().unwrap().to_owned();
    let fixes = body["fixes"].as_array().unwrap();
    assert!((1..=1_000).contains(&fixes.len()));
    let before = stack.busy.lock().unwrap().insert(device.clone(), 1);
    assert_eq!(before.unwrap_or(0), 0, "two requests of {device} in flight");
    tokio::time::sleep(Duration::from_millis(2)).await;
    stack.busy.lock().unwrap().insert(device.clone(), 0);
    if let Some(status) = stack.failures.lock().unwrap().pop() {
        return (status, Json(json!({"code": "failing", "detail": "as told"}))).into_response();
    }
    if let Some(index) = fixes.iter().position(|fix| stack.refused.is_some_and(|lat| fix["lat"] == lat)) {
        let problem = json!({"status": 422, "code": "bad_latitude", "detail": "as told", "index": index});
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response();
    }
    let times = fixes.iter().map(|fix| fix["at"].as_str().unwrap().to_owned());
    stack.log.lock().unwrap().entry(device).or_default().extend(times);
    Json(json!({"type": "accepted", "positions": []})).into_response()
}

/// Runs an import against a stack, with a lifecycle to stop it by.
async fn with_stack<F: Future>(stack: &Arc<Stack>, run: impl FnOnce(Client) -> F) -> F::Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap()));
    let router = Router::new().route("/v1/positions", post(positions)).with_state(Arc::clone(stack));
    tokio::select! {
        _ = axum::serve(listener, router) => unreachable!("it serves for ever"),
        output = run(client) => output,
    }
}

fn client(url: &str) -> Client {
    let token = Some("t".parse().unwrap());
    Client::new(&client::Options { url: url.to_owned(), token, data_dir: PathBuf::new() }).unwrap()
}

async fn import_text(client: &Client, text: &str) -> (Summary, Option<String>) {
    let progress = Progress::begin(None, "fixes", Clock::system());
    let source = Source::of_bytes(text.as_bytes().to_vec());
    let (summary, failure) = import(client, source, &Lifecycle::new(), &progress).await;
    (summary, failure.map(|e| format!("{e:#}")))
}

/// A file sorted by time that interleaves devices, and the times of each device in file order.
fn fleet(devices: usize, fixes: usize) -> (String, BTreeMap<String, Vec<String>>) {
    let mut text = "device,timestamp,lat,lon\n".to_owned();
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for i in 0..fixes {
        let device = format!("fleet/van-{}", (i * 7 + i / 3) % devices);
        let at = waypost_schemas::time::Micros(1_600_000_000_000_000 + i as i64 * 1_000_000).to_string();
        writeln!(text, "{device},{at},{},0", i % 90).unwrap();
        expected.entry(device).or_default().push(at);
    }
    (text, expected)
}

#[tokio::test]
async fn every_device_arrives_in_file_order_one_request_at_a_time() {
    for (devices, fixes) in [(1, 5_000), (7, 20_000), (500, 3_000)] {
        let stack = Arc::new(Stack::default());
        let (text, expected) = fleet(devices, fixes);
        let (summary, failure) =
            with_stack(&stack, |client| async move { import_text(&client, &text).await }).await;
        assert_eq!((summary.taken, summary.bad, failure), (fixes as u64, 0, None));
        assert_eq!(*stack.log.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_stack_that_is_away_is_waited_for_and_no_device_is_reordered() {
    let away = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
    let stack = Arc::new(Stack { failures: Mutex::new(away.repeat(4)), ..Stack::default() });
    let (text, expected) = fleet(5, 9_000);
    let (summary, failure) =
        with_stack(&stack, |client| async move { import_text(&client, &text).await }).await;
    assert_eq!((summary.taken, summary.retries, failure), (9_000, 12, None));
    assert_eq!(*stack.log.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_line_that_the_stack_refuses_is_counted_and_the_others_are_taken() {
    let stack = Arc::new(Stack { refused: Some(17.0), ..Stack::default() });
    let (text, _) = fleet(3, 900);
    let (summary, failure) =
        with_stack(&stack, |client| async move { import_text(&client, &text).await }).await;
    assert_eq!((summary.lines, summary.taken, summary.bad, failure), (900, 890, 10, None));
    assert_eq!(stack.log.lock().unwrap().values().map(Vec::len).sum::<usize>(), 890);
}

#[tokio::test]
async fn a_refused_token_ends_the_import_with_its_code() {
    let stack = Arc::new(Stack { failures: Mutex::new(vec![StatusCode::UNAUTHORIZED]), ..Stack::default() });
    let (text, _) = fleet(1, 10);
    let (summary, failure) =
        with_stack(&stack, |client| async move { import_text(&client, &text).await }).await;
    assert_eq!((summary.taken, failure.as_deref()), (0, Some("failing: as told")));
}

#[tokio::test]
async fn a_stop_ends_an_import_that_waits_for_its_stack() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client(&format!("http://{unused}"));
    let (stop, progress) = (Lifecycle::new(), Progress::begin(None, "fixes", Clock::system()));
    let (text, _) = fleet(2, 10);
    let source = Source::of_bytes(text.into_bytes());
    let asked = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.stop(Cause::Asked("enough".to_owned()));
    };
    let ((summary, failure), ()) = tokio::join!(import(&client, source, &stop, &progress), asked);
    assert_eq!((summary.lines, summary.taken, summary.interrupted), (10, 0, true));
    assert!(failure.is_none());
}
