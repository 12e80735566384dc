//! Where devices are and were: `positions` holds the newest fix of each device, `tracks` all of them.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use tokio_postgres::{
    binary_copy::BinaryCopyInWriter,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    event::{Event, FixReported},
    time::Micros,
};

use super::{Record, Trust, not_projected};
use crate::{machine::Unfit, spatial};

const NEWEST: &str = "SELECT device, at_us FROM waypost.positions WHERE device = ANY($1)";

const COPY: &str = "COPY waypost.tracks (device, at_us, lat, lon, accuracy_m, speed_mps, heading_deg, altitude_m, \
    attributes, append_us, partition, \"offset\") FROM STDIN BINARY";

const COPY_TYPES: [Type; 12] = [
    Type::TEXT,
    Type::INT8,
    Type::FLOAT8,
    Type::FLOAT8,
    Type::FLOAT4,
    Type::FLOAT4,
    Type::FLOAT4,
    Type::FLOAT4,
    Type::JSONB,
    Type::INT8,
    Type::INT4,
    Type::INT8,
];

const APPEND: &str = "INSERT INTO waypost.tracks (device, at_us, lat, lon, accuracy_m, speed_mps, heading_deg, \
    altitude_m, attributes, append_us, partition, \"offset\") \
    SELECT * FROM UNNEST($1::text[], $2::int8[], $3::float8[], $4::float8[], $5::float4[], $6::float4[], \
    $7::float4[], $8::float4[], $9::jsonb[], $10::int8[], $11::int4[], $12::int8[]) ON CONFLICT DO NOTHING";

const MOVE: &str = "INSERT INTO waypost.positions AS p (device, at_us, lat, lon, accuracy_m, speed_mps, heading_deg, \
    altitude_m, attributes, append_us, partition, \"offset\") \
    SELECT * FROM UNNEST($1::text[], $2::int8[], $3::float8[], $4::float8[], $5::float4[], $6::float4[], \
    $7::float4[], $8::float4[], $9::jsonb[], $10::int8[], $11::int4[], $12::int8[]) \
    ON CONFLICT (device) DO UPDATE SET at_us = EXCLUDED.at_us, lat = EXCLUDED.lat, lon = EXCLUDED.lon, \
    accuracy_m = EXCLUDED.accuracy_m, speed_mps = EXCLUDED.speed_mps, heading_deg = EXCLUDED.heading_deg, \
    altitude_m = EXCLUDED.altitude_m, attributes = EXCLUDED.attributes, append_us = EXCLUDED.append_us, \
    partition = EXCLUDED.partition, \"offset\" = EXCLUDED.\"offset\" WHERE EXCLUDED.at_us > p.at_us";

/// The fewest rows for which COPY is worth its two more round trips.
const COPY_ROWS_MIN: usize = 32;

/// Fixes of one partition, in log order.
#[derive(Debug)]
pub(crate) struct Rows {
    partition: i32,
    fixes: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    fix: FixReported,
    append_us: i64,
    offset: i64,
    /// So far ahead of its append that it never says where the device is.
    ahead: bool,
}

impl Rows {
    pub(super) fn new(partition: i32) -> Self {
        Self { partition, fixes: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.fixes.len()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Unfit> {
        spatial::fit(&record.event)?;
        let Event::FixReported(fix) = record.event else { return Err(not_projected(&record.event)) };
        let ahead = spatial::is_ahead(&fix, Micros(record.append_us));
        self.fixes.push(Row { fix, append_us: record.append_us, offset: record.offset, ahead });
        Ok(())
    }

    pub(super) async fn write(
        &self,
        tx: &Transaction<'_>,
        trust: Trust,
    ) -> Result<(), tokio_postgres::Error> {
        let mut newest = self.newest(tx).await?;
        let moved = self.moved(&newest);
        let (fresh, checked): (Vec<&Row>, Vec<&Row>) = match trust {
            Trust::Newest => self.fixes.iter().partition(|row| is_fresh(&mut newest, row)),
            Trust::Nothing => (Vec::new(), self.fixes.iter().collect()),
        };
        if fresh.len() >= COPY_ROWS_MIN {
            self.copy(tx, &fresh).await?;
            self.execute(tx, APPEND, &checked).await?;
        } else {
            self.execute(tx, APPEND, &self.fixes.iter().collect::<Vec<_>>()).await?;
        }
        self.execute(tx, MOVE, &moved).await
    }

    /// The newest device time that `positions` holds, of each device of the batch that it knows.
    async fn newest(&self, tx: &Transaction<'_>) -> Result<BTreeMap<String, i64>, tokio_postgres::Error> {
        let mut devices: Vec<&str> = self.fixes.iter().map(|row| row.fix.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        let rows = tx.query(&tx.prepare_cached(NEWEST).await?, &[&devices]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The newest fix of each device that moves it, in the order of devices, so that two writers lock alike; of
    /// two at one device time the first in the log.
    fn moved(&self, newest: &BTreeMap<String, i64>) -> Vec<&Row> {
        let mut moved: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in self.fixes.iter().filter(|row| !row.ahead) {
            let device = row.fix.device.as_str();
            let last = moved.get(device).map(|r| r.fix.at_us.0).or_else(|| newest.get(device).copied());
            if last.is_none_or(|last| row.fix.at_us.0 > last) {
                moved.insert(device, row);
            }
        }
        moved.into_values().collect()
    }

    async fn copy(&self, tx: &Transaction<'_>, rows: &[&Row]) -> Result<(), tokio_postgres::Error> {
        let sink = tx.copy_in(&tx.prepare_cached(COPY).await?).await?;
        let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &COPY_TYPES));
        for row in rows {
            let fix = &row.fix;
            let attributes = Attributes::of(fix);
            writer
                .as_mut()
                .write(&[
                    &fix.device.as_str(),
                    &fix.at_us.0,
                    &fix.lat,
                    &fix.lon,
                    &fix.accuracy_m,
                    &fix.speed_mps,
                    &fix.heading_deg,
                    &fix.altitude_m,
                    &attributes,
                    &row.append_us,
                    &self.partition,
                    &row.offset,
                ])
                .await?;
        }
        writer.finish().await.map(|_| ())
    }

    /// Runs a statement whose parameters are one array for each column.
    async fn execute(
        &self,
        tx: &Transaction<'_>,
        statement: &str,
        rows: &[&Row],
    ) -> Result<(), tokio_postgres::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let column =
            |of: fn(&FixReported) -> Option<f32>| -> Vec<_> { rows.iter().map(|r| of(&r.fix)).collect() };
        let device: Vec<&str> = rows.iter().map(|r| r.fix.device.as_str()).collect();
        let at_us: Vec<i64> = rows.iter().map(|r| r.fix.at_us.0).collect();
        let lat: Vec<f64> = rows.iter().map(|r| r.fix.lat).collect();
        let lon: Vec<f64> = rows.iter().map(|r| r.fix.lon).collect();
        let accuracy_m = column(|f| f.accuracy_m);
        let speed_mps = column(|f| f.speed_mps);
        let heading_deg = column(|f| f.heading_deg);
        let altitude_m = column(|f| f.altitude_m);
        let attributes: Vec<Option<Attributes>> = rows.iter().map(|r| Attributes::of(&r.fix)).collect();
        let append_us: Vec<i64> = rows.iter().map(|r| r.append_us).collect();
        let partition = vec![self.partition; rows.len()];
        let offset: Vec<i64> = rows.iter().map(|r| r.offset).collect();
        let statement = tx.prepare_cached(statement).await?;
        tx.execute(
            &statement,
            &[
                &device,
                &at_us,
                &lat,
                &lon,
                &accuracy_m,
                &speed_mps,
                &heading_deg,
                &altitude_m,
                &attributes,
                &append_us,
                &partition,
                &offset,
            ],
        )
        .await
        .map(|_| ())
    }
}

/// Whether a fix is newer than all before it, and so cannot stand in the track yet; remembers it where it is.
///
/// What follows a fix ahead of its time may repeat it, so of that device nothing more is known.
fn is_fresh(newest: &mut BTreeMap<String, i64>, row: &Row) -> bool {
    let at_us = if row.ahead { i64::MAX } else { row.fix.at_us.0 };
    match newest.get_mut(row.fix.device.as_str()) {
        Some(last) if at_us <= *last => return false,
        Some(last) => *last = at_us,
        None => {
            newest.insert(row.fix.device.as_str().to_owned(), at_us);
        }
    }
    !row.ahead
}

/// A fix's attributes as the text of a JSON object.
#[derive(Debug)]
struct Attributes(String);

impl Attributes {
    /// The attributes, where a fix has any. Postgres takes no NUL, so one is shown as U+FFFD.
    fn of(fix: &FixReported) -> Option<Self> {
        if fix.attributes.is_empty() {
            return None;
        }
        let shown = |text: &str| text.replace('\0', "\u{fffd}");
        let object: BTreeMap<String, String> =
            fix.attributes.iter().map(|(name, value)| (shown(name), shown(value))).collect();
        serde_json::to_string(&object).ok().map(Self)
    }
}

impl ToSql for Attributes {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        // The version of jsonb's wire format, which is its text.
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
    to_sql_checked!();
}
