//! The read models in Postgres. Each question is one statement, and so sees one snapshot.

use bytes::Bytes;
use tokio_postgres::Row;
use waypost_runtime::{
    broker::Boxed,
    postgres::{self as pg, Pool},
};
use waypost_schemas::{id::DeviceName, time::Micros};

use super::{Error, Mailbox, Newest, Page, Projected, Reached, Store, Stored};

const PROJECTED: &str = "SELECT topic, cluster_id, next_offset, seq_map::text FROM waypost.projection \
    WHERE topic IN ('inboxes', 'acks') AND partition = $1";

/// One row at least, which says how far the partition was applied; and the entries, as far as the bytes allow.
const PAGE: &str = "SELECT p.next_offset, e.\"offset\", e.cause, e.at_us, e.value, e.found \
    FROM (SELECT COALESCE((SELECT next_offset FROM waypost.projection \
        WHERE topic = 'inboxes' AND partition = $2), 0) AS next_offset) AS p \
    LEFT JOIN LATERAL ( \
        SELECT * FROM ( \
            SELECT \"offset\", cause, at_us, value, count(*) OVER () AS found, \
                sum(octet_length(value)) OVER (ORDER BY \"offset\") - octet_length(value) AS before \
            FROM (SELECT \"offset\", cause, at_us, value FROM waypost.inbox_entries \
                WHERE user_id = $1 AND partition = $2 AND \"offset\" > $3 AND \"offset\" < p.next_offset \
                ORDER BY \"offset\" LIMIT $4) AS first) AS measured \
        WHERE before < $5) AS e ON true \
    ORDER BY e.\"offset\"";

const NEWEST: &str = "SELECT COALESCE((SELECT next_offset FROM waypost.projection \
        WHERE topic = 'inboxes' AND partition = $2), 0), \
    ARRAY(SELECT \"offset\" FROM (SELECT \"offset\" FROM waypost.inbox_entries \
        WHERE user_id = $1 AND partition = $2 ORDER BY \"offset\" DESC LIMIT $3) AS newest ORDER BY \"offset\")";

const REACHED: &str = "SELECT COALESCE((SELECT next_offset FROM waypost.projection \
        WHERE topic = 'acks' AND partition = $3), 0), \
    (SELECT upto FROM waypost.cursors WHERE user_id = $1 AND device = $2)";

/// The read models in Postgres.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Asks by a pool's connections.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    async fn ask_projected(&self, partition: i32) -> Result<Projected, Error> {
        let client = self.pool.get().await?;
        let rows = client.query(&client.prepare_cached(PROJECTED).await?, &[&partition]).await?;
        let mut projected = Projected::default();
        for row in rows {
            let (topic, next): (&str, i64) = (row.try_get(0)?, row.try_get(2)?);
            if topic == "acks" {
                projected.acks_next = next;
                continue;
            }
            let seqs: &str = row.try_get(3)?;
            projected.seqs = serde_json::from_str(seqs)
                .map_err(|_| Error::Row { what: format!("the seq map of {topic}/{partition}") })?;
            (projected.cluster, projected.inbox_next) = (Some(row.try_get(1)?), next);
        }
        Ok(projected)
    }

    async fn ask_page(
        &self,
        of: Mailbox<'_>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        let client = self.pool.get().await?;
        let (entries, bytes) = (limit(entries_max), limit(bytes_max));
        let page = client.prepare_cached(PAGE).await?;
        let rows = client.query(&page, &[&of.user.as_str(), &of.partition, &after, &entries, &bytes]).await?;
        Ok(read_page(&rows, after, entries)?)
    }

    async fn ask_newest(&self, of: Mailbox<'_>, entries_max: usize) -> Result<Newest, Error> {
        let client = self.pool.get().await?;
        let newest = client.prepare_cached(NEWEST).await?;
        let row = client.query_one(&newest, &[&of.user.as_str(), &of.partition, &limit(entries_max)]).await?;
        Ok(Newest { next: row.try_get(0)?, offsets: row.try_get(1)? })
    }

    async fn ask_reached(&self, of: Mailbox<'_>, device: &DeviceName) -> Result<Reached, Error> {
        let client = self.pool.get().await?;
        let reached = client.prepare_cached(REACHED).await?;
        let row = client.query_one(&reached, &[&of.user.as_str(), &device.as_str(), &of.partition]).await?;
        Ok(Reached { next: row.try_get(0)?, upto: row.try_get(1)? })
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(pg::Error::Query(error))
    }
}

impl Store for Postgres {
    fn projected(&self, partition: i32) -> Boxed<'_, Result<Projected, Error>> {
        Box::pin(self.ask_projected(partition))
    }

    fn page<'a>(
        &'a self,
        of: Mailbox<'a>,
        after: i64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Boxed<'a, Result<Page, Error>> {
        Box::pin(self.ask_page(of, after, entries_max, bytes_max))
    }

    fn newest<'a>(&'a self, of: Mailbox<'a>, entries_max: usize) -> Boxed<'a, Result<Newest, Error>> {
        Box::pin(self.ask_newest(of, entries_max))
    }

    fn reached<'a>(&'a self, of: Mailbox<'a>, device: &'a DeviceName) -> Boxed<'a, Result<Reached, Error>> {
        Box::pin(self.ask_reached(of, device))
    }
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn read_page(rows: &[Row], after: i64, entries_max: i64) -> Result<Page, tokio_postgres::Error> {
    let Some(first) = rows.first() else { return Ok(Page { entries: Vec::new(), through: after }) };
    let next: i64 = first.try_get(0)?;
    let found: i64 = first.try_get::<_, Option<i64>>(5)?.unwrap_or(0);
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(offset) = row.try_get::<_, Option<i64>>(1)? else { continue };
        entries.push(Stored {
            offset,
            cause: row.try_get(2)?,
            at: Micros(row.try_get(3)?),
            value: Bytes::copy_from_slice(row.try_get(4)?),
        });
    }
    let complete = found < entries_max && entries.len() as i64 == found;
    let last = entries.last().map_or(after, |entry| entry.offset);
    let through = if complete { after.max(next - 1) } else { last };
    Ok(Page { entries, through })
}
