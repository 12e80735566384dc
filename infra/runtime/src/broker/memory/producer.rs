//! Appending to the log in memory.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;
use waypost_schemas::{cause::Position, topic::TopicPartition};

use super::{
    super::{self as broker, Boxed, Delivery, Error, Outgoing},
    Broker,
    connection::Unlanded,
};

/// How many records of a process may be on their way before its next send waits.
const LIMBO_RECORDS_MAX: usize = 100_000;

pub(super) struct Producer {
    broker: Broker,
    state: Arc<Poison>,
}

/// Whether a producer is past use, and why.
#[derive(Default)]
pub(super) struct Poison(OnceLock<Error>);

impl Poison {
    pub(super) fn poison(&self, what: &str) {
        let _ = self.0.set(Error::Fatal { what: what.to_owned() });
    }

    pub(super) fn poisoned(&self) -> Option<Error> {
        self.0.get().cloned()
    }
}

/// The promise of one send.
pub(super) struct Promise {
    pub(super) producer: Arc<Poison>,
    open: Mutex<Option<Open>>,
}

struct Open {
    positions: Vec<Option<Position>>,
    missing: usize,
    tell: oneshot::Sender<Result<Vec<Position>, Error>>,
}

impl Promise {
    pub(super) fn landed(&self, index: usize, to: TopicPartition, offset: i64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = open.as_mut() else { return };
        waiting.positions[index] = Some(Position { topic: to.topic, partition: to.partition, offset });
        waiting.missing -= 1;
        if waiting.missing == 0
            && let Some(done) = open.take()
        {
            // Nobody hears it where the promise was dropped.
            let _ = done.tell.send(Ok(done.positions.into_iter().flatten().collect()));
        }
    }

    pub(super) fn fail(&self, error: Error) {
        if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = open.tell.send(Err(error));
        }
    }
}

impl Producer {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, state: Arc::default() }
    }

    fn queue(&self, records: Vec<Outgoing>) -> Result<Delivery, Error> {
        if let Some(error) = self.state.poisoned() {
            return Err(error);
        }
        for record in &records {
            record.fits()?;
        }
        if records.is_empty() {
            return Ok(Box::pin(std::future::ready(Ok(Vec::new()))));
        }
        let (tell, told) = oneshot::channel();
        let open = Open { positions: vec![None; records.len()], missing: records.len(), tell };
        let promise = Arc::new(Promise { producer: self.state.clone(), open: Mutex::new(Some(open)) });
        self.broker.shared.change(|s| {
            let unlanded = records.into_iter().enumerate().map(|(index, record)| Unlanded {
                record,
                index,
                promise: promise.clone(),
            });
            s.connections.entry((*self.broker.name).to_owned()).or_default().limbo.extend(unlanded);
            s.land_what_may();
        });
        let broker = self.broker.clone();
        Ok(Box::pin(async move {
            let answer = told.await;
            // A dead process hears nothing, and what was lost is never answered.
            if broker.dead(&broker.shared.lock()) {
                return std::future::pending().await;
            }
            match answer {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            }
        }))
    }

    fn on_their_way(&self, state: &super::State) -> usize {
        state.connections.get(&*self.broker.name).map_or(0, |c| c.limbo.len())
    }
}

impl broker::Producer for Producer {
    fn send(&self, records: Vec<Outgoing>) -> Boxed<'_, Result<Delivery, Error>> {
        Box::pin(async move {
            let room = |s: &mut super::State| {
                (!self.broker.dead(s) && self.on_their_way(s) < LIMBO_RECORDS_MAX).then_some(())
            };
            self.broker.shared.wait(room).await;
            self.queue(records)
        })
    }

    fn flush(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async {
            let flushed =
                |s: &mut super::State| (!self.broker.dead(s) && self.on_their_way(s) == 0).then_some(());
            self.broker.shared.wait(flushed).await;
            self.state.poisoned().map_or(Ok(()), Err)
        })
    }
}
