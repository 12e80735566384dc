//! What one device's connection is told, decided purely: time comes in as a value, and what is to be done goes out.
//!
//! [`begin`] says where a device begins. A [`Session`] then offers entries in order, each once, as many as the window
//! holds; takes acknowledgements, and says when they are appended; and ends the connection that does not go on.
//! Whoever holds the socket carries out each [`Out`] in the order given.

mod acks;
mod begin;
#[cfg(test)]
mod tests;
mod window;

use std::{sync::Arc, time::Duration};

use waypost_runtime::clock::Monotonic;
use waypost_schemas::{frame::Down, id::ConversationId};

use self::{acks::Acks, window::Window};
pub use self::{
    acks::{Ack, Claim, Failure},
    begin::{Beginning, Cursor, Hello, Known, begin},
};
use crate::code::{Code, Goodbye};

/// What a session is bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many entries may wait for the device's acknowledgement.
    pub window_entries_max: usize,
    /// How many bytes of entries may wait for it; one entry that is larger by itself passes.
    pub window_bytes_max: usize,
    /// How often acknowledgements are appended at most; the first after a pause at once.
    pub ack_interval: Duration,
    /// How long the device may make no progress with entries that it has been offered.
    pub ack_timeout: Duration,
    /// How long nothing may be heard of the device before it is asked; after as long again it is gone.
    pub silence: Duration,
}

/// An entry to be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its offset.
    pub offset: i64,
    /// Its frame.
    pub text: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// Write an entry's frame.
    Entry(Offer),
    /// Write another frame.
    Say(Down),
    /// Ask the device whether it is there.
    Ping,
    /// Append acknowledgements in this order; then [`Session::appended`] is told.
    Append(Vec<Ack>),
    /// Look which entry of the user an offset names; then [`Session::looked`] is told.
    Look(i64),
    /// Say goodbye and close; nothing follows.
    End(Goodbye),
    /// Close without a word, for nobody is there; nothing follows.
    Drop,
}

/// What an offset names, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// A message in the user's inbox, of this conversation.
    Message(ConversationId),
    /// Something else, or nothing of this user.
    Foreign,
    /// It cannot be told here and now.
    Unknown,
}

/// How much may be offered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Entries.
    pub entries: usize,
    /// Bytes, which the first entry may exceed where nothing is unacknowledged.
    pub bytes: usize,
}

/// One device's connection after its welcome.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    /// Everything up to here was offered on this connection, was acknowledged before it, or is not this user's.
    position: i64,
    /// What was in the inbox when the device came lies below; nothing once the device was told that it has that.
    target: Option<i64>,
    /// The last entry offered, or the cursor where there was none.
    offered: i64,
    window: Window,
    acks: Acks,
    /// When the device last made progress.
    progress: Monotonic,
    /// When anything was last heard of the device.
    heard: Monotonic,
    asked: bool,
    ended: bool,
}

impl Session {
    /// A session whose device has acknowledged everything up to `cursor`, in an inbox that ended before `target`
    /// when it came.
    pub fn new(limits: Arc<Limits>, cursor: i64, target: i64, now: Monotonic) -> Self {
        Self {
            limits,
            position: cursor,
            target: Some(target),
            offered: cursor,
            window: Window::default(),
            acks: Acks::new(cursor),
            progress: now,
            heard: now,
            asked: false,
            ended: false,
        }
    }

    /// The offset after which entries are wanted.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// How much may be offered now; nothing while the window is full.
    pub fn room(&self) -> Option<Room> {
        if self.ended { None } else { self.window.room(&self.limits) }
    }

    /// Whether frames may be read now: reads wait for their turn in a bounded place.
    pub fn listens(&self) -> bool {
        !self.ended && !self.acks.is_full()
    }

    /// Offers the user's entries after [`Session::position`] and up to `through`, of which there are no others, as far
    /// as the window has room; what has none is given again later.
    pub fn offer(&mut self, entries: Vec<Offer>, through: i64, now: Monotonic, out: &mut Vec<Out>) {
        let mut through = through.max(self.position);
        for entry in entries {
            // An acknowledgement has gone further than what was asked for when these were fetched.
            if entry.offset <= self.position {
                continue;
            }
            if self.ended || !self.window.takes(entry.text.len(), &self.limits) {
                through = self.position;
                break;
            }
            if self.window.is_empty() {
                self.progress = now;
            }
            self.window.push(entry.offset, entry.text.len());
            (self.position, self.offered) = (entry.offset, entry.offset);
            out.push(Out::Entry(entry));
        }
        self.position = self.position.max(through);
        if let Some(target) = self.target
            && !self.ended
            && self.position + 1 >= target
        {
            self.target = None;
            out.push(Out::Say(Down::CaughtUp { offset: self.offered }));
        }
    }

    /// Takes the news that something was heard of the device.
    pub fn heard(&mut self, now: Monotonic) {
        (self.heard, self.asked) = (now, false);
    }

    /// Takes an acknowledgement of all entries up to an offset.
    pub fn ack(&mut self, upto: i64, now: Monotonic, out: &mut Vec<Out>) {
        if upto < self.acks.asked() {
            let detail =
                format!("{} was acknowledged before {upto}; acknowledgements only go on", self.acks.asked());
            return out.push(Out::Say(Code::AckBackwards.frame(detail)));
        }
        if upto > self.position {
            // Nothing of this was offered here: it counts once admission has let it pass.
            self.acks.claim(upto);
        } else if upto > self.acks.asked() {
            self.release(upto, now);
            self.acks.delivered(upto);
        }
        self.append(now, out);
    }

    /// Takes a read of the conversation of an entry up to that entry.
    pub fn read(&mut self, upto: i64, out: &mut Vec<Out>) {
        self.acks.look();
        out.push(Out::Look(upto));
    }

    /// Takes what the offset of a read names.
    pub fn looked(&mut self, upto: i64, what: Looked, now: Monotonic, out: &mut Vec<Out>) {
        match what {
            Looked::Message(conversation) => self.acks.read(Some(conversation), upto),
            // The machine looks again, in the log's order.
            Looked::Unknown => self.acks.read(None, upto),
            Looked::Foreign => {
                self.acks.unread();
                let detail = format!("{upto} is no message in this inbox");
                out.push(Out::Say(Code::ForeignEntry.frame(detail)));
            }
        }
        self.append(now, out);
    }

    /// Takes how the appending of acknowledgements ended: those that are in the log, and those that are not with why.
    pub fn appended(&mut self, done: Vec<(Ack, Result<(), Failure>)>, now: Monotonic, out: &mut Vec<Out>) {
        self.acks.finished();
        for (ack, ended) in done {
            match (ended, &ack.claim) {
                (Ok(()), Claim::Beyond) => {
                    self.position = self.position.max(ack.upto);
                    self.release(ack.upto, now);
                }
                (Ok(()), _) => {}
                (Err(Failure::Later), _) => self.acks.again(ack),
                (Err(Failure::Refused(said)), _) => out.push(Out::Say(said)),
            }
        }
        self.append(now, out);
    }

    /// Takes the time; [`Session::due`] says when.
    pub fn tick(&mut self, now: Monotonic, out: &mut Vec<Out>) {
        if self.ended {
            return;
        }
        if !self.window.is_empty() && now.since(self.progress) >= self.limits.ack_timeout {
            return self.end(Goodbye::AckTimeout, out);
        }
        if now.since(self.heard) >= self.limits.silence * 2 {
            self.ended = true;
            return out.push(Out::Drop);
        }
        if now.since(self.heard) >= self.limits.silence && !self.asked {
            self.asked = true;
            out.push(Out::Ping);
        }
        self.append(now, out);
    }

    /// How long from now [`Session::tick`] has something to do, unless something else happens before.
    pub fn due(&self, now: Monotonic) -> Duration {
        let silence = if self.asked { self.limits.silence * 2 } else { self.limits.silence };
        let mut due = silence.saturating_sub(now.since(self.heard));
        if !self.window.is_empty() {
            due = due.min(self.limits.ack_timeout.saturating_sub(now.since(self.progress)));
        }
        match self.acks.due(now, self.limits.ack_interval) {
            Some(acks) => due.min(acks),
            None => due,
        }
    }

    /// Ends the session.
    pub fn end(&mut self, goodbye: Goodbye, out: &mut Vec<Out>) {
        if !self.ended {
            self.ended = true;
            out.push(Out::End(goodbye));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the device has acknowledged and nobody has appended yet, when the connection is over.
    pub fn rest(&mut self) -> Vec<Ack> {
        self.ended = true;
        self.acks.take()
    }

    fn release(&mut self, upto: i64, now: Monotonic) {
        self.acks.reach(upto);
        if self.window.release(upto) {
            self.progress = now;
        }
    }

    fn append(&mut self, now: Monotonic, out: &mut Vec<Out>) {
        if let Some(acks) = self.acks.turn(now, self.limits.ack_interval) {
            out.push(Out::Append(acks));
        }
    }
}
