//! The way up by HTTP: reads requests, asks admission, and answers when the log has it.

mod feature;
mod messages;
mod operator;
mod positions;
mod refusal;
mod rules;
mod tokens;
mod zones;

use std::sync::{Arc, RwLockReadGuard};

use axum::{
    Router,
    extract::FromRef,
    routing::{get, post, put},
};
use tokio::sync::Semaphore;
use waypost_runtime::{auth::Auth, http};

use crate::{
    admission::Limits,
    appender::{Appender, Error},
    registry::{Registry, View, Writer},
};

/// How many zones may be read and checked at once: each may hold tens of MiB and a thread for a moment, and writes
/// stand in line anyway.
pub(crate) const ZONES_IN_FLIGHT_MAX: usize = 4;

/// What the routes stand on; a cheap clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) zone_bytes_max: usize,
    pub(crate) appender: Appender,
    pub(crate) registry: Arc<Registry>,
    pub(crate) writer: Arc<Writer>,
    /// One permit for each zone that is read and checked.
    pub(crate) zones: Arc<Semaphore>,
}

impl FromRef<Gateway> for Auth {
    fn from_ref(gateway: &Gateway) -> Self {
        gateway.auth.clone()
    }
}

/// The routes: `POST /v1/positions`, `POST /v1/messages`, `POST /v1/tokens`, zones and rules as resources, and
/// what operators say of the log itself (`/v1/holes`, `/v1/skips`, `/v1/behaviours`).
pub fn router(gateway: Gateway) -> Router {
    let zone = put(zones::define).get(zones::show).delete(zones::remove);
    let zone = zone.layer(http::body_bytes_max(gateway.zone_bytes_max));
    Router::new()
        .route("/v1/positions", post(positions::report))
        .route("/v1/messages", post(messages::send))
        .route("/v1/tokens", post(tokens::mint))
        .route("/v1/zones", get(zones::list))
        .route("/v1/zones/{id}", zone)
        .route("/v1/rules", get(rules::list))
        .route("/v1/rules/{id}", put(rules::define).get(rules::show).delete(rules::remove))
        .route("/v1/holes", get(operator::holes).post(operator::accept))
        .route("/v1/skips", get(operator::skips).post(operator::skip))
        .route("/v1/behaviours", get(operator::behaviours).post(operator::set))
        .with_state(gateway)
}

impl Gateway {
    /// What the registry says, once it was read to its end.
    fn view(&self) -> Result<RwLockReadGuard<'_, View>, Error> {
        if self.registry.is_caught_up() { Ok(self.registry.view()) } else { Err(Error::RegistryBehind) }
    }
}
