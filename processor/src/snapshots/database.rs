//! Snapshots in Postgres: the tables `waypost.snapshots` and `waypost.snapshot_chunks`.

use std::collections::{BTreeMap, BTreeSet};

use waypost_runtime::postgres::{Error, Pool, Transaction};

use super::{ChunkRef, Flaw, Manifest, Owner, Writing, Written, outdated, packed};
use crate::machine::Chunk;

/// The snapshots in one Postgres.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    kept: usize,
}

impl Database {
    /// The snapshots in the Postgres of a pool; of each owner the newest `kept`, at least two.
    pub fn new(pool: Pool, kept: usize) -> Self {
        Self { pool, kept }
    }

    /// The offsets of all snapshots, usable or not.
    pub async fn list(&self, owner: Owner) -> Result<BTreeSet<i64>, Error> {
        let client = self.pool.get().await?;
        let rows = client
            .query(
                "SELECT next_offset FROM waypost.snapshots WHERE machine = $1 AND partition = $2",
                &[&owner.machine, &owner.partition],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Reads a snapshot's manifest.
    pub async fn manifest(&self, owner: Owner, next: i64) -> Result<Result<Manifest, Flaw>, Error> {
        let client = self.pool.get().await?;
        let row = client
            .query_opt(
                "SELECT manifest FROM waypost.snapshots
                 WHERE machine = $1 AND partition = $2 AND next_offset = $3
                 ORDER BY format <> $4, format LIMIT 1",
                &[&owner.machine, &owner.partition, &next, &i32::from(owner.format)],
            )
            .await?;
        let Some(row) = row else { return Ok(Err(Flaw::Broken("its manifest is gone".to_owned()))) };
        Ok(manifest(row.get(0), owner, next))
    }

    /// Reads and checks all chunks that a manifest names.
    pub async fn chunks(&self, owner: Owner, manifest: &Manifest) -> Result<Result<Vec<Chunk>, Flaw>, Error> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "SELECT bytes FROM waypost.snapshot_chunks
                 WHERE machine = $1 AND partition = $2 AND format = $3 AND number = $4 AND hash = $5",
            )
            .await?;
        let mut chunks = Vec::with_capacity(manifest.chunks.len());
        for named in &manifest.chunks {
            let (format, number) = (i32::from(owner.format), i32::from(named.number));
            let row = client
                .query_opt(&statement, &[&owner.machine, &owner.partition, &format, &number, &named.hash])
                .await?;
            let chunk = match row {
                Some(row) => packed::unpack(named, row.get(0)),
                None => Err(Flaw::Broken(format!("chunk {} is gone", named.number))),
            };
            match chunk {
                Ok(chunk) => chunks.push(chunk),
                Err(flaw) => return Ok(Err(flaw)),
            }
        }
        Ok(Ok(chunks))
    }

    /// Publishes a snapshot in one transaction, and removes what is no longer kept.
    pub async fn write(&self, owner: Owner, writing: &Writing) -> Result<Written, Error> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        // What is lost with the server's memory can be written again, and until then the one before it serves.
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
        let lock = format!("waypost.snapshots/{}/{}", owner.machine, owner.partition);
        transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&lock]).await?;
        let mut standing = standing(&transaction, owner).await?;
        let next = writing.manifest.next;
        let sound = |standing: &BTreeMap<i64, Option<Manifest>>| -> BTreeSet<i64> {
            let sound = standing.iter().filter(|(n, m)| m.is_some() && !writing.flawed.contains(n));
            sound.map(|(n, _)| *n).collect()
        };
        if sound(&standing).last().is_some_and(|newest| *newest >= next) {
            return Ok(Written::Superseded);
        }
        if !insert(&transaction, owner, writing).await? {
            return Ok(Written::Superseded);
        }
        let mut kept = sound(&standing);
        kept.insert(next);
        standing.insert(next, Some(writing.manifest.clone()));
        let flawed: BTreeSet<i64> = standing.keys().copied().filter(|n| !kept.contains(n)).collect();
        let gone = outdated(&kept, &flawed, self.kept);
        standing.retain(|n, _| !gone.contains(n));
        let manifests = standing.into_values().flatten();
        remove(&transaction, owner, &gone, manifests.flat_map(|m| m.chunks)).await?;
        transaction.commit().await?;
        Ok(Written::Published)
    }
}

fn manifest(bytes: &[u8], owner: Owner, next: i64) -> Result<Manifest, Flaw> {
    let manifest = Manifest::from_bytes(bytes, owner)?;
    if manifest.next == next {
        Ok(manifest)
    } else {
        Err(Flaw::Broken("its manifest stands under another offset".to_owned()))
    }
}

/// The manifests of the owner's format; `None` where one is unreadable.
async fn standing(
    transaction: &Transaction<'_>,
    owner: Owner,
) -> Result<BTreeMap<i64, Option<Manifest>>, tokio_postgres::Error> {
    let rows = transaction
        .query(
            "SELECT next_offset, manifest FROM waypost.snapshots
             WHERE machine = $1 AND partition = $2 AND format = $3",
            &[&owner.machine, &owner.partition, &i32::from(owner.format)],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), manifest(row.get(1), owner, row.get(0)).ok())).collect())
}

/// Whether all chunks that the manifest names are there now: a newer owner may have removed some that this one,
/// which does not know of it, counts on.
async fn insert(
    transaction: &Transaction<'_>,
    owner: Owner,
    writing: &Writing,
) -> Result<bool, tokio_postgres::Error> {
    let format = i32::from(owner.format);
    let statement = transaction
        .prepare(
            "INSERT INTO waypost.snapshot_chunks (machine, partition, format, number, hash, bytes)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (machine, partition, format, number, hash) DO UPDATE SET bytes = EXCLUDED.bytes",
        )
        .await?;
    for chunk in writing.chunks.values() {
        let (number, hash) = (i32::from(chunk.named.number), &chunk.named.hash);
        transaction
            .execute(
                &statement,
                &[&owner.machine, &owner.partition, &format, &number, hash, &&chunk.bytes[..]],
            )
            .await?;
    }
    let (numbers, hashes) = names(writing.manifest.chunks.iter().cloned());
    let row = transaction
        .query_one(
            "SELECT count(*) FROM waypost.snapshot_chunks
             JOIN UNNEST($4::int4[], $5::text[]) AS named (number, hash) USING (number, hash)
             WHERE machine = $1 AND partition = $2 AND format = $3",
            &[&owner.machine, &owner.partition, &format, &numbers, &hashes],
        )
        .await?;
    if row.get::<_, i64>(0) < numbers.len() as i64 {
        return Ok(false);
    }
    transaction
        .execute(
            "INSERT INTO waypost.snapshots (machine, partition, format, next_offset, manifest)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (machine, partition, format, next_offset) DO UPDATE SET manifest = EXCLUDED.manifest",
            &[&owner.machine, &owner.partition, &format, &writing.manifest.next, &writing.manifest.to_bytes()],
        )
        .await?;
    Ok(true)
}

fn names(chunks: impl Iterator<Item = ChunkRef>) -> (Vec<i32>, Vec<String>) {
    chunks.map(|c| (i32::from(c.number), c.hash)).unzip()
}

/// Removes manifests, then the chunks that no other one names.
async fn remove(
    transaction: &Transaction<'_>,
    owner: Owner,
    gone: &[i64],
    named: impl Iterator<Item = ChunkRef>,
) -> Result<(), tokio_postgres::Error> {
    let format = i32::from(owner.format);
    transaction
        .execute(
            "DELETE FROM waypost.snapshots
             WHERE machine = $1 AND partition = $2 AND format = $3 AND next_offset = ANY($4)",
            &[&owner.machine, &owner.partition, &format, &gone],
        )
        .await?;
    let (numbers, hashes) = names(named);
    transaction
        .execute(
            "DELETE FROM waypost.snapshot_chunks AS c
             WHERE machine = $1 AND partition = $2 AND format = $3 AND NOT EXISTS (
                 SELECT FROM UNNEST($4::int4[], $5::text[]) AS named (number, hash)
                 WHERE named.number = c.number AND named.hash = c.hash)",
            &[&owner.machine, &owner.partition, &format, &numbers, &hashes],
        )
        .await?;
    Ok(())
}
