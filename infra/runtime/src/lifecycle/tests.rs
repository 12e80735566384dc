//! Stops of all kinds.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::timeout;

use super::{Cause, Lifecycle, Outcome, Tasks, signals};

/// How long a test waits for what should come at once on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The drain of tasks that do not drain.
const SHORT: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct Full;

#[derive(Debug, thiserror::Error)]
#[error("the log cannot be written")]
struct Unwritable(#[source] Full);

fn asked(what: &str) -> Cause {
    Cause::Asked(what.to_owned())
}

async fn ends(tasks: &Tasks, drain: Duration) -> Outcome {
    timeout(PATIENCE, tasks.wait(drain)).await.expect("the tasks should end")
}

#[tokio::test]
async fn a_task_that_fails_or_panics_stops_everything_and_is_the_cause() {
    let check = async |spawn: fn(&Tasks), expected: &str| {
        let tasks = Tasks::new(&Lifecycle::new());
        let lifecycle = tasks.lifecycle().clone();
        tasks.spawn("bystander", async move {
            lifecycle.soft_stopped().await;
            Ok::<(), Infallible>(())
        });
        spawn(&tasks);
        let outcome = ends(&tasks, PATIENCE).await;
        assert_eq!(outcome.cause.to_string(), expected);
        assert!(outcome.cause.is_failure() && !outcome.is_clean() && outcome.aborted.is_empty());
    };
    check(
        |tasks| tasks.spawn("appender", async { Err(Unwritable(Full)) }),
        "task appender failed: the log cannot be written: the disk is full",
    )
    .await;
    check(
        |tasks| {
            tasks
                .spawn("runner", async { Err::<(), Box<dyn std::error::Error + Send + Sync>>("odd".into()) });
        },
        "task runner failed: odd",
    )
    .await;
    let panics: fn(&Tasks) = |tasks| {
        tasks.spawn("reader", async {
            let none: Option<u8> = None;
            none.map(|_| ()).ok_or(Full).expect("as it should, for this test");
            Ok::<(), Infallible>(())
        });
    };
    check(panics, "task reader panicked: as it should, for this test: Full").await;
}

#[tokio::test]
async fn the_first_cause_is_kept_whatever_comes_after_it() {
    let lifecycle = Lifecycle::new();
    lifecycle.stop(asked("first"));
    lifecycle.stop(Cause::Signal("SIGTERM"));
    lifecycle.stop_hard(asked("third"));
    assert_eq!(lifecycle.cause().unwrap().to_string(), "first");
    assert!(lifecycle.is_hard_stopped() && lifecycle.is_soft_stopped() && lifecycle.is_stopping());
    lifecycle.stop(asked("a soft stop does not take a hard one back"));
    assert!(lifecycle.is_hard_stopped());
    timeout(PATIENCE, lifecycle.soft_stopped()).await.expect("a hard stop is a soft stop too");
}

#[tokio::test]
async fn tasks_that_come_to_their_end_end_the_process() {
    let tasks = Tasks::new(&Lifecycle::new());
    for name in ["one", "two"] {
        tasks.spawn(name, async { Ok::<(), Infallible>(()) });
    }
    let outcome = ends(&tasks, PATIENCE).await;
    assert!(matches!(outcome.cause, Cause::Finished) && outcome.is_clean(), "{outcome:?}");
}

#[tokio::test]
async fn a_stage_stops_only_after_those_before_it_have_ended() {
    let lifecycle = Lifecycle::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let edge = Tasks::new(&lifecycle);
    let core = edge.stage("core");
    let ground = edge.stage("ground");
    for (name, stage) in [("ground", &ground), ("core", &core), ("edge", &edge), ("edge", &edge)] {
        let (order, lifecycle) = (order.clone(), stage.lifecycle().clone());
        stage.spawn(name, async move {
            lifecycle.soft_stopped().await;
            // Gives the others their chance to be told too early.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            order.lock().unwrap().push(name);
            Ok::<(), Infallible>(())
        });
    }
    lifecycle.stop(asked("the test"));
    assert!(ends(&edge, PATIENCE).await.is_clean());
    assert_eq!(*order.lock().unwrap(), ["edge", "edge", "core", "ground"]);
}

#[tokio::test]
async fn what_does_not_drain_is_told_to_stop_hard_and_what_ignores_that_is_aborted() {
    let lifecycle = Lifecycle::new();
    let tasks = Tasks::new(&lifecycle);
    let told = lifecycle.clone();
    tasks.spawn("slow", async move {
        told.hard_stopped().await;
        Ok::<(), Infallible>(())
    });
    tasks.spawn("deaf", std::future::pending::<Result<(), Infallible>>());
    lifecycle.stop(asked("the test"));
    let outcome = ends(&tasks, SHORT).await;
    assert_eq!(outcome.aborted, ["deaf"]);
    assert!(!outcome.is_clean() && !outcome.cause.is_failure());
    assert_eq!(outcome.cause.to_string(), "the test");
}

#[tokio::test]
async fn a_hard_stop_cuts_the_drain_short() {
    let lifecycle = Lifecycle::new();
    let tasks = Tasks::new(&lifecycle);
    let told = lifecycle.clone();
    tasks.spawn("slow", async move {
        told.soft_stopped().await;
        told.stop_hard(asked("a second signal"));
        told.hard_stopped().await;
        Ok::<(), Infallible>(())
    });
    lifecycle.stop(Cause::Signal("SIGINT"));
    let outcome = ends(&tasks, PATIENCE * 10).await;
    assert_eq!(outcome.cause.to_string(), "SIGINT");
    assert!(outcome.is_clean(), "{outcome:?}");
}

#[tokio::test]
async fn the_first_signal_stops_softly_and_the_second_hard() {
    let lifecycle = Lifecycle::new();
    signals(&lifecycle).unwrap();
    let raise = |signal| rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    raise(Signal::TERM);
    timeout(PATIENCE, lifecycle.soft_stopped()).await.expect("the first should stop softly");
    assert!(!lifecycle.is_hard_stopped());
    raise(Signal::INT);
    timeout(PATIENCE, lifecycle.hard_stopped()).await.expect("the second should stop hard");
    assert_eq!(lifecycle.cause().unwrap().to_string(), "SIGTERM");
}
