//! What those who use the world do.

use std::sync::PoisonError;

use waypost_ingest::uplink;
use waypost_schemas::event::Event;

use super::World;
use crate::{
    load::{LOG, Load},
    phones::{Ground, Phone},
    process::Role,
};

impl World {
    pub(super) fn report(&mut self) -> String {
        let Some(at) = self.some(Some(Role::Node)) else { return String::new() };
        let Some(uplink) = self.processes[at].uplink.clone() else { return String::new() };
        let report = Load::report(&mut self.dice, self.clock.now());
        let accepted = self.accepted.clone();
        let fixes: Vec<Event> = report.fixes.iter().cloned().map(Event::from).collect();
        let told = format!("{} by {}", report.device, self.processes[at].name);
        self.sends.spawn(async move {
            // What is not accepted may have landed or not; a tracker sends its next fix.
            if let Ok(positions) = uplink.append_report(report).await {
                accepted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(positions.into_iter().zip(fixes));
            }
        });
        told
    }

    pub(super) fn say(&mut self) -> String {
        let Some((id, message)) = self.users.say(&mut self.dice, self.clock.now()) else {
            return "nobody may".into();
        };
        let told = format!("{}/{} {}: {id}", message.sender, message.device, message.conversation);
        self.send(id);
        told
    }

    pub(super) fn say_again(&mut self) -> String {
        let ids = self.users.ids();
        match self.dice.pick(&ids).cloned() {
            None => String::new(),
            Some(id) => {
                self.send(id.clone());
                id
            }
        }
    }

    pub(super) fn resend_all(&mut self) {
        if self.sends.is_empty() {
            self.users.ids().into_iter().for_each(|id| self.post(id));
        }
    }

    /// Sends a message on its device's connection, where it has one and the dice will have it so, or else posts it.
    pub(super) fn send(&mut self, id: String) {
        if self.dice.once_in(2)
            && let Some(message) = self.users.message(&id, &mut self.dice)
            && let Some(phone) =
                self.phones.iter().find(|phone| phone.is_of(&message.sender, &message.device))
            && phone.say(message)
        {
            return;
        }
        self.post(id);
    }

    pub(super) fn post(&mut self, id: String) {
        let Some(at) = self.some(Some(Role::Node)) else { return };
        let Some(uplink) = self.processes[at].uplink.clone() else { return };
        let Some(message) = self.users.message(&id, &mut self.dice) else { return };
        let (accepted, users) = (self.accepted.clone(), self.users.clone());
        self.sends.spawn(async move {
            if let Ok(positions) = uplink.append_message(message.clone()).await {
                let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                accepted.extend(positions.into_iter().map(|at| (at, Event::from(message.clone()))));
                users.accepted(&id);
            }
        });
    }

    pub(super) fn phone_comes(&mut self) -> String {
        let Some(phone) = self.dice.pick(&self.phones).cloned() else { return String::new() };
        self.comes(&phone, false)
    }

    /// A device comes to some node.
    pub(super) fn comes(&mut self, phone: &Phone, calm: bool) -> String {
        let Some(at) = self.some(Some(Role::Node)) else { return String::new() };
        let Some(node) = &self.processes[at].node else { return String::new() };
        let ground = Ground {
            cluster: self.cluster.clone(),
            log: LOG,
            users: self.users.clone(),
            accepted: self.accepted.clone(),
            met: self.met.clone(),
        };
        let told = format!("{} to {}", phone.name(), self.processes[at].name);
        self.lines.spawn(phone.come(node, ground, self.dice.split(), calm));
        told
    }

    /// Every device that has ever come, and has no connection, comes again.
    pub(super) fn phones_come_again(&mut self) {
        for phone in self.phones.clone() {
            if self.phones_come && phone.is_known() && !phone.is_open() {
                self.comes(&phone, true);
            }
        }
    }

    pub(super) fn phone_is_cut_off(&mut self) -> String {
        let Some(phone) = self.dice.pick(&self.phones) else { return String::new() };
        phone.order(|order| order.cut = true);
        phone.name()
    }

    /// A connection becomes half-open, as when packets are dropped, or is mended.
    pub(super) fn phone_goes_deaf(&mut self) -> String {
        let Some(phone) = self.dice.pick(&self.phones) else { return String::new() };
        phone.order(|order| order.deaf = !order.deaf);
        phone.name()
    }

    /// A device acknowledges something, in any order. W1: what its inbox does not have yet is refused.
    pub(super) fn acknowledge(&mut self) -> String {
        let Some(at) = self.some(Some(Role::Node)) else { return String::new() };
        let Some(uplink) = self.processes[at].uplink.clone() else { return String::new() };
        let ack = Load::ack(&mut self.dice, &self.cluster);
        let told = format!("{}/{} {:?} {}", ack.user, ack.device, ack.kind, ack.upto);
        let (accepted, met) = (self.accepted.clone(), self.met.clone());
        self.sends.spawn(async move {
            match uplink.acknowledge(ack.clone()).await {
                Ok(positions) => {
                    let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    accepted.extend(positions.into_iter().map(|at| (at, Event::from(ack.clone()))));
                }
                Err(uplink::Error::AckBeyondEnd { .. }) => met.one("acks beyond the end"),
                // A device acknowledges again, or what comes after it.
                Err(_) => {}
            }
        });
        told
    }

    pub(super) fn change_registry(&mut self) -> String {
        Load::registry(&mut self.dice, &self.cluster);
        String::new()
    }

    pub(super) fn spoil(&mut self) -> String {
        self.load.spoil(&mut self.dice, &self.cluster)
    }
}
