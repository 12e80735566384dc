//! An entry of an inbox as a line for people.

use serde_json::Value;

use crate::device::Entry;

/// Time, kind and what it says, on one line, with nothing in it that a terminal would obey.
pub(super) fn entry(entry: &Entry) -> String {
    let says = match &*entry.kind {
        "message" => message(entry),
        "delivered" => receipt(entry, "has"),
        "read" => receipt(entry, "has read"),
        "match" => fired(entry),
        "system" => format!("{}: {}", field(entry, "code"), field(entry, "detail")),
        _ => serde_json::to_string(&entry.content).unwrap_or_default(),
    };
    printable(&format!("{}  {:<9}  {says}", entry.at, entry.kind))
}

fn message(entry: &Entry) -> String {
    let what = match entry.content.get("base64") {
        Some(Value::Bool(true)) => format!("({}, no text)", field(entry, "content_type")),
        _ => field(entry, "body").to_owned(),
    };
    format!("{} in {}, {}: {what}", field(entry, "sender"), conversation(entry), number(entry, "number"))
}

fn receipt(entry: &Entry, does: &str) -> String {
    format!("{} {does} {} up to {}", field(entry, "user"), conversation(entry), number(entry, "upto"))
}

pub(super) fn fired(entry: &Entry) -> String {
    let initial = if entry.content.get("initial") == Some(&Value::Bool(true)) { " (initial)" } else { "" };
    format!(
        "{}: {} {} {}{initial}",
        field(entry, "rule"),
        field(entry, "device"),
        field(entry, "event"),
        entry.text("zone").unwrap_or_default()
    )
}

fn field<'a>(entry: &'a Entry, name: &str) -> &'a str {
    entry.text(name).unwrap_or("?")
}

fn conversation(entry: &Entry) -> &str {
    field(entry, "conversation")
}

fn number(entry: &Entry, name: &str) -> String {
    entry.content.get(name).map_or_else(|| "?".to_owned(), Value::to_string)
}

/// Escapes controls, and what changes how its neighbours are shown.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if hidden {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_schemas::time::Micros;

    use super::*;

    #[test]
    fn every_kind_is_one_line_without_controls() {
        let check = |kind: &str, content: Value, expected: &str| {
            let content = serde_json::from_value(content).unwrap();
            let at = Micros(1_800_000_000_000_000);
            let entry = Entry { offset: 1, id: "i".into(), at, kind: kind.into(), content };
            assert_eq!(super::entry(&entry), format!("2027-01-15T08:00:00Z  {expected}"));
        };
        check(
            "message",
            json!({"conversation": "alice~bob", "number": 7, "sender": "alice", "body": "hi\n\u{1b}[2J \u{202e}ß"}),
            "message    alice in alice~bob, 7: hi\\n\\u{1b}[2J \\u{202e}ß",
        );
        check(
            "message",
            json!({"conversation": "a~b", "number": 7, "sender": "a", "body": "/w==", "base64": true, "content_type": "image/png"}),
            "message    a in a~b, 7: (image/png, no text)",
        );
        let receipt = json!({"conversation": "alice~bob", "user": "bob", "upto": 7});
        check("delivered", receipt.clone(), "delivered  bob has alice~bob up to 7");
        check("read", receipt, "read       bob has read alice~bob up to 7");
        let fired = |initial| json!({"rule": "r", "zone": "depot", "event": "enter", "device": "x", "initial": initial});
        check("match", fired(false), "match      r: x enter depot");
        check("match", fired(true), "match      r: x enter depot (initial)");
        check("system", json!({"code": "not_taken", "detail": "d"}), "system     not_taken: d");
        check("system", json!({}), "system     ?: ?");
        check("other", json!({"a": 1}), "other      {\"a\":1}");
    }
}
