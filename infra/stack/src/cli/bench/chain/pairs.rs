//! Pairs of users over sockets: one says something when it is due, and the other has it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{sync::mpsc, task::JoinSet};
use waypost_runtime::{
    clock::{Clock, Monotonic},
    pace::Pace,
};
use waypost_schemas::{frame::Begin, id::UserId, time::Micros};

use super::super::{scratch::Scratch, sockets};
use crate::device::{Device, Entry, Event};

/// How often it is looked whether all have come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the last may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is said, by whom and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) pairs: usize,
    pub(super) count: usize,
    pub(super) pace: Pace,
    pub(super) body_bytes: usize,
}

/// How long each message took since it was due; `None` for those that never came.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// When the first was due.
    pub(super) begun: Micros,
    /// Until its sender was told that it is in the log.
    pub(super) accepted: Vec<Option<Duration>>,
    /// Until its recipient had it from the socket.
    pub(super) received: Vec<Option<Duration>>,
}

/// The number of a message, which its body is.
pub(super) fn number(body: &str) -> Option<usize> {
    body.parse().ok()
}

fn body(number: usize, bytes: usize) -> String {
    format!("{number:0bytes$}")
}

struct Shared {
    clock: Clock,
    pace: Pace,
    begun: Monotonic,
    heard: Mutex<Heard>,
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_due(&self, number: usize) -> Duration {
        self.clock.elapsed(self.begun).saturating_sub(self.pace.due(number))
    }

    fn accepted(&self, number: usize) {
        let took = self.since_due(number);
        if let Some(accepted) = self.heard().accepted.get_mut(number) {
            accepted.get_or_insert(took);
        }
    }

    fn received(&self, number: usize) {
        let took = self.since_due(number);
        if let Some(received) = self.heard().received.get_mut(number) {
            received.get_or_insert(took);
        }
    }

    fn all_came(&self) -> bool {
        let heard = self.heard();
        heard.received.iter().chain(&heard.accepted).all(Option::is_some)
    }
}

/// Connects the pairs, lets them speak, and waits until all is heard, or the last is overdue.
pub(super) async fn speak(scratch: &Scratch, load: Load, clock: &Clock) -> anyhow::Result<Heard> {
    let mut pairs = Vec::new();
    for number in 0..load.pairs {
        let (from, to) = (UserId::new(format!("from-{number}"))?, UserId::new(format!("to-{number}"))?);
        let speaks = sockets::connect(scratch, &from, Begin::New, clock).await?;
        let listens = sockets::connect(scratch, &to, Begin::New, clock).await?;
        pairs.push(((from, speaks), (to, listens)));
    }
    let nothing = vec![None; load.count];
    let heard = Heard { begun: clock.now(), accepted: nothing.clone(), received: nothing };
    let begun = clock.monotonic();
    let shared = Arc::new(Shared { clock: clock.clone(), pace: load.pace, begun, heard: Mutex::new(heard) });

    let (mut lives, mut speakers) = (JoinSet::new(), Vec::new());
    for ((from, speaks), (to, listens)) in pairs {
        // As many as ever come, so that what is due never waits for who should say it.
        let (tell, due) = mpsc::channel(load.count.div_ceil(load.pairs));
        let (_, nothing_due) = mpsc::channel(1);
        speakers.push(tell);
        let says = Says { to: to.clone(), due, body_bytes: load.body_bytes };
        lives.spawn(live(speaks, from.clone(), says, shared.clone()));
        let silent = Says { to: from, due: nothing_due, body_bytes: 0 };
        lives.spawn(live(listens, to, silent, shared.clone()));
    }
    let (pace, count, clock) = (load.pace, load.count, clock.clone());
    let said = tokio::task::spawn_blocking(move || {
        pace.run(count, (&clock, begun), |number| speakers[number % speakers.len()].try_send(number))
    });
    let waited = async {
        said.await.context("the pace broke")??;
        let all = async {
            while !shared.all_came() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // What did not come in time is told by its absence.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        anyhow::Ok(())
    };
    tokio::select! {
        waited = waited => waited?,
        Some(ended) = lives.join_next() => ended.context("a device broke")??,
    }
    let heard = shared.heard().clone();
    Ok(heard)
}

/// What a device says, to whom and when.
struct Says {
    to: UserId,
    due: mpsc::Receiver<usize>,
    body_bytes: usize,
}

/// A device: it says what is due, and keeps and acknowledges what comes; an error where it does not go on.
async fn live(mut device: Device, user: UserId, mut says: Says, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut said = BTreeMap::new();
    loop {
        tokio::select! {
            event = device.next() => match event? {
                Event::Entry(entry) => {
                    if let Some(number) = arrived(&entry, &user) {
                        shared.received(number);
                    }
                    device.acknowledge(entry.offset);
                }
                Event::Accepted { ticket, .. } => {
                    if let Some(number) = said.remove(&ticket) {
                        shared.accepted(number);
                    }
                }
                Event::Refused { code, detail, .. } => bail!("{user} was refused: {code}: {detail}"),
                Event::Disconnected { why, .. } => bail!("{user} lost the connection: {why}"),
                Event::Connected { .. } | Event::CaughtUp { .. } => {}
            },
            Some(number) = says.due.recv() => {
                let ticket = device.send(says.to.clone(), body(number, says.body_bytes))?;
                said.insert(ticket, number);
            }
        }
    }
}

/// The number of a message that another user sent.
fn arrived(entry: &Entry, user: &UserId) -> Option<usize> {
    let another = entry.text("sender")? != user.as_str();
    number(entry.text("body")?).filter(|_| another)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_number_at_its_length() {
        assert_eq!(body(42, 8), "00000042");
        for number_said in [0, 7, 123_456] {
            let said = body(number_said, 100);
            assert_eq!((said.len(), number(&said)), (100, Some(number_said)));
        }
        assert_eq!(number("x"), None);
    }
}
