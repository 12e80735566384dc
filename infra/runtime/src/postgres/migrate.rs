//! The migrations of the schema `waypost`: embedded, numbered from 1, each applied once and never edited.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::pool::{Client, Error, Pool, check_version};

/// The advisory lock that one migration at a time holds; any constant that nobody else uses.
const LOCK: i64 = 0x7761_7970_6f73_7401;

/// Every migration; a new one is one new line here.
pub(super) const MIGRATIONS: &[Migration] = &[
    migration(1, "schema", include_str!("../../../postgres/migrations/001_schema.sql")),
    migration(2, "projection", include_str!("../../../postgres/migrations/002_projection.sql")),
    migration(3, "positions", include_str!("../../../postgres/migrations/003_positions.sql")),
    migration(4, "matches", include_str!("../../../postgres/migrations/004_matches.sql")),
    migration(5, "inbox_entries", include_str!("../../../postgres/migrations/005_inbox_entries.sql")),
    migration(6, "registry", include_str!("../../../postgres/migrations/006_registry.sql")),
    migration(7, "cursors", include_str!("../../../postgres/migrations/007_cursors.sql")),
    migration(8, "messages", include_str!("../../../postgres/migrations/008_messages.sql")),
    migration(9, "receipts", include_str!("../../../postgres/migrations/009_receipts.sql")),
    migration(10, "snapshots", include_str!("../../../postgres/migrations/010_snapshots.sql")),
    migration(11, "entry_times", include_str!("../../../postgres/migrations/011_entry_times.sql")),
];

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    pub(super) number: i32,
    pub(super) name: &'static str,
    sql: &'static str,
}

pub(super) const fn migration(number: i32, name: &'static str, sql: &'static str) -> Migration {
    Migration { number, name, sql }
}

impl Migration {
    fn sha256(&self) -> String {
        Sha256::digest(self.sql).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The numbers that were applied now; none where the schema was up to date.
    pub applied: Vec<i32>,
    /// The schema's number now.
    pub schema: i32,
}

/// Brings the schema up to date, all or nothing; processes that do it at once wait for each other.
///
/// Refuses a Postgres older than 15, a schema of a newer Waypost, and a migration whose text has changed.
pub async fn migrate(pool: &Pool) -> Result<Migrated, Error> {
    apply(pool, MIGRATIONS).await
}

pub(super) async fn apply(pool: &Pool, migrations: &'static [Migration]) -> Result<Migrated, Error> {
    let mut client: Client = pool.get().await?;
    check_version(&client).await?;
    let transaction = client.transaction().await?;
    // A migration may rewrite a large table, and waiting for another's may take as long.
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction
        .batch_execute(
            "CREATE SCHEMA IF NOT EXISTS waypost;
             CREATE TABLE IF NOT EXISTS waypost.migration (
                 number int PRIMARY KEY,
                 name text NOT NULL,
                 sha256 text NOT NULL,
                 at timestamptz NOT NULL DEFAULT now()
             );",
        )
        .await?;

    let rows =
        transaction.query("SELECT number, name, sha256 FROM waypost.migration ORDER BY number", &[]).await?;
    let mut stands = Vec::new();
    for row in rows {
        let (number, name, sha256): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        let Some(known) = migrations.iter().find(|m| m.number == number) else {
            return Err(Error::Newer { number, name });
        };
        if known.sha256() != sha256 {
            return Err(Error::Changed { number, name });
        }
        stands.push(number);
    }

    let mut applied = Vec::new();
    for migration in migrations.iter().filter(|m| !stands.contains(&m.number)) {
        let Migration { number, name, sql } = *migration;
        transaction.batch_execute(sql).await.map_err(|source| Error::Migration { number, name, source })?;
        transaction
            .execute(
                "INSERT INTO waypost.migration (number, name, sha256) VALUES ($1, $2, $3)",
                &[&number, &name, &migration.sha256()],
            )
            .await?;
        applied.push(number);
    }
    transaction.commit().await?;
    Ok(Migrated { applied, schema: migrations.last().map_or(0, |m| m.number) })
}
