//! The devices of users that send messages: each remembers what is not accepted yet, and says what it has settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use waypost_schemas::{
    client_id::ClientId,
    event::MessageSent,
    id::{ConversationId, DeviceName},
    time::Micros,
};

use crate::{
    dice::Dice,
    load::{USERS, user},
};

/// How many sends of a device may be without an answer.
const OUTSTANDING_MAX: usize = 12;
/// How many devices each user has.
pub(crate) const DEVICES: u64 = 2;

/// A device by number.
pub(crate) fn device(number: u64) -> DeviceName {
    DeviceName::new(format!("device-{number}")).expect("a name")
}

/// All sending devices; a cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Users(Arc<Mutex<BTreeMap<(u64, u64), Device>>>);

#[derive(Default)]
struct Device {
    /// What was said and not accepted, by client id.
    outstanding: BTreeMap<String, MessageSent>,
    /// Every id, of all time.
    ids: BTreeSet<String>,
    /// The time of the last id, in milliseconds.
    last_ms: i64,
}

impl Device {
    /// The highest id below which, and with which, all is accepted; texts of ids are in the ids' order.
    fn settled(&self) -> Option<String> {
        let below = match self.outstanding.keys().next() {
            Some(oldest) => {
                self.ids.range::<str, _>((Bound::Unbounded, Bound::Excluded(oldest.as_str()))).next_back()
            }
            None => self.ids.last(),
        };
        below.cloned()
    }
}

impl Users {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device says something new; none where it waits for too many answers.
    pub(crate) fn say(&self, dice: &mut Dice, now: Micros) -> Option<(String, MessageSent)> {
        let (from, name, to) = (dice.below(USERS), dice.below(DEVICES), dice.below(USERS));
        let mut devices = self.lock();
        let sender = devices.entry((from, name)).or_default();
        if sender.outstanding.len() >= OUTSTANDING_MAX {
            return None;
        }
        sender.last_ms = (now.0 / 1_000).max(sender.last_ms + 1);
        let number = u128::from(from * DEVICES + name);
        let id = ClientId::new(Micros::from_millis(sender.last_ms), number).to_string();
        let settled = sender.settled();
        let message = MessageSent {
            conversation: ConversationId::direct(&user(from), &user(to)),
            sender: user(from),
            device: device(name),
            client_id: id.clone(),
            settled,
            content_type: "text/plain".into(),
            body: id.clone().into_bytes(),
            reply_to: None,
            registry: -1,
        };
        sender.ids.insert(id.clone());
        sender.outstanding.insert(id.clone(), message.clone());
        Some((id, message))
    }

    /// The ids of all that is not accepted.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.lock().values().flat_map(|device| device.outstanding.keys().cloned()).collect()
    }

    /// How much is not accepted.
    pub(crate) fn outstanding(&self) -> usize {
        self.lock().values().map(|device| device.outstanding.len()).sum()
    }

    /// What is not accepted, by its id, with what its device has settled by now, or without a word of that.
    pub(crate) fn message(&self, id: &str, dice: &mut Dice) -> Option<MessageSent> {
        let devices = self.lock();
        let device = devices.values().find(|device| device.outstanding.contains_key(id))?;
        let settled = device.settled().filter(|_| !dice.once_in(4));
        Some(MessageSent { settled, ..device.outstanding[id].clone() })
    }

    /// Takes note that a message is in the log.
    pub(crate) fn accepted(&self, id: &str) {
        self.lock().values_mut().for_each(|device| drop(device.outstanding.remove(id)));
    }
}
