//! A whole processor on a log in memory and a Postgres of its own.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinHandle;
use waypost_processor::{Deps, Processor};
use waypost_runtime::{
    broker::{Broker, Outgoing, memory::Cluster},
    clock::Clock,
    config::Settings,
    health::Health,
    lifecycle::{Cause, Lifecycle, Outcome, Tasks},
    postgres::Pool,
};
use waypost_schemas::{
    codec,
    event::{Circle, Crossing, Event, FixReported, Geometry, RuleDefined, ZoneDefined},
    id::{DeviceId, RuleId, UserId, ZoneId},
    partition,
    place::Place,
    time::Micros,
    topic::{Topic, TopicPartition},
};

use crate::postgres::{Postgres, settings};

const KEYED: i32 = 2;
const PATIENCE: Duration = Duration::from_mins(1);

fn boss() -> UserId {
    UserId::new("boss").unwrap()
}

fn append(cluster: &Cluster, to: TopicPartition, key: &str, event: impl Into<Event>) {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), codec::encode(&event.into()));
    let record = Outgoing { to, key: Some(key), value: Some(value.into()), headers: Vec::new() };
    cluster.append(record).unwrap();
}

/// A log with one zone and one rule that tells `warden`.
fn log() -> Cluster {
    let cluster = Cluster::new(KEYED);
    let registry = TopicPartition::new(Topic::Registry, 0);
    let geometry = Geometry::Circle(Circle { centre: Place { lon: 16.0, lat: 48.0 }, radius_m: 1_000.0 });
    append(
        &cluster,
        registry,
        "zone/A",
        ZoneDefined { zone: ZoneId::new("A").unwrap(), geometry, by: boss() },
    );
    let rule = RuleDefined {
        rule: RuleId::new("watch").unwrap(),
        on: vec![Crossing::Exit, Crossing::Enter],
        zones: None,
        subjects: None,
        notify: vec![UserId::new("warden").unwrap()],
        by: boss(),
    };
    append(&cluster, registry, "rule/watch", rule);
    cluster
}

/// Vans that go in and out: `minutes` fixes each, of which every one but the first outside crosses the border.
fn drive(cluster: &Cluster, from: i64, minutes: i64) {
    for minute in from..from + minutes {
        let at_us = Micros(1_600_000_000_000_000 + minute * Micros::MINUTE);
        cluster.set_time(at_us);
        for van in ["van-1", "van-2", "van-3", "van-4"] {
            let fix = FixReported {
                device: DeviceId::new(van).unwrap(),
                lat: if minute % 2 == 0 { 48.0 } else { 10.0 },
                lon: 16.0,
                at_us,
                accuracy_m: None,
                speed_mps: None,
                heading_deg: None,
                altitude_m: None,
                attributes: BTreeMap::new(),
                registry: 1,
            };
            let partition = partition::of(van.as_bytes(), KEYED);
            append(cluster, TopicPartition::new(Topic::Positions, partition), van, fix);
        }
    }
}

fn count(cluster: &Cluster, topic: Topic) -> usize {
    (0..KEYED).map(|p| cluster.records(TopicPartition::new(topic, p)).len()).sum()
}

struct Process {
    lifecycle: Lifecycle,
    ended: JoinHandle<Outcome>,
}

impl Process {
    fn start(cluster: &Cluster, pool: Pool, directory: &Path) -> Self {
        let settings = Settings { data_dir: directory.to_owned(), ..settings() };
        let broker: Arc<dyn Broker> = Arc::new(cluster.connect("processor-1"));
        let (clock, health) = (Clock::system(), Health::default());
        let processor = Processor::build(Deps { broker, pool, clock, health, settings }).unwrap();
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        processor.spawn(&tasks);
        let ended = tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(tasks.wait(PATIENCE))
        });
        Self { lifecycle, ended }
    }

    async fn stop(self) {
        self.lifecycle.stop(Cause::Asked("the test is over".into()));
        let outcome = self.ended.await.unwrap();
        assert!(outcome.is_clean(), "{outcome:?}");
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what} in time");
}

/// Both machines have committed all that there is.
async fn idle(cluster: &Cluster) {
    let observer = cluster.connect("observer");
    until("all is folded", async || {
        for (group, topic) in [("waypost.spatial", Topic::Positions), ("waypost.alerts", Topic::Matches)] {
            let committed = observer.committed(group.to_owned(), vec![topic]).await.unwrap();
            let ended = |p| {
                let partition = TopicPartition::new(topic, p);
                committed.get(&partition) == Some(&(cluster.records(partition).len() as i64))
            };
            if !(0..KEYED).all(ended) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixes_become_matches_and_matches_reach_inboxes_and_read_models_each_once() {
    let Some(postgres) = Postgres::start() else { return };
    let (cluster, directory) = (log(), tempfile::tempdir().unwrap());
    let pool = postgres.pool().await;
    for (round, expected) in [(0, 40), (1, 80)] {
        drive(&cluster, round * 10, 10);
        let process = Process::start(&cluster, pool.clone(), directory.path());
        idle(&cluster).await;
        let client = pool.get().await.unwrap();
        until("the matches are projected", async || {
            let row = client.query_one("SELECT count(*) FROM waypost.matches", &[]).await.unwrap();
            row.get::<_, i64>(0) == expected
        })
        .await;
        process.stop().await;
        assert_eq!(count(&cluster, Topic::Matches), expected as usize);
        assert_eq!(count(&cluster, Topic::Inboxes), expected as usize);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_data_directory_is_restored_from_postgres() {
    let Some(postgres) = Postgres::start() else { return };
    let (cluster, directory) = (log(), tempfile::tempdir().unwrap());
    let pool = postgres.pool().await;
    drive(&cluster, 0, 10);
    let process = Process::start(&cluster, pool.clone(), directory.path());
    idle(&cluster).await;
    // The projector's way has nothing to do with snapshots.
    let client = pool.get().await.unwrap();
    until("the fixes are projected", async || {
        let positions =
            "SELECT coalesce(sum(next_offset), 0)::int8 FROM waypost.projection WHERE topic = 'positions'";
        client.query_one(positions, &[]).await.unwrap().get::<_, i64>(0) == 40
    })
    .await;
    process.stop().await;
    std::fs::remove_dir_all(directory.path().join("snapshots")).unwrap();
    // What the snapshot covers is not there to be read again, but for its last record.
    for p in 0..KEYED {
        let partition = TopicPartition::new(Topic::Positions, p);
        cluster.cut(partition, cluster.records(partition).len() as i64 - 1);
    }
    let before = count(&cluster, Topic::Matches);
    let process = Process::start(&cluster, pool.clone(), directory.path());
    drive(&cluster, 10, 1);
    until("the matches of the new fixes", async || count(&cluster, Topic::Matches) == before + 4).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_away_stops_no_machine_and_delays_only_a_start_without_a_local_snapshot() {
    let Some(postgres) = Postgres::start() else { return };
    let (cluster, directory) = (log(), tempfile::tempdir().unwrap());
    let pool = postgres.pool().await;
    drive(&cluster, 0, 10);
    let process = Process::start(&cluster, pool.clone(), directory.path());
    idle(&cluster).await;
    postgres.stop("immediate");
    drive(&cluster, 10, 10);
    idle(&cluster).await;
    process.stop().await;
    assert_eq!(count(&cluster, Topic::Inboxes), 80);

    // With local snapshots a start does not need it either.
    drive(&cluster, 20, 1);
    let process = Process::start(&cluster, pool.clone(), directory.path());
    idle(&cluster).await;
    process.stop().await;

    // Without, it waits: what Postgres holds may be all that there is.
    std::fs::remove_dir_all(directory.path().join("snapshots")).unwrap();
    let process = Process::start(&cluster, pool.clone(), directory.path());
    drive(&cluster, 21, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&cluster, Topic::Matches), 84);
    postgres.resume();
    idle(&cluster).await;
    process.stop().await;
    assert_eq!((count(&cluster, Topic::Matches), count(&cluster, Topic::Inboxes)), (88, 88));
}
