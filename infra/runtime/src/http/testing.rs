//! A real listener on a free port, and a client that sends what it is told, byte for byte.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use axum::Router;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Limits, serve};
use crate::{
    clock::Clock,
    lifecycle::{Lifecycle, Tasks},
};

/// How long a test waits for what should come at once on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(router: Router, limits: Limits) -> Self {
        let lifecycle = Lifecycle::new();
        let tasks = Tasks::new(&lifecycle);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn("http", serve(listener, router, limits, Clock::system(), tasks.lifecycle().clone()));
        Self { address, lifecycle, tasks }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request's head and body on a connection of their own.
    pub(crate) async fn ask(&self, head: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{head}\r\nhost: x\r\nconnection: close\r\n{length}\r\n");
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        answer(&mut stream).await
    }

    /// Sends a GET with a further header line.
    pub(crate) async fn get(&self, path: &str, header: &str) -> Answer {
        let header = if header.is_empty() { String::new() } else { format!("\r\n{header}") };
        self.ask(&format!("GET {path} HTTP/1.1{header}"), "").await
    }
}

/// Everything that comes until the server closes.
pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server should close").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: body.to_owned() }
}

/// What a server answered; status 0 where it closed without a word.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?} should be JSON"))
    }

    /// Status and code of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        (self.status, json["code"].as_str().expect("a code").to_owned())
    }
}
