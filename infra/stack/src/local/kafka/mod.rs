//! A Kafka of one node for this machine: its jars, its settings, its storage and its process.

mod jars;
mod ports;
mod properties;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::{net::TcpStream, process::Command};
use waypost_runtime::{
    clock::Clock,
    datadir::{DataDir, create_private, write_private},
    lifecycle::Tasks,
};

use self::{jars::Java, ports::Ports};
use super::{Environment, Watched, last_lines, process::Program, run};

const LOG4J: &str = include_str!("../../../../kafka/log4j2.xml");
/// A first start on a slow disk; usually it is two seconds. A log that was not closed is checked first.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// A broker that is stopped closes its log, so that the next start need not check it.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A local broker that runs.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    /// Where clients begin, `127.0.0.1:21042`.
    pub(crate) bootstrap: String,
    /// The id that its storage was formatted with.
    pub(crate) cluster: String,
    /// Its process.
    pub(crate) watched: Watched,
}

/// The Java that a local broker would run on, for a person.
pub(crate) async fn java(environment: &Environment) -> anyhow::Result<String> {
    let Java { path, major } = jars::java(environment).await?;
    Ok(format!("Java {major}, {}", path.display()))
}

/// Where Kafka's programs are or will come from, for a person.
pub(crate) async fn programs(environment: &Environment) -> anyhow::Result<String> {
    jars::source(environment).await
}

/// The ports that a data directory's broker has, or would get.
pub(crate) fn ports(data_dir: &Path) -> anyhow::Result<(u16, u16)> {
    ports::next(&data_dir.join("kafka")).map(|ports| (ports.broker, ports.controller))
}

/// Starts the broker of a data directory, and waits until it takes connections.
pub(crate) async fn start(
    data: &DataDir,
    environment: &Environment,
    tasks: &Tasks,
    clock: &Clock,
) -> anyhow::Result<Kafka> {
    let dir = Dir { root: data.kafka() };
    create_private(&dir.root)?;
    create_private(&data.logs())?;
    let java = jars::java(environment).await?;
    let classpath = jars::classpath(environment).await?;
    write_private(&dir.log4j(), LOG4J.as_bytes())?;

    let mut program = dir.program(&java, &classpath, data.logs().join("kafka.log"));
    program.end_leftover().await?;
    let ports = ports::of(&dir.root)?;
    dir.write_properties(ports, &dir.storage())?;
    let cluster = dir.formatted(&java, &classpath, ports).await?;

    program.args.push(dir.properties().display().to_string());
    let watched = program.start(tasks, clock)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.broker));
    watched.ready(READY_WITHIN, async |_| TcpStream::connect(address).await.is_ok()).await?;
    tracing::info!(%address, pid = watched.mark().map(|mark| mark.pid), "kafka runs");
    Ok(Kafka { bootstrap: address.to_string(), cluster, watched })
}

/// What stands where in the broker's directory.
struct Dir {
    root: PathBuf,
}

impl Dir {
    fn storage(&self) -> PathBuf {
        self.root.join("log")
    }

    fn properties(&self) -> PathBuf {
        self.root.join("server.properties")
    }

    fn log4j(&self) -> PathBuf {
        self.root.join("log4j2.xml")
    }

    fn write_properties(&self, ports: Ports, storage: &Path) -> anyhow::Result<()> {
        let text = properties::render(ports, storage)?;
        Ok(write_private(&self.properties(), text.as_bytes())?)
    }

    fn program(&self, java: &Java, classpath: &str, log: PathBuf) -> Program {
        let log4j = format!("-Dlog4j2.configurationFile={}", self.log4j().display());
        let args = [
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            &log4j,
            "-cp",
            classpath,
            "kafka.Kafka",
        ];
        Program {
            name: "kafka",
            path: java.path.clone(),
            args: args.map(str::to_owned).to_vec(),
            work_dir: self.root.clone(),
            owner: None,
            log,
            mark: self.root.join("process.json"),
            outside: None,
            soft: (Signal::TERM, STOP_WITHIN),
            hard: Signal::KILL,
        }
    }

    /// The cluster's id; the storage is formatted where it is not yet.
    async fn formatted(&self, java: &Java, classpath: &str, ports: Ports) -> anyhow::Result<String> {
        let meta = self.storage().join("meta.properties");
        if !meta.exists() {
            self.format(java, classpath, ports).await?;
        }
        let text = fs::read_to_string(&meta).with_context(|| meta.display().to_string())?;
        properties::value(&text, "cluster.id")
            .with_context(|| format!("{} names no cluster.id", meta.display()))
    }

    async fn format(&self, java: &Java, classpath: &str, ports: Ports) -> anyhow::Result<()> {
        let storage = self.storage();
        if fs::read_dir(&storage).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} holds files but no meta.properties: it is no Kafka log any more; restore it, or move it away to begin with an empty log",
                storage.display()
            );
        }
        // Formatted beside, and moved in one step: a start that is killed leaves no storage half made.
        let new = self.root.join("log.new");
        if new.exists() {
            fs::remove_dir_all(&new).with_context(|| new.display().to_string())?;
        }
        self.write_properties(ports, &new)?;
        let id = properties::cluster_id()?;
        tracing::info!(cluster = id, "formatting kafka's storage");
        let log4j = format!("-Dlog4j2.configurationFile={}", self.log4j().display());
        let mut command = Command::new(&java.path);
        command.args([
            &log4j,
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            &id,
            "-c",
        ]);
        let said = run(command.arg(self.properties())).await?.context("java is gone")?;
        if !said.success {
            bail!(
                "kafka's storage cannot be formatted:\n{}",
                last_lines(&format!("{}\n{}", said.stdout, said.stderr), 12)
            );
        }
        let _ = fs::remove_dir(&storage);
        fs::rename(&new, &storage).with_context(|| storage.display().to_string())?;
        self.write_properties(ports, &storage)
    }
}
