//! Crashes, zombies and outages: every batch is written once.

use std::time::Duration;

use waypost_schemas::{
    cause::Seq,
    event::ReceiptKind,
    topic::{Topic, TopicPartition},
};

use crate::{
    postgres::Postgres,
    world::{Running, World, all_rows, entering, fix, forget, saying, told, until, until_projected},
};

const DEVICES: [&str; 4] = ["ann", "bob/van", "cid", "dan/phone"];

/// Appends a little of everything.
fn append(world: &mut World, second: i64) {
    for device in DEVICES {
        world.report(&fix(device, second, 10.0, 50.0 + (second % 1_000) as f64 / 1_000.0));
        world.report(&fix(device, second - second % 5, 11.0, 50.0));
    }
    let matched = entering(DEVICES[second as usize % 4], second, "A", "R");
    world.derive(Topic::Matches, 0, matched.device.as_str(), matched.clone());
    world.derive(Topic::Inboxes, 0, "warden", told("warden", &matched));
    let said = world.say(&saying(DEVICES[0], DEVICES[second as usize % 2 * 2], b"hallo"));
    world.receipt(DEVICES[2], DEVICES[0], ReceiptKind::Delivered, said.offset);
    world.receipt(DEVICES[2], DEVICES[0], ReceiptKind::Read, said.offset - second % 7);
}

/// What stands is what a run without any fault makes of the same log.
async fn assert_equals_an_undisturbed_run(world: &World, pool: &waypost_runtime::postgres::Pool) {
    until_projected(world, pool).await;
    let disturbed = all_rows(pool).await;
    forget(pool).await;
    let running = Running::start(world, "undisturbed", pool);
    until_projected(world, pool).await;
    running.stop().await;
    assert_eq!(all_rows(pool).await, disturbed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_is_killed_anywhere_goes_on_where_postgres_says() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    for life in 0..25 {
        for second in 0..40 {
            append(&mut world, life * 40 + second);
        }
        let running = Running::start_with(&world, "processor-1", &pool, 16);
        // Somewhere: before its first batch, in a transaction, between a commit and its answer.
        tokio::time::sleep(Duration::from_millis((life as u64 * 7) % 60)).await;
        drop(running);
    }
    let running = Running::start(&world, "processor-1", &pool);
    assert_equals_an_undisturbed_run_after(running, &world, &pool).await;
}

async fn assert_equals_an_undisturbed_run_after(
    running: Running,
    world: &World,
    pool: &waypost_runtime::postgres::Pool,
) {
    until_projected(world, pool).await;
    running.stop().await;
    assert_equals_an_undisturbed_run(world, pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_projectors_of_one_partition_each_batch_is_written_by_one() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    append(&mut world, 0);
    let zombie = Running::start_with(&world, "processor-1", &pool, 8);
    until_projected(&world, &pool).await;
    // It does not hear that its partitions were given away, and goes on reading and writing them.
    world.cluster.set_suspended("processor-1", true);
    world.cluster.expire("processor-1");
    let heir = Running::start_with(&world, "processor-2", &pool, 8);
    for second in 1..150 {
        append(&mut world, second);
        tokio::task::yield_now().await;
    }
    until_projected(&world, &pool).await;
    world.cluster.set_suspended("processor-1", false);
    for second in 150..200 {
        append(&mut world, second);
    }
    until_projected(&world, &pool).await;
    zombie.stop().await;
    assert_equals_an_undisturbed_run_after(heir, &world, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_the_projector_waits_and_then_goes_on() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let running = Running::start_with(&world, "processor-1", &pool, 32);
    until("it is ready", || async { running.health.is_ready() }).await;
    for (round, mode) in ["fast", "immediate", "fast"].into_iter().enumerate() {
        let first = round as i64 * 400;
        for second in first..first + 200 {
            append(&mut world, second);
        }
        tokio::time::sleep(Duration::from_millis(20 * round as u64)).await;
        postgres.stop(mode);
        for second in first + 200..first + 400 {
            append(&mut world, second);
        }
        until("it says that it waits", || async { !running.health.is_ready() }).await;
        postgres.resume();
        until_projected(&world, &pool).await;
        until("it is ready again", || async { running.health.is_ready() }).await;
    }
    assert_equals_an_undisturbed_run_after(running, &world, &pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_starts_before_postgres_and_its_schema_waits_for_them() {
    let Some(postgres) = Postgres::start() else { return };
    let mut world = World::new();
    append(&mut world, 0);
    postgres.stop("fast");
    let pool = postgres.pool_as_it_is();
    let running = Running::start(&world, "processor-1", &pool);
    until("it waits", || async { !running.health.is_ready() }).await;
    postgres.resume();
    postgres.pool().await;
    until_projected(&world, &pool).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_dropped_and_foreign_records_are_dead_letters() {
    let Some(postgres) = Postgres::start() else { return };
    let (mut world, pool) = (World::new(), postgres.pool().await);
    let matched = entering("ann", 0, "A", "R");
    for _ in 0..3 {
        world.derive(Topic::Inboxes, 0, "warden", told("warden", &matched));
    }
    // Two copies by an owner that did not know, then what comes next.
    let event = told("warden", &matched).into();
    for number in [2, 3] {
        let seq = Seq { machine: "alerts".into(), partition: 0, number };
        world.append_derived(Topic::Inboxes, "warden", &event, &seq);
    }
    world.derive(Topic::Inboxes, 0, "warden", told("warden", &matched));

    // None of these belongs: no bytes of ours, no seq, a seq of nobody, a record of another topic.
    world.append_raw(Topic::Inboxes, "warden", b"hello", Vec::new());
    world.append(Topic::Inboxes, "warden", told("warden", &matched));
    let seq = Seq { machine: "mallory".into(), partition: 0, number: 1 };
    world.append_derived(Topic::Inboxes, "warden", &event, &seq);
    world.append(Topic::Inboxes, "warden", fix("ann", 0, 10.0, 50.0));
    world.append_raw(Topic::Registry, "zone/A", &[0, 0, 0, 255, 255, 1], Vec::new());
    // Those of matches are the alerts machine's to bury.
    world.append_raw(Topic::Matches, "ann", b"hello", Vec::new());

    let running = Running::start(&world, "processor-1", &pool);
    until_projected(&world, &pool).await;
    running.stop().await;

    let rows = all_rows(&pool).await;
    assert_eq!(rows["inbox_entries"].len(), 4, "{:?}", rows["inbox_entries"]);
    let mut codes: Vec<String> = (0..3)
        .flat_map(|p| world.cluster.records(TopicPartition::new(Topic::DeadLetters, p)))
        .map(|letter| String::from_utf8(letter.header("waypost_reason").unwrap().to_vec()).unwrap())
        .collect();
    codes.sort();
    assert_eq!(codes, ["foreign_record", "foreign_writer", "no_seq", "unknown_schema", "wrong_type"]);
}
