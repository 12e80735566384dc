use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Mutex;
use waypost_runtime::{
    broker::{Broker, Outgoing, Producer},
    clock::Clock,
};
use waypost_schemas::{codec, header};

use super::{Change, PARTITION, Registry, Standing, lag};
use crate::appender::{self, Error, Fatal};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands, and was read back; its version.
    Changed(i64),
    /// It stood before, since this version; nothing was appended.
    Same(i64),
    /// There is nothing to remove; nothing was appended.
    Absent,
}

/// Writes the registry: one change after the other, answered when it was read back.
///
/// Several nodes may write at once. Each compares a change with what it has read up to the end that it saw, so two
/// nodes may append the same definition twice; that is harmless, as the later version says the same.
pub struct Writer {
    pub(crate) registry: Arc<Registry>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) fatal: Fatal,
    pub(crate) clock: Clock,
    pub(crate) timeout: Duration,
    pub(crate) turn: Mutex<()>,
}

impl Writer {
    /// Appends a change that changes something, and waits until it was read back; [`Error::Unavailable`] where that
    /// takes too long, and the change may still land.
    pub async fn write(&self, change: &Change) -> Result<Outcome, Error> {
        appender::bounded(self.timeout, self.write_in_turn(change)).await
    }

    async fn write_in_turn(&self, change: &Change) -> Result<Outcome, Error> {
        let _turn = self.turn.lock().await;
        let end = lag::end(&*self.broker).await.map_err(|e| self.fatal.tell(e))?;
        self.registry.read_upto(end - 1).await;
        let standing = self.registry.view().standing(change);
        match standing {
            Standing::Same(version) => return Ok(Outcome::Same(version)),
            Standing::Absent => return Ok(Outcome::Absent),
            Standing::Differs => {}
        }
        let record = self.record(change, end).await?;
        let delivery = self.producer.send(vec![record]).await.map_err(|e| self.fatal.tell(e))?;
        let positions = delivery.await.map_err(|e| self.fatal.tell(e))?;
        let version = positions.first().map_or(end, |p| p.offset);
        self.registry.read_upto(version).await;
        Ok(Outcome::Changed(version))
    }

    async fn record(&self, change: &Change, end: i64) -> Result<Outgoing, Error> {
        let (key, event, now) = (change.key(), change.event(), self.clock.now());
        // No two writes of one node see the same end, and no two nodes are likely to in the same microsecond.
        let id = format!("registry/0/{end}/{}", now.0);
        let headers = header::original(&event, "ingest", id, now);
        let headers = headers.into_iter().map(|(name, value)| (name.into(), Bytes::from(value))).collect();
        // A country takes milliseconds to encode: not on an async thread.
        let value = tokio::task::spawn_blocking(move || codec::encode(&event)).await;
        let value = value.map_err(|_| Error::Encoding)?;
        Ok(Outgoing { to: PARTITION, key: Some(key.into()), value: Some(value.into()), headers })
    }
}
