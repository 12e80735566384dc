//! One tail's way along the log: where it begins, what it reads, and when it is closed.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;
use waypost_runtime::{
    broker::{self, Batch, Boxed, Feed},
    facts,
    lifecycle::Lifecycle,
};
use waypost_schemas::topic::Topic;

use super::{Error, Shared, Tail, disk::Stood};
use crate::{catchup::Projected, registry::lock};

/// How long to wait before broker and store are asked again where to begin.
const PAUSE: Duration = Duration::from_millis(500);

/// What follows one partition.
pub(super) struct Following {
    shared: Arc<Shared>,
    tail: Arc<Tail>,
    cluster: String,
    /// What is on the disk already.
    kept: Option<(i64, i64)>,
}

pub(super) fn follow(shared: Arc<Shared>, tail: Arc<Tail>) -> Following {
    Following { shared, tail, cluster: String::new(), kept: None }
}

/// Why reading ended.
enum Ended {
    Stopped,
    Unused,
}

impl Following {
    /// Reads until nobody needs the tail, or a soft stop; fails where reading on would hide a loss.
    pub(super) async fn run(mut self, lifecycle: Lifecycle) -> Result<(), Error> {
        loop {
            let ended = tokio::select! {
                biased;
                () = lifecycle.soft_stopped() => Ended::Stopped,
                ended = self.read() => ended?,
            };
            if let Some(writing) = self.keep() {
                writing.await;
            }
            if matches!(ended, Ended::Stopped) || self.let_go() {
                return Ok(());
            }
        }
    }

    /// Takes the tail off the list, unless somebody has come meanwhile. Its feeds are closed before.
    fn let_go(&self) -> bool {
        let mut open = lock(&self.shared.open);
        let unused = lock(&self.tail.state).leases == 0;
        if unused {
            open.remove(&self.tail.partition);
        }
        unused
    }

    async fn read(&mut self) -> Result<Ended, Error> {
        let mut unused = Duration::ZERO;
        while self.tail.offsets().is_none() {
            if let Some(stood) = self.beginning().await? {
                self.tail.begin(&self.shared.limits, stood);
                break;
            }
            tokio::time::sleep(PAUSE).await;
            unused = self.unused(unused, PAUSE);
            if unused >= self.shared.limits.linger {
                return Ok(Ended::Unused);
            }
        }
        let Some((inbox, acks)) = self.tail.offsets() else { return Ok(Ended::Unused) };
        let mut inbox = self.shared.reader.open(self.tail.topic(Topic::Inboxes), inbox)?;
        let mut acks = self.shared.bulk.open(self.tail.topic(Topic::Acks), acks)?;
        self.follow(&mut *inbox, &mut *acks).await
    }

    async fn follow(&mut self, inbox: &mut dyn Feed, acks: &mut dyn Feed) -> Result<Ended, Error> {
        let every = self.shared.limits.keep_every.min(self.shared.limits.linger);
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut unused, mut writing) = (Duration::ZERO, None::<Writing>);
        loop {
            tokio::select! {
                // The acknowledgements of what is offered come after it.
                biased;
                batch = inbox.next() => self.entries(batch?).await?,
                batch = acks.next() => self.acks(&batch?),
                () = written(&mut writing) => writing = None,
                _ = beat.tick() => {
                    unused = self.unused(unused, every);
                    if unused > self.shared.limits.linger {
                        return Ok(Ended::Unused);
                    }
                    if writing.is_none() {
                        writing = self.keep();
                    }
                }
            }
        }
    }

    /// How long nobody has held the tail.
    fn unused(&self, before: Duration, passed: Duration) -> Duration {
        if lock(&self.tail.state).leases == 0 { before + passed } else { Duration::ZERO }
    }

    async fn entries(&self, batch: Batch) -> Result<(), Error> {
        let (next, at_end) = (batch.next, batch.at_end);
        let last = batch.records.last().map(|record| record.append);
        let mut records = batch.records.into_iter();
        while let Err(hole) = self.tail.take_entries(&mut records) {
            if !facts::hole_accepted(&*self.shared.broker, &hole).await? {
                return Err(hole.into());
            }
            self.tail.pass(&hole);
        }
        self.tail.reached_entries(next);
        self.shared.uplink.inbox_reaches(self.tail.partition, next);
        if let Some(last) = last {
            let lag_us = if at_end { 0 } else { (self.shared.clock.now().0 - last.0).max(0) };
            metrics::gauge!("waypost_delivery_tail_lag_seconds", "partition" => self.tail.partition.to_string())
                .set(lag_us as f64 / 1e6);
        }
        Ok(())
    }

    fn acks(&self, batch: &Batch) {
        self.tail.take_acks(&batch.records, batch.next);
    }

    /// Where to begin: where the read models stand, or, while they are away, where this node stood.
    async fn beginning(&mut self) -> Result<Option<Stood>, Error> {
        match self.shared.broker.cluster_id().await {
            Ok(cluster) => self.cluster = cluster,
            Err(broker::Error::Unavailable { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match self.shared.catchup.projected(self.tail.partition).await {
            Ok(projected) => self.projected(projected).map(Some),
            Err(error) if error.passes() => self.stood().await,
            Err(error) => Err(error.into()),
        }
    }

    fn projected(&self, projected: Projected) -> Result<Stood, Error> {
        let Projected { cluster, inbox_next, seqs, acks_next } = projected;
        let (partition, found) = (self.tail.partition, self.cluster.clone());
        match cluster {
            Some(stored) if stored != found => Err(Error::OtherCluster { partition, stored, found }),
            _ => {
                let cursors = Vec::new();
                Ok(Stood { cluster: found, inbox_next, seqs, acks_since: acks_next, acks_next, cursors })
            }
        }
    }

    async fn stood(&self) -> Result<Option<Stood>, Error> {
        let partition = self.tail.partition;
        let Some(stood) = self.shared.disk.read(partition).await else { return Ok(None) };
        let ends = match self.shared.ends.ask(partition).await {
            Ok(ends) => ends,
            Err(broker::Error::Unavailable { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let holds = |bounds: broker::Bounds, next| (bounds.low..=bounds.high).contains(&next);
        if stood.cluster != self.cluster
            || !holds(ends.inbox, stood.inbox_next)
            || !holds(ends.acks, stood.acks_next)
        {
            tracing::warn!(partition, "what the disk keeps of a tail is of another log, and is left");
            return Ok(None);
        }
        tracing::info!(partition, "a tail begins where this node stood, for the read models are away");
        Ok(Some(stood))
    }

    /// Writes the tail to the disk where it has moved; what comes back waits for the disk.
    fn keep(&mut self) -> Option<Writing> {
        let offsets = self.tail.offsets();
        if offsets.is_none() || offsets == self.kept {
            return None;
        }
        let stood = self.tail.stands(&self.cluster)?;
        self.kept = offsets;
        let (disk, partition) = (self.shared.disk.clone(), self.tail.partition);
        Some(Box::pin(async move { disk.write(partition, stood).await }))
    }
}

type Writing = Boxed<'static, ()>;

/// Resolves when a write has ended; never where there is none.
async fn written(writing: &mut Option<Writing>) {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}
