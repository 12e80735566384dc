//! One ingest node on the broker's twin, behind a real listener.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use reqwest::{Client, Method, RequestBuilder, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpListener;
use waypost_ingest::{Deps, Ingest};
use waypost_runtime::{
    auth::{Claims, Keys, Role},
    broker::{self, memory::Cluster},
    clock::Clock,
    config,
    health::{self, Health},
    http,
    lifecycle::{Lifecycle, Outcome, Tasks},
};
use waypost_schemas::{
    codec,
    event::Event,
    id::{DeviceName, UserId},
    time::Micros,
    topic::{Topic, TopicPartition},
};

/// How many partitions the twin's keyed topics have.
pub(crate) const PARTITIONS: i32 = 4;
/// How long a state is waited for at most.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) ingest: Ingest,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) keys: Arc<Keys>,
    pub(crate) operator: String,
    pub(crate) device: String,
    base: String,
    client: Client,
    lifecycle: Lifecycle,
    tasks: Tasks,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// The answer's body; it must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// The problem's code and detail; its status must stand in its body.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, &str, &str) {
        let text = |member: &str| self.body[member].as_str().unwrap_or_else(|| panic!("{}", self.body));
        assert_eq!(self.body["status"], self.status.as_u16());
        (self.status.as_u16(), text("code"), text("detail"))
    }
}

pub(crate) fn settings() -> config::Ingest {
    config::Ingest { accept_timeout: Duration::from_millis(500), ..defaults().ingest }
}

fn defaults() -> config::Settings {
    config::Config::load(&config::Sources::default()).unwrap().settings().clone()
}

impl Node {
    pub(crate) async fn start() -> Self {
        let node = Self::start_on(Cluster::new(PARTITIONS), "ingest", settings()).await;
        node.until("ready", |node| node.health.is_ready()).await;
        node
    }

    pub(crate) async fn start_on(cluster: Cluster, name: &str, settings: config::Ingest) -> Self {
        let clock = Clock::manual(Micros::parse("2026-07-01T12:00:00Z").unwrap());
        let keys = Arc::new(Keys::from_seed(&[7; 32], &defaults().auth).unwrap());
        let health = Health::default();
        let ingest = Ingest::build(Deps {
            broker: Arc::new(cluster.connect(name)),
            clock: clock.clone(),
            health: health.clone(),
            keys: keys.clone(),
            partitions: PARTITIONS,
            settings,
        })
        .unwrap();
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let ground = tasks.stage("ingest");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = ingest.router();
        let served =
            http::serve(listener, router, http::Limits::default(), clock.clone(), tasks.lifecycle().clone());
        tasks.spawn("http", served);
        let (running, stage) = (ingest.clone(), ground.lifecycle().clone());
        ground.spawn("ingest", async move { running.run(stage).await });
        let mut node = Self {
            cluster,
            ingest,
            clock,
            health,
            keys,
            operator: String::new(),
            device: String::new(),
            base,
            client: Client::new(),
            lifecycle,
            tasks,
        };
        node.operator = node.token("warden", None, Role::Operator);
        node.device = node.token("depot", Some("van-7"), Role::Device);
        node
    }

    pub(crate) fn token(&self, user: &str, device: Option<&str>, role: Role) -> String {
        let user = UserId::new(user).unwrap();
        let device = device.map(|d| DeviceName::new(d).unwrap());
        self.keys.mint(&Claims { user, device, role }, self.clock.now()).unwrap().token
    }

    /// Tokens of the device that are not to be taken, with what they are refused with: unsigned, with another's
    /// signature, and of long ago.
    pub(crate) fn forged(&self) -> Vec<(String, &'static str)> {
        // {"alg":"none","typ":"JWT"}
        const UNSIGNED: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let [head, claims, signature] = self.device.split('.').collect::<Vec<_>>()[..] else {
            panic!("a token has three parts")
        };
        let foreign = Keys::from_seed(&[8; 32], &defaults().auth).unwrap();
        let who = || Claims {
            user: UserId::new("depot").unwrap(),
            device: Some(DeviceName::new("van-7").unwrap()),
            role: Role::Device,
        };
        let foreign = foreign.mint(&who(), self.clock.now()).unwrap().token;
        let foreign_signature = foreign.rsplit('.').next().unwrap();
        vec![
            (format!("{UNSIGNED}.{claims}."), "token_bad"),
            (format!("{UNSIGNED}.{claims}.{signature}"), "token_bad"),
            (format!("{head}.{claims}.{foreign_signature}"), "token_bad"),
            (foreign, "token_bad"),
            (self.keys.mint(&who(), Micros(0)).unwrap().token, "token_expired"),
        ]
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(token)
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.map(|v| v.to_str().unwrap().to_owned());
        Answer { status, retry_after, body: response.json().await.unwrap() }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: impl Into<String>,
    ) -> Answer {
        let request = self.request(method, path, token).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.into())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, &self.operator)).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<String>) -> Answer {
        self.call(Method::PUT, path, &self.operator, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path, &self.operator)).await
    }

    pub(crate) async fn report(&self, body: impl Into<String>) -> Answer {
        self.call(Method::POST, "/v1/positions", &self.device, body).await
    }

    /// Every record of a topic that is in the log: its place, its key, what it says.
    pub(crate) fn log(&self, topic: Topic) -> Vec<(String, String, Event)> {
        let read = |partition| {
            let records = self.cluster.records(TopicPartition::new(topic, partition)).into_iter();
            records.map(move |record: broker::Incoming| {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                let event = codec::decode(&record.value.unwrap()).unwrap();
                (format!("{topic}/{partition}/{}", record.offset), key, event)
            })
        };
        (0..topic.partitions(PARTITIONS)).flat_map(read).collect()
    }

    /// The stamp of the newest fix in the log.
    pub(crate) fn newest_stamp(&self) -> i64 {
        self.log(Topic::Positions).last().and_then(|(_, _, event)| event.registry()).unwrap()
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never {what}: {:?}", self.health.checks()));
    }

    pub(crate) fn check(&self, name: &str) -> health::Check {
        self.health.checks()[name].clone()
    }

    /// Waits until the node has stopped by itself, or stops it.
    pub(crate) async fn stopped(&self) -> Outcome {
        tokio::time::timeout(PATIENCE, self.tasks.wait(Duration::from_secs(5)))
            .await
            .expect("the node never stops")
    }

    pub(crate) fn stop(&self) {
        self.lifecycle.stop(waypost_runtime::lifecycle::Cause::Asked("the test is over".to_owned()));
    }
}

/// A report of fixes at some latitudes, a second apart.
pub(crate) fn fixes(latitudes: &[f64]) -> String {
    let mut text = r#"{"id":"r-1","fixes":["#.to_owned();
    for (i, lat) in latitudes.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(text, r#"{comma}{{"lat":{lat},"lon":7.25,"at":"2026-07-01T11:00:{i:02}Z"}}"#);
    }
    text + "]}"
}
