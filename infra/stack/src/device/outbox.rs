//! What a device has said and not been answered: its ids, which of them are settled, and what to say again. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use waypost_schemas::{client_id::ClientId, frame::Up, id::UserId, time::Micros};

/// How many ids a device may have above its highest settled one.
const ABOVE_SETTLED_MAX: usize = 64;
/// How many messages wait here at most: what a busy program writes in seconds, and a bound on its memory.
const WAITING_MAX: usize = 65_536;
/// How often a message that was not taken is sent again under a new id.
const RENEWALS_MAX: u8 = 3;

/// A message of this device, as its owner knows it before it has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// More messages wait for an answer than a device may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WAITING_MAX} messages wait already; send more once some are accepted")]
pub struct Full;

/// A message to a user.
#[derive(Debug, Clone)]
struct Draft {
    ticket: Ticket,
    to: UserId,
    body: String,
    renewals: u8,
}

#[derive(Debug)]
enum State {
    /// To be sent, or sent again, not before a moment.
    Due(Duration),
    Sent,
    /// Accepted, refused or given up, while a lower id is not.
    Answered,
}

#[derive(Debug)]
struct Minted {
    draft: Draft,
    state: State,
}

/// The messages of a device, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    tickets: u64,
    waiting: VecDeque<Draft>,
    /// Those with an id that is above the highest settled one.
    minted: BTreeMap<ClientId, Minted>,
    settled: Option<ClientId>,
    last: Option<ClientId>,
    /// How many ids the last one's millisecond has had.
    in_millisecond: u16,
}

impl Outbox {
    /// Takes a message; it has an id when it is sent first.
    pub(super) fn push(&mut self, to: UserId, body: String) -> Result<Ticket, Full> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Full);
        }
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.push_back(Draft { ticket, to, body, renewals: 0 });
        Ok(ticket)
    }

    /// How many messages are not answered yet.
    pub(super) fn unanswered(&self) -> usize {
        let answered = self.minted.values().filter(|m| matches!(m.state, State::Answered)).count();
        self.waiting.len() + self.minted.len() - answered
    }

    /// Whatever was sent on a connection that is lost is sent again.
    pub(super) fn lost(&mut self) {
        for minted in self.minted.values_mut() {
            if matches!(minted.state, State::Sent) {
                minted.state = State::Due(Duration::ZERO);
            }
        }
    }

    /// The frames that are to be sent now, in order of their ids. `server` is the server's time, by which ids are made.
    pub(super) fn due(&mut self, now: Duration, server: Micros, mut random: impl FnMut() -> u64) -> Vec<Up> {
        let again: Vec<ClientId> = self
            .minted
            .iter()
            .filter(|(_, minted)| matches!(minted.state, State::Due(at) if at <= now))
            .map(|(id, _)| *id)
            .collect();
        let mut frames: Vec<Up> = again.into_iter().filter_map(|id| self.sent(id)).collect();
        while self.minted.len() < ABOVE_SETTLED_MAX {
            let Some(draft) = self.waiting.pop_front() else { break };
            let id = self.mint(server, random());
            self.minted.insert(id, Minted { draft, state: State::Sent });
            frames.extend(self.sent(id));
        }
        frames
    }

    /// When something is due that is not due now.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        let due = |minted: &Minted| match minted.state {
            State::Due(at) => Some(at),
            State::Sent | State::Answered => None,
        };
        self.minted.values().filter_map(due).min()
    }

    /// The message is in the log; nothing where its answer is known already.
    pub(super) fn accepted(&mut self, id: &str) -> Option<Ticket> {
        self.answered(id)
    }

    /// The message is refused for good.
    pub(super) fn refused(&mut self, id: &str) -> Option<Ticket> {
        self.answered(id)
    }

    /// The message is refused for now; it is sent again with the same id. `false` where it is none of these.
    pub(super) fn deferred(&mut self, id: &str, until: Duration) -> bool {
        let Ok(id) = id.parse() else { return false };
        match self.minted.get_mut(&id) {
            Some(minted) if !matches!(minted.state, State::Answered) => {
                minted.state = State::Due(until);
                true
            }
            _ => false,
        }
    }

    /// The machine did not take an id. One that is settled was taken before, and the notice is about a copy; one that
    /// is not was never taken, so its message goes out under a new id. The ticket where that was tried too often.
    pub(super) fn not_taken(&mut self, id: &str) -> Option<Ticket> {
        let id = id.parse().ok()?;
        let mut draft = self.minted.get(&id)?.draft.clone();
        self.settle(id);
        if draft.renewals >= RENEWALS_MAX {
            return Some(draft.ticket);
        }
        draft.renewals += 1;
        self.waiting.push_front(draft);
        None
    }

    fn answered(&mut self, id: &str) -> Option<Ticket> {
        let id = id.parse().ok()?;
        let minted = self.minted.get(&id)?;
        let ticket = minted.draft.ticket;
        if matches!(minted.state, State::Answered) {
            return None;
        }
        self.settle(id);
        Some(ticket)
    }

    /// Marks an id as answered, and moves the highest settled one up to the first that is not.
    fn settle(&mut self, id: ClientId) {
        if let Some(minted) = self.minted.get_mut(&id) {
            minted.state = State::Answered;
        }
        while let Some(first) = self.minted.first_entry() {
            if !matches!(first.get().state, State::Answered) {
                break;
            }
            self.settled = Some(*first.key());
            first.remove();
        }
    }

    fn sent(&mut self, id: ClientId) -> Option<Up> {
        let settled = self.settled.map(|id| id.to_string());
        let minted = self.minted.get_mut(&id)?;
        minted.state = State::Sent;
        Some(Up::Send {
            id: id.to_string(),
            settled,
            to: Some(minted.draft.to.clone()),
            conversation: None,
            content_type: None,
            body: minted.draft.body.clone(),
            reply_to: None,
        })
    }

    /// The next id: of the server's time, above the last, with a counter in the 12 bits below the millisecond.
    /// Source: RFC 9562, section 6.2, method 1.
    fn mint(&mut self, server: Micros, random: u64) -> ClientId {
        let mut at = server;
        if let Some(last) = self.last.map(ClientId::at)
            && last.0 / 1_000 >= at.0 / 1_000
        {
            (at, self.in_millisecond) = match self.in_millisecond {
                0xfff => (Micros(last.0 + 1_000), 0),
                count => (last, count + 1),
            };
        } else {
            self.in_millisecond = 0;
        }
        let id = ClientId::new(at, u128::from(self.in_millisecond) << 64 | u128::from(random));
        self.last = Some(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    fn outbox(messages: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for n in 0..messages {
            outbox.push(UserId::new("bob").unwrap(), n.to_string()).unwrap();
        }
        outbox
    }

    /// What is due as id, settled and body.
    fn due(outbox: &mut Outbox, secs: u64) -> Vec<(String, Option<String>, String)> {
        let frames = outbox.due(Duration::from_secs(secs), NOW, || 7);
        let send = |frame| match frame {
            Up::Send { id, settled, body, .. } => (id, settled, body),
            other => panic!("{other:?}"),
        };
        frames.into_iter().map(send).collect()
    }

    #[test]
    fn ids_increase_also_where_the_clock_stands_or_goes_back() {
        let mut outbox = Outbox::default();
        let mut last = outbox.mint(NOW, u64::MAX);
        for n in 0..10_000 {
            let id = outbox.mint(Micros(NOW.0 - n), 0);
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert!(last.at().0 - NOW.0 < 5_000, "4,096 ids a millisecond");
        assert_eq!(outbox.mint(Micros(NOW.0 + Micros::SECOND), 0).at().0, NOW.0 + Micros::SECOND);
    }

    #[test]
    fn what_is_settled_is_named_up_to_the_first_that_is_not() {
        let mut outbox = outbox(3);
        let first = due(&mut outbox, 0);
        assert_eq!(first.iter().map(|(_, _, body)| &**body).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert!(first.iter().all(|(_, settled, _)| settled.is_none()));
        assert_eq!(outbox.accepted(&first[1].0), Some(Ticket(1)));
        assert_eq!(outbox.accepted(&first[1].0), None, "answered already");
        outbox.push(UserId::new("bob").unwrap(), "3".to_owned()).unwrap();
        let fourth = due(&mut outbox, 0);
        assert_eq!(fourth[0].1, None, "the first is not settled");
        assert_eq!(outbox.refused(&first[0].0), Some(Ticket(0)));
        outbox.push(UserId::new("bob").unwrap(), "4".to_owned()).unwrap();
        assert_eq!(due(&mut outbox, 0)[0].1.as_ref(), Some(&first[1].0));
        assert_eq!(outbox.unanswered(), 3);
    }

    #[test]
    fn no_more_than_sixty_four_ids_stand_above_the_settled_one() {
        let mut outbox = outbox(200);
        let first = due(&mut outbox, 0);
        assert_eq!(first.len(), 64);
        assert_eq!(outbox.accepted(&first[1].0), Some(Ticket(1)));
        assert_eq!(due(&mut outbox, 0).len(), 0, "the lowest is not answered");
        assert_eq!(outbox.accepted(&first[0].0), Some(Ticket(0)));
        assert_eq!(due(&mut outbox, 0).len(), 2);
        assert_eq!(outbox.unanswered(), 198);
    }

    #[test]
    fn what_was_not_answered_is_sent_again_with_its_id_after_a_loss() {
        let mut outbox = outbox(3);
        let first = due(&mut outbox, 0);
        assert_eq!(outbox.accepted(&first[0].0), Some(Ticket(0)));
        assert!(due(&mut outbox, 9).is_empty());
        outbox.lost();
        let again = due(&mut outbox, 9);
        let settled = Some(first[0].0.clone());
        assert_eq!(
            again,
            [
                (first[1].0.clone(), settled.clone(), "1".to_owned()),
                (first[2].0.clone(), settled, "2".to_owned())
            ]
        );
    }

    #[test]
    fn what_is_refused_for_now_waits_and_keeps_its_id() {
        let mut outbox = outbox(1);
        let first = due(&mut outbox, 0);
        assert!(outbox.deferred(&first[0].0, Duration::from_secs(2)));
        assert!(due(&mut outbox, 1).is_empty());
        assert_eq!(outbox.wakes_at(), Some(Duration::from_secs(2)));
        assert_eq!(due(&mut outbox, 2), first);
        assert!(!outbox.deferred("nonsense", Duration::ZERO));
    }

    #[test]
    fn a_message_that_was_never_taken_goes_out_under_a_new_id_and_a_settled_one_does_not() {
        let mut outbox = outbox(1);
        let mut id = due(&mut outbox, 0)[0].0.clone();
        for _ in 0..RENEWALS_MAX {
            assert_eq!(outbox.not_taken(&id), None);
            let again = due(&mut outbox, 0);
            assert!(again[0].0 > id && again[0].2 == "0" && again[0].1.as_ref() == Some(&id), "{again:?}");
            id.clone_from(&again[0].0);
        }
        assert_eq!(outbox.not_taken(&id), Some(Ticket(0)), "it is given up");
        assert_eq!(outbox.unanswered(), 0);

        let mut outbox = self::outbox(1);
        let id = due(&mut outbox, 0)[0].0.clone();
        assert_eq!(outbox.accepted(&id), Some(Ticket(0)));
        assert_eq!(outbox.not_taken(&id), None);
        assert!(due(&mut outbox, 0).is_empty());
    }

    #[test]
    fn messages_are_not_held_without_a_bound() {
        let mut outbox = outbox(WAITING_MAX);
        assert_eq!(outbox.push(UserId::new("bob").unwrap(), String::new()), Err(Full));
    }
}
