//! What was said and what arrived: whether the demonstration has shown what it should. Pure.

use std::collections::BTreeSet;

use crate::device::Entry;

/// What one of two users who chat has said, and what came of it.
#[derive(Debug, Default)]
struct Side {
    /// The client ids of what is in the log.
    accepted: BTreeSet<String>,
    /// The client ids of what the other has received, and the highest number of these.
    arrived: BTreeSet<String>,
    highest: Option<i64>,
    delivered: Option<i64>,
    read: Option<i64>,
}

impl Side {
    fn lacks(&self, name: &str) -> Vec<String> {
        let mut lacks = Vec::new();
        let lost = self.accepted.difference(&self.arrived).count();
        if lost > 0 {
            lacks.push(format!("{lost} messages of {name} have not arrived"));
        }
        if self.accepted.is_empty() {
            lacks.push(format!("no message of {name} was accepted"));
        }
        for (mark, upto) in [("V", self.delivered), ("VV", self.read)] {
            if upto < self.highest {
                lacks.push(format!("{mark} of the last message of {name} has not arrived"));
            }
        }
        lacks
    }
}

/// Who chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Carol,
    Dave,
}

impl Who {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Carol => "carol",
            Self::Dave => "dave",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Carol => Self::Dave,
            Self::Dave => Self::Carol,
        }
    }
}

/// The whole account.
#[derive(Debug, Default)]
pub(super) struct Tally {
    carol: Side,
    dave: Side,
    messages: u64,
    marks: [u64; 2],
    enters: u64,
    exits: u64,
    /// The causes of the matches that arrived.
    matches: BTreeSet<String>,
    /// What should not have happened.
    wrong: Vec<String>,
}

impl Tally {
    fn side(&mut self, who: Who) -> &mut Side {
        match who {
            Who::Carol => &mut self.carol,
            Who::Dave => &mut self.dave,
        }
    }

    /// A message is in the log.
    pub(super) fn accepted(&mut self, sender: Who, id: &str) {
        self.side(sender).accepted.insert(id.to_owned());
    }

    /// A message was refused, or given up.
    pub(super) fn refused(&mut self, sender: Who, code: &str, detail: &str) {
        self.wrong.push(format!("a message of {} was refused: {code}: {detail}", sender.name()));
    }

    /// An entry came to one who chats; whether it is a message of the other.
    pub(super) fn came(&mut self, to: Who, entry: &Entry) -> bool {
        let number = |name: &str| entry.content.get(name).and_then(serde_json::Value::as_i64);
        match &*entry.kind {
            "message" if entry.text("sender") == Some(to.other().name()) => {
                let id = entry.text("client_id").unwrap_or_default();
                self.message(to.other(), id, number("number"));
                true
            }
            "delivered" if entry.text("user") == Some(to.other().name()) => {
                let side = self.side(to);
                side.delivered = side.delivered.max(number("upto"));
                self.marks[0] += 1;
                false
            }
            "read" if entry.text("user") == Some(to.other().name()) => {
                let side = self.side(to);
                side.read = side.read.max(number("upto"));
                self.marks[1] += 1;
                false
            }
            "system" => {
                let (code, detail) = (entry.text("code"), entry.text("detail"));
                self.refused(to, code.unwrap_or("?"), detail.unwrap_or("?"));
                false
            }
            _ => false,
        }
    }

    fn message(&mut self, sender: Who, id: &str, number: Option<i64>) {
        let side = self.side(sender);
        let (first, in_order) = (side.arrived.insert(id.to_owned()), number > side.highest);
        side.highest = side.highest.max(number);
        self.messages += 1;
        if !first {
            self.wrong.push(format!("a message of {} arrived twice", sender.name()));
        }
        if !in_order {
            self.wrong.push(format!("messages of {} arrived out of order", sender.name()));
        }
    }

    /// An entry came to who is told of matches; whether it is one.
    pub(super) fn fired(&mut self, entry: &Entry) -> bool {
        if entry.kind != "match" {
            return false;
        }
        if !self.matches.insert(entry.id.clone()) {
            self.wrong.push("a match arrived twice".to_owned());
        }
        match entry.text("event") {
            Some("exit") => self.exits += 1,
            _ => self.enters += 1,
        }
        true
    }

    /// What has not arrived, where `matches` are in the log.
    pub(super) fn lacks(&self, matches: usize) -> Vec<String> {
        let mut lacks = self.carol.lacks("carol");
        lacks.extend(self.dave.lacks("dave"));
        if matches == 0 {
            lacks.push("no rule has fired".to_owned());
        } else if self.matches.len() != matches {
            lacks.push(format!("{} of {matches} matches have arrived", self.matches.len()));
        }
        lacks
    }

    /// What should not have happened.
    pub(super) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// One line of figures.
    pub(super) fn summary(&self) -> String {
        let [delivered, read] = self.marks;
        format!(
            "{} messages arrived, V came {delivered} times and VV {read} times; {} matches: {} enter, {} exit",
            self.messages,
            self.matches.len(),
            self.enters,
            self.exits
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use waypost_schemas::time::Micros;

    use super::*;

    fn entry(kind: &str, content: Value) -> Entry {
        let content = serde_json::from_value(content).unwrap();
        let id = format!("{kind} {content:?}");
        Entry { offset: 0, id, at: Micros(0), kind: kind.to_owned(), content }
    }

    fn message(sender: &str, id: &str, number: i64) -> Entry {
        entry("message", json!({"sender": sender, "client_id": id, "number": number}))
    }

    fn receipt(kind: &str, user: &str, upto: i64) -> Entry {
        entry(kind, json!({"user": user, "upto": upto}))
    }

    /// A demonstration that has shown everything.
    fn whole() -> Tally {
        let mut tally = Tally::default();
        for (who, id, number) in [(Who::Carol, "a", 3), (Who::Dave, "b", 4)] {
            tally.accepted(who, id);
            assert!(tally.came(who.other(), &message(who.name(), id, number)));
            assert!(
                !tally.came(who, &message(who.name(), id, number)),
                "one's own is no message of the other"
            );
            for kind in ["delivered", "read"] {
                tally.came(who, &receipt(kind, who.other().name(), number));
            }
        }
        assert!(tally.fired(&entry("match", json!({"event": "enter"}))));
        assert!(tally.fired(&entry("match", json!({"event": "exit"}))));
        tally
    }

    #[test]
    fn it_is_whole_only_when_everything_arrived_once_and_in_order() {
        let tally = whole();
        assert_eq!((tally.lacks(2), tally.wrong()), (vec![], &[][..]));
        assert_eq!(
            tally.summary(),
            "2 messages arrived, V came 2 times and VV 2 times; 2 matches: 1 enter, 1 exit"
        );
    }

    #[test]
    fn what_lacks_is_named() {
        let check = |change: fn(&mut Tally), matches: usize, lacks: &[&str]| {
            let mut tally = whole();
            change(&mut tally);
            assert_eq!(tally.lacks(matches), lacks);
            assert!(tally.wrong().is_empty());
        };
        check(|tally| tally.accepted(Who::Carol, "c"), 2, &["1 messages of carol have not arrived"]);
        check(
            |tally| {
                tally.accepted(Who::Dave, "c");
                tally.came(Who::Carol, &message("dave", "c", 9));
                tally.came(Who::Dave, &receipt("delivered", "carol", 9));
            },
            2,
            &["VV of the last message of dave has not arrived"],
        );
        check(|_| {}, 3, &["2 of 3 matches have arrived"]);
        check(|_| {}, 0, &["no rule has fired"]);
        assert_eq!(Tally::default().lacks(0).len(), 3);
    }

    #[test]
    fn what_should_not_happen_is_named() {
        let check = |change: fn(&mut Tally) -> bool, wrong: &str| {
            let mut tally = whole();
            change(&mut tally);
            assert_eq!(tally.wrong(), [wrong]);
        };
        check(
            |tally| tally.came(Who::Dave, &message("carol", "late", 2)),
            "messages of carol arrived out of order",
        );
        check(|tally| tally.came(Who::Dave, &message("carol", "a", 9)), "a message of carol arrived twice");
        check(|tally| tally.fired(&entry("match", json!({"event": "exit"}))), "a match arrived twice");
        check(
            |tally| tally.came(Who::Dave, &entry("system", json!({"code": "refused", "detail": "d"}))),
            "a message of dave was refused: refused: d",
        );
    }
}
