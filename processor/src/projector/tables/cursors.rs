//! How far devices have acknowledged their users' inboxes.

use std::collections::BTreeMap;

use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    event::{AckKind, Event},
    id::{DeviceName, UserId},
};

use super::{Record, not_projected};
use crate::machine::Unfit;

const RAISE: &str = "INSERT INTO waypost.cursors AS c (user_id, device, partition, upto) \
    SELECT u, d, $3, o FROM UNNEST($1::text[], $2::text[], $4::int8[]) AS r (u, d, o) \
    ON CONFLICT (user_id, device) DO UPDATE SET upto = EXCLUDED.upto WHERE EXCLUDED.upto > c.upto";

/// The highest acknowledgements of one partition's batch.
#[derive(Debug)]
pub(crate) struct Rows {
    partition: i32,
    upto: BTreeMap<(UserId, DeviceName), i64>,
}

impl Rows {
    pub(super) fn new(partition: i32) -> Self {
        Self { partition, upto: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.upto.len()
    }

    /// Adds what a device acknowledged. A read moves no cursor: it says what the user has seen, not what the device
    /// has.
    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        match record.event {
            Event::EntriesAcknowledged(ack) => {
                if ack.kind != AckKind::Read {
                    let upto = self.upto.entry((ack.user, ack.device)).or_insert(ack.upto);
                    *upto = ack.upto.max(*upto);
                }
                Ok(())
            }
            event => Err(not_projected(&event)),
        }
    }

    pub(super) fn cursors(&self) -> impl Iterator<Item = (&UserId, &DeviceName, i64)> {
        self.upto.iter().map(|((user, device), upto)| (user, device, *upto))
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        if self.upto.is_empty() {
            return Ok(());
        }
        let users: Vec<&str> = self.upto.keys().map(|(user, _)| user.as_str()).collect();
        let devices: Vec<&str> = self.upto.keys().map(|(_, device)| device.as_str()).collect();
        let upto: Vec<i64> = self.upto.values().copied().collect();
        let statement = tx.prepare_cached(RAISE).await?;
        tx.execute(&statement, &[&users, &devices, &self.partition, &upto]).await.map(|_| ())
    }
}
