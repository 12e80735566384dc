//! One connection from its first frame to its last: carries out what its session decides.

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use waypost_ingest::{
    admission::{self, Frame, Sender},
    uplink,
};
use waypost_runtime::{auth::Identity, broker::Boxed};
use waypost_schemas::{cause::Position, frame::Down, id::DeviceId};

use super::{
    frames::{Broken, Message},
    wire::{Ended, NotWritten, Wire},
};
use crate::{
    code::{Code, Goodbye},
    node::{self, Begun, Device, Found, Node},
    registry::{Connection, Place},
    session::{Ack, Failure, Hello, Looked, Out, Session},
    tail::Lease,
};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// We say why.
    Goodbye(Goodbye),
    /// The device closed it.
    Closed(u16),
    /// Nobody is there.
    Lost,
}

/// The code of a close that names none (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;

impl From<NotWritten> for Ending {
    fn from(why: NotWritten) -> Self {
        match why {
            NotWritten::Lost => Self::Lost,
            NotWritten::Slow => Self::Goodbye(Goodbye::SlowConsumer),
        }
    }
}

impl From<Ended> for Ending {
    fn from(why: Ended) -> Self {
        Self::Goodbye(match why {
            Ended::Lost => return Self::Lost,
            Ended::Broken(Broken::Protocol) => Goodbye::BadWebsocket,
            Ended::Broken(Broken::TooLarge) => Goodbye::FrameTooLarge,
            Ended::Broken(Broken::Utf8) => Goodbye::BadUtf8,
        })
    }
}

/// What was begun and takes its time.
enum Done {
    Sent(String, Result<Vec<Position>, uplink::Error>),
    Appended(Vec<(Ack, Result<(), Failure>)>),
}

/// What happens to a connection.
enum Event {
    Rung,
    Due,
    Came(Result<Message, Ended>),
    Done(Done),
    Stored(Option<Found>),
}

/// A connection after its welcome. It is small: most of a node's memory is these, and most of them idle.
struct Live {
    node: Arc<Node>,
    connection: Arc<Connection>,
    device: Device,
    operator: bool,
    session: Session,
    lease: Lease,
    pending: Vec<Boxed<'static, Done>>,
    /// A question to the store.
    stored: Option<Boxed<'static, Option<Found>>>,
}

/// Serves a device's connection until it ends.
pub(super) async fn serve<S>(node: Arc<Node>, identity: Identity, mut place: Place, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let frame_bytes_max = node.uplink.limits().frame_bytes_max;
    let mut wire = Wire::new(stream, frame_bytes_max, node.settings.write_timeout);
    // What takes much room for a moment is boxed, so that it is gone afterwards.
    let (ending, salt) = match Box::pin(open(&node, identity, &mut place, &mut wire)).await {
        Ok(mut live) => {
            let ending = live.run(&mut wire).await;
            (Box::pin(live.finish(&mut wire, ending)).await, live.connection.session.clone())
        }
        Err(ending) => (ending, node.session()),
    };
    Box::pin(close(&node, wire, ending, &salt)).await;
    drop(place);
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    mut wire: Wire<S>,
    ending: Ending,
    salt: &str,
) {
    match ending {
        Ending::Goodbye(goodbye) => {
            tracing::debug!(code = goodbye.as_str(), "goodbye");
            let frame = node.goodbye(goodbye, salt);
            // Who reads nothing cannot be told.
            if goodbye != Goodbye::SlowConsumer && wire.say(&frame).await.is_ok() {
                wire.close(goodbye.close()).await;
            }
        }
        Ending::Closed(code) => wire.close(code).await,
        Ending::Lost => {}
    }
}

/// Hears the hello, finds where the device begins, and says welcome.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Arc<Node>,
    identity: Identity,
    place: &mut Place,
    wire: &mut Wire<S>,
) -> Result<Live, Ending> {
    let id = identity.device_id();
    let operator = identity.is_operator();
    let heard = timeout(node.settings.hello_timeout, hello(node, &id, operator, wire));
    let hello = heard.await.unwrap_or(Err(Ending::Goodbye(Goodbye::HelloTimeout)))?;
    let connection = Arc::new(Connection::new(id.clone(), node.session()));
    place.take(&connection);
    let device = Device { user: identity.user, name: identity.device };
    let begun = node.begin(&device, hello, &connection).await.map_err(Ending::Goodbye)?;
    let Begun { lease, log, cursor, target, said } = begun;
    let now = node.clock().monotonic();
    let session = Session::new(node.limits.clone(), cursor, target, now);
    wire.say(&Down::Welcome {
        device: id,
        session: connection.session.to_string(),
        log: log.into(),
        cursor: Some(cursor).filter(|cursor| *cursor >= 0),
        time: node.clock().now(),
    })
    .await?;
    for frame in said {
        wire.say(&frame).await?;
    }
    let (node, pending, stored) = (node.clone(), Vec::new(), None);
    Ok(Live { node, connection, device, operator, session, lease, pending, stored })
}

async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    device: &DeviceId,
    operator: bool,
    wire: &mut Wire<S>,
) -> Result<Hello, Ending> {
    loop {
        wire.flush().await?;
        let text = match wire.read().await? {
            Message::Text(text) => text,
            other => {
                control(wire, other).await?;
                continue;
            }
        };
        let now = node.clock().now();
        match admission::frame(&text, Sender { device, operator }, node.uplink.limits(), now) {
            Ok(Frame::Hello { from, offset, log }) => return Ok(Hello { from, offset, log }),
            Ok(Frame::Ping) => wire.say(&Down::Pong).await?,
            Ok(_) => wire.say(&Code::HelloFirst.frame("say hello before anything else")).await?,
            Err(refusal) => wire.say(&refusal.into()).await?,
        }
    }
}

/// Answers what is no text.
async fn control<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    message: Message,
) -> Result<(), Ending> {
    match message {
        Message::Ping(payload) => wire.pong(&payload),
        Message::Binary => wire.say(&Code::BinaryFrame.frame("frames are JSON texts")).await?,
        Message::Close(code) => return Err(Ending::Closed(code.unwrap_or(NORMAL))),
        Message::Pong | Message::Text(_) => {}
    }
    Ok(())
}

impl Live {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Ending {
        loop {
            let stepped = match self.step(wire).await {
                Ok(()) => self.next(wire).await,
                Err(ending) => return ending,
            };
            if let Err(ending) = self.happened(stepped, wire).await {
                return ending;
            }
        }
    }

    /// Does all that can be done now, and writes it.
    async fn step<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Result<(), Ending> {
        if let Some(goodbye) = self.connection.ends() {
            return Err(Ending::Goodbye(goodbye));
        }
        let mut out = Vec::new();
        self.session.tick(self.node.clock().monotonic(), &mut out);
        self.offer(&mut out);
        self.carry_out(out, wire).await?;
        Ok(wire.flush().await?)
    }

    /// Offers what the ring holds, or asks the store where the ring begins later.
    fn offer(&mut self, out: &mut Vec<Out>) {
        while self.stored.is_none()
            && let Some(room) = self.session.room()
        {
            let after = self.session.position();
            let Some(Found { offers, through }) = node::live(&self.lease, &self.device.user, after, room)
            else {
                let (node, user) = (self.node.clone(), self.device.user.clone());
                let partition = self.lease.partition();
                self.stored = Some(Box::pin(async move { node.stored(&user, partition, after, room).await }));
                return;
            };
            let more = !offers.is_empty();
            self.session.offer(offers, through, self.node.clock().monotonic(), out);
            if !more {
                return;
            }
        }
    }

    async fn next<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Event {
        let listens = self.session.listens() && self.pending.len() < self.node.settings.appends_max;
        let due = self.session.due(self.node.clock().monotonic());
        // What happens first is taken first; nobody starves, for each step offers, and looks at the time.
        tokio::select! {
            biased;
            done = any(&mut self.pending) => Event::Done(done),
            stored = told(&mut self.stored) => Event::Stored(stored),
            message = wire.read(), if listens => Event::Came(message),
            () = self.connection.rung() => Event::Rung,
            () = sleep(due) => Event::Due,
        }
    }

    async fn happened<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        event: Event,
        wire: &mut Wire<S>,
    ) -> Result<(), Ending> {
        let (now, mut out) = (self.node.clock().monotonic(), Vec::new());
        match event {
            Event::Rung | Event::Due => {}
            Event::Done(done) => self.done(done, &mut out),
            Event::Stored(None) => return Err(Ending::Goodbye(Goodbye::Unavailable)),
            Event::Stored(Some(Found { offers, through })) => {
                self.stored = None;
                self.session.offer(offers, through, now, &mut out);
            }
            Event::Came(message) => {
                let message = message?;
                self.session.heard(now);
                match message {
                    Message::Text(text) => Box::pin(self.hear(&text, &mut out)).await,
                    other => control(wire, other).await?,
                }
            }
        }
        self.carry_out(out, wire).await
    }

    fn done(&mut self, done: Done, out: &mut Vec<Out>) {
        match done {
            Done::Appended(acks) => self.session.appended(acks, self.node.clock().monotonic(), out),
            Done::Sent(id, Ok(positions)) => {
                let positions = positions.iter().map(ToString::to_string).collect();
                out.push(Out::Say(Down::Accepted { id, positions }));
            }
            Done::Sent(id, Err(error)) => out.push(Out::Say(error.frame(Some(id)))),
        }
    }

    /// Takes a text frame.
    async fn hear(&mut self, text: &str, out: &mut Vec<Out>) {
        let (node, now) = (self.node.clone(), self.node.clock().monotonic());
        let sender = Sender { device: &self.connection.device, operator: self.operator };
        match admission::frame(text, sender, node.uplink.limits(), node.clock().now()) {
            Err(refusal) => out.push(Out::Say(refusal.into())),
            Ok(Frame::Hello { .. }) => {
                out.push(Out::Say(Code::HelloAgain.frame("hello is said once, and first")));
            }
            Ok(Frame::Ping) => out.push(Out::Say(Down::Pong)),
            Ok(Frame::Ack { upto }) => self.session.ack(upto, now, out),
            Ok(Frame::Read { upto }) => self.session.read(upto, out),
            Ok(Frame::Send(message)) => {
                let id = message.client_id.clone();
                let queued = node.uplink.queue_message(message).await;
                self.lined(id, queued, out);
            }
            Ok(Frame::Report { id, report }) => {
                let queued = node.uplink.queue_report(report).await;
                self.lined(id, queued, out);
            }
        }
    }

    /// Waits for the log's answer to what stands in line.
    fn lined(&mut self, id: String, queued: Result<uplink::Appending, uplink::Error>, out: &mut Vec<Out>) {
        match queued {
            Ok(appending) => self.pending.push(Box::pin(async move { Done::Sent(id, appending.await) })),
            Err(error) => out.push(Out::Say(error.frame(Some(id)))),
        }
    }

    async fn carry_out<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        out: Vec<Out>,
        wire: &mut Wire<S>,
    ) -> Result<(), Ending> {
        // What a look brings comes after what stands in line already.
        let mut line = std::collections::VecDeque::from(out);
        while let Some(out) = line.pop_front() {
            match out {
                Out::Entry(entry) => {
                    metrics::counter!("waypost_delivery_offers_total").increment(1);
                    wire.text(&entry.text).await?;
                }
                Out::Say(frame) => wire.say(&frame).await?,
                Out::Ping => wire.ping(),
                Out::Append(acks) => self.append(acks),
                Out::Look(upto) => {
                    let looked: Looked = Box::pin(self.node.look(&self.lease, &self.device.user, upto)).await;
                    let (now, mut more) = (self.node.clock().monotonic(), Vec::new());
                    self.session.looked(upto, looked, now, &mut more);
                    line.extend(more);
                }
                Out::End(goodbye) => return Err(Ending::Goodbye(goodbye)),
                Out::Drop => return Err(Ending::Lost),
            }
        }
        Ok(())
    }

    fn append(&mut self, acks: Vec<Ack>) {
        let (node, device, connection) = (self.node.clone(), self.device.clone(), self.connection.clone());
        self.pending.push(Box::pin(async move {
            Done::Appended(node.append(&device, &connection.session, acks).await)
        }));
    }

    /// Waits, as long as a drain may take, until what the device was promised or has acknowledged is in the log.
    async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        ending: Ending,
    ) -> Ending {
        let drain = self.node.drain();
        let drained = async {
            let mut writes = matches!(ending, Ending::Goodbye(goodbye) if goodbye != Goodbye::SlowConsumer);
            let rest = self.session.rest();
            if !rest.is_empty() {
                self.append(rest);
            }
            while !self.pending.is_empty() {
                let (done, mut out) = (any(&mut self.pending).await, Vec::new());
                self.done(done, &mut out);
                for out in out {
                    match out {
                        Out::Say(frame) if writes => writes = wire.say(&frame).await.is_ok(),
                        Out::Append(acks) => self.append(acks),
                        _ => {}
                    }
                }
            }
        };
        if timeout(drain, drained).await.is_err() {
            tracing::debug!(device = %self.connection.device, "a connection ended before the log had answered all");
        }
        ending
    }
}

/// The first of what is under way that has ended; never where there is none.
async fn any(pending: &mut Vec<Boxed<'static, Done>>) -> Done {
    poll_fn(|cx| {
        for (place, future) in pending.iter_mut().enumerate() {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                drop(pending.remove(place));
                if pending.is_empty() {
                    *pending = Vec::new();
                }
                return Poll::Ready(done);
            }
        }
        Poll::Pending
    })
    .await
}

/// The store's answer; never where it was not asked.
async fn told<T>(asked: &mut Option<Boxed<'static, T>>) -> T {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}
