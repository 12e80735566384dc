//! What stops a projector for good, so that nothing wrong is ever written.

use waypost_processor::projector::Error;
use waypost_schemas::{
    cause::{Position, Seq},
    event::HoleAccepted,
    id::UserId,
    topic::{Topic, TopicPartition},
};

use crate::{
    postgres::Postgres,
    world::{Running, World, all_rows, entering, fix, told, until_projected},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_stops_the_projector_behind_what_came_before_it() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let matched = entering("ann", 0, "A", "R");
    let entry = told("warden", &matched);
    let first = world.derive(Topic::Inboxes, 0, "warden", entry.clone());
    let seq = Seq { machine: "alerts".into(), partition: 0, number: 3 };
    let behind = world.append_derived(Topic::Inboxes, "warden", &entry.into(), &seq);
    for _ in 0..2 {
        match Running::start(&world, "processor-1", &pool).failure().await {
            Error::Hole(hole) => assert_eq!((hole.offset, hole.expected), (behind.offset, 2)),
            error => panic!("{error}"),
        }
        let rows = all_rows(&pool).await;
        assert_eq!(rows["inbox_entries"].len(), 1);
        let next = format!("\"next_offset\": {}", first.offset + 1);
        assert!(rows["projection"].iter().any(|row| row.contains("inboxes") && row.contains(&next)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_was_accepted_is_passed_and_what_follows_is_projected() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let entry = told("warden", &entering("ann", 0, "A", "R"));
    world.derive(Topic::Inboxes, 0, "warden", entry.clone());
    let append = |number| {
        let seq = Seq { machine: "alerts".into(), partition: 0, number };
        world.append_derived(Topic::Inboxes, "warden", &entry.clone().into(), &seq)
    };
    let behind = append(3);
    append(4);
    let late = append(2);
    let second = append(9);
    let accept = |at: Position| {
        let (topic, partition, offset) = (at.topic, at.partition, at.offset);
        let by = UserId::new("op").unwrap();
        world.append(Topic::Registry, "hole", HoleAccepted { topic, partition, offset, by });
    };
    for hole in [behind, second] {
        match Running::start(&world, "processor-1", &pool).failure().await {
            Error::Hole(found) => assert_eq!(found.position(), hole),
            error => panic!("{error}"),
        }
        accept(hole);
    }
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    running.stop().await;
    let rows = all_rows(&pool).await;
    assert_eq!(rows["inbox_entries"].len(), 4, "all but the one that came late, as a copy");
    let copy = format!("\"offset\": {},", late.offset);
    assert!(!rows["inbox_entries"].iter().any(|row| row.contains(&copy)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_of_another_log_are_refused() {
    let Some(postgres) = Postgres::start() else { return };
    let pool = postgres.pool().await;
    let world = World::new();
    for second in 0..5 {
        world.report(&fix("ann", second, 10.0, 50.0));
    }
    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    running.stop().await;
    let stood = all_rows(&pool).await;
    let end = world.report(&fix("ann", 5, 10.0, 50.0));
    let of = TopicPartition::new(Topic::Positions, end.partition);

    // A log that ends before what is covered.
    world.cluster.lose_end(of, 3);
    let error = Running::start(&world, "processor-1", &pool).failure().await;
    assert!(matches!(error, Error::LostEnd { partition, next: 5, high: 3 } if partition == of), "{error}");

    // A log that lost its end and has grown again.
    for second in 10..20 {
        world.report(&fix("ann", second, 10.0, 50.0));
    }
    let error = Running::start(&world, "processor-1", &pool).failure().await;
    assert!(matches!(error, Error::OtherLog { partition, offset: 4 } if partition == of), "{error}");

    // Another cluster.
    world.cluster.set_id("another");
    let error = Running::start(&world, "processor-1", &pool).failure().await;
    assert!(matches!(&error, Error::OtherCluster { found, .. } if found == "another"), "{error}");
    assert_eq!(all_rows(&pool).await, stood);
}
