//! A consumer group: who is in it, who owns what, and what is committed. Pure; the cluster calls it under its lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use waypost_schemas::topic::{Topic, TopicPartition};

use super::super::{Error, GroupSpec};

/// A group. Its members are static: an instance that joins again takes its place back.
#[derive(Default)]
pub(super) struct Group {
    members: BTreeMap<String, Slot>,
    /// News by member number, also for members that have lost their place.
    mail: BTreeMap<u64, VecDeque<Mail>>,
    pub(super) committed: BTreeMap<TopicPartition, i64>,
    rebalancing: bool,
}

/// An instance's place in the group.
#[derive(Clone)]
struct Slot {
    seat: Seat,
    owned: BTreeSet<TopicPartition>,
    /// It was told to let go, and has not.
    releasing: bool,
}

/// Who sits in a place.
#[derive(Clone)]
pub(super) struct Seat {
    /// The member's number, new with every join.
    pub(super) member: u64,
    /// The process.
    pub(super) process: String,
    pub(super) spec: GroupSpec,
}

/// News to a member.
pub(super) enum Mail {
    Assigned(Vec<TopicPartition>),
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
    Replaced,
}

impl Group {
    /// Takes a member in; an instance that is there already is replaced, and keeps its partitions.
    pub(super) fn join(&mut self, seat: Seat, all: &BTreeSet<TopicPartition>) {
        self.mail.insert(seat.member, VecDeque::new());
        let instance = seat.spec.instance.clone();
        let owned = match self.members.remove(&instance) {
            Some(old) => {
                self.post(old.seat.member, Mail::Replaced);
                let same = old.seat.spec.topics == seat.spec.topics;
                same.then_some(old.owned)
            }
            None => None,
        };
        match owned {
            Some(owned) if !self.rebalancing => {
                self.post(seat.member, Mail::Assigned(owned.iter().copied().collect()));
                self.members.insert(instance, Slot { seat, owned, releasing: false });
            }
            _ => {
                self.members.insert(instance, Slot { seat, owned: BTreeSet::new(), releasing: false });
                self.rebalance(all);
            }
        }
    }

    /// The member ends of its own accord.
    pub(super) fn leave(&mut self, member: u64, all: &BTreeSet<TopicPartition>) {
        self.mail.remove(&member);
        let before = self.members.len();
        self.members.retain(|_, s| s.seat.member != member);
        if self.members.len() < before {
            self.rebalance(all);
        }
    }

    /// The sessions of a process are over.
    pub(super) fn expire(&mut self, process: &str, all: &BTreeSet<TopicPartition>) {
        let gone: Vec<_> = self.members.extract_if(.., |_, s| s.seat.process == process).collect();
        for (_, slot) in &gone {
            let partitions = slot.owned.iter().copied().collect();
            self.post(slot.seat.member, Mail::Revoked { partitions, lost: true });
        }
        if !gone.is_empty() {
            self.rebalance(all);
        }
    }

    /// Who is in it and what each owns, for people.
    pub(super) fn told(&self) -> String {
        let told = |(instance, slot): (&String, &Slot)| {
            let owned: Vec<String> = slot.owned.iter().map(ToString::to_string).collect();
            let waits = if slot.releasing { ", to be let go" } else { "" };
            format!("{instance} ({}): {}{waits}", slot.seat.process, owned.join(" "))
        };
        self.members.iter().map(told).collect::<Vec<_>>().join("; ")
    }

    /// A member has let go of what it was told to; one that had lost its place joins again.
    pub(super) fn released(&mut self, seat: &Seat, lost: bool, all: &BTreeSet<TopicPartition>) {
        if !lost {
            if let Some(slot) = self.members.values_mut().find(|s| s.seat.member == seat.member) {
                slot.releasing = false;
                slot.owned.clear();
            }
            self.settle(all);
        } else if self.members.contains_key(&seat.spec.instance) {
            self.post(seat.member, Mail::Replaced);
        } else if self.mail.contains_key(&seat.member) {
            let slot = Slot { seat: seat.clone(), owned: BTreeSet::new(), releasing: false };
            self.members.insert(seat.spec.instance.clone(), slot);
            self.rebalance(all);
        }
    }

    /// How many instances have a place.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn take_mail(&mut self, member: u64) -> Option<Mail> {
        self.mail.get_mut(&member)?.pop_front()
    }

    pub(super) fn commit(
        &mut self,
        member: u64,
        offsets: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), Error> {
        let owned = self.members.values().find(|s| s.seat.member == member).map(|s| &s.owned);
        for partition in offsets.keys() {
            if !owned.is_some_and(|o| o.contains(partition)) {
                return Err(Error::Fenced { partition: *partition });
            }
        }
        self.committed.extend(offsets);
        Ok(())
    }

    fn post(&mut self, member: u64, mail: Mail) {
        if let Some(queue) = self.mail.get_mut(&member) {
            queue.push_back(mail);
        }
    }

    /// Tells everyone to let go; when all have, the partitions are shared out anew.
    fn rebalance(&mut self, all: &BTreeSet<TopicPartition>) {
        if !self.rebalancing {
            self.rebalancing = true;
            let mut told = Vec::new();
            for slot in self.members.values_mut().filter(|s| !s.owned.is_empty()) {
                slot.releasing = true;
                told.push((slot.seat.member, slot.owned.iter().copied().collect()));
            }
            for (member, partitions) in told {
                self.post(member, Mail::Revoked { partitions, lost: false });
            }
        }
        self.settle(all);
    }

    fn settle(&mut self, all: &BTreeSet<TopicPartition>) {
        if !self.rebalancing || self.members.values().any(|s| s.releasing) {
            return;
        }
        self.rebalancing = false;
        let members: Vec<_> =
            self.members.iter().map(|(i, s)| (i.clone(), s.seat.spec.topics.clone())).collect();
        let mut shares = range(&members, all);
        let mut told = Vec::new();
        for (instance, slot) in &mut self.members {
            slot.owned = shares.remove(instance).unwrap_or_default();
            told.push((slot.seat.member, slot.owned.iter().copied().collect()));
        }
        for (member, partitions) in told {
            self.post(member, Mail::Assigned(partitions));
        }
    }
}

/// Shares partitions out as Kafka's `RangeAssignor` does: per topic, runs of partitions in order of the instances,
/// the first ones one longer where it does not come out even.
fn range(
    members: &[(String, Vec<Topic>)],
    all: &BTreeSet<TopicPartition>,
) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let mut shares = BTreeMap::<String, BTreeSet<TopicPartition>>::new();
    for topic in Topic::ALL {
        let partitions: Vec<_> = all.iter().filter(|p| p.topic == topic).copied().collect();
        let takers: Vec<_> = members.iter().filter(|(_, topics)| topics.contains(&topic)).collect();
        let mut rest = &partitions[..];
        for (i, (instance, _)) in takers.iter().enumerate() {
            let extra = usize::from(i < partitions.len() % takers.len());
            let (share, after) = rest.split_at(partitions.len() / takers.len() + extra);
            shares.entry(instance.clone()).or_default().extend(share);
            rest = after;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_out_in_runs_the_first_ones_longer() {
        let all = (0..7).map(|p| TopicPartition::new(Topic::Positions, p)).collect();
        let member = |name: &str| (name.to_owned(), vec![Topic::Positions]);
        for (members, runs) in [
            (vec![member("a")], vec![7]),
            (vec![member("a"), member("b")], vec![4, 3]),
            (vec![member("a"), member("b"), member("c")], vec![3, 2, 2]),
        ] {
            let shares = range(&members, &all);
            assert_eq!(shares.values().map(BTreeSet::len).collect::<Vec<_>>(), runs);
            assert_eq!(shares.into_values().flatten().collect::<BTreeSet<_>>(), all);
        }
    }
}
