use std::process::Command as Plain;

use waypost_runtime::lifecycle::Cause;

use super::*;

fn program(dir: &Path, script: &str) -> Program {
    Program {
        name: "test program",
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        work_dir: dir.into(),
        owner: None,
        log: dir.join("log"),
        mark: dir.join("process.json"),
        outside: None,
        soft: (Signal::TERM, Duration::from_secs(10)),
        hard: Signal::KILL,
    }
}

/// Waits for a state, at most ten seconds.
async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let wait = async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "never came: {what}");
}

fn tasks() -> (Lifecycle, Tasks) {
    let lifecycle = Lifecycle::new();
    let tasks = Tasks::new(&lifecycle);
    (lifecycle, tasks)
}

#[test]
fn the_back_off_doubles_up_to_its_bound() {
    let check = |failures, ms| assert_eq!(back_off(failures), Duration::from_millis(ms), "{failures}");
    check(1, 250);
    check(2, 500);
    check(5, 4_000);
    check(7, 10_000);
    check(u32::MAX, 10_000);
}

#[tokio::test]
async fn a_program_that_is_killed_is_started_again_and_one_that_is_stopped_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lifecycle, tasks) = tasks();
    let watched = program(dir.path(), "exec sleep 600").start(&tasks, &Clock::system()).expect("started");
    let first = watched.mark().expect("it runs");
    assert_eq!(Mark::read(&dir.path().join("process.json")), Some(first));
    send(first.pid, Signal::KILL);
    until("a second process", || watched.mark().is_some_and(|mark| mark != first)).await;
    let second = watched.mark().expect("it runs");
    lifecycle.stop(Cause::Asked("the test is over".into()));
    assert!(tasks.wait(Duration::from_secs(10)).await.is_clean());
    assert!(!second.is_alive());
    assert_eq!(Mark::read(&dir.path().join("process.json")), None, "nothing is left to be ended");
}

#[tokio::test]
async fn a_program_that_does_not_listen_is_ended_hard_by_a_second_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lifecycle, tasks) = tasks();
    let script = "trap '' TERM; echo up; while :; do sleep 1; done";
    let watched = program(dir.path(), script).start(&tasks, &Clock::system()).expect("started");
    until("its first line", || fs::read_to_string(dir.path().join("log")).is_ok_and(|log| log == "up\n"))
        .await;
    let mark = watched.mark().expect("it runs");
    lifecycle.stop(Cause::Asked("once".into()));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(mark.is_alive(), "it ignores the soft signal");
        lifecycle.stop_hard(Cause::Asked("twice".into()));
    };
    let (outcome, ()) = tokio::join!(tasks.wait(Duration::from_mins(1)), stop);
    assert!(outcome.aborted.is_empty());
    assert!(!mark.is_alive());
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_an_error_that_quotes_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (lifecycle, tasks) = tasks();
    let watched =
        program(dir.path(), "echo no room left; exit 3").start(&tasks, &Clock::system()).expect("started");
    let error =
        watched.ready(Duration::from_secs(10), async |_| false).await.expect_err("it ended").to_string();
    assert!(error.contains("ended as soon as it was started (exit status: 3)"), "{error}");
    assert!(error.contains("no room left"), "{error}");
    lifecycle.stop(Cause::Asked("the test is over".into()));
    assert!(tasks.wait(Duration::from_secs(10)).await.is_clean());
}

#[tokio::test]
async fn what_a_killed_run_left_is_ended_only_where_pid_and_start_time_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = program(dir.path(), "");
    let mut left = Plain::new("sleep").arg("600").spawn().expect("started");
    let mark = Mark::of(left.id() as i32).expect("it runs");
    Mark { started: mark.started + 1, ..mark }.write(&program.mark).expect("written");
    program.end_leftover().await.expect("nothing to do");
    assert!(mark.is_alive(), "another process of the same pid is left alone");
    mark.write(&program.mark).expect("written");
    program.end_leftover().await.expect("ended");
    assert!(!mark.is_alive());
    left.wait().expect("reaped");
}

#[test]
fn a_log_is_cut_at_its_bound_and_its_writer_goes_on_at_the_new_end() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("kafka.log");
    let mut writer = OpenOptions::new().append(true).create(true).open(&log).expect("opened");
    writer.write_all(b"first\n").expect("written");
    bound(&log).expect("nothing to do");
    assert_eq!(fs::read(&log).expect("read"), b"first\n");
    writer.set_len(LOG_BYTES_MAX + 1).expect("grown");
    bound(&log).expect("cut");
    writer.write_all(b"second\n").expect("written");
    assert_eq!(fs::read(&log).expect("read"), b"second\n");
    assert_eq!(fs::metadata(dir.path().join("kafka.log.1")).expect("kept").len(), LOG_BYTES_MAX + 1);
}
