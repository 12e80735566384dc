//! A phone of a user: the client's own device, which keeps what it was given.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use waypost::device::{Device, Entry, Event, Options};
use waypost_runtime::clock::Clock;
use waypost_schemas::{frame::Begin, id::UserId};

use crate::stack::Stack;

/// A device, the nodes that it may go to, and what it has.
pub struct Phone {
    device: Device,
    nodes: Vec<String>,
    lost: usize,
    /// The entries that it was given, in this order.
    pub entries: Vec<Entry>,
    /// How many of its messages were accepted.
    pub accepted: usize,
}

impl Phone {
    /// A phone of a user that begins at the start of the inbox, and goes to these nodes in turn.
    pub fn new(stack: &Stack, user: &str, name: &str, nodes: Vec<String>) -> anyhow::Result<Self> {
        let token = stack.waypost(&["token", "--user", user, "--device", name])?;
        let options = Options {
            url: nodes.first().context("a phone needs a node")?.clone(),
            token: token.trim().parse()?,
            from: Some(Begin::Start),
            mark: None,
        };
        let device = Device::new(options, Clock::system())?;
        Ok(Self { device, nodes, lost: 0, entries: Vec::new(), accepted: 0 })
    }

    /// Puts a message in line.
    pub fn send(&mut self, to: &str, body: String) -> anyhow::Result<()> {
        self.device.send(UserId::new(to)?, body)?;
        Ok(())
    }

    /// How many messages have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.device.unanswered()
    }

    /// Takes what happens next: an entry is kept and acknowledged, a lost node is followed by the next one, a refusal
    /// is an error. Cancel-safe.
    pub async fn step(&mut self) -> anyhow::Result<()> {
        match self.device.next().await? {
            Event::Entry(entry) => {
                self.device.acknowledge(entry.offset);
                self.entries.push(entry);
            }
            Event::Accepted { .. } => self.accepted += 1,
            Event::Refused { code, detail, .. } => anyhow::bail!("refused: {code}: {detail}"),
            Event::Disconnected { .. } => {
                self.lost += 1;
                self.device.set_url(&self.nodes[self.lost % self.nodes.len()])?;
            }
            Event::Connected { .. } | Event::CaughtUp { .. } => {}
        }
        Ok(())
    }

    /// Steps until it has what is wanted; an error where that takes longer than `within`.
    pub async fn until(&mut self, within: Duration, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let steps = async {
            while !done(self) {
                self.step().await?;
            }
            anyhow::Ok(())
        };
        let ended = tokio::time::timeout(within, steps).await;
        ensure!(ended.is_ok(), "what was waited for did not come");
        ended?
    }

    /// Says that the last entry's conversation is read up to it.
    pub fn read_last(&mut self) {
        if let Some(entry) = self.entries.last() {
            self.device.read(entry);
        }
    }

    /// How often it had to come again.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// The bodies of a sender's messages, as they came.
    pub fn bodies(&self, sender: &str) -> Vec<&str> {
        bodies(&self.entries, sender)
    }

    /// Up to which number of the conversation its own messages are known to be delivered, or read.
    pub fn marked(&self, kind: &str) -> i64 {
        let marks = self.entries.iter().filter(|entry| entry.kind == kind);
        marks.filter_map(|entry| entry.content["upto"].as_i64()).max().unwrap_or(-1)
    }

    /// Says the last word.
    pub async fn close(self) {
        self.device.close(Duration::from_secs(3)).await;
    }
}

/// The bodies of a sender's messages.
pub fn bodies<'a>(entries: &'a [Entry], sender: &str) -> Vec<&'a str> {
    let theirs = entries.iter().filter(|e| e.kind == "message" && e.text("sender") == Some(sender));
    theirs.filter_map(|entry| entry.text("body")).collect()
}
