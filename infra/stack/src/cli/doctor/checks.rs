//! What is looked at.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::fs::{Access, access, statvfs};
use tokio::net::{TcpListener, TcpStream};
use waypost_runtime::{
    config::Settings,
    connect,
    datadir::{Addresses, DataDir},
};

use super::Finding;
use crate::{
    local::{Environment, kafka, postgres},
    up::checks::{Descriptors, RAISE, files},
};

/// How long anything elsewhere may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const GIB: u64 = 1 << 30;
/// Less than this is soon full: Kafka alone takes tens of MiB for its first segments and indexes.
const DISK_MIN: u64 = GIB;
const DISK_FEW: u64 = 10 * GIB;

/// Looks at everything, in the order in which a start needs it.
pub(super) async fn all(settings: &Settings, environment: &Environment) -> Vec<Finding> {
    let stack = running(&settings.data_dir);
    let mut found = Vec::new();
    if let Some(bootstrap) = &settings.kafka.bootstrap {
        found.push(kafka_elsewhere(bootstrap).await);
    } else {
        found.push(Finding::needed("java", kafka::java(environment).await));
        found.push(Finding::needed("kafka", kafka::programs(environment).await));
    }
    if settings.postgres.url.is_some() {
        found.push(Finding::needed("postgres", postgres_elsewhere(settings).await));
    } else {
        found.push(Finding::needed("postgres", postgres::programs(environment).await));
    }
    found.push(match &stack {
        Some(stack) => Finding::ok("ports", format!("in use by the stack of this directory, {}", stack.url)),
        None => Finding::needed("ports", ports(settings).await),
    });
    found.push(descriptors());
    found.push(data_dir(&settings.data_dir));
    found.push(disk(&settings.data_dir));
    found.push(match stack {
        Some(stack) => readiness(&stack.url).await,
        None => Finding::ok("stack", "none runs in this directory; `waypost up` starts one"),
    });
    found
}

/// Where the stack of a data directory is, while its process lives.
fn running(data_dir: &Path) -> Option<Addresses> {
    let addresses = Addresses::read(&DataDir::existing(data_dir).ok()?).ok()?;
    addresses.processes.get("waypost").is_some_and(|mark| mark.is_alive()).then_some(addresses)
}

async fn kafka_elsewhere(bootstrap: &str) -> Finding {
    let mut last = String::new();
    for server in bootstrap.split(',').map(str::trim) {
        match tokio::time::timeout(ANSWER_WITHIN, TcpStream::connect(server)).await {
            Ok(Ok(_)) => return Finding::ok("kafka", format!("{server} takes connections")),
            Ok(Err(error)) => last = format!("{server}: {error}"),
            Err(_) => last = format!("{server} does not answer"),
        }
    }
    Finding::missing(
        "kafka",
        format!("{last}; start that Kafka, or name the right one with --kafka HOST:PORT"),
    )
}

async fn postgres_elsewhere(settings: &Settings) -> anyhow::Result<String> {
    let pool = connect::pool(settings)?;
    let what_to_do = "start that Postgres, or name the right one with --postgres URL";
    let answered = tokio::time::timeout(ANSWER_WITHIN, pool.get()).await.context(what_to_do)?;
    answered.map(drop).context(what_to_do)?;
    pool.close();
    Ok("the one that --postgres names answers".to_owned())
}

/// The HTTP port, and those of a local broker.
async fn ports(settings: &Settings) -> anyhow::Result<String> {
    let address = settings.listen;
    match TcpListener::bind(address).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AddrInUse => anyhow::bail!(
            "port {} of {} is taken by another program: stop that one, or choose another port with --listen {}:PORT",
            address.port(),
            address.ip(),
            address.ip()
        ),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot listen at {address}; choose another with --listen"));
        }
    }
    if settings.kafka.bootstrap.is_some() {
        return Ok(format!("{address} is free"));
    }
    let (broker, controller) = kafka::ports(&settings.data_dir)?;
    Ok(format!("{address} is free; Kafka would take {broker} and {controller}"))
}

fn descriptors() -> Finding {
    let (files, enough) = files();
    let says = files.map_or_else(|| "no limit".to_owned(), |files| format!("{files} files may be open"));
    match enough {
        Descriptors::Enough => Finding::ok("descriptors", says),
        Descriptors::Few => {
            Finding::note("descriptors", format!("{says}, which is few for many devices: {RAISE}"))
        }
        Descriptors::TooFew => Finding::missing("descriptors", format!("{says}, which is too few: {RAISE}")),
    }
}

fn data_dir(dir: &Path) -> Finding {
    let (place, exists) = nearest(dir);
    let shown = place.display();
    if let Err(error) = access(&place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::missing(
            "data directory",
            format!("{shown}: {error}; name a directory that you may write with --data-dir"),
        );
    }
    let says =
        if exists { format!("{shown} can be written") } else { format!("{} can be made", dir.display()) };
    Finding::ok("data directory", says)
}

fn disk(dir: &Path) -> Finding {
    let (place, _) = nearest(dir);
    let free = match statvfs(&place) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return Finding::note("disk", format!("{}: {error}", place.display())),
    };
    weigh(free)
}

fn weigh(free: u64) -> Finding {
    let says = format!("{:.1} GiB are free", free as f64 / GIB as f64);
    match free {
        DISK_FEW.. => Finding::ok("disk", says),
        DISK_MIN.. => Finding::note("disk", format!("{says}: the log grows for ever unless it is cut")),
        _ => Finding::missing("disk", format!("{says}: make room, or name another disk with --data-dir")),
    }
}

/// The directory itself, or the nearest one above it that is there; and whether it is itself.
fn nearest(dir: &Path) -> (PathBuf, bool) {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = absolute.ancestors().find(|path| path.exists()).map(Path::to_owned);
    let exists = found.as_ref() == Some(&absolute);
    (found.unwrap_or_else(|| "/".into()), exists)
}

async fn readiness(url: &str) -> Finding {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build();
    let answer = async {
        let answer = client?.get(format!("{url}/readyz")).send().await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
    };
    match answer.await {
        Ok((status, _)) if status.is_success() => Finding::ok("stack", format!("{url} is ready")),
        Ok((_, body)) => Finding::missing("stack", format!("{url} is not ready: {}", reasons(&body))),
        Err(error) => Finding::missing(
            "stack",
            format!("{url} does not answer: {}; stop it and start it again", error.without_url()),
        ),
    }
}

/// The reasons in what a stack that is not ready says: `{"checks": {NAME: {"ready", "reason"}}}`.
fn reasons(body: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let checks = document["checks"].as_object().into_iter().flatten();
    let reasons: Vec<String> = checks
        .filter(|(_, check)| check["ready"] != true)
        .map(|(name, check)| format!("{name}: {}", check["reason"].as_str().unwrap_or("not ready")))
        .collect();
    if reasons.is_empty() { "it does not say why".to_owned() } else { reasons.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn little_room_is_a_note_and_less_is_missing() {
        for (free, state) in
            [(0, State::Missing), (GIB - 1, State::Missing), (GIB, State::Note), (10 * GIB, State::Ok)]
        {
            assert_eq!(weigh(free).state, state, "{free}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(dir.path()), (dir.path().to_owned(), true));
        assert_eq!(nearest(&dir.path().join("a/b")), (dir.path().to_owned(), false));
        assert_eq!(data_dir(&dir.path().join("a/b")).state, State::Ok);
        assert_eq!(data_dir(Path::new("/proc/1/nowhere")).state, State::Missing);
    }

    #[tokio::test]
    async fn a_taken_port_is_missing_and_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = waypost_runtime::config::Config::load(&waypost_runtime::config::Sources::default());
        let mut settings = config.unwrap().settings().clone();
        settings.listen = taken.local_addr().unwrap();
        let error = ports(&settings).await.expect_err("it is taken").to_string();
        assert!(error.contains("--listen"), "{error}");
    }

    #[tokio::test]
    async fn a_kafka_that_is_away_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(kafka_elsewhere(&address).await.state, State::Ok);
        drop(listener);
        assert_eq!(kafka_elsewhere(&address).await.state, State::Missing);
    }

    #[test]
    fn what_is_not_ready_is_named_with_its_reason() {
        let body = r#"{"ready":false,"checks":{"a":{"ready":true},"b":{"ready":false,"reason":"it lags"}}}"#;
        assert_eq!(reasons(body), "b: it lags");
        assert_eq!(reasons("<html>"), "it does not say why");
    }
}
