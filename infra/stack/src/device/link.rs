//! One WebSocket connection to a stack.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Sink as _, Stream as _};
use reqwest::{StatusCode, Url};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};
use waypost_schemas::frame::{Down, SUBPROTOCOL, Up};

use crate::client::{Problem, problem, retry_after};

/// Entries are small and the kernel buffers too; a bench holds thousands of these.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// The longest frame of a server: an entry is at most 256 KiB in the log, and its JSON text may be longer.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// How long a connection and its handshake may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection, or no more.
#[derive(Debug)]
pub(super) enum Lost {
    /// The server refuses, and trying again does not help.
    Denied(Problem),
    /// It may be there later; `retry_after` where it said when.
    Away { why: String, retry_after: Option<u64> },
}

impl Lost {
    pub(super) fn away(why: impl Into<String>) -> Self {
        Self::Away { why: why.into(), retry_after: None }
    }
}

impl From<tungstenite::Error> for Lost {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => {
                let status = answer.status();
                let body = answer.body().as_deref().unwrap_or_default();
                let waits = retry_after(answer.headers());
                let problem = problem(status, waits, body);
                let passes = status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                if passes {
                    Self::Away { why: problem.to_string(), retry_after: problem.retry_after }
                } else {
                    Self::Denied(problem)
                }
            }
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::away("the connection was closed")
            }
            other => Self::away(other.to_string()),
        }
    }
}

/// An open connection.
pub(super) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What is to be sent, oldest first.
    out: VecDeque<Message>,
    flushed: bool,
}

impl Link {
    /// Connects, with the token as a header.
    pub(super) async fn open(url: Url, bearer: HeaderValue) -> Result<Self, Lost> {
        let mut request = url.as_str().into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let opening = connect_async_with_config(request, Some(config), true);
        let Ok(opened) = tokio::time::timeout(CONNECT_WITHIN, opening).await else {
            return Err(Lost::away("the stack does not answer in time"));
        };
        Ok(Self { socket: opened?.0, out: VecDeque::new(), flushed: true })
    }

    /// Puts a frame in line.
    pub(super) fn say(&mut self, frame: &Up) {
        let text = serde_json::to_string(frame).expect("a frame is plain data");
        self.out.push_back(Message::text(text));
    }

    /// Sends what is in line, and waits for the next frame; cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Down, Lost> {
        loop {
            let message = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                    return Poll::Ready(Some(Err(error)));
                }
                std::pin::Pin::new(&mut self.socket).poll_next(cx)
            });
            match message.await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|error| {
                        Lost::away(format!("what the stack said is not understood: {error}"))
                    });
                }
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.filter(|frame| !frame.reason.is_empty());
                    let why = why.map_or_else(String::new, |frame| format!(": {}", frame.reason));
                    return Err(Lost::away(format!("the stack closed the connection{why}")));
                }
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Lost::away("the connection was closed")),
            }
        }
    }

    /// Says that the connection ends, and waits until the server has said so too.
    pub(super) async fn close(mut self) {
        if self.socket.close(None).await.is_ok() {
            while self.next().await.is_ok() {}
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        let mut socket = std::pin::Pin::new(&mut self.socket);
        while !self.out.is_empty() {
            std::task::ready!(socket.as_mut().poll_ready(cx))?;
            if let Some(message) = self.out.pop_front() {
                self.flushed = false;
                socket.as_mut().start_send(message)?;
            }
        }
        if !self.flushed {
            std::task::ready!(socket.poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}
