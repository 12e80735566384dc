//! The whole stack in this process, on a real Kafka and Postgres, where this machine has them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use waypost::up::{Options, Part, Stack, start};
use waypost_runtime::{
    config::{Config, Sources, environment},
    datadir::{Addresses, DataDir},
    lifecycle::{Cause, Lifecycle},
    telemetry::{self, Format},
};

fn options(data_dir: &Path) -> Options {
    let flags = BTreeMap::from([
        ("data_dir".to_owned(), data_dir.display().to_string()),
        ("listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("topics.partitions".to_owned(), "2".to_owned()),
    ]);
    let config = Config::load(&Sources { flags, ..Sources::default() }).expect("settings");
    let parts = Part::ALL.into();
    Options { settings: config.settings().clone(), environment: environment(), parts, join: false }
}

async fn begin(options: Options) -> Result<Stack, String> {
    let telemetry = telemetry::init(Format::Pretty, "warn").expect("telemetry");
    start(options, &Lifecycle::new(), &telemetry).await.map_err(|error| format!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_ready_refuses_a_second_one_and_leaves_no_process_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(&dir.path().join("data"));
    let stack = match begin(options.clone()).await {
        Ok(stack) => stack,
        Err(error) if ["no Java", "no Maven", "no Postgres"].iter().any(|lack| error.starts_with(lack)) => {
            return eprintln!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let ready = async {
        while !stack.health().is_ready() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(2), ready).await;
    assert!(in_time.is_ok(), "never ready: {:?}", stack.health().checks());

    let data = DataDir::existing(stack.data_dir()).expect("it is there");
    assert_eq!(&Addresses::read(&data).expect("written"), stack.addresses());
    let processes = stack.processes();
    assert_eq!(processes.keys().collect::<Vec<_>>(), ["kafka", "postgres", "waypost"]);
    let second = begin(options).await.expect_err("the directory is taken");
    assert!(second.contains(&format!("is in use by process {}", std::process::id())), "{second}");

    stack.lifecycle().stop(Cause::Asked("the test is over".to_owned()));
    let outcome = stack.wait().await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(processes.iter().all(|(name, mark)| name == "waypost" || !mark.is_alive()), "{processes:?}");
    assert!(Addresses::read(&data).is_err(), "stack.json is gone");
    data.lock().expect("the lock is free");
    waypost::remove_store(&data).expect("removed");
}
