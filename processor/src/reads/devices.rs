//! Where devices are, and where they were.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use waypost_runtime::{
    auth::{Identity, Operator},
    http::{Path, Problem, Query, codes},
};
use waypost_schemas::{cause::Position, id::DeviceId, time::Micros, topic::Topic};

use super::{Error, Reads, page};

const POSITION: &str = "SELECT at_us, lat, lon, accuracy_m, speed_mps, heading_deg, altitude_m, attributes::text, \
    append_us, partition, \"offset\", false FROM waypost.positions WHERE device = $1";

const POSITIONS: &str = "SELECT at_us, lat, lon, accuracy_m, speed_mps, heading_deg, altitude_m, attributes::text, \
    append_us, partition, \"offset\", false, device FROM waypost.positions WHERE device > $1 ORDER BY device LIMIT $2";

/// Of several places at one device time the first in the log is the fix, and the others are in conflict with it.
const TRACK: &str = "SELECT at_us, lat, lon, accuracy_m, speed_mps, heading_deg, altitude_m, attributes::text, \
    append_us, partition, \"offset\", EXISTS (SELECT FROM waypost.tracks AS o WHERE o.device = t.device \
        AND o.at_us = t.at_us AND (o.partition, o.\"offset\") < (t.partition, t.\"offset\")) \
    FROM waypost.tracks AS t WHERE device = $1 AND at_us >= $2 AND at_us < $3 \
        AND (at_us, partition, \"offset\") > ($4, $5, $6) \
    ORDER BY at_us, partition, \"offset\" LIMIT $7";

#[derive(Debug, Serialize)]
pub(super) struct Fix {
    at: Micros,
    lat: f64,
    lon: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy_m: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_mps: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heading_deg: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    altitude_m: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Box<RawValue>>,
    /// The time of its append.
    appended: Micros,
    position: String,
    /// Whether the log holds another place of this device time before it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    conflict: bool,
    #[serde(skip)]
    key: (i64, i32, i64),
}

impl Fix {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (at_us, partition, offset) = (row.try_get(0)?, row.try_get(9)?, row.try_get(10)?);
        let attributes: Option<String> = row.try_get(7)?;
        Ok(Self {
            at: Micros(at_us),
            lat: row.try_get(1)?,
            lon: row.try_get(2)?,
            accuracy_m: row.try_get(3)?,
            speed_mps: row.try_get(4)?,
            heading_deg: row.try_get(5)?,
            altitude_m: row.try_get(6)?,
            attributes: attributes.and_then(|text| RawValue::from_string(text).ok()),
            appended: Micros(row.try_get(8)?),
            position: Position { topic: Topic::Positions, partition, offset }.to_string(),
            conflict: row.try_get(11)?,
            key: (at_us, partition, offset),
        })
    }
}

/// The device's newest fix.
#[derive(Debug, Serialize)]
pub(super) struct Here {
    device: DeviceId,
    #[serde(flatten)]
    fix: Fix,
}

pub(super) async fn position(
    State(reads): State<Reads>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Json<Here>, Problem> {
    let device = readable(&identity, id)?;
    match newest(&reads, &device).await? {
        Some(fix) => Ok(Json(Here { device, fix })),
        None => Err(Problem::new(&codes::NOT_FOUND).detail("this device has not reported yet")),
    }
}

async fn newest(reads: &Reads, device: &DeviceId) -> Result<Option<Fix>, Error> {
    let client = reads.pool.get().await?;
    let row = client.query_opt(&client.prepare_cached(POSITION).await?, &[&device.as_str()]).await?;
    Ok(row.map(|row| Fix::read(&row)).transpose()?)
}

/// Which devices: those behind `after` in byte order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    after: Option<String>,
    limit: Option<u32>,
}

/// A device that has reported.
#[derive(Debug, Serialize)]
pub(super) struct There {
    device: String,
    #[serde(flatten)]
    fix: Fix,
}

#[derive(Debug, Serialize)]
pub(super) struct Devices {
    devices: Vec<There>,
    next: Option<String>,
}

/// All devices that have reported, with their newest fixes, for an operator.
pub(super) async fn list(
    State(reads): State<Reads>,
    _: Operator,
    Query(which): Query<Which>,
) -> Result<Json<Devices>, Problem> {
    let limit = page::limit(which.limit)?;
    let after = match which.after {
        None => String::new(),
        Some(text) => DeviceId::new(text).map_err(|_| page::not_ours())?.to_string(),
    };
    let mut devices = positions(&reads, &after, limit).await?;
    let more = page::cut(&mut devices, limit);
    let next = devices.last().filter(|_| more).map(|last| last.device.clone());
    Ok(Json(Devices { devices, next }))
}

async fn positions(reads: &Reads, after: &str, limit: usize) -> Result<Vec<There>, Error> {
    let client = reads.pool.get().await?;
    let statement = client.prepare_cached(POSITIONS).await?;
    let rows = client.query(&statement, &[&after, &(limit as i64 + 1)]).await?;
    let there = |row: &Row| Ok(There { device: row.try_get(12)?, fix: Fix::read(row)? });
    Ok(rows.iter().map(there).collect::<Result<_, tokio_postgres::Error>>()?)
}

/// Which part of a track: `from` (with it) to `to` (without it), in RFC 3339.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    from: Option<Micros>,
    to: Option<Micros>,
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Track {
    device: DeviceId,
    fixes: Vec<Fix>,
    next: Option<String>,
}

pub(super) async fn track(
    State(reads): State<Reads>,
    identity: Identity,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Result<Json<Track>, Problem> {
    let device = readable(&identity, id)?;
    let limit = page::limit(part.limit)?;
    let after = after(part.after.as_deref())?;
    // What comes after a fix of some time is not older than it, which lets the index begin there.
    let from = part.from.map_or(i64::MIN, |from| from.0).max(after.0);
    let to = part.to.map_or(i64::MAX, |to| to.0);
    let mut fixes = fixes(&reads, &device, (from, to), after, limit).await?;
    let more = page::cut(&mut fixes, limit);
    let next = fixes.last().filter(|_| more).map(|fix| {
        let (at_us, partition, offset) = fix.key;
        format!("{at_us}~{partition}~{offset}")
    });
    Ok(Json(Track { device, fixes, next }))
}

fn after(text: Option<&str>) -> Result<(i64, i32, i64), Problem> {
    let Some(text) = text else { return Ok((i64::MIN, -1, -1)) };
    let [at_us, partition, offset] = page::parts(text)?;
    Ok((page::number(at_us)?, page::number(partition)?, page::number(offset)?))
}

async fn fixes(
    reads: &Reads,
    device: &DeviceId,
    (from, to): (i64, i64),
    (at_us, partition, offset): (i64, i32, i64),
    limit: usize,
) -> Result<Vec<Fix>, Error> {
    let client = reads.pool.get().await?;
    let statement = client.prepare_cached(TRACK).await?;
    let rows = client
        .query(&statement, &[&device.as_str(), &from, &to, &at_us, &partition, &offset, &(limit as i64 + 1)])
        .await?;
    Ok(rows.iter().map(Fix::read).collect::<Result<_, _>>()?)
}

/// The device, where the identity may read it: a user reads what is his, an operator all.
fn readable(identity: &Identity, id: String) -> Result<DeviceId, Problem> {
    let device =
        DeviceId::new(id).map_err(|error| Problem::new(&codes::BAD_REQUEST).detail(error.to_string()))?;
    if identity.is_operator() || device.user() == identity.user {
        return Ok(device);
    }
    Err(Problem::new(&codes::FORBIDDEN).detail("a user reads his own devices"))
}
