//! Membership of a group in memory.

use std::{collections::BTreeMap, sync::Arc};

use waypost_schemas::topic::TopicPartition;

use super::{
    super::{self as broker, Boxed, Error, Membership, Release},
    Broker, State,
    group::{Group, Mail, Seat},
};

pub(super) struct Member {
    pub(super) broker: Broker,
    pub(super) seat: Arc<Seat>,
}

impl Member {
    fn take(&self, state: &mut State) -> Option<Mail> {
        let suspended = state.connections.get(&*self.broker.name).is_some_and(|c| c.suspended);
        if state.away || suspended || self.broker.dead(state) {
            return None;
        }
        group(state, &self.seat).take_mail(self.seat.member)
    }
}

fn group<'a>(state: &'a mut State, seat: &Seat) -> &'a mut Group {
    state.groups.entry(seat.spec.group.clone()).or_default()
}

impl broker::Member for Member {
    fn next(&mut self) -> Boxed<'_, Membership> {
        Box::pin(async {
            match self.broker.shared.wait(|s| self.take(s)).await {
                Mail::Assigned(partitions) => Membership::Assigned(partitions),
                Mail::Revoked { partitions, lost } => {
                    let (broker, seat) = (self.broker.clone(), self.seat.clone());
                    let done = Release::new(move || {
                        broker.shared.change(|s| {
                            if !broker.dead(s) {
                                let all = s.partitions.keys().copied().collect();
                                group(s, &seat).released(&seat, lost, &all);
                            }
                        });
                    });
                    Membership::Revoked { partitions, lost, done }
                }
                Mail::Replaced => Membership::Failed(broker::replaced(&self.seat.spec)),
            }
        })
    }

    fn committer(&self) -> Arc<dyn broker::Committer> {
        Arc::new(Committer { broker: self.broker.clone(), seat: self.seat.clone() })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.broker.shared.change(|s| {
            if !self.broker.dead(s) {
                let all = s.partitions.keys().copied().collect();
                group(s, &self.seat).leave(self.seat.member, &all);
            }
        });
    }
}

struct Committer {
    broker: Broker,
    seat: Arc<Seat>,
}

impl broker::Committer for Committer {
    fn commit(&self, offsets: BTreeMap<TopicPartition, i64>) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async move {
            let commit = |s: &mut State| {
                (!self.broker.dead(s)).then(|| {
                    s.answering("a commit")?;
                    group(s, &self.seat).commit(self.seat.member, offsets.clone())
                })
            };
            let committed = self.broker.shared.wait(commit).await;
            self.broker.shared.changed.notify_waiters();
            committed
        })
    }
}
