//! The commands as a user runs them, against ingest on the broker's twin.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
};
use waypost_ingest::{Deps, Ingest};
use waypost_processor::bench::track::Track;
use waypost_runtime::{
    auth::{Claims, Keys, Role},
    broker::{Outgoing, memory::Cluster},
    clock::Clock,
    config,
    health::Health,
    http,
    lifecycle::{Cause, Lifecycle, Tasks},
};
use waypost_schemas::{
    codec,
    event::{Event, FixReported, Geometry, MessageSent, Polygon},
    id::UserId,
    topic::{Topic, TopicPartition},
};

const PARTITIONS: i32 = 4;
/// How long a state is waited for at most.
const PATIENCE: Duration = Duration::from_mins(1);

/// An ingest node behind a listener, and a data directory with its operator's token.
struct Node {
    cluster: Cluster,
    url: String,
    dir: tempfile::TempDir,
    lifecycle: Lifecycle,
    tasks: Tasks,
}

/// What a command came to.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Node {
    async fn start() -> Self {
        let (cluster, clock, health) = (Cluster::new(PARTITIONS), Clock::system(), Health::default());
        let settings = config::Config::load(&config::Sources::default()).unwrap().settings().clone();
        let keys = Arc::new(Keys::from_seed(&[7; 32], &settings.auth).unwrap());
        let claims = Claims { user: UserId::new("operator").unwrap(), device: None, role: Role::Operator };
        let dir = tempfile::tempdir().unwrap();
        let token = keys.mint(&claims, clock.now()).unwrap().token;
        std::fs::write(dir.path().join("operator.token"), token).unwrap();
        let ingest = Ingest::build(Deps {
            broker: Arc::new(cluster.connect("ingest")),
            clock: clock.clone(),
            health: health.clone(),
            keys,
            partitions: PARTITIONS,
            settings: config::Ingest { accept_timeout: Duration::from_millis(500), ..settings.ingest },
        })
        .unwrap();
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let ground = tasks.stage("ingest");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stage = tasks.lifecycle().clone();
        tasks.spawn("http", http::serve(listener, ingest.router(), http::Limits::default(), clock, stage));
        let stage = ground.lifecycle().clone();
        ground.spawn("ingest", async move { ingest.run(stage).await });
        until("ready", || health.is_ready()).await;
        Self { cluster, url, dir, lifecycle, tasks }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.args(arguments).env_remove("WAYPOST_TOKEN");
        command.env("WAYPOST_URL", &self.url).env("WAYPOST_DATA_DIR", self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Done {
        done(tokio::time::timeout(PATIENCE, self.command(arguments).output()).await.unwrap().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The fixes in the log by device, without what stands there a second time.
    fn fixes(&self) -> BTreeMap<String, Vec<FixReported>> {
        let mut devices: BTreeMap<String, Vec<FixReported>> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let of = TopicPartition { topic: Topic::Positions, partition };
            for record in self.cluster.records(of) {
                let Event::FixReported(fix) = codec::decode(&record.value.unwrap()).unwrap() else {
                    panic!("not a fix")
                };
                let fixes = devices.entry(fix.device.to_string()).or_default();
                if fixes.last().is_none_or(|last| last.at_us < fix.at_us) {
                    fixes.push(FixReported { registry: 0, ..fix });
                }
            }
        }
        devices
    }

    /// What was said, of one conversation in order.
    fn messages(&self) -> Vec<MessageSent> {
        let records = (0..PARTITIONS)
            .flat_map(|partition| self.cluster.records(TopicPartition { topic: Topic::Messages, partition }));
        let message = |event| match event {
            Event::MessageSent(message) => message,
            other => panic!("{other:?}"),
        };
        records.map(|record| message(codec::decode(&record.value.unwrap()).unwrap())).collect()
    }

    async fn stop(self) {
        self.lifecycle.stop(Cause::Asked("the test is over".to_owned()));
        assert!(self.tasks.wait(PATIENCE).await.is_clean());
    }
}

fn done(output: Output) -> Done {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not {what} in time");
}

fn csv(fixes: &[FixReported]) -> String {
    let mut text = "device,timestamp,lat,lon\n".to_owned();
    for fix in fixes {
        writeln!(text, "{},{},{},{}", fix.device, fix.at_us, fix.lat, fix.lon).unwrap();
    }
    text
}

fn by_device(fixes: &[FixReported]) -> BTreeMap<String, Vec<FixReported>> {
    let mut devices: BTreeMap<String, Vec<FixReported>> = BTreeMap::new();
    for fix in fixes {
        devices.entry(fix.device.to_string()).or_default().push(fix.clone());
    }
    devices
}

fn geojson(track: &Track) -> String {
    let rings = |polygon: &Polygon| -> Vec<Vec<[f64; 2]>> {
        polygon.rings.iter().map(|ring| ring.iter().map(|p| [p.lon, p.lat]).collect()).collect()
    };
    let features: Vec<serde_json::Value> = track
        .zones()
        .iter()
        .map(|zone| {
            let (kind, coordinates) = match &zone.geometry {
                Geometry::Polygon(polygon) => ("Polygon", serde_json::json!(rings(polygon))),
                Geometry::MultiPolygon(many) => {
                    ("MultiPolygon", many.polygons.iter().map(rings).collect::<Vec<_>>().into())
                }
                Geometry::Circle(_) => unreachable!("a track has none"),
            };
            let geometry = serde_json::json!({"type": kind, "coordinates": coordinates});
            serde_json::json!({"type": "Feature", "properties": {"name": zone.zone}, "geometry": geometry})
        })
        .collect();
    serde_json::json!({"type": "FeatureCollection", "features": features}).to_string()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn an_import_lands_in_the_log_and_bad_lines_are_counted() {
    let node = Node::start().await;
    let fixes = Track::generate(1, 0, 7, 2_000).fixes(0);
    let mut text = csv(&fixes);
    text.push_str("van-00,1969-01-01T00:00:00Z,0,0\nvan-00,2099-01-01T00:00:00Z,0,0\nvan-00,soon,0,0\n");
    let file = node.file("fleet.csv", &text);
    let import = node.run(&["import", "--json", shown(&file)]).await;
    assert_eq!(import.code, Some(2), "{}", import.err);
    for bad in ["line 14002: time_too_old", "line 14003: time_too_new", "line 14004: timestamp is not a time"]
    {
        assert!(import.err.contains(bad), "{}", import.err);
    }
    let summary: serde_json::Value = serde_json::from_str(&import.out).unwrap();
    assert_eq!(
        (&summary["lines"], &summary["taken"], &summary["bad"]),
        (&14_003.into(), &14_000.into(), &3.into())
    );
    assert_eq!(node.fixes(), by_device(&fixes));
    node.stop().await;
}

#[tokio::test]
async fn an_import_waits_for_a_log_that_is_away_and_loses_and_reorders_nothing() {
    let node = Node::start().await;
    let fixes = Track::generate(2, 0, 3, 20_000).fixes(0);
    let file = node.file("fleet.csv", &csv(&fixes));
    let mut import = node.command(&["import", shown(&file)]).spawn().unwrap();
    until("begun", || !node.fixes().is_empty()).await;
    node.cluster.set_away(true);
    let mut lines = BufReader::new(import.stderr.take().unwrap()).lines();
    let waiting = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("waiting for the stack") && line.contains("log_unavailable") {
                return;
            }
        }
        panic!("it ended");
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    node.cluster.set_away(false);
    let import = done(tokio::time::timeout(PATIENCE, import.wait_with_output()).await.unwrap().unwrap());
    assert_eq!(import.code, Some(0), "{}", import.out);
    assert!(import.out.starts_with("60,000 fixes taken"), "{}", import.out);
    assert!(node.fixes() == by_device(&fixes), "lost or reordered");
    node.stop().await;
}

#[tokio::test]
async fn zones_and_rules_are_set_listed_shown_and_removed() {
    let node = Node::start().await;
    let track = Track::generate(3, 12, 1, 1);
    let file = node.file("zones.geojson", &geojson(&track));
    let path = shown(&file);
    let import = node.run(&["zones", "import", path]).await;
    assert_eq!(
        (import.code, import.out.as_str()),
        (Some(2), "0 zones are set, 0 stood already, 12 features were refused\n")
    );
    assert!(import.err.contains("feature 12: the feature has no id (name a property"), "{}", import.err);
    for expected in ["12 zones are set, 0 stood", "0 zones are set, 12 stood"] {
        let import = node.run(&["zones", "import", path, "--id-property", "name"]).await;
        assert_eq!(import.code, Some(0), "{}", import.err);
        assert!(import.out.starts_with(expected), "{}", import.out);
    }
    let listed = node.run(&["zones", "list"]).await.out;
    assert_eq!(listed.lines().count(), 13, "{listed}");
    assert!(listed.starts_with("ZONE") && listed.contains("\nzone 007  "), "{listed}");
    let zone: serde_json::Value =
        serde_json::from_str(&node.run(&["zones", "show", "zone 007"]).await.out).unwrap();
    assert_eq!((&zone["type"], &zone["id"]), (&"Feature".into(), &"zone 007".into()));
    assert_eq!(node.run(&["zones", "remove", "zone 007"]).await.code, Some(0));
    let gone = node.run(&["zones", "show", "zone 007"]).await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.starts_with("waypost: not_found: there is no zone zone 007"), "{}", gone.err);
    assert_eq!(node.run(&["zones", "remove", "zone 000"]).await.code, Some(0));
    let one = node.file("one.geojson", &geojson(&Track::generate(3, 1, 1, 1)));
    let import = node.run(&["zones", "import", shown(&one), "--id-property", "name"]).await;
    assert_eq!(import.out, "1 zone is set, 0 stood already, 0 features were refused\n");

    let add = ["rules", "add", "--id", "r/1", "--on", "enter,exit", "--zones", "zone 001", "--zones", "a, b"];
    let add = [&add[..], &["--subjects", "all", "--notify", "warden"]].concat();
    let added = node.run(&add).await;
    assert!(added.out.starts_with("rule r/1 is set"));
    assert!(
        added.out.ends_with("\nwarning: there is no zone a, b; the rule waits until it is defined\n"),
        "{}",
        added.out
    );
    assert!(node.run(&add).await.out.starts_with("rule r/1 stands already"));
    let listed = node.run(&["rules", "list"]).await.out;
    assert!(listed.contains("r/1") && listed.contains("exit,enter") && listed.contains("all"), "{listed}");
    let rule: serde_json::Value =
        serde_json::from_str(&node.run(&["rules", "show", "r/1"]).await.out).unwrap();
    assert_eq!(rule["zones"].as_array().unwrap().len(), 2);
    assert_eq!(node.run(&["rules", "remove", "r/1"]).await.code, Some(0));
    assert_eq!(
        node.run(&["rules", "list", "--json"]).await.out.split_whitespace().collect::<String>(),
        r#"{"rules":[]}"#
    );
    node.stop().await;
}

#[tokio::test]
async fn what_an_operator_says_of_the_log_is_said_and_listed() {
    let node = Node::start().await;
    for topic in [Topic::Inboxes, Topic::Positions] {
        let (to, value) = (TopicPartition::new(topic, 3), Some("x".into()));
        node.cluster.append(Outgoing { to, key: None, value, headers: Vec::new() }).unwrap();
    }
    let check = async |line: &[&str], code, out: &str, err: &str| {
        let done = node.run(line).await;
        assert_eq!(done.code, Some(code), "{line:?}: {}", done.err);
        let flat = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(out) && done.err.contains(err), "{line:?}: {flat} {}", done.err);
    };
    check(&["holes", "accept", "inboxes/3/0"], 0, "the hole before inboxes/3/0 is accepted (version 0)", "")
        .await;
    check(&["holes", "accept", "inboxes/3/0"], 0, "was accepted already (version 0)", "").await;
    check(&["holes", "accept", "inboxes/3/1"], 1, "", "not_in_the_log").await;
    check(&["holes", "list"], 0, "inboxes/3/0 operator 0", "").await;
    check(&["holes", "list", "--json"], 0, r#""position": "inboxes/3/0""#, "").await;
    let skip = ["records", "skip", "--machine", "spatial"];
    let skip = |position: &'static str| [&skip[..], &[position]].concat();
    check(&skip("positions/3/0"), 0, "positions/3/0 for spatial is skipped (version 1)", "").await;
    check(&skip("matches/3/0"), 1, "", "bad_position").await;
    check(&["records", "list"], 0, "spatial positions/3/0 operator 1", "").await;
    check(&["records", "list", "--json"], 0, r#""machine": "spatial""#, "").await;
    check(&["behaviours", "list"], 0, "spatial 1 1 -", "").await;
    let set = ["behaviours", "set", "--machine", "spatial"];
    let set = |number: &'static str| [&set[..], &[number]].concat();
    check(&set("1"), 0, "behaviour 1 of spatial is set (version 2)", "").await;
    check(&set("2"), 1, "", "unknown_behaviour").await;
    check(&["behaviours", "list"], 0, "spatial 1 1 operator", "").await;
    check(&["behaviours", "list", "--json"], 0, r#""version": 2"#, "").await;
    node.stop().await;
}

#[tokio::test]
async fn a_start_at_a_taken_port_leaves_no_directory_behind() {
    let node = Node::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dir, address) = (node.dir.path().join("new"), taken.local_addr().unwrap().to_string());
    let up = node.run(&["up", "--data-dir", shown(&dir), "--listen", &address]).await;
    assert_eq!(up.code, Some(1));
    assert!(up.err.contains("is taken by another program"), "{}", up.err);
    assert!(!dir.exists());
    node.stop().await;
}

#[tokio::test]
async fn a_minted_token_speaks_for_its_user() {
    let node = Node::start().await;
    let token = node.run(&["token", "--user", "depot", "--device", "van-7"]).await.out;
    let fixes = "device,timestamp,lat,lon\ndepot/van-7,2026-01-01T00:00:00Z,1,2\n";
    let (own, others) =
        (node.file("own.csv", fixes), node.file("others.csv", &fixes.replace("van-7", "van-8")));
    let import = node.run(&["import", shown(&own), "--token", token.trim()]).await;
    assert_eq!(import.code, Some(0), "{}", import.err);
    let import = node.run(&["import", shown(&others), "--token", token.trim()]).await;
    assert_eq!(import.code, Some(1));
    assert!(import.err.contains("foreign_device"), "{}", import.err);
    let rules = node.run(&["rules", "list", "--token", token.trim()]).await;
    assert_eq!(rules.code, Some(1));
    let operator = node.run(&["token", "--user", "ops", "--role", "operator"]).await.out;
    assert_eq!(node.run(&["rules", "list", "--token", operator.trim()]).await.code, Some(0));
    node.stop().await;
}

#[tokio::test]
async fn vans_that_are_simulated_report() {
    let node = Node::start().await;
    let simulate = node.run(&["simulate", "--vans", "3", "--every", "100ms", "--for", "1s"]).await;
    assert_eq!(simulate.code, Some(0), "{}", simulate.err);
    let vans: Vec<String> = node.fixes().into_keys().collect();
    assert_eq!(vans, ["fleet/van-1", "fleet/van-2", "fleet/van-3"]);
    assert!(node.fixes().values().all(|fixes| fixes.len() > 1));
    node.stop().await;
}

#[tokio::test]
async fn messages_that_are_sent_settle_each_other_and_a_refusal_is_told_by_its_code() {
    let node = Node::start().await;
    let sent = node.run(&["send", "--from", "alice", "--to", "bob", "--device", "phone", "hello"]).await;
    assert_eq!(sent.code, Some(0), "{}", sent.err);
    assert!(sent.out.starts_with("messages/"), "{}", sent.out);
    let mut command = node
        .command(&["send", "--from", "alice", "--to", "bob", "--device", "phone", "--lines", "--json", "-"]);
    let mut lines = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = lines.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"one\n\ntwo\n").await.unwrap();
    drop(input);
    let lines = done(tokio::time::timeout(PATIENCE, lines.wait_with_output()).await.unwrap().unwrap());
    assert_eq!(lines.code, Some(0), "{}", lines.err);
    let answers: Vec<serde_json::Value> =
        lines.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1]["type"], "accepted");

    let refused = node.run(&["send", "--from", "alice", "--to", "bob", ""]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.starts_with("waypost: empty_body: "), "{}", refused.err);

    let (mut last, mut bodies) = (None, Vec::new());
    for message in node.messages() {
        assert_eq!((message.conversation.as_str(), message.sender.as_str()), ("alice~bob", "alice"));
        assert_eq!(message.settled, last);
        last = Some(message.client_id);
        bodies.push(String::from_utf8(message.body).unwrap());
    }
    assert_eq!(bodies, ["hello", "one", "two"]);
    node.stop().await;
}
