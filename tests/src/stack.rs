//! A stack as a user runs it: the `waypost` program, with its own Kafka and Postgres, in a directory of its own.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use waypost_runtime::datadir::DataDir;

use crate::link::Link;

/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How many looks a start may take: two minutes, for the first one fetches Kafka's jars.
const LOOKS_MAX: u32 = 6_000;

/// A process of the `waypost` program; killed when it is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop as Ctrl-C does, and waits; an exit code that is not 0 is an error with its log.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        signal(self.pid(), "INT")?;
        self.ended()
    }

    /// Waits until it ends by itself; an exit code that is not 0 is an error with its log.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "ended with {status}: {}", self.log());
        Ok(())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it printed and logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its lines of level ERROR: something for a person to look at.
    pub fn errors(&self) -> Vec<String> {
        self.log().lines().filter(|l| l.contains("\"level\":\"ERROR\"")).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The directory goes with the test.
            eprintln!("what {} said:\n{}", self.pid(), self.log());
        }
        if self.runs() {
            let _ = self.kill();
        }
    }
}

/// Sends a signal, `STOP` for instance, to a process of ours.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot send {name} to {pid}");
    Ok(())
}

/// One stack at a time: each is a Kafka, a Postgres and a Waypost.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A data directory, and what runs on it.
pub struct Stack {
    dir: tempfile::TempDir,
    starts: u32,
}

impl Stack {
    /// An empty directory on which nothing runs yet.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, starts: 0 })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path beside the data directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts `waypost up` on the data directory, with further arguments, and waits until it is ready.
    pub fn up(&mut self, args: &[&str]) -> anyhow::Result<Process> {
        let _ = fs::remove_file(self.data().join("stack.json"));
        let data = self.data();
        let mut all = vec!["up", "--data-dir", path(&data)];
        all.extend(args);
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        let mut process = self.start(&all)?;
        for _ in 0..LOOKS_MAX {
            if let Some(status) = process.child.try_wait()? {
                anyhow::bail!("the stack ended with {status}: {}", process.log());
            }
            if self.json().is_ok() && self.waypost(&["status", "--json"]).is_ok() {
                return Ok(process);
            }
            sleep(LOOK);
        }
        anyhow::bail!("the stack is not ready: {}", process.log())
    }

    /// Starts a processor of its own that joins the stack.
    pub fn processor(&mut self, instance: u32) -> anyhow::Result<Process> {
        self.part("processor", instance, "127.0.0.1:0")
    }

    /// Starts a part of its own that joins the stack, with an address to listen on; it may not be ready yet.
    pub fn part(&mut self, name: &str, instance: u32, listen: &str) -> anyhow::Result<Process> {
        self.join(&["--only", name, "--instance", &instance.to_string(), "--listen", listen])
    }

    /// Starts parts of their own that join the stack, by the arguments of `waypost up`; they may not be ready yet.
    pub fn join(&mut self, args: &[&str]) -> anyhow::Result<Process> {
        let data = self.data();
        self.start(&[&["up", "--join", path(&data)], args].concat())
    }

    fn start(&mut self, args: &[&str]) -> anyhow::Result<Process> {
        let mut command = Command::new(program()?);
        command.args(args).stdin(Stdio::null());
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> anyhow::Result<Process> {
        self.starts += 1;
        let log = self.beside(&format!("{}.log", self.starts));
        // Both append, so that neither writes over the other.
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Process { child, log })
    }

    /// Starts a client's command, and does not wait for it.
    pub fn begin(&mut self, args: &[&str]) -> anyhow::Result<Process> {
        let command = self.client(args)?;
        self.spawn(command)
    }

    /// Starts a client's command on a node of this stack, and does not wait for it.
    pub fn begin_of(&mut self, node: &str, args: &[&str]) -> anyhow::Result<Process> {
        let command = self.client_of(node, args)?;
        self.spawn(command)
    }

    /// Starts a client's command at the other end of a link, and does not wait for it.
    pub fn begin_beyond(&mut self, link: &Link, args: &[&str]) -> anyhow::Result<Process> {
        let command = link.beyond(&self.client(args)?);
        self.spawn(command)
    }

    /// The token of a user's device.
    pub fn token(&self, user: &str, device: &str) -> anyhow::Result<String> {
        Ok(self.waypost(&["token", "--user", user, "--device", device])?.trim().to_owned())
    }

    /// Where the stack is, `http://127.0.0.1:7400`.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(self.json()?["url"].as_str().context("no url")?.to_owned())
    }

    /// What `stack.json` says.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.data().join("stack.json"))?)?)
    }

    /// The number of a process that the stack started, `kafka` or `postgres`.
    pub fn pid_of(&self, part: &str) -> anyhow::Result<u32> {
        let pid = self.json()?["processes"][part]["pid"].as_u64().context("no such process")?;
        Ok(u32::try_from(pid)?)
    }

    /// A command of the client on this stack, not yet run.
    pub fn client(&self, args: &[&str]) -> anyhow::Result<Command> {
        self.client_of(&self.url()?, args)
    }

    /// A command of the client on a node of this stack, not yet run.
    fn client_of(&self, node: &str, args: &[&str]) -> anyhow::Result<Command> {
        let token = fs::read_to_string(self.data().join("operator.token"))?;
        let mut command = Command::new(program()?);
        command.args(args).args(["--url", node, "--token", token.trim()]).stdin(Stdio::null());
        // What a device remembers stays with the stack.
        command.env("WAYPOST_DATA_DIR", self.data());
        Ok(command)
    }

    /// Runs a client's command to its end, and gives what it printed; an exit code that is not 0 is an error.
    pub fn waypost(&self, args: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.client(args)?.output()?;
        ensure!(
            status.success(),
            "waypost {args:?} ended with {status}: {}",
            String::from_utf8_lossy(&stderr)
        );
        Ok(String::from_utf8(stdout)?)
    }

    /// Waits until all is processed, and gives the matches as sorted lines without the head.
    pub fn matches(&self) -> anyhow::Result<Vec<String>> {
        self.waypost(&["wait", "--idle", "--timeout", "5m"])?;
        Ok(rows(&self.waypost(&["matches", "--format", "csv"])?))
    }
}

impl Drop for Stack {
    /// Root's Postgres stands outside the directory, and goes with it.
    fn drop(&mut self) {
        if let Ok(data) = DataDir::existing(&self.data()) {
            let _ = waypost::remove_store(&data);
        }
    }
}

/// What a node answers to a plain `GET`, without its head; an error where nobody answers, or not well.
pub fn get(node: &str, path: &str) -> anyhow::Result<String> {
    let address = node.strip_prefix("http://").context("no address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

/// A number that a node counts, by its name and labels as `/metrics` writes them; 0 where it has counted none.
pub fn metric(node: &str, name: &str) -> anyhow::Result<f64> {
    let metrics = get(node, "/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map_or(Ok(0.0), str::parse)?)
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The lines of a CSV text without its head, sorted.
pub fn rows(csv: &str) -> Vec<String> {
    let mut rows: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
    rows.sort();
    rows
}

/// A path as text.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have names in UTF-8")
}

/// The program beside the tests: `cargo test --workspace` builds both.
fn program() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().map(|dir| dir.join("waypost")).find(|file| file.is_file());
    found.context("the program waypost is not built: cargo build -p waypost")
}
