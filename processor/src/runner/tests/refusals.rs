//! Starts that are refused, loudly and with the way out; and records that are not.

use std::time::Duration;

use bytes::Bytes;
use waypost_runtime::{
    broker::{Bounds, Outgoing},
    telemetry::Chain,
};
use waypost_schemas::{
    cause::SeqMap,
    codec,
    topic::{Topic, TopicPartition},
};

use super::{
    super::{
        Error, Refusal, fold,
        restore::{Beginning, Facts, judge},
    },
    world::{KEYED, World, fix, group},
};
use crate::{alerts::AlertsMachine, checkpoint::Checkpoint, snapshots::Manifest, spatial::SpatialMachine};

async fn stopped(world: &mut World) {
    world.reports(100);
    let mut process = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut process).await.unwrap();
    process.stop().await.unwrap();
}

/// Starts again after a harm; returns why it stops.
async fn refusal(harm: impl FnOnce(&mut World)) -> String {
    let mut world = World::new(1);
    stopped(&mut world).await;
    harm(&mut world);
    let error = world.start::<SpatialMachine>("a", None).ended().await.expect_err("it must not run");
    Chain(&error).to_string()
}

const SOURCE: TopicPartition = TopicPartition { topic: Topic::Positions, partition: 1 };

#[tokio::test]
async fn a_start_on_a_log_that_is_not_the_one_of_the_snapshot_is_refused_with_the_way_out() {
    let group = group::<SpatialMachine>();
    let missing = refusal(|w| w.cluster.set_committed(&group, SOURCE, None)).await;
    assert!(missing.contains("no committed offset") && missing.contains("--to-offset"), "{missing}");

    let lost = refusal(|w| w.cluster.lose_end(SOURCE, w.end(SOURCE) - 1)).await;
    assert!(lost.contains("lost its end"), "{lost}");

    let other = refusal(|w| w.cluster.set_id("another")).await;
    assert!(other.contains("was made on cluster memory, and this is cluster another"), "{other}");

    let changed = refusal(|w| {
        let mut last = w.cluster.records(SOURCE).pop().unwrap();
        w.cluster.lose_end(SOURCE, last.offset);
        last.key = Some(Bytes::from_static(b"van-other"));
        let (key, value, headers) = (last.key, last.value, last.headers);
        w.cluster.append(Outgoing { to: SOURCE, key, value, headers }).unwrap();
    })
    .await;
    assert!(changed.contains("is not the one that the snapshot after it covers"), "{changed}");

    let cut = refusal(|w| w.cluster.cut(SOURCE, w.end(SOURCE))).await;
    assert!(cut.contains("no snapshot covers what was removed"), "{cut}");
}

#[tokio::test]
async fn a_log_without_its_beginning_is_not_folded_without_a_snapshot() {
    let cut = refusal(|w| {
        std::fs::remove_dir_all(w.directory.path().join("a")).unwrap();
        w.cluster.cut(SOURCE, 2);
    })
    .await;
    assert!(cut.contains("the log begins at 2"), "{cut}");
}

#[tokio::test]
async fn a_stamp_beyond_the_end_of_the_registry_stops_loudly() {
    let mut world = World::new(2);
    stopped(&mut world).await;
    world.report("van-1", &fix("van-1", 9_000, true, 10_000));
    let error = world.start::<SpatialMachine>("a", None).ended().await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(matches!(error, Error::Registry { .. }) && text.contains("up to offset 10000"), "{text}");
}

#[tokio::test]
async fn a_hole_in_a_derived_topic_stops_loudly() {
    let mut world = World::new(3);
    world.reports(150);
    let mut process = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut process).await.unwrap();
    let to =
        (0..KEYED).map(|p| TopicPartition::new(Topic::Matches, p)).max_by_key(|p| world.end(*p)).unwrap();
    let last = world.cluster.records(to).pop().unwrap();
    world.cluster.lose_end(to, last.offset - 1);
    let (key, value, headers) = (last.key, last.value, last.headers);
    world.cluster.append(Outgoing { to, key, value, headers }).unwrap();
    let error = world.start::<AlertsMachine>("b", None).ended().await.unwrap_err();
    assert!(matches!(error, Error::Hole { .. }), "{error:?}");
}

#[tokio::test]
async fn foreign_records_become_dead_letters_and_the_rest_goes_on() {
    let mut world = World::new(4);
    stopped(&mut world).await;
    let matches = TopicPartition::new(Topic::Matches, 0);
    let genuine = world.cluster.records(matches).pop().expect("a match");
    let seq = |text: &'static str| vec![("seq".into(), Bytes::from_static(text.as_bytes()))];
    let value = genuine.value.clone().unwrap();
    world.append(matches, "x", value.clone(), Vec::new());
    world.append(matches, "x", value.clone(), seq("nobody/0/1"));
    world.append(matches, "x", value, seq("spatial/0"));
    world.append(matches, "x", codec::encode(&fix("van-1", 1, true, -1)), seq("spatial/0/1"));
    world.append(matches, "x", &b"\0\xff\xff\xff\xff"[..], seq("spatial/0/1"));
    let before = world.end(TopicPartition::new(Topic::DeadLetters, 0));
    let mut process = world.start::<AlertsMachine>("b", None);
    world.idle::<AlertsMachine>(&mut process).await.unwrap();
    let letters =
        world.cluster.records(TopicPartition::new(Topic::DeadLetters, 0)).split_off(before as usize);
    let header = |name: &str| -> Vec<String> {
        let text =
            |r: &waypost_runtime::broker::Incoming| r.header(name).map(|v| String::from_utf8_lossy(v).into());
        letters.iter().filter_map(text).collect()
    };
    assert_eq!(
        header("waypost_reason"),
        ["no_seq", "foreign_writer", "no_seq", "wrong_type", "unknown_schema"]
    );
    assert_eq!(header("seq"), (1..6).map(|n| format!("alerts/0/{n}")).collect::<Vec<_>>());
    assert_eq!(header("original_seq"), ["nobody/0/1", "spatial/0", "spatial/0/1", "spatial/0/1"]);
    assert_eq!(header("waypost_topic"), ["matches"; 5]);
}

#[tokio::test]
async fn a_fresh_group_commits_zero_before_it_folds() {
    let mut world = World::new(5);
    world.reports(60);
    world.cluster.set_held("a", true);
    let mut process = world.start::<SpatialMachine>("a", Some((super::super::fault::Step::Folded, 0)));
    assert!(matches!(process.ended().await, Err(Error::Planted)));
    let broker = world.cluster.connect("observer");
    let committed = waypost_runtime::broker::Broker::committed(
        &broker,
        group::<SpatialMachine>(),
        vec![Topic::Positions],
    )
    .await
    .unwrap();
    assert!(!committed.is_empty() && committed.values().all(|offset| *offset == 0), "{committed:?}");
}

#[tokio::test]
async fn a_refused_append_stops_loudly() {
    let mut world = World::new(6);
    world.reports(60);
    world.cluster.refuse_next("a");
    let error = world.start::<SpatialMachine>("a", None).ended().await.unwrap_err();
    assert!(matches!(error, Error::Broker { .. }), "{error:?}");
}

#[test]
fn how_a_partition_begins_follows_from_commit_snapshot_and_bounds() {
    let manifest = |next, checkpoint: Option<i64>| {
        let hash = [0; 32];
        let checkpoint =
            checkpoint.map(|offset| Checkpoint { offset, append: super::world::micros(0), hash });
        let owner = fold::owner::<SpatialMachine>(1);
        Manifest { next, checkpoint, taken: SeqMap::default(), ..Manifest::new(owner, "memory".into()) }
    };
    let check = |committed,
                 restored: Option<Manifest>,
                 newest,
                 (low, high),
                 expected: Result<(i64, i64, bool), &str>| {
        let facts = Facts {
            group: "waypost.spatial",
            partition: SOURCE,
            bounds: Bounds { low, high },
            committed,
            newest,
            manifest: restored.as_ref(),
        };
        let judged = judge(facts).map(|Beginning { from, floor, first }| (from, floor, first));
        let judged = judged.map_err(|refusal| match refusal {
            Refusal::CommitMissing { .. } => "commit missing",
            Refusal::EndLost { what, .. } => what,
            Refusal::Cut { .. } => "cut",
            Refusal::OtherCluster { .. } | Refusal::Differs { .. } => "other",
        });
        assert_eq!(judged, expected, "{committed:?} {newest:?} {low} {high}");
    };
    let at = |next| Some(manifest(next, Some(next - 1)));
    check(None, None, None, (0, 0), Ok((0, 0, true)));
    check(None, None, None, (0, 9), Ok((0, 0, true)));
    check(Some(0), None, None, (0, 9), Ok((0, 0, false)));
    check(Some(5), None, None, (0, 9), Ok((0, 5, false)));
    check(Some(5), at(9), Some(9), (0, 9), Ok((8, 5, false)));
    check(Some(5), at(3), Some(9), (0, 9), Ok((2, 5, false)));
    check(Some(5), Some(manifest(0, None)), Some(0), (0, 9), Ok((0, 5, false)));
    check(Some(5), at(9), Some(9), (8, 9), Ok((8, 5, false)));
    check(None, at(3), Some(3), (0, 9), Err("commit missing"));
    check(None, None, Some(3), (0, 9), Err("commit missing"));
    check(Some(5), at(9), Some(9), (0, 8), Err("the snapshot"));
    check(Some(9), at(5), Some(5), (0, 8), Err("the group's committed offset"));
    check(Some(9), None, None, (0, 8), Err("the group's committed offset"));
    check(Some(5), at(9), Some(9), (9, 9), Err("cut"));
    check(Some(5), None, None, (1, 9), Err("cut"));
    check(None, None, None, (1, 9), Err("cut"));
}

#[tokio::test]
async fn processes_share_partitions_and_hand_them_over() {
    let mut world = World::new(8);
    world.snapshot_interval = Duration::from_hours(1);
    world.reports(60);
    let mut a = world.start::<SpatialMachine>("a", None);
    world.idle::<SpatialMachine>(&mut a).await.unwrap();
    let mut b = world.start::<SpatialMachine>("b", None);
    world.reports(60);
    world.idle::<SpatialMachine>(&mut b).await.unwrap();
    a.stop().await.unwrap();
    world.reports(60);
    world.idle::<SpatialMachine>(&mut b).await.unwrap();
    b.stop().await.unwrap();
    world.check::<SpatialMachine>();
}
