//! A Postgres of a test's own, on a socket in a temporary directory.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use super::Pool;
use crate::config::{self, SecretUrl};

/// Where Debian keeps the programs of each version, off the path.
const DEBIAN: &str = "/usr/lib/postgresql";

pub(super) struct Cluster {
    dir: tempfile::TempDir,
    programs: PathBuf,
    user: Option<u32>,
}

impl Cluster {
    /// Starts one; `None`, with a word on stderr, where there is no Postgres to start.
    pub(super) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: there is no initdb on this machine");
            return None;
        };
        // Postgres refuses to be run by root.
        let user = if rustix::process::geteuid().is_root() { Some(user_postgres()?) } else { None };
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(dir.path(), user, None).unwrap();
        let cluster = Self { dir, programs, user };
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-A", "trust", "-U", "waypost", "-N", "--no-instructions"]);
        cluster.serve();
        Some(cluster)
    }

    /// Starts the server of a cluster that is there.
    pub(super) fn serve(&self) {
        let socket = self.dir.path().display().to_string();
        let options = format!("-c listen_addresses= -c fsync=off -c unix_socket_directories={socket}");
        let log = format!("{socket}/log");
        self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-o", &options, "-w", "start"]);
    }

    /// Stops it at once, as a power cut does.
    pub(super) fn stop(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]);
    }

    pub(super) fn settings() -> config::Postgres {
        config::Postgres {
            url: None,
            connections_max: 4,
            connect_timeout: Duration::from_secs(20),
            query_timeout: Duration::from_secs(20),
        }
    }

    pub(super) fn url(&self) -> SecretUrl {
        SecretUrl::new(format!("postgresql://waypost@/postgres?host={}", self.dir.path().display()))
    }

    pub(super) fn pool(&self) -> Pool {
        Pool::open(&self.url(), &Self::settings()).unwrap()
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join(program));
        // Without files of its own a server that goes on would hold the test's.
        command.args(arguments).current_dir("/").stdin(std::process::Stdio::null());
        if let Some(uid) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
        }
        let Output { status, stderr, .. } = command.output().unwrap();
        assert!(status.success(), "{program}: {}", String::from_utf8_lossy(&stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            self.stop();
        }
    }
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().or_else(|| {
        ["/usr/bin", "/usr/local/bin"].iter().map(PathBuf::from).find(|bin| bin.join("initdb").exists())
    })
}

fn user_postgres() -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"))
        .and_then(|rest| rest.split(':').nth(1))
        .and_then(|uid| uid.parse().ok());
    if uid.is_none() {
        eprintln!("skipped: Postgres refuses root, and there is no user postgres");
    }
    uid
}
