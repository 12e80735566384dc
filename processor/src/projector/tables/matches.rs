//! Rules that fired.

use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    cause::Cause,
    event::{Event, RuleMatched},
    id::{UserId, ZoneId},
};

use super::{Record, not_projected};
use crate::machine::Unfit;

const APPEND: &str = "INSERT INTO waypost.matches (partition, \"offset\", cause, rule, rule_version, zone, event, \
    initial, device, at_us, lat, lon, audience, part, parts, append_us) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING";

/// Matches of one partition.
#[derive(Debug)]
pub(crate) struct Rows {
    partition: i32,
    matches: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    offset: i64,
    append_us: i64,
    cause: Cause,
    matched: RuleMatched,
}

impl Rows {
    pub(super) fn new(partition: i32) -> Self {
        Self { partition, matches: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.matches.len()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        match (record.event, record.cause) {
            (Event::RuleMatched(matched), Some(cause)) => {
                let (offset, append_us) = (record.offset, record.append_us);
                self.matches.push(Row { offset, append_us, cause, matched });
                Ok(())
            }
            (event, _) => Err(not_projected(&event)),
        }
    }

    /// One statement a match, all under way at once: they are few beside fixes, and audiences differ in length.
    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        if self.matches.is_empty() {
            return Ok(());
        }
        let statement = tx.prepare_cached(APPEND).await?;
        futures_util::future::try_join_all(self.matches.iter().map(|row| self.append(tx, &statement, row)))
            .await
            .map(|_| ())
    }

    async fn append(
        &self,
        tx: &Transaction<'_>,
        statement: &tokio_postgres::Statement,
        row: &Row,
    ) -> Result<u64, tokio_postgres::Error> {
        let matched = &row.matched;
        let audience: Vec<&str> = matched.audience.iter().map(UserId::as_str).collect();
        tx.execute(
            statement,
            &[
                &self.partition,
                &row.offset,
                &row.cause.to_string(),
                &matched.rule.as_str(),
                &matched.rule_version,
                &matched.zone.as_ref().map(ZoneId::as_str),
                &matched.event.as_str(),
                &matched.initial,
                &matched.device.as_str(),
                &matched.fix.at_us.0,
                &matched.fix.lat,
                &matched.fix.lon,
                &audience,
                &matched.part,
                &matched.parts,
                &row.append_us,
            ],
        )
        .await
    }
}
