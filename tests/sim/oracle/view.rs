//! A derived partition as a plain reader sees it.

use std::collections::BTreeMap;

use waypost_runtime::broker::Incoming;
use waypost_schemas::{
    cause::{Cause, Position, Seq, SeqMap, Taken},
    topic::{Topic, TopicPartition},
};

/// The first copy of a derived record.
pub(crate) struct First {
    pub(crate) offset: i64,
    pub(crate) seq: Seq,
    pub(crate) cause: String,
    /// Where its cause stands.
    pub(crate) at: Position,
    pub(crate) record: Incoming,
}

/// What a reader takes of a partition from its first record to its last.
pub(crate) struct View {
    pub(crate) firsts: Vec<First>,
    pub(crate) copies: usize,
    /// The numbers taken.
    pub(crate) numbers: SeqMap,
    /// Cause and code of dead letters that no machine made.
    pub(crate) unnumbered: Vec<(String, String)>,
}

impl View {
    /// Reads a partition. A hole is an error, and so is a copy that differs from the first (W3).
    pub(crate) fn of(of: TopicPartition, records: &[Incoming]) -> Result<Self, String> {
        let mut view =
            Self { firsts: Vec::new(), copies: 0, numbers: SeqMap::default(), unnumbered: Vec::new() };
        let mut by_seq: BTreeMap<String, usize> = BTreeMap::new();
        for record in records {
            let text = |name: &str| record.header(name).and_then(|v| std::str::from_utf8(v).ok());
            let seq: Option<Seq> = text("seq").and_then(|t| t.parse().ok());
            let cause = text("ce_id").map(str::to_owned);
            let (Some(seq), Some(cause)) = (&seq, &cause) else {
                if let (Topic::DeadLetters, Some(cause), Some(code)) =
                    (of.topic, cause, text("waypost_reason"))
                {
                    view.unnumbered.push((cause, code.to_owned()));
                }
                continue;
            };
            if of.topic != Topic::DeadLetters && !of.topic.spec().writers.contains(&&*seq.machine) {
                continue;
            }
            match view.numbers.take(seq) {
                Taken::Next => {
                    let Ok(Cause { position: at, .. }) = cause.parse::<Cause>() else { continue };
                    by_seq.insert(seq.to_string(), view.firsts.len());
                    let (offset, cause, record) = (record.offset, cause.clone(), record.clone());
                    view.firsts.push(First { offset, seq: seq.clone(), cause, at, record });
                }
                Taken::Copy => {
                    view.copies += 1;
                    let first = &view.firsts[by_seq[&seq.to_string()]].record;
                    let same = (&first.key, &first.value, &first.headers)
                        == (&record.key, &record.value, &record.headers);
                    if !same {
                        let (a, b) = (first.offset, record.offset);
                        return Err(format!("W3: {of} holds {seq} at {a} and at {b}, and they differ"));
                    }
                }
                Taken::Hole { expected } => {
                    let offset = record.offset;
                    return Err(format!("W10: {of}:{offset} is {seq} where number {expected} should come"));
                }
            }
        }
        Ok(view)
    }
}
