//! What goes wrong.

use std::collections::BTreeSet;

use waypost_schemas::topic::{Topic, TopicPartition};

use super::{PROCESSORS_MAX, World};
use crate::{DRIVES, KEYED, places::Shelf, process::Role};

impl World {
    pub(super) fn crash(&mut self) -> String {
        let Some(at) = self.some(None) else { return String::new() };
        self.processes[at].gate.kill();
        self.processes[at].name.clone()
    }

    pub(super) fn crash_soon(&mut self) -> String {
        let Some(at) = self.some(None) else { return String::new() };
        let passages = self.dice.below(120);
        self.processes[at].gate.die_after(passages);
        format!("{} after {passages}", self.processes[at].name)
    }

    /// A process hears nothing of its group any more, and its partitions go to another; it may be one of its own name.
    pub(super) fn make_zombie(&mut self) -> String {
        let alive = self.alive(Role::Processor);
        let Some(at) = self.dice.pick(&alive).copied() else { return String::new() };
        let process = &mut self.processes[at];
        process.zombie = true;
        let (name, instance) = (process.name.clone(), process.instance);
        self.cluster.set_suspended(&name, true);
        self.cluster.expire(&name);
        self.met.one("zombies");
        if self.dice.once_in(2) {
            self.start_processor(instance);
        }
        name
    }

    pub(super) fn end_zombie(&mut self) -> String {
        let zombies: Vec<usize> = (0..self.processes.len()).filter(|at| self.processes[*at].zombie).collect();
        let Some(at) = self.dice.pick(&zombies).copied() else { return String::new() };
        let process = &mut self.processes[at];
        if self.dice.once_in(3) {
            process.gate.kill();
            return format!("{} dies", process.name);
        }
        process.zombie = false;
        self.cluster.set_suspended(&process.name, false);
        format!("{} wakes", process.name)
    }

    pub(super) fn hold(&mut self) -> String {
        let Some(at) = self.some(None) else { return String::new() };
        let process = &mut self.processes[at];
        process.held = !process.held;
        self.cluster.set_held(&process.name, process.held);
        format!("{} {}", process.name, process.held)
    }

    pub(super) fn land(&mut self) -> String {
        let held: Vec<String> = self.processes.iter().filter(|p| p.held).map(|p| p.name.clone()).collect();
        self.land_of(&held)
    }

    pub(super) fn land_of(&mut self, names: &[String]) -> String {
        let Some(name) = self.dice.pick(names).cloned() else { return String::new() };
        let topics = [
            Topic::Positions,
            Topic::Messages,
            Topic::Acks,
            Topic::Matches,
            Topic::Inboxes,
            Topic::DeadLetters,
        ];
        let topic = *self.dice.pick(&topics).expect("there are some");
        let of = TopicPartition::new(topic, self.dice.below(KEYED as u64) as i32);
        let landed = self.cluster.land(&name, of, self.dice.within(1..=4) as usize);
        format!("{landed} of {name} in {of}")
    }

    pub(super) fn land_or_lose(&mut self) -> String {
        let dead: Vec<String> =
            self.dead.iter().filter(|name| self.cluster.held(name) > 0).cloned().collect();
        if self.dice.once_in(4) {
            let Some(name) = self.dice.pick(&dead) else { return String::new() };
            self.cluster.lose_held(name);
            return format!("all of {name} is lost");
        }
        if !dead.is_empty() {
            self.met.one("late batches of the dead");
        }
        self.land_of(&dead)
    }

    pub(super) fn commit_backwards(&mut self) -> String {
        let (machine, topic) = *self.dice.pick(&DRIVES).expect("there are some");
        let of = TopicPartition::new(topic, self.dice.below(KEYED as u64) as i32);
        let group = format!("waypost.{machine}");
        let Some(committed) = self.cluster.committed(&group, of).filter(|c| *c > 0) else {
            return String::new();
        };
        let back = self.dice.within(0..=committed as u64 - 1) as i64;
        self.cluster.set_committed(&group, of, Some(back));
        self.went_back = true;
        self.met.one("commits backwards");
        format!("{machine} of {of} from {committed} to {back}")
    }

    pub(super) fn harm_snapshot(&mut self) -> String {
        let shelves: Vec<Shelf> = self.shelves.values().chain([&self.database]).cloned().collect();
        let Some(shelf) = self.dice.pick(&shelves).cloned() else { return String::new() };
        match shelf.harm(&mut self.dice) {
            None => String::new(),
            Some((owner, how)) => {
                self.met.one("snapshots harmed");
                format!("{owner:?} {how}")
            }
        }
    }

    pub(super) fn flip_postgres(&mut self) -> String {
        let away = !self.tables.lock().away;
        self.set_postgres(away);
        if away {
            self.met.one("Postgres away");
        }
        format!("away {away}")
    }

    pub(super) fn set_postgres(&mut self, away: bool) {
        self.tables.lock().away = away;
        self.database.set_away(away);
    }

    pub(super) fn flip_broker(&mut self) -> String {
        // It comes back when the next thing is done to it, or by itself at the next of these.
        let away = self.dice.once_in(2);
        self.cluster.set_away(away);
        if away {
            self.met.one("broker away");
        }
        format!("away {away}")
    }

    pub(super) fn one_more(&mut self) -> String {
        let taken: BTreeSet<u32> =
            self.alive(Role::Processor).into_iter().map(|at| self.processes[at].instance).collect();
        match (1..=PROCESSORS_MAX as u32).find(|instance| !taken.contains(instance)) {
            Some(instance) => self.start_processor(instance),
            None => String::new(),
        }
    }

    pub(super) fn one_less(&mut self) -> String {
        let alive = self.alive(Role::Processor);
        if alive.len() < 2 {
            return String::new();
        }
        let at = *self.dice.pick(&alive).expect("there are two");
        self.processes[at].stop();
        self.processes[at].name.clone()
    }

    pub(super) fn refuse_append(&mut self) -> String {
        let Some(at) = self.some(None) else { return String::new() };
        self.cluster.refuse_next(&self.processes[at].name);
        self.processes[at].name.clone()
    }

    pub(super) fn double_append(&mut self) -> String {
        let Some(at) = self.some(None) else { return String::new() };
        self.cluster.double_next(&self.processes[at].name);
        self.processes[at].name.clone()
    }
}
