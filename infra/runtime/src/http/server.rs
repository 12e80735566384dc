//! An accept loop that bounds what a connection may cost, and waits for connections when it stops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{observe::observe, stall::Stall};
use crate::{clock::Clock, config::Http, lifecycle::Lifecycle};

/// How long to wait after an accept that failed for want of descriptors: the connection stays in the backlog.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size of a body in bytes, where its route has no limit of its own.
    pub request_bytes_max: usize,
    /// The size of a request's line and headers together, in bytes.
    pub header_bytes_max: usize,
    /// The number of a request's headers.
    pub headers_max: usize,
    /// How long the headers of a connection's next request may take; an idle connection is closed after it.
    pub header_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a write may wait for a peer that does not read.
    pub write_timeout: Duration,
    /// How many connections may be open; more wait in the listener's backlog.
    pub connections_max: usize,
}

impl From<&Http> for Limits {
    fn from(http: &Http) -> Self {
        Self {
            request_bytes_max: http.request_bytes_max,
            header_bytes_max: http.header_bytes_max,
            headers_max: http.headers_max,
            header_timeout: http.header_timeout,
            body_timeout: http.body_timeout,
            write_timeout: http.write_timeout,
            connections_max: http.connections_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1 << 20,
            header_bytes_max: 16 << 10,
            headers_max: 64,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            connections_max: 4096,
        }
    }
}

/// How many connections the server holds; every request carries it as an extension. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// The connections that are open now.
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, open: usize) {
        self.0.store(open, Ordering::Relaxed);
        metrics::gauge!("waypost_http_connections").set(open as f64);
    }
}

/// Serves HTTP/1.1 until a soft stop; then takes no connection, and waits until all requests in progress are
/// answered or the hard stop comes.
///
/// The router is wrapped by [`observe`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    clock: Clock,
    lifecycle: Lifecycle,
) -> io::Result<()> {
    let open = Connections::default();
    let router = observe(router, clock).layer(Extension(limits)).layer(Extension(open.clone()));
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = lifecycle.soft_stopped() => break,
            Some(_) = connections.join_next() => {}
            (slot, stream) = accept(&slots, &listener) => {
                connections.spawn(connection(stream, router.clone(), limits, lifecycle.clone(), slot));
            }
        }
        open.set(connections.len());
    }
    drop(listener);
    tokio::select! {
        biased;
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = lifecycle.hard_stopped() => connections.shutdown().await,
    }
    open.set(0);
    Ok(())
}

/// The next connection, once there is room for it. Errors of accept belong to one connection or pass by themselves.
async fn accept(slots: &Arc<Semaphore>, listener: &TcpListener) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    // Never closed, so there is always a permit in the end.
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (slot, stream),
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(%error, "accept failed; is the limit of file descriptors too low?");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    lifecycle: Lifecycle,
    slot: Option<OwnedSemaphorePermit>,
) {
    // Answers are small, and a client waits for each.
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(Stall::new(stream, limits.write_timeout));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .serve_connection(stream, TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(served);
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = lifecycle.soft_stopped() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(slot);
}
