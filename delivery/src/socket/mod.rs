//! The doors of devices: one adapter a file, all over the same sessions.

mod frames;
mod http;
mod live;
mod websocket;
mod wire;

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::FromRef,
    routing::{get, post},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use waypost_runtime::{
    auth::{Auth, Identity},
    http::Code,
};

use crate::{
    node::Node,
    registry::{Full, lock},
};

/// What the routes stand on; a cheap clone.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) node: Arc<Node>,
    pub(crate) sessions: Arc<Sessions>,
}

impl FromRef<Doors> for Auth {
    fn from_ref(doors: &Doors) -> Self {
        doors.node.auth.clone()
    }
}

/// The tasks of connections.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<JoinSet<()>>);

impl Sessions {
    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0);
        // A panic has been logged by the hook of telemetry, and ends one connection.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(session);
    }

    /// Waits until all have ended. Dropped meanwhile, it ends them.
    pub(crate) async fn ended(&self) {
        loop {
            let mut tasks = mem::take(&mut *lock(&self.0));
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }
}

/// The routes: `GET /v1/socket`, `POST /v1/acks` and `GET /v1/inbox`.
pub(crate) fn router(doors: Doors) -> Router {
    Router::new()
        .route("/v1/socket", get(websocket::open))
        .route("/v1/acks", post(http::acknowledge))
        .route("/v1/inbox", get(http::inbox))
        .with_state(doors)
}

/// The refusals that only these routes give, for the documentation.
pub(crate) static PROBLEMS: &[&Code] = &[&websocket::UPGRADE_REQUIRED, &websocket::BAD_SUBPROTOCOL];

impl Doors {
    /// Serves a WebSocket whose handshake is done, over any stream; resolves when it has ended.
    pub(crate) async fn serve<S>(&self, identity: Identity, stream: S) -> Result<(), Full>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let place = self.node.connections.place()?;
        live::serve(self.node.clone(), identity, place, stream).await;
        Ok(())
    }
}
