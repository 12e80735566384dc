//! A Postgres for this data directory alone: on a socket, without TCP.

mod place;
mod programs;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::process::Command;
use waypost_runtime::{
    clock::Clock,
    datadir::{DataDir, Mark, create_private},
    lifecycle::Tasks,
};

pub use self::place::remove_store;
use self::{place::Place, programs::Programs};
use super::{Environment, Watched, last_lines, process::Program, run};

/// A store that was not stopped in order is recovered first.
const READY_WITHIN: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// The user that the cluster knows; who may reach the socket is its owner's directory's matter.
const USER: &str = "waypost";

/// What the store is started with. All of it can be rebuilt from the log, so it need not wait for its disk.
const SETTINGS: [&str; 14] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=64",
    "shared_buffers=128MB",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=1GB",
    "checkpoint_timeout=15min",
    "jit=off",
    "timezone=UTC",
    "log_line_prefix=%m [%p] ",
    "logging_collector=off",
];

/// A local store that runs.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    /// Where it is, as a connection URL.
    pub(crate) url: String,
    /// Its process.
    pub(crate) watched: Watched,
}

/// The Postgres that a local store would run on, for a person.
pub(crate) async fn programs(environment: &Environment) -> anyhow::Result<String> {
    if rustix::process::geteuid().is_root() {
        place::user_of_root().await?;
    }
    let found = programs::find(environment).await?;
    let Programs { dir, major } = found.newest();
    Ok(format!("PostgreSQL {major}, {}", dir.display()))
}

/// Starts the store of a data directory, and waits until it takes connections.
pub(crate) async fn start(
    data: &DataDir,
    environment: &Environment,
    tasks: &Tasks,
    clock: &Clock,
) -> anyhow::Result<Postgres> {
    create_private(&data.postgres())?;
    create_private(&data.logs())?;
    let programs = programs::find(environment).await?;
    let place = place::of(data, environment).await?;

    let mut program = program(&place, data);
    program.end_leftover().await?;
    place.prepare()?;
    let cluster = place.cluster();
    let programs = if let Ok(major) = fs::read_to_string(cluster.join("PG_VERSION")) {
        programs.of_cluster(major.trim(), &cluster)?
    } else {
        let newest = programs.newest();
        initdb(newest, &place).await?;
        newest
    };
    program.path = programs.dir.join("postgres");
    let watched = program.start(tasks, clock)?;
    let pid_file = cluster.join("postmaster.pid");
    watched.ready(READY_WITHIN, async |mark| is_ready(&pid_file, mark)).await?;
    tracing::info!(socket = %place.socket_dir.display(), pid = watched.mark().map(|mark| mark.pid), "postgres runs");
    Ok(Postgres { url: place.url(USER), watched })
}

fn program(place: &Place, data: &DataDir) -> Program {
    let mut args = vec!["-D".to_owned(), place.cluster().display().to_string()];
    args.extend(["-k".to_owned(), place.socket_dir.display().to_string()]);
    args.extend(SETTINGS.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
    Program {
        name: "postgres",
        path: "postgres".into(),
        args,
        work_dir: place.base.clone(),
        owner: place.owner,
        log: data.logs().join("postgres.log"),
        mark: place.base.join("process.json"),
        outside: place.outside(),
        // Fast shutdown, and immediate shutdown, which is recovered from at the next start.
        soft: (Signal::INT, STOP_WITHIN),
        hard: Signal::QUIT,
    }
}

/// Makes the cluster beside its place and moves it there, so that a start that is killed leaves none half made.
async fn initdb(programs: &Programs, place: &Place) -> anyhow::Result<()> {
    let (new, cluster) = (place.base.join("cluster.new"), place.cluster());
    if cluster.exists() {
        bail!(
            "{} is there, but is no Postgres cluster any more (it has no PG_VERSION); delete it: all in it can be rebuilt from the log",
            cluster.display()
        );
    }
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| new.display().to_string())?;
    }
    place.make_owned(&new)?;
    tracing::info!(version = programs.major, "making the postgres cluster");
    let mut command = Command::new(programs.dir.join("initdb"));
    command.arg("-D").arg(&new).args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-instructions"]);
    command.args(["--auth-local=trust", "--auth-host=reject"]).current_dir(&place.base);
    if let Some((user, group)) = place.owner {
        command.uid(user).gid(group);
    }
    let said = run(&mut command).await?.context("initdb is gone")?;
    if !said.success {
        bail!("initdb failed:\n{}", last_lines(&format!("{}\n{}", said.stdout, said.stderr), 12));
    }
    fs::rename(&new, &cluster).with_context(|| cluster.display().to_string())
}

/// Whether this very server says in `postmaster.pid` that it takes connections, which is what `pg_ctl` waits for: the
/// first line is its pid, the eighth its state (`src/include/utils/pidfile.h`).
fn is_ready(pid_file: &Path, mark: Mark) -> bool {
    fs::read_to_string(pid_file).is_ok_and(|text| says_ready(&text, mark.pid))
}

fn says_ready(text: &str, pid: i32) -> bool {
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_its_own_pid_file_says_so() {
        let file = "4242\n/var/cluster\n1764000000\n5432\n/run/socket\n\n  123  456\nready   \n";
        let check =
            |text: &str, pid: i32, expected: bool| assert_eq!(says_ready(text, pid), expected, "{text}");
        check(file, 4242, true);
        check(file, 424, false);
        check(&file.replace("ready", "starting"), 4242, false);
        check("4242\n/var/cluster\n", 4242, false);
        check("", 4242, false);
    }
}
