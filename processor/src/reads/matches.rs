//! Rules that fired, by the time of the fix.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use waypost_runtime::{
    auth::Operator,
    http::{Problem, Query, codes},
};
use waypost_schemas::{
    cause::Position,
    id::{DeviceId, RuleId},
    time::Micros,
    topic::Topic,
};

use super::{Error, Reads, page};

macro_rules! select {
    ($where:literal) => {
        concat!(
            "SELECT device, at_us, zone, event, rule, rule_version, initial, lat, lon, partition, \"offset\", cause \
             FROM waypost.matches WHERE part = 0 AND ",
            $where,
            " AND (at_us, device, partition, \"offset\") > ($1, $2, $3, $4) \
             ORDER BY at_us, device, partition, \"offset\" LIMIT $5"
        )
    };
}

const ALL: &str = select!("true");
const OF_RULE: &str = select!("rule = $6");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    rule: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Match {
    device: String,
    at: Micros,
    zone: Option<String>,
    event: String,
    rule: String,
    rule_version: i64,
    initial: bool,
    lat: f64,
    lon: f64,
    position: String,
    cause: String,
    #[serde(skip)]
    key: (i32, i64),
}

impl Match {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (partition, offset) = (row.try_get(9)?, row.try_get(10)?);
        Ok(Self {
            device: row.try_get(0)?,
            at: Micros(row.try_get(1)?),
            zone: row.try_get(2)?,
            event: row.try_get(3)?,
            rule: row.try_get(4)?,
            rule_version: row.try_get(5)?,
            initial: row.try_get(6)?,
            lat: row.try_get(7)?,
            lon: row.try_get(8)?,
            position: Position { topic: Topic::Matches, partition, offset }.to_string(),
            cause: row.try_get(11)?,
            key: (partition, offset),
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Page {
    matches: Vec<Match>,
    next: Option<String>,
}

/// Where a page begins: behind this match.
#[derive(Debug)]
struct After {
    at_us: i64,
    device: String,
    partition: i32,
    offset: i64,
}

pub(super) async fn list(
    State(reads): State<Reads>,
    _: Operator,
    Query(which): Query<Which>,
) -> Result<Json<Page>, Problem> {
    let limit = page::limit(which.limit)?;
    let after = after(which.after.as_deref())?;
    let rule = which
        .rule
        .map(RuleId::new)
        .transpose()
        .map_err(|error| Problem::new(&codes::BAD_REQUEST).detail(error.to_string()))?;
    let mut matches = matches(&reads, rule.as_ref(), &after, limit).await?;
    let more = page::cut(&mut matches, limit);
    let next = matches.last().filter(|_| more).map(|last| {
        let (partition, offset) = last.key;
        format!("{}~{}~{partition}~{offset}", last.at.0, last.device)
    });
    Ok(Json(Page { matches, next }))
}

fn after(text: Option<&str>) -> Result<After, Problem> {
    let Some(text) = text else {
        return Ok(After { at_us: i64::MIN, device: String::new(), partition: -1, offset: -1 });
    };
    let [at_us, device, partition, offset] = page::parts(text)?;
    let device = DeviceId::new(device).map_err(|_| page::not_ours())?.to_string();
    let (at_us, partition) = (page::number(at_us)?, page::number(partition)?);
    Ok(After { at_us, device, partition, offset: page::number(offset)? })
}

async fn matches(
    reads: &Reads,
    rule: Option<&RuleId>,
    after: &After,
    limit: usize,
) -> Result<Vec<Match>, Error> {
    let client = reads.pool.get().await?;
    let After { at_us, device, partition, offset } = after;
    let limit = limit as i64 + 1;
    let rows = match rule {
        None => {
            let statement = client.prepare_cached(ALL).await?;
            client.query(&statement, &[at_us, device, partition, offset, &limit]).await?
        }
        Some(rule) => {
            let statement = client.prepare_cached(OF_RULE).await?;
            client.query(&statement, &[at_us, device, partition, offset, &limit, &rule.as_str()]).await?
        }
    };
    Ok(rows.iter().map(Match::read).collect::<Result<_, _>>()?)
}
