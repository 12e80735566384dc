//! A small server that speaks the frames as a test tells it to: for what needs a device and no stack.

#![allow(clippy::result_large_err, reason = "the library's own refusal of a handshake")]

use std::collections::VecDeque;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header},
    },
};
use waypost_schemas::{
    frame::{Down, Up},
    id::DeviceId,
    time::Micros,
};

pub(crate) const SERVER_TIME: Micros = Micros(1_800_000_000_000_000);

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

/// One connection; what was sent stays until it is asked for.
pub(crate) struct Connection {
    socket: WebSocketStream<TcpStream>,
    heard: VecDeque<Up>,
    pub(crate) bearer: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// Takes the next connection, which must ask as a device does.
    pub(crate) async fn accept(&self) -> Connection {
        let mut bearer = String::new();
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/socket");
            assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "waypost.v1");
            request.headers()[header::AUTHORIZATION].to_str().unwrap().clone_into(&mut bearer);
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("waypost.v1"));
            Ok(response)
        };
        let (stream, _) = self.listener.accept().await.unwrap();
        let socket = accept_hdr_async(stream, check).await.unwrap();
        Connection { socket, heard: VecDeque::new(), bearer }
    }

    /// Refuses the next connection.
    pub(crate) async fn refuse(&self, status: u16, body: &str, retry_after: Option<u64>) {
        let refuse = |_: &Request, _: Response| {
            let mut refusal = ErrorResponse::new(Some(body.to_owned()));
            *refusal.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(secs) = retry_after {
                refusal.headers_mut().insert(header::RETRY_AFTER, secs.into());
            }
            Err(refusal)
        };
        let (stream, _) = self.listener.accept().await.unwrap();
        assert!(accept_hdr_async(stream, refuse).await.is_err());
    }
}

impl Connection {
    /// The next frame of the device; `None` once it has left.
    pub(crate) async fn hear(&mut self) -> Option<Up> {
        loop {
            if let Some(frame) = self.heard.pop_front() {
                return Some(frame);
            }
            match self.socket.next().await? {
                Ok(Message::Text(text)) => self.heard.push_back(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn say(&mut self, frame: &Down) {
        self.socket.send(Message::text(serde_json::to_string(frame).unwrap())).await.unwrap();
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Hears the hello, and says welcome.
    pub(crate) async fn welcome(&mut self, log: &str, cursor: Option<i64>) -> Up {
        let hello = self.hear().await.unwrap();
        assert!(matches!(hello, Up::Hello { .. }), "{hello:?}");
        let device = DeviceId::new("bob/phone").unwrap();
        let (session, time) = ("s".to_owned(), SERVER_TIME);
        self.say(&Down::Welcome { device, session, log: log.to_owned(), cursor, time }).await;
        hello
    }

    /// Offers a message of alice to bob.
    pub(crate) async fn offer(&mut self, offset: i64, body: &str) {
        let content = serde_json::json!({
            "conversation": "alice~bob", "number": offset, "sender": "alice", "device": "phone",
            "client_id": "c", "content_type": "text/plain", "body": body,
        });
        self.say(&Down::Entry {
            offset,
            id: format!("messages/0/{offset}/0"),
            at: SERVER_TIME,
            kind: "message".to_owned(),
            content: serde_json::from_value(content).unwrap(),
        })
        .await;
    }

    pub(crate) async fn accepted(&mut self, id: &str, position: &str) {
        self.say(&Down::Accepted { id: id.to_owned(), positions: vec![position.to_owned()] }).await;
    }
}
