//! A Postgres of its own for a test: on a socket alone, and gone at the end.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use waypost_runtime::{
    config::{Config, Settings, Sources},
    postgres::{self, Pool},
};

/// A Postgres with an empty database; it ends with this value.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: TempDir,
}

impl Postgres {
    /// Makes and starts one; `None`, with a word about it, where no Postgres of 15 or newer is installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = newest_installed() else {
            println!("skipped: no Postgres 15 or newer is installed");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("waypost-pg-").tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let postgres = Self { bin, dir };
        let auth = ["-A", "trust", "-U", "waypost", "-E", "UTF8", "--no-locale", "--no-sync"];
        run(postgres.tool("initdb").arg("-D").arg(postgres.data()).args(auth));
        postgres.resume();
        Some(postgres)
    }

    /// Starts it again.
    pub(crate) fn resume(&self) {
        let socket = self.dir.path().display();
        let options = format!("-c listen_addresses='' -c fsync=off -c unix_socket_directories='{socket}'");
        let mut start = self.control("start");
        run(start.arg("-l").arg(self.dir.path().join("log")).arg("-o").arg(options));
    }

    /// Stops it; at once, as a crash does, or after its clients were sent away.
    pub(crate) fn stop(&self, mode: &str) {
        run(self.control("stop").args(["-m", mode]));
    }

    /// A pool of connections, with the schema up to date.
    pub(crate) async fn pool(&self) -> Pool {
        let pool = self.pool_as_it_is();
        postgres::migrate(&pool).await.unwrap();
        pool
    }

    /// A pool of connections.
    pub(crate) fn pool_as_it_is(&self) -> Pool {
        let url = format!("postgresql:///postgres?user=waypost&host={}", self.dir.path().display());
        let flags = [("postgres.url".to_owned(), url)].into();
        let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
        let settings = &config.settings().postgres;
        Pool::open(settings.url.as_ref().unwrap(), settings).unwrap()
    }

    /// A file that the server may write and read.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control(&self, action: &str) -> Command {
        let mut control = self.tool("pg_ctl");
        control.args([action, "-w", "-s", "-D"]).arg(self.data());
        control
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A command of Postgres, which refuses to run as root.
    fn tool(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.dir.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.control("stop").args(["-m", "immediate"]).output();
    }
}

/// The defaults of all settings.
pub(crate) fn settings() -> Settings {
    Config::load(&Sources::default()).unwrap().settings().clone()
}

fn newest_installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let bin = |version: &u32| Path::new("/usr/lib/postgresql").join(format!("{version}/bin"));
    let complete = |version: &u32| bin(version).join("initdb").exists();
    versions.filter(|version| *version >= 15 && complete(version)).max().map(|version| bin(&version))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn run(command: &mut Command) {
    // A server that is started keeps the handles that it is given: none may be a pipe that this waits for.
    let status = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command:?}: {status:?}");
}
