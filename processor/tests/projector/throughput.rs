//! How fast a backlog is written, beside bare COPY of the same rows: run with `--ignored --nocapture`, in release.

use waypost_runtime::{clock::Clock, postgres::Pool};

use crate::{
    postgres::Postgres,
    world::{Running, World, fix, forget, until_projected},
};

const FIXES: usize = 240_000;

/// Seconds from the start of a projector until the backlog stands in Postgres.
async fn project(world: &World, pool: &Pool, batch_records_max: usize) -> f64 {
    let clock = Clock::system();
    let begun = clock.monotonic();
    let running = Running::start_with(world, "processor-1", pool, batch_records_max);
    until_projected(world, pool).await;
    let took = clock.elapsed(begun).as_secs_f64();
    running.stop().await;
    took
}

/// Seconds that Postgres takes to read the rows of the tracks from a file of COPY's own format, index and all.
async fn bare_copy(postgres: &Postgres, pool: &Pool) -> f64 {
    let client = pool.get().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS public.bare (LIKE waypost.tracks INCLUDING ALL); TRUNCATE public.bare; \
             SET synchronous_commit = off",
        )
        .await
        .unwrap();
    let file = postgres.file("bare.copy");
    let file = file.display();
    let rows = "SELECT * FROM waypost.tracks ORDER BY partition, \"offset\"";
    client.batch_execute(&format!("COPY ({rows}) TO '{file}' (FORMAT binary)")).await.unwrap();
    let clock = Clock::system();
    let begun = clock.monotonic();
    client.batch_execute(&format!("COPY public.bare FROM '{file}' (FORMAT binary)")).await.unwrap();
    clock.elapsed(begun).as_secs_f64()
}

async fn measure(name: &str, devices: usize) {
    let Some(postgres) = Postgres::start() else { return };
    let (world, pool) = (World::new(), postgres.pool().await);
    for n in 0..FIXES {
        let device = format!("user-{}/van", n % devices);
        world.report(&fix(&device, (n / devices) as i64, 10.0, 50.0));
    }
    for round in 0..3 {
        forget(&pool).await;
        let projected = project(&world, &pool, 5_000).await;
        let copied = bare_copy(&postgres, &pool).await;
        let again = {
            pool.get().await.unwrap().batch_execute("TRUNCATE waypost.projection").await.unwrap();
            project(&world, &pool, 5_000).await
        };
        let rate = |seconds: f64| FIXES as f64 / seconds;
        println!(
            "{name}, round {round}: {:.0} fixes/s projected, {:.0} rows/s by bare COPY ({:.2} of it); \
             {:.0} fixes/s where all stand already",
            rate(projected),
            rate(copied),
            copied / projected,
            rate(again),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, minutes long"]
async fn few_devices_with_long_tracks() {
    measure("100 devices", 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, minutes long"]
async fn many_devices_with_short_tracks() {
    measure("60,000 devices", 60_000).await;
}
