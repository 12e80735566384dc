//! `POST /v1/acks` and `GET /v1/inbox`: the same acknowledgement, and the same entries, for who holds no connection.

use axum::{extract::State, response::Json as Answer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost_runtime::{
    auth::Identity,
    http::{Json, Problem, Query, codes},
};
use waypost_schemas::{event::AckKind, id::UserId};

use super::Doors;
use crate::{
    node::{self, Device, Found, Node},
    session::{Offer, Room},
};

/// How many entries a page holds where nothing is said, and at most.
const ENTRIES: (u32, u32) = (100, 1_000);
/// How many bytes of entries a page holds, but for a first one that is larger.
const PAGE_BYTES: usize = 1 << 20;
/// After how many seconds a request that met an outage is sent again.
const RETRY_AFTER_S: u32 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledgement {
    kind: Kind,
    upto: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Delivered,
    Read,
}

/// Appends an acknowledgement of the token's device. It is of no session, so that it closes none.
pub(super) async fn acknowledge(
    State(doors): State<Doors>,
    identity: Identity,
    Json(asked): Json<Acknowledgement>,
) -> Result<Answer<Value>, Problem> {
    let Acknowledgement { kind, upto } = asked;
    if upto < 0 {
        let detail = format!("upto is {upto}; an offset is 0 or more");
        return Err(Problem::new(waypost_ingest::code::Code::BadOffset.row()).detail(detail));
    }
    let kind = match kind {
        Kind::Delivered => AckKind::Delivered,
        Kind::Read => AckKind::Read,
    };
    let device = Device { user: identity.user, name: identity.device };
    let node = &doors.node;
    match node.uplink.acknowledge(device.acknowledges("", kind, upto)).await {
        Ok(_) => Ok(Answer(json!({"type": "accepted"}))),
        Err(error) => {
            let problem = Problem::new(error.row()).detail(error.to_string());
            Err(match error.retry_after_s() {
                Some(seconds) => problem.retry_after_s(seconds),
                None => problem,
            })
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    after: Option<i64>,
    limit: Option<u32>,
    user: Option<String>,
}

/// The entries after an offset, which is obeyed literally: from the first one without it. Nothing is acknowledged.
pub(super) async fn inbox(
    State(doors): State<Doors>,
    identity: Identity,
    Query(which): Query<Which>,
) -> Result<Answer<Value>, Problem> {
    let Which { after, limit, user } = which;
    let user = readable(identity, user)?;
    let entries = match limit.unwrap_or(ENTRIES.0) {
        entries if (1..=ENTRIES.1).contains(&entries) => entries as usize,
        _ => {
            return Err(Problem::new(&codes::BAD_REQUEST).detail(format!("limit is 1 to {}", ENTRIES.1)));
        }
    };
    let after = after.unwrap_or(-1).max(-1);
    let page = page(&doors.node, &user, after, Room { entries, bytes: PAGE_BYTES });
    let page = timeout(doors.node.settings.begin_timeout, page).await.ok().flatten();
    let unavailable = || {
        Problem::new(&codes::UNAVAILABLE)
            .detail("these entries cannot be read now")
            .retry_after_s(RETRY_AFTER_S)
    };
    let Page { entries, next, caught_up } = page.ok_or_else(unavailable)?;
    let entries: Vec<Value> = entries.iter().filter_map(|entry| untyped(&entry.text)).collect();
    Ok(Answer(json!({"entries": entries, "next": next, "caught_up": caught_up})))
}

/// Whose inbox is read: one's own, or the one that an operator names.
fn readable(identity: Identity, user: Option<String>) -> Result<UserId, Problem> {
    let Some(named) = user else { return Ok(identity.user) };
    let named =
        UserId::new(named).map_err(|error| Problem::new(&codes::BAD_REQUEST).detail(error.to_string()))?;
    if named == identity.user || identity.is_operator() {
        return Ok(named);
    }
    Err(Problem::new(&codes::FORBIDDEN).detail("an inbox is read by its user"))
}

struct Page {
    entries: Vec<Offer>,
    /// What the next page is asked for by, as `after`.
    next: i64,
    /// Whether there was no more when it was asked for.
    caught_up: bool,
}

async fn page(node: &Node, user: &UserId, after: i64, room: Room) -> Option<Page> {
    let lease = node.tails.hold(node.partition(user));
    let end = node.tails.ends(lease.partition()).await.ok()?.inbox.high;
    lease.reaches(end, 0).await;
    let Found { offers, through } = match node::live(&lease, user, after, room) {
        Some(live) => live,
        None => node.stored(user, lease.partition(), after, room).await?,
    };
    Some(Page { entries: offers, next: through, caught_up: through + 1 >= end })
}

/// A frame as a body has it: without its type.
fn untyped(frame: &str) -> Option<Value> {
    let mut frame: Value = serde_json::from_str(frame).ok()?;
    frame.as_object_mut()?.remove("type");
    Some(frame)
}
