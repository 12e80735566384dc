//! A WebSocket over a byte stream: messages in, frames out, each within its time.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};
use waypost_schemas::frame::Down;

use super::frames::{self, Broken, Decoder, Message};

/// How much is read at once. The buffer stands on the stack while it is filled, and nowhere else.
const READ_BYTES: usize = 4_096;
/// How much is gathered before it is written.
const WRITE_BYTES: usize = 64 * 1024;
/// How long, and how many bytes, a peer is listened to that should close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
const CLOSE_BYTES_MAX: usize = 1 << 20;

/// Why there is no further message.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer went without a word, or the network did.
    Lost,
    Broken(Broken),
}

/// Why writing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotWritten {
    Lost,
    /// The peer reads nothing.
    Slow,
}

/// One side of a WebSocket: the server's.
pub(super) struct Wire<S> {
    stream: S,
    decoder: Decoder,
    /// What is to be written; empty, it holds no memory.
    out: Vec<u8>,
    write_timeout: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, message_bytes_max: usize, write_timeout: Duration) -> Self {
        Self { stream, decoder: Decoder::new(message_bytes_max), out: Vec::new(), write_timeout }
    }

    /// The next message; cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Message, Ended> {
        loop {
            if let Some(message) = self.decoder.next().map_err(Ended::Broken)? {
                return Ok(message);
            }
            match self.fill().await {
                Ok(0) | Err(_) => return Err(Ended::Lost),
                Ok(_) => {}
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Self { stream, decoder, .. } = self;
        poll_fn(|cx| {
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    decoder.feed(buffer.filled());
                    Poll::Ready(Ok(buffer.filled().len()))
                }
            }
        })
        .await
    }

    /// Writes a frame of ours, now or with the next [`Wire::flush`].
    pub(super) async fn say(&mut self, frame: &Down) -> Result<(), NotWritten> {
        let text = serde_json::to_string(frame).expect("frames are texts, numbers and maps by text");
        self.text(&text).await
    }

    /// Writes a text, now or with the next [`Wire::flush`].
    pub(super) async fn text(&mut self, text: &str) -> Result<(), NotWritten> {
        frames::text(text, &mut self.out);
        if self.out.len() >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    pub(super) fn ping(&mut self) {
        frames::ping(&mut self.out);
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        frames::pong(payload, &mut self.out);
    }

    /// Writes all that waits.
    pub(super) async fn flush(&mut self) -> Result<(), NotWritten> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let mut left = &out[..];
        while !left.is_empty() {
            match timeout(self.write_timeout, self.stream.write(left)).await {
                Ok(Ok(0)) => return Err(NotWritten::Lost),
                Ok(Ok(written)) => left = &left[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return Err(NotWritten::Slow),
                Ok(Err(_)) => return Err(NotWritten::Lost),
                Err(_) => return Err(NotWritten::Slow),
            }
        }
        timeout(self.write_timeout, self.stream.flush())
            .await
            .map_err(|_| NotWritten::Slow)?
            .map_err(|_| NotWritten::Lost)
    }

    /// Writes what waits and that the connection closes, and waits a moment for the peer to close it: what it has
    /// written meanwhile would otherwise take back what it has not read yet.
    pub(super) async fn close(mut self, code: u16) {
        frames::closing(code, &mut self.out);
        if self.flush().await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        let drained = async {
            let mut drained = 0;
            while drained < CLOSE_BYTES_MAX {
                match self.discard().await {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => drained += bytes,
                }
            }
        };
        let _ = timeout(CLOSE_WAIT, drained).await;
    }

    async fn discard(&mut self) -> io::Result<usize> {
        self.decoder = Decoder::new(0);
        self.fill().await
    }
}
