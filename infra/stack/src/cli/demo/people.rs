//! Two users who chat, and one who is told of matches.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;
use waypost_runtime::clock::{Clock, Monotonic};
use waypost_schemas::{
    frame::Begin,
    id::{DeviceName, UserId},
};

use super::{
    super::{output, shown, token},
    tally::{Tally, Who},
};
use crate::{
    client::Client,
    device::{self, Device, Entry, Event},
};

/// Who is told of matches.
pub(super) const DISPATCHER: &str = "dispatcher";
const DEVICE: &str = "demo";
/// How often somebody says something.
const SPEAK_EVERY: Duration = Duration::from_millis(1_500);
/// How long a message lies there before it is read.
const READ_AFTER: Duration = Duration::from_millis(700);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const LINES: [&str; 8] = [
    "Where are the vans?",
    "On the road between the depots.",
    "Who is at Depot West?",
    "Look at the matches: the last one that came in.",
    "And the next pick-up?",
    "In ten minutes, at Depot East.",
    "Tell me when it is done.",
    "I will.",
];

/// The devices of the three, and what they have seen.
pub(super) struct People {
    carol: Device,
    dave: Device,
    dispatcher: Device,
    clock: Clock,
    begun: Monotonic,
    /// What is read soon: when, by whom and what.
    unread: VecDeque<(Duration, Who, Entry)>,
    said: usize,
    pub(super) tally: Tally,
}

impl People {
    /// Connects all three, and waits until each is welcome: what they get from now on belongs to the demonstration.
    pub(super) async fn connect(operator: &Client, clock: &Clock) -> anyhow::Result<Self> {
        let device = async |user: &str| -> anyhow::Result<Device> {
            let token = token::of_device(operator, &UserId::new(user)?, &DeviceName::new(DEVICE)?).await?;
            let url = operator.address().to_owned();
            let options = device::Options { url, token, from: Some(Begin::New), mark: None };
            let mut device = Device::new(options, clock.clone())?;
            loop {
                match device.next().await.with_context(|| format!("{user} cannot connect"))? {
                    Event::Connected { .. } => return Ok(device),
                    Event::Disconnected { why, .. } => eprintln!("waypost: {user}: {why}"),
                    _ => {}
                }
            }
        };
        let (carol, dave, dispatcher) =
            tokio::try_join!(device(Who::Carol.name()), device(Who::Dave.name()), device(DISPATCHER))?;
        Ok(Self {
            carol,
            dave,
            dispatcher,
            clock: clock.clone(),
            begun: clock.monotonic(),
            unread: VecDeque::new(),
            said: 0,
            tally: Tally::default(),
        })
    }

    /// Chats and listens until nobody awaits it any more; cancel-safe. An error is a device that does not come back.
    pub(super) async fn chat(&mut self) -> anyhow::Result<()> {
        self.run(true).await
    }

    /// Listens, reads and acknowledges, and says nothing.
    pub(super) async fn listen(&mut self) -> anyhow::Result<()> {
        self.run(false).await
    }

    async fn run(&mut self, speaks: bool) -> anyhow::Result<()> {
        let mut speak = tokio::time::interval(SPEAK_EVERY);
        speak.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.carol.next() => self.chatted(Who::Carol, event?)?,
                event = self.dave.next() => self.chatted(Who::Dave, event?)?,
                event = self.dispatcher.next() => self.told(event?)?,
                _ = speak.tick(), if speaks => self.speak()?,
                _ = look.tick() => self.read(),
            }
        }
    }

    /// Waits until nothing lacks of what was said and of `matches`, no longer than `within`; cancel-safe.
    pub(super) async fn settle(&mut self, matches: usize, within: Duration) -> anyhow::Result<()> {
        let begun = self.clock.monotonic();
        while !self.tally.lacks(matches).is_empty() || self.unanswered() {
            if self.clock.elapsed(begun) >= within {
                return Ok(());
            }
            tokio::select! {
                listened = self.listen() => listened?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }

    /// Says the last words of all three.
    pub(super) async fn close(self, within: Duration) -> Tally {
        let Self { carol, dave, dispatcher, tally, .. } = self;
        tokio::join!(carol.close(within), dave.close(within), dispatcher.close(within));
        tally
    }

    fn unanswered(&self) -> bool {
        self.carol.unanswered() + self.dave.unanswered() > 0
    }

    fn device(&mut self, who: Who) -> &mut Device {
        match who {
            Who::Carol => &mut self.carol,
            Who::Dave => &mut self.dave,
        }
    }

    fn speak(&mut self) -> anyhow::Result<()> {
        let who = if self.said.is_multiple_of(2) { Who::Carol } else { Who::Dave };
        let line = LINES[self.said % LINES.len()];
        let to = UserId::new(who.other().name())?;
        self.device(who).send(to, line)?;
        self.said += 1;
        Ok(())
    }

    fn chatted(&mut self, who: Who, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Entry(entry) => {
                self.device(who).acknowledge(entry.offset);
                let is_message = self.tally.came(who, &entry);
                if let Some(text) = line(who, &entry) {
                    say(&entry, &text)?;
                }
                if is_message {
                    let due = self.clock.elapsed(self.begun) + READ_AFTER;
                    self.unread.push_back((due, who, entry));
                }
            }
            Event::Accepted { id, .. } => self.tally.accepted(who, &id),
            Event::Refused { code, detail, .. } => self.tally.refused(who, &code, &detail),
            Event::Disconnected { why, .. } => eprintln!("waypost: {}: {why}", who.name()),
            Event::Connected { .. } | Event::CaughtUp { .. } => {}
        }
        Ok(())
    }

    fn told(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Entry(entry) => {
                self.dispatcher.acknowledge(entry.offset);
                if self.tally.fired(&entry) {
                    say(&entry, &format!("match  {}", shown::fired(&entry)))?;
                }
            }
            Event::Disconnected { why, .. } => eprintln!("waypost: {DISPATCHER}: {why}"),
            _ => {}
        }
        Ok(())
    }

    /// Reads what has lain there long enough.
    fn read(&mut self) {
        let now = self.clock.elapsed(self.begun);
        while let Some((due, who, entry)) = self.unread.pop_front() {
            if due > now {
                self.unread.push_front((due, who, entry));
                return;
            }
            self.device(who).read(&entry);
        }
    }
}

/// What an entry tells one who chats; nothing of what one has said oneself.
fn line(who: Who, entry: &Entry) -> Option<String> {
    let (me, other) = (who.name(), who.other().name());
    let from = entry.text("sender").or_else(|| entry.text("user"));
    match &*entry.kind {
        "message" if from == Some(other) => Some(format!("{other} to {me}: {}", entry.text("body")?)),
        "delivered" if from == Some(other) => Some(format!("V      {other} has what {me} said")),
        "read" if from == Some(other) => Some(format!("VV     {other} has read what {me} said")),
        "system" => Some(format!("{me}: {}: {}", entry.text("code")?, entry.text("detail")?)),
        _ => None,
    }
}

/// Prints a line with the time of day, in UTC.
fn say(entry: &Entry, text: &str) -> anyhow::Result<()> {
    let at = entry.at.to_string();
    let time = at.get(11..19).unwrap_or(&at);
    output::line(&shown::printable(&format!("{time}  {text}"))).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use waypost_schemas::time::Micros;

    use super::*;

    #[test]
    fn what_the_other_says_and_has_is_told_and_not_what_one_says_oneself() {
        let check = |who, kind: &str, content: Value, expected: Option<&str>| {
            let content = serde_json::from_value(content).unwrap();
            let entry = Entry { offset: 0, id: "i".into(), at: Micros(0), kind: kind.to_owned(), content };
            assert_eq!(line(who, &entry).as_deref(), expected);
        };
        let message = json!({"sender": "carol", "body": "hi"});
        check(Who::Dave, "message", message.clone(), Some("carol to dave: hi"));
        check(Who::Carol, "message", message, None);
        check(Who::Carol, "delivered", json!({"user": "dave"}), Some("V      dave has what carol said"));
        check(Who::Carol, "read", json!({"user": "dave"}), Some("VV     dave has read what carol said"));
        check(Who::Dave, "system", json!({"code": "refused", "detail": "d"}), Some("dave: refused: d"));
    }
}
