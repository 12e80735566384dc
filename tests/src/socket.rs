//! A device's socket without the client's care: it says what it is told to, and is cut when it is dropped.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

/// How long a frame is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of a device.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Connects to a node, `http://127.0.0.1:7400`, with a device's token, and says hello with these members.
    pub async fn open(node: &str, token: &str, mut hello: Value) -> anyhow::Result<Self> {
        let address = node.replacen("http", "ws", 1) + "/v1/socket";
        let mut request = address.into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}"))?);
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("waypost.v1"));
        let (stream, _) = connect_async(request).await?;
        let mut socket = Self { stream };
        hello["type"] = "hello".into();
        socket.say(&hello).await?;
        Ok(socket)
    }

    /// Says a frame.
    pub async fn say(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(frame.to_string())).await?)
    }

    /// The next frame; an error where none comes.
    pub async fn hear(&mut self) -> anyhow::Result<Value> {
        loop {
            match timeout(PATIENCE, self.stream.next()).await?.context("the connection has ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("{other:?} instead of a frame"),
            }
        }
    }

    /// The next frame of a type; what comes before it is passed by.
    pub async fn hear_of(&mut self, kind: &str) -> anyhow::Result<Value> {
        loop {
            let frame = self.hear().await?;
            if frame["type"] == kind {
                return Ok(frame);
            }
        }
    }
}
