//! An entry of an inbox as the frame that offers it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use waypost_runtime::broker::Incoming;
use waypost_schemas::{
    event::{Entry, Fix, MatchArrived, MessageArrived, ReceiptArrived, ReceiptKind, SystemNotice},
    frame::{self, Down},
    header,
    time::Micros,
};

/// The append time of an entry's cause, which is what its user sees; the entry's own where its header says none.
pub fn at(record: &Incoming) -> Micros {
    let time = record.header(header::TIME).and_then(|value| std::str::from_utf8(value).ok());
    time.and_then(|text| Micros::parse(text).ok()).unwrap_or(record.append)
}

/// The frame of an entry.
///
/// `message`: conversation, number, sender, device, `client_id`, `content_type`, body (text; where its bytes are no UTF-8
/// their base64, and `base64` is true), `reply_to`. `delivered` and `read`: conversation, user, upto. `match`: rule,
/// zone, event, initial, device, fix. `system`: code, `client_id`, detail. What is absent is left out.
pub fn frame(offset: i64, cause: String, at: Micros, entry: Entry) -> Down {
    let (kind, content) = match entry {
        Entry::MessageArrived(arrived) => ("message", message(arrived)),
        Entry::ReceiptArrived(arrived) => receipt(arrived),
        Entry::MatchArrived(arrived) => ("match", fired(arrived)),
        Entry::SystemNotice(notice) => ("system", system(notice)),
    };
    let content = content.into_iter().filter(|(_, value)| !value.is_null());
    let content: BTreeMap<String, Value> = content.map(|(name, value)| (name.to_owned(), value)).collect();
    Down::Entry { offset, id: cause, at, kind: kind.to_owned(), content }
}

type Content = Vec<(&'static str, Value)>;

fn message(arrived: MessageArrived) -> Content {
    let MessageArrived { conversation, number, sender, device, client_id, content_type, body, reply_to } =
        arrived;
    let (body, base64) = match String::from_utf8(body) {
        Ok(text) => (text, None),
        Err(bytes) => (BASE64.encode(bytes.as_bytes()), Some(true)),
    };
    vec![
        ("conversation", json!(conversation)),
        ("number", json!(number)),
        ("sender", json!(sender)),
        ("device", json!(device)),
        ("client_id", Value::String(client_id)),
        ("content_type", Value::String(content_type)),
        ("body", Value::String(body)),
        ("base64", json!(base64)),
        ("reply_to", json!(reply_to)),
    ]
}

fn receipt(arrived: ReceiptArrived) -> (&'static str, Content) {
    let ReceiptArrived { conversation, user, kind, upto } = arrived;
    let kind = match kind {
        ReceiptKind::Delivered => "delivered",
        ReceiptKind::Read => "read",
    };
    (kind, vec![("conversation", json!(conversation)), ("user", json!(user)), ("upto", json!(upto))])
}

fn fired(arrived: MatchArrived) -> Content {
    let MatchArrived { rule, zone, event, initial, device, fix } = arrived;
    vec![
        ("rule", json!(rule)),
        ("zone", json!(zone)),
        ("event", json!(event)),
        ("initial", json!(initial)),
        ("device", json!(device)),
        ("fix", place(fix)),
    ]
}

/// A fix in the names of the frames that report one.
fn place(fix: Fix) -> Value {
    let Fix { lat, lon, at_us: at, accuracy_m, speed_mps, heading_deg, altitude_m } = fix;
    let attributes = BTreeMap::new();
    json!(frame::Fix { lat, lon, at, accuracy_m, speed_mps, heading_deg, altitude_m, attributes })
}

fn system(notice: SystemNotice) -> Content {
    let SystemNotice { code, client_id, detail } = notice;
    vec![("code", Value::String(code)), ("client_id", json!(client_id)), ("detail", Value::String(detail))]
}
