//! A process of one part that joins a running stack: it finds log, store and keys by the stack's data directory, and
//! has an HTTP port of its own. What the crates' own binaries have in common.

use std::{
    collections::BTreeMap, convert::Infallible, fmt::Display, io, net::SocketAddr, path::PathBuf,
    process::ExitCode, sync::Arc, time::Duration,
};

use axum::Router;
use tokio::{net::TcpListener, runtime};

use crate::{
    auth::{self, Keys},
    broker::Broker,
    clock::Clock,
    config::{self, Config, SecretUrl, Settings, Sources},
    connect,
    datadir::{self, Addresses, DataDir, Lock},
    health::{self, Health},
    http,
    lifecycle::{Lifecycle, Outcome, Tasks, signals},
    postgres::Pool,
    telemetry::{self, Telemetry},
};

/// How long a process that has stopped waits for threads that still wait for a broker.
const THREADS_WAIT: Duration = Duration::from_secs(2);

/// Why a process cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is not `NAME=VALUE`.
    #[error("--set takes NAME=VALUE, not {0}")]
    Flag(String),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Logs or metrics cannot start.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The data directory is not that of a stack, or the instance's number is taken.
    #[error(transparent)]
    DataDir(#[from] datadir::Error),
    /// The stack's key cannot be read.
    #[error(transparent)]
    Keys(#[from] auth::Error),
    /// Log or store refuse.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The HTTP port cannot be taken.
    #[error("cannot listen at {address}; choose another address with --listen, port 0 takes a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be heard.
    #[error("signals cannot be heard")]
    Signals(#[source] io::Error),
    /// It was told to stop before it had joined.
    #[error("stopped while joining")]
    Stopped,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The stack's data directory.
    pub data_dir: PathBuf,
    /// The address of the HTTP port; a free port of loopback without one.
    pub listen: Option<String>,
    /// The processor's number.
    pub instance: Option<u32>,
    /// Any settings, as `NAME=VALUE`.
    pub set: Vec<String>,
    /// The TOML file.
    pub config: Option<PathBuf>,
}

impl Request {
    fn settings(self) -> Result<Settings, Error> {
        let mut flags = BTreeMap::new();
        for pair in self.set {
            let Some((name, value)) = pair.split_once('=') else { return Err(Error::Flag(pair)) };
            flags.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        flags.insert("data_dir".to_owned(), self.data_dir.display().to_string());
        flags.insert("listen".to_owned(), self.listen.unwrap_or_else(|| "127.0.0.1:0".to_owned()));
        flags.extend(self.instance.map(|number| ("instance".to_owned(), number.to_string())));
        let sources = Sources::read(flags, config::environment(), self.config.as_deref())?;
        Ok(Config::load(&sources)?.settings().clone())
    }
}

/// What a part's own command does: runs the part until it stops, and says under the command's name why it failed.
pub fn command<E>(name: &str, part: impl Future<Output = Result<(), E>>) -> ExitCode
where
    E: Display + From<io::Error>,
{
    let done =
        runtime::Builder::new_multi_thread().enable_all().build().map_err(E::from).and_then(|runtime| {
            let done = runtime.block_on(part);
            runtime.shutdown_timeout(THREADS_WAIT);
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Names the log and the store of a stack in settings that name none.
pub fn adopt(settings: &mut Settings, addresses: Addresses) {
    settings.kafka.bootstrap.get_or_insert(addresses.kafka);
    settings.postgres.url.get_or_insert_with(|| SecretUrl::new(addresses.postgres));
}

/// A process that has joined: what its part stands on.
pub struct Joined {
    /// The settings, with the stack's addresses.
    pub settings: Settings,
    /// The stack's data directory.
    pub data: DataDir,
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub pool: Pool,
    /// The stack's keys.
    pub keys: Arc<Keys>,
    /// The time.
    pub clock: Clock,
    /// Where the part tells whether it is ready.
    pub health: Health,
    /// The stage that the part runs in; it stops after HTTP.
    pub tasks: Tasks,
    telemetry: Telemetry,
    http: Tasks,
    closing: Tasks,
    listener: TcpListener,
    _lock: Option<Lock>,
}

impl Joined {
    /// Joins; waits while the log is away. With `numbered`, no other processor may have the same instance's number.
    pub async fn open(request: Request, numbered: bool) -> Result<Self, Error> {
        Self::open_as(request, numbered.then_some("processor")).await
    }

    /// Joins; waits while the log is away. Where a part is named, no other process of that part may have the same
    /// instance's number.
    pub async fn open_as(request: Request, numbered: Option<&str>) -> Result<Self, Error> {
        let mut settings = request.settings()?;
        let telemetry = telemetry::init(settings.log.format, &settings.log.filter)?;
        let lifecycle = Lifecycle::new();
        signals(&lifecycle).map_err(Error::Signals)?;
        let data = DataDir::existing(&settings.data_dir)?;
        data.root().clone_into(&mut settings.data_dir);
        adopt(&mut settings, Addresses::read(&data)?);
        let lock = numbered.map(|part| data.lock_instance_of(part, settings.instance)).transpose()?;
        let keys = Arc::new(Keys::load_or_create(data.root(), &settings.auth)?);
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let broker = tokio::select! {
            biased;
            broker = connect::broker(&settings, None) => broker?,
            () = lifecycle.soft_stopped() => return Err(Error::Stopped),
        };
        connect::topics(&*broker, &settings).await?;
        let pool = connect::pool(&settings)?;
        let http = Tasks::new(&lifecycle);
        let (tasks, closing) = (http.stage("part"), http.stage("pool"));
        let (clock, health) = (Clock::system(), Health::default());
        Ok(Self {
            settings,
            data,
            broker,
            pool,
            keys,
            clock,
            health,
            tasks,
            telemetry,
            http,
            closing,
            listener,
            _lock: lock,
        })
    }

    /// Serves the part's routes, and runs until a stop is asked for or something fails.
    pub async fn run(self, routes: Router) -> Outcome {
        let address =
            self.listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let stage = self.http.lifecycle().clone();
        let router = routes.merge(health::router(self.health, self.telemetry.clone(), stage.clone()));
        self.telemetry.upkeep(&self.http);
        let limits = http::Limits::from(&self.settings.http);
        self.http.spawn("http", http::serve(self.listener, router, limits, self.clock, stage));
        let (pool, stage) = (self.pool, self.closing.lifecycle().clone());
        self.closing.spawn("pool", async move {
            stage.soft_stopped().await;
            pool.close();
            Ok::<(), Infallible>(())
        });
        tracing::info!(url = format!("http://{address}"), instance = self.settings.instance, "joined");
        self.http.wait(self.settings.shutdown.drain).await
    }
}
