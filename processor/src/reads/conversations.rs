//! What was said in a conversation, newest first, for its members.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use waypost_runtime::{
    auth::Identity,
    http::{Path, Problem, Query, codes},
};
use waypost_schemas::{
    codec,
    event::{Entry, Event, MessageArrived},
    id::ConversationId,
    time::Micros,
};

use super::{Error, Reads, page};

/// How many messages a page holds where nothing is said, and at most.
const MESSAGES: (u32, u32) = (100, 1_000);
/// How many bytes of messages a page holds, but for a first one that is larger: a thousand of the largest are 64 MiB.
const PAGE_BYTES: i64 = 1 << 20;

/// One more than is asked for, as far as the bytes allow; and how many there would be without them.
const PAGE: &str = "SELECT number, value, append_us, found FROM ( \
        SELECT number, value, append_us, count(*) OVER () AS found, \
            sum(octet_length(value)) OVER (ORDER BY number DESC) - octet_length(value) AS before \
        FROM (SELECT number, value, append_us FROM waypost.messages WHERE conversation = $1 AND number < $2 \
            ORDER BY number DESC LIMIT $3) AS newest) AS page \
    WHERE before < $4 ORDER BY number DESC";

const RECEIPTS: &str = "SELECT user_id, kind, upto FROM waypost.receipts WHERE conversation = $1";

/// Which messages: those below a number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    before: Option<i64>,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Page {
    messages: Vec<Message>,
    /// What the next page is asked for by, as `before`; nothing where there are no older messages.
    next: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Message {
    number: i64,
    sender: String,
    device: String,
    id: String,
    /// The time of its append.
    at: Micros,
    content_type: String,
    /// Text; where the bytes are no UTF-8, their base64.
    body: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<i64>,
    /// The other members whose devices have it.
    delivered: Vec<String>,
    /// The other members who have read it.
    read: Vec<String>,
}

pub(super) async fn messages(
    State(reads): State<Reads>,
    identity: Identity,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Page>, Problem> {
    let conversation = readable(&identity, id)?;
    let limit = page::limit_of(which.limit, MESSAGES)?;
    let before = which.before.unwrap_or(i64::MAX);
    Ok(Json(read(&reads, &conversation, before, limit).await?))
}

/// The conversation, where the identity is a member: what is said is for members alone, whoever operates the stack.
fn readable(identity: &Identity, id: String) -> Result<ConversationId, Problem> {
    let conversation = ConversationId::new(id)
        .map_err(|error| Problem::new(&codes::BAD_REQUEST).detail(error.to_string()))?;
    let (a, b) = conversation.members();
    if identity.user == a || identity.user == b {
        return Ok(conversation);
    }
    Err(Problem::new(&codes::FORBIDDEN).detail("a conversation is read by its members"))
}

async fn read(
    reads: &Reads,
    conversation: &ConversationId,
    before: i64,
    limit: usize,
) -> Result<Page, Error> {
    let client = reads.pool.get().await?;
    let (page, receipts) = tokio::try_join!(client.prepare_cached(PAGE), client.prepare_cached(RECEIPTS))?;
    // The receipts first: a message is then never said to lack what the page after it has.
    let marks = Marks::read(&client.query(&receipts, &[&conversation.as_str()]).await?)?;
    let asked = limit as i64 + 1;
    let rows = client.query(&page, &[&conversation.as_str(), &before, &asked, &PAGE_BYTES]).await?;
    let found: i64 = rows.first().map(|row| row.try_get(3)).transpose()?.unwrap_or(0);
    let shown = rows.len().min(limit);
    let last: Option<i64> = rows[..shown].last().map(|row| row.try_get(0)).transpose()?;
    let messages = rows[..shown].iter().map(|row| message(row, &marks)).collect::<Result<Vec<_>, _>>()?;
    Ok(Page { messages, next: last.filter(|_| found > shown as i64) })
}

fn message(row: &Row, marks: &Marks) -> Result<Message, Error> {
    let (number, value, append_us): (i64, &[u8], i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let arrived = arrived(value).ok_or(Error::Entry { number })?;
    let (body, base64) = match String::from_utf8(arrived.body) {
        Ok(text) => (text, false),
        Err(bytes) => (BASE64.encode(bytes.as_bytes()), true),
    };
    let sender = arrived.sender.to_string();
    Ok(Message {
        number,
        device: arrived.device.to_string(),
        id: arrived.client_id,
        at: Micros(append_us),
        content_type: arrived.content_type,
        body,
        base64,
        reply_to: arrived.reply_to,
        delivered: Marks::of(&marks.delivered, number, &sender),
        read: Marks::of(&marks.read, number, &sender),
        sender,
    })
}

/// The message that an entry's bytes tell of; the projector keeps none that tell of anything else.
fn arrived(value: &[u8]) -> Option<MessageArrived> {
    match codec::decode(value) {
        Ok(Event::EntryAdded(added)) => match added.entry {
            Entry::MessageArrived(arrived) => Some(arrived),
            _ => None,
        },
        _ => None,
    }
}

/// Up to which number each member has, and has read, what the others said.
#[derive(Debug, Default)]
struct Marks {
    delivered: BTreeMap<String, i64>,
    read: BTreeMap<String, i64>,
}

impl Marks {
    fn read(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut marks = Self::default();
        for row in rows {
            let kind: &str = row.try_get(1)?;
            let of = if kind == "read" { &mut marks.read } else { &mut marks.delivered };
            of.insert(row.try_get(0)?, row.try_get(2)?);
        }
        Ok(marks)
    }

    fn of(marks: &BTreeMap<String, i64>, number: i64, sender: &str) -> Vec<String> {
        let others = marks.iter().filter(|(user, upto)| *user != sender && **upto >= number);
        others.map(|(user, _)| user.clone()).collect()
    }
}
