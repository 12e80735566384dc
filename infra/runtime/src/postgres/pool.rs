//! A bounded pool of connections, none of which waits for ever.

use std::{fmt, str::FromStr};

use deadpool_postgres::{Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::{NoTls, error::SqlState};

use crate::config::{self, SecretUrl};

/// The oldest Postgres that is supported, as `server_version_num` says it.
const VERSION_MIN: i32 = 150_000;

/// A connection of the pool; dropped, it goes back.
pub type Client = deadpool_postgres::Object;

/// A transaction on such a connection.
pub type Transaction<'a> = deadpool_postgres::Transaction<'a>;

/// What can go wrong at Postgres.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not understood.
    #[error(
        "the Postgres URL is not understood; it is postgresql://user@host:5432/name, or postgresql:///name?host=/socket/dir"
    )]
    Url(#[source] tokio_postgres::Error),
    /// The pool cannot be made.
    #[error("the Postgres pool cannot be made")]
    Build(#[source] deadpool_postgres::BuildError),
    /// There is no connection: Postgres is away, refuses us, or all connections are in use for too long.
    #[error("no connection to Postgres")]
    Unavailable(#[source] PoolError),
    /// A statement failed.
    #[error("a statement failed")]
    Query(#[from] tokio_postgres::Error),
    /// The server is too old.
    #[error("Postgres {found} is too old: Waypost needs 15 or newer")]
    TooOld {
        /// The server's version, as it says it.
        found: String,
    },
    /// The schema was made by a newer Waypost.
    #[error(
        "the schema has migration {number} ({name}), which this Waypost does not know: use a newer one, or another database"
    )]
    Newer {
        /// The migration.
        number: i32,
        /// Its name.
        name: String,
    },
    /// A migration that has been applied is no longer what it was.
    #[error(
        "migration {number} ({name}) was applied with another text: released migrations are never edited"
    )]
    Changed {
        /// The migration.
        number: i32,
        /// Its name.
        name: String,
    },
    /// A migration failed; nothing was changed.
    #[error("migration {number} ({name}) failed; nothing was changed")]
    Migration {
        /// The migration.
        number: i32,
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// Whether an error passes by itself: Postgres is away, starts, stops, has no room now, or met a deadlock.
    ///
    /// What remains is what it refuses about the statement or the rows, and refuses again however often it is asked.
    pub fn passes(&self) -> bool {
        let source = match self {
            Self::Unavailable(_) => return true,
            Self::Query(source) => source,
            _ => return false,
        };
        let Some(code) = source.code() else { return source.is_closed() || is_io(source) };
        // Classes of Postgres' appendix A: connection, transaction rollback, resources, operator, system; then the
        // schema that is being migrated, a standby that takes no writes yet, and a lock that was not to be had.
        ["08", "40", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
            || [
                SqlState::UNDEFINED_TABLE,
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::READ_ONLY_SQL_TRANSACTION,
                SqlState::LOCK_NOT_AVAILABLE,
            ]
            .contains(code)
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// A bounded pool of connections; a cheap clone.
#[derive(Clone)]
pub struct Pool(deadpool_postgres::Pool);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.status()).finish()
    }
}

impl Pool {
    /// Makes a pool that connects when it is asked for a connection, so that a process can start while Postgres is
    /// away. A socket's directory is named as host: `postgresql:///waypost?host=/run/postgresql`.
    pub fn open(url: &SecretUrl, settings: &config::Postgres) -> Result<Self, Error> {
        let mut config = tokio_postgres::Config::from_str(url.reveal()).map_err(Error::Url)?;
        config.connect_timeout(settings.connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name("waypost");
        }
        let timeout = format!("-c statement_timeout={}", settings.query_timeout.as_millis());
        let options = config.get_options().map_or(timeout.clone(), |given| format!("{timeout} {given}"));
        config.options(options);

        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, manager);
        deadpool_postgres::Pool::builder(manager)
            .max_size(settings.connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.connect_timeout))
            .create_timeout(Some(settings.connect_timeout))
            .recycle_timeout(Some(settings.connect_timeout))
            .build()
            .map(Self)
            .map_err(Error::Build)
    }

    /// A connection, waiting for one at most as long as connecting may take.
    pub async fn get(&self) -> Result<Client, Error> {
        self.0.get().await.map_err(Error::Unavailable)
    }

    /// Closes all connections; those in use close when they come back.
    pub fn close(&self) {
        self.0.close();
    }

    /// Checks that the server is there and new enough.
    pub async fn check(&self) -> Result<(), Error> {
        check_version(&self.get().await?).await
    }
}

pub(super) async fn check_version(client: &Client) -> Result<(), Error> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
            &[],
        )
        .await?;
    new_enough(row.get(0), row.get(1))
}

/// Whether a server of this `server_version_num` is supported.
pub(super) fn new_enough(number: i32, version: String) -> Result<(), Error> {
    if number < VERSION_MIN { Err(Error::TooOld { found: version }) } else { Ok(()) }
}
