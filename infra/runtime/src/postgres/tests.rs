//! Pool and migrations on a real Postgres; skipped, with a word, where there is none.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Error, Pool,
    migrate::{MIGRATIONS, Migration, apply, migrate, migration},
    pool::new_enough,
    testing::Cluster,
};
use crate::{
    config::{self, SecretUrl},
    telemetry::Chain,
};

/// How long a test waits for what should come soon on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_schema_is_brought_up_to_date_once_even_when_many_do_it_at_once() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool();
    let (one, two, three) = tokio::join!(migrate(&pool), migrate(&pool), migrate(&pool));
    let mut applied: Vec<_> = [one, two, three].into_iter().map(|m| m.unwrap().applied).collect();
    applied.sort_by_key(Vec::len);
    let all: Vec<i32> = MIGRATIONS.iter().map(|m| m.number).collect();
    assert_eq!(applied, [vec![], vec![], all.clone()]);
    let again = migrate(&pool).await.unwrap();
    assert_eq!((again.applied, Some(&again.schema)), (vec![], all.last()));
    pool.check().await.unwrap();
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_refused_and_a_failed_migration_changes_nothing() {
    const FIRST: Migration = migration(1, "first", "CREATE TABLE waypost.first (id int)");
    const SECOND: Migration = migration(2, "second", "CREATE TABLE waypost.second (id int)");
    static BOTH: &[Migration] = &[FIRST, SECOND];
    static OLDER: &[Migration] = &[FIRST];
    static EDITED: &[Migration] = &[FIRST, migration(2, "second", "CREATE TABLE waypost.second (id bigint)")];
    static BROKEN: &[Migration] =
        &[FIRST, SECOND, migration(3, "third", "CREATE TABLE waypost.third (id int); SELECT 1 / 0")];

    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool();
    assert_eq!(apply(&pool, OLDER).await.unwrap().applied, [1]);
    assert_eq!(apply(&pool, BOTH).await.unwrap().applied, [2]);
    let check = async |list: &'static [Migration], expected: &str| {
        let error = apply(&pool, list).await.unwrap_err();
        let text = Chain(&error).to_string();
        assert!(text.contains(expected), "{text}");
    };
    check(OLDER, "has migration 2 (second), which this Waypost does not know").await;
    check(EDITED, "migration 2 (second) was applied with another text").await;
    check(BROKEN, "migration 3 (third) failed; nothing was changed").await;
    let client = pool.get().await.unwrap();
    let row = client.query_one("SELECT to_regclass('waypost.third')::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<String>>(0), None);
    assert_eq!(apply(&pool, BOTH).await.unwrap().applied, [0; 0]);
}

#[tokio::test]
async fn nothing_waits_for_ever_and_the_pool_is_whole_when_postgres_comes_back() {
    let Some(cluster) = Cluster::start() else { return };
    let short = Duration::from_millis(200);
    let settings = config::Postgres { connections_max: 1, query_timeout: short, ..Cluster::settings() };
    let pool = Pool::open(&cluster.url(), &settings).unwrap();
    let client = pool.get().await.unwrap();
    let error = Error::from(client.execute("SELECT pg_sleep(60)", &[]).await.unwrap_err());
    assert!(Chain(&error).to_string().contains("statement timeout"), "{}", Chain(&error));
    assert!(error.passes());

    let settings = config::Postgres { connect_timeout: short, ..settings };
    let narrow = Pool::open(&cluster.url(), &settings).unwrap();
    let held = narrow.get().await.unwrap();
    assert!(matches!(narrow.get().await, Err(Error::Unavailable(_))), "all connections are in use");
    drop(held);
    ask(&narrow).await.unwrap();

    drop(client);
    cluster.stop();
    // The first to ask may be given a connection that has just died; every error says that it passes.
    let away = async {
        loop {
            match ask(&pool).await {
                Ok(()) => panic!("a server that was stopped answered"),
                Err(error @ Error::Unavailable(_)) => break error.passes(),
                Err(error) => assert!(error.passes(), "{}", Chain(&error)),
            }
        }
    };
    assert!(timeout(PATIENCE, away).await.expect("the pool should find out"));
    cluster.serve();
    ask(&pool).await.unwrap();
}

async fn ask(pool: &Pool) -> Result<(), Error> {
    pool.get().await?.execute("SELECT 1", &[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_url_that_is_not_understood_is_said_without_its_password() {
    let settings = Cluster::settings();
    let error = Pool::open(&SecretUrl::new("postgresql://u:hush@h:port/w"), &settings).unwrap_err();
    let text = Chain(&error).to_string();
    assert!(matches!(error, Error::Url(_)) && !text.contains("hush"), "{text}");

    let nobody = SecretUrl::new("postgresql://u:hush@/w?host=/nowhere");
    let error = Pool::open(&nobody, &settings).unwrap().get().await.map(|_| ()).unwrap_err();
    let text = Chain(&error).to_string();
    assert!(matches!(error, Error::Unavailable(_)) && !text.contains("hush"), "{text}");
}

#[test]
fn a_postgres_older_than_15_is_refused_by_its_version() {
    assert!(new_enough(150_000, "15.0".to_owned()).is_ok());
    assert!(new_enough(180_001, "18.1".to_owned()).is_ok());
    let error = new_enough(140_011, "14.11 (Debian 14.11-1)".to_owned()).unwrap_err();
    assert_eq!(error.to_string(), "Postgres 14.11 (Debian 14.11-1) is too old: Waypost needs 15 or newer");
}

#[test]
fn migrations_are_in_order_and_each_has_the_file_of_its_number_and_name() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../postgres/migrations");
    let mut files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let listed: Vec<String> = MIGRATIONS.iter().map(|m| format!("{:03}_{}.sql", m.number, m.name)).collect();
    assert_eq!(files, listed);
}
