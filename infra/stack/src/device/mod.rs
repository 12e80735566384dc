//! A device: the client of a stack's one WebSocket, for the commands, the benches and the tests.
//!
//! What it is: a connection that comes back by itself, waits longer each time it is lost, and resumes where its owner
//! has acknowledged; it gives each entry once, and sends each message until it is accepted or refused. What it is not:
//! a place that keeps anything on disk: its owner does, by [`Device::mark`]. The way in: [`Device::new`], then
//! [`Device::next`] again and again, which does all the work; nothing moves while nobody awaits it.

mod backoff;
mod link;
mod outbox;
#[cfg(test)]
pub(crate) mod server;
mod session;
#[cfg(test)]
mod tests;

use std::{future::Future, pin::Pin, time::Duration};

use reqwest::{Url, header::HeaderValue};
use waypost_runtime::clock::{Clock, Monotonic};
use waypost_schemas::{frame::Begin, id::UserId};

use self::{
    backoff::Backoff,
    link::{Link, Lost},
    session::{Session, Taken},
};
pub use self::{
    outbox::{Full, Ticket},
    session::{Entry, Event, Mark},
};
use crate::client::{self, Problem, Secret};

/// The goodbye of a connection whose device has a newer one.
const REPLACED: &str = "replaced";

/// What a device is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address of the stack, `http://127.0.0.1:7400`.
    pub url: String,
    /// The device's token.
    pub token: Secret,
    /// Where it begins while the stack does not know it.
    pub from: Option<Begin>,
    /// Where it stopped.
    pub mark: Option<Mark>,
}

/// Why a device does not come back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the token cannot be used.
    #[error(transparent)]
    Unusable(#[from] client::Error),
    /// The stack does not let the device in.
    #[error("the stack refuses the connection")]
    Denied(#[source] Problem),
    /// A newer connection of the same device has taken its place.
    #[error("another connection of this device has taken its place")]
    Replaced,
}

type Opening = Pin<Box<dyn Future<Output = Result<Link, Lost>> + Send>>;

enum State {
    /// Comes again at a moment.
    Waits(Duration),
    /// Held here, so that an owner who stops awaiting does not begin it anew.
    Opens(Opening),
    Open(Box<Link>),
}

/// A device of one user. Dropping it breaks the connection; [`Device::close`] says the last word first.
pub struct Device {
    url: Url,
    bearer: HeaderValue,
    clock: Clock,
    begun: Monotonic,
    session: Session,
    state: State,
    backoff: Backoff,
}

impl Device {
    /// Checks the address and the token; [`Device::next`] connects.
    pub fn new(options: Options, clock: Clock) -> Result<Self, Error> {
        Ok(Self {
            url: client::socket(&options.url)?,
            bearer: options.token.bearer()?,
            begun: clock.monotonic(),
            clock,
            session: Session::new(options.from, options.mark),
            state: State::Waits(Duration::ZERO),
            backoff: Backoff::default(),
        })
    }

    /// Takes the address of another node of the same stack, for the next connection.
    pub fn set_url(&mut self, url: &str) -> Result<(), Error> {
        self.url = client::socket(url)?;
        Ok(())
    }

    /// Takes another token, for the next connection.
    pub fn set_token(&mut self, token: &Secret) -> Result<(), Error> {
        self.bearer = token.bearer()?;
        Ok(())
    }

    /// Puts a message in line; its fate comes as an event with this ticket.
    pub fn send(&mut self, to: UserId, body: impl Into<String>) -> Result<Ticket, Full> {
        self.session.push(to, body.into())
    }

    /// How many messages are neither accepted nor refused yet.
    pub fn unanswered(&self) -> usize {
        self.session.outbox().unanswered()
    }

    /// Acknowledges all entries up to an offset: what the owner has kept, and need not be offered again.
    pub fn acknowledge(&mut self, upto: i64) {
        let now = self.now();
        self.session.acknowledge(upto, now);
    }

    /// Says that the user has read an entry's conversation up to it.
    pub fn read(&mut self, entry: &Entry) {
        let now = self.now();
        self.session.read(entry, now);
    }

    /// Where to go on another time: the log, and the last offset that was acknowledged.
    pub fn mark(&self) -> Option<Mark> {
        self.session.mark()
    }

    /// Waits for what happens next; cancel-safe. After an error it does not come back, unless it is let in with
    /// another token.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.session.event() {
                return Ok(event);
            }
            match &mut self.state {
                State::Waits(until) => {
                    let left = until.saturating_sub(self.clock.elapsed(self.begun));
                    tokio::time::sleep(left).await;
                    self.state = State::Opens(Box::pin(Link::open(self.url.clone(), self.bearer.clone())));
                }
                State::Opens(opening) => match opening.await {
                    Ok(mut link) => {
                        let now = self.clock.elapsed(self.begun);
                        link.say(&self.session.hello(now));
                        self.state = State::Open(Box::new(link));
                    }
                    Err(lost) => return self.lost(lost),
                },
                State::Open(_) => {
                    if let Some(event) = self.talk().await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Says what is due, and takes the next frame.
    async fn talk(&mut self) -> Result<Option<Event>, Error> {
        let now = self.now();
        let State::Open(link) = &mut self.state else { return Ok(None) };
        for frame in self.session.due(now, random) {
            link.say(&frame);
        }
        let wait = self.session.wakes_at().saturating_sub(now);
        let frame = tokio::select! {
            biased;
            frame = link.next() => frame,
            () = tokio::time::sleep(wait) => {
                // Not looked at before: an owner who was busy elsewhere has not heard what waits in the socket.
                return if self.session.dead(self.now()) {
                    self.lost(Lost::away("the stack has fallen silent")).map(Some)
                } else {
                    Ok(None)
                };
            }
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(lost) => return self.lost(lost).map(Some),
        };
        let now = self.now();
        match self.session.take(frame, now) {
            Taken::Nothing => Ok(None),
            Taken::Event(event) => {
                // A welcome alone is not enough: a server that says goodbye right after it is not well.
                if !matches!(event, Event::Connected { .. } | Event::Refused { .. }) {
                    self.backoff.reset();
                }
                Ok(Some(event))
            }
            Taken::Goodbye { code, retry_after } => self.goodbye(&code, retry_after).map(Some),
        }
    }

    fn goodbye(&mut self, code: &str, retry_after: Option<u64>) -> Result<Event, Error> {
        if code == REPLACED {
            // Coming back would throw out the newer connection, which would come back too.
            self.session.lost();
            self.state = State::Waits(self.now());
            return Err(Error::Replaced);
        }
        self.lost(Lost::Away { why: format!("the stack said goodbye: {code}"), retry_after })
    }

    fn lost(&mut self, lost: Lost) -> Result<Event, Error> {
        self.session.lost();
        match lost {
            Lost::Denied(problem) => {
                self.state = State::Waits(self.now());
                Err(Error::Denied(problem))
            }
            Lost::Away { why, retry_after } => {
                let again_in = self.backoff.next(retry_after.map(Duration::from_secs), random());
                self.state = State::Waits(self.now() + again_in);
                Ok(Event::Disconnected { why, again_in })
            }
        }
    }

    /// Says what was acknowledged and read, waits until that was heard, and closes the connection; no longer than
    /// `within`. Without a connection there is nobody to say it to, and the next `hello` does.
    pub async fn close(mut self, within: Duration) {
        let farewell = async {
            let State::Open(mut link) = self.state else { return };
            let Some((frames, pongs)) = self.session.farewell() else { return };
            frames.iter().for_each(|frame| link.say(frame));
            while self.session.pongs() < pongs {
                match link.next().await {
                    Ok(frame) => drop(self.session.take(frame, Duration::ZERO)),
                    Err(_) => return,
                }
            }
            link.close().await;
        };
        let _ = tokio::time::timeout(within, farewell).await;
    }

    fn now(&self) -> Duration {
        self.clock.elapsed(self.begun)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("mark", &self.mark()).finish_non_exhaustive()
    }
}

/// Eight random bytes of the system.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // It fails only where there is no such call; ids then differ by their time and counter alone.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}
