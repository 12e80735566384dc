//! On the real programs, where this machine has them.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};
use waypost_runtime::{
    clock::Clock,
    datadir::{DataDir, Mark},
    lifecycle::{Cause, Lifecycle, Tasks},
};

use super::*;

/// Waits for a state, at most a minute.
async fn until(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), wait).await.is_ok(), "never came: {what}");
}

fn kill(mark: Option<Mark>) -> Mark {
    let mark = mark.expect("it runs");
    kill_process(Pid::from_raw(mark.pid).expect("a pid"), Signal::KILL).expect("killed");
    mark
}

struct Run {
    lifecycle: Lifecycle,
    tasks: Tasks,
    environment: Environment,
    data: DataDir,
}

impl Run {
    fn new(dir: &Path) -> Self {
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let data = DataDir::create(&dir.join("data")).expect("made");
        Self { lifecycle, tasks, environment: std::env::vars().collect(), data }
    }

    async fn stop(&self) {
        self.lifecycle.stop(Cause::Asked("the test is over".into()));
        assert!(self.tasks.wait(Duration::from_mins(1)).await.is_clean());
    }
}

#[tokio::test]
async fn a_killed_broker_comes_back_at_its_port_and_as_the_same_cluster_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = Run::new(dir.path());
    let first = match kafka::start(&run.data, &run.environment, &run.tasks, &Clock::system()).await {
        Ok(kafka) => kafka,
        Err(error) => {
            eprintln!("skipped, for there is no local kafka here: {error:#}");
            return run.stop().await;
        }
    };
    let was = kill(first.watched.mark());
    until("another process", async || first.watched.mark().is_some_and(|mark| mark != was)).await;
    until("its port", async || TcpStream::connect(&first.bootstrap).await.is_ok()).await;
    let last = first.watched.mark().expect("it runs");
    run.stop().await;
    assert!(!last.is_alive());

    let run = Run::new(dir.path());
    let second =
        kafka::start(&run.data, &run.environment, &run.tasks, &Clock::system()).await.expect("started again");
    assert_eq!((&second.bootstrap, &second.cluster), (&first.bootstrap, &first.cluster));
    run.stop().await;
}

#[tokio::test]
async fn a_killed_store_comes_back_at_its_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = Run::new(dir.path());
    let store = match postgres::start(&run.data, &run.environment, &run.tasks, &Clock::system()).await {
        Ok(store) => store,
        Err(error) => {
            eprintln!("skipped, for there is no local postgres here: {error:#}");
            return run.stop().await;
        }
    };
    let (_, host) = store.url.rsplit_once('@').expect("a user and a host");
    let host = host.split('/').next().expect("a host").replace("%2F", "/");
    let socket = Path::new(&host).join(".s.PGSQL.5432");
    let was = kill(store.watched.mark());
    until("another process", async || store.watched.mark().is_some_and(|mark| mark != was)).await;
    until("its socket", async || UnixStream::connect(&socket).await.is_ok()).await;
    let last = store.watched.mark().expect("it runs");
    run.stop().await;
    assert!(!last.is_alive());
    postgres::remove_store(&run.data).expect("removed");
    assert!(!socket.exists(), "a store that was stopped in order takes its socket away");
}
