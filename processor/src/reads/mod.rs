//! What can be asked over HTTP: where devices are and were, what matched, what was said, and how far everything has
//! come.
//!
//! The answers come from the read models, which follow the log at a short distance; only the status asks the log
//! itself. While Postgres is away, all but the status are refused with `postgres_unavailable`.

mod conversations;
mod devices;
mod matches;
mod page;
mod status;

use std::sync::Arc;

use axum::{Router, extract::FromRef, routing::get};
use waypost_runtime::{
    auth::Auth,
    broker::{self, Broker},
    clock::Clock,
    http::{Code, Problem, codes},
    postgres::{self, Pool},
    telemetry::Chain,
};

use crate::projector::Heads;

static POSTGRES_UNAVAILABLE: Code = Code {
    code: "postgres_unavailable",
    status: axum::http::StatusCode::SERVICE_UNAVAILABLE,
    title: "Postgres is away; try again later.",
};

static LOG_UNAVAILABLE: Code = Code {
    code: "log_unavailable",
    status: axum::http::StatusCode::SERVICE_UNAVAILABLE,
    title: "The log is away; try again later.",
};

/// The refusals that only these routes give, for the documentation.
pub static PROBLEMS: &[&Code] = &[&POSTGRES_UNAVAILABLE, &LOG_UNAVAILABLE];

/// After how many seconds a request that met an outage is sent again.
const RETRY_AFTER_S: u32 = 2;

/// What the routes stand on; a cheap clone.
#[derive(Clone)]
pub struct Reads {
    auth: Auth,
    pool: Pool,
    broker: Arc<dyn Broker>,
    clock: Clock,
    tails: Arc<status::Tails>,
}

impl Reads {
    /// Prepares the routes; `heads` are those of this process's projector, empty ones where it has none.
    pub fn new(auth: Auth, pool: Pool, broker: Arc<dyn Broker>, heads: Heads, clock: Clock) -> Self {
        let tails = Arc::new(status::Tails::new(broker.clone(), heads));
        Self { auth, pool, broker, clock, tails }
    }
}

impl FromRef<Reads> for Auth {
    fn from_ref(reads: &Reads) -> Self {
        reads.auth.clone()
    }
}

/// The routes: `GET /v1/devices`, `/v1/devices/{id}/position`, `/v1/devices/{id}/track`, `/v1/matches`,
/// `/v1/conversations/{id}/messages` and `/v1/status`.
pub fn router(reads: Reads) -> Router {
    Router::new()
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{id}/position", get(devices::position))
        .route("/v1/devices/{id}/track", get(devices::track))
        .route("/v1/conversations/{id}/messages", get(conversations::messages))
        .route("/v1/matches", get(matches::list))
        .route("/v1/status", get(status::show))
        .with_state(reads)
}

/// Why a route cannot answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("postgres did not answer")]
    Postgres(#[from] postgres::Error),
    #[error("the log did not answer")]
    Broker(#[from] broker::Error),
    #[error("what is kept of message {number} is no message: empty the read models so that they are rebuilt")]
    Entry {
        /// The message's number.
        number: i64,
    },
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let away = match &error {
            Error::Postgres(source) if source.passes() => &POSTGRES_UNAVAILABLE,
            Error::Broker(broker::Error::Unavailable { .. }) => &LOG_UNAVAILABLE,
            Error::Postgres(_) | Error::Broker(_) | Error::Entry { .. } => {
                tracing::error!(error = %Chain(&error), "a read failed");
                return Self::new(&codes::INTERNAL);
            }
        };
        Self::new(away).retry_after_s(RETRY_AFTER_S)
    }
}
