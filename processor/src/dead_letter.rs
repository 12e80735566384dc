//! A dead letter: the original bytes of a record that could not be taken, with why, where and when in headers.

use bytes::Bytes;
use waypost_runtime::broker::{Headers, Incoming, Outgoing};
use waypost_schemas::{
    cause::{Cause, Position, Seq},
    topic::{Topic, TopicPartition},
};

use crate::machine::Unfit;

/// The longest detail that a dead letter carries, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// The dead letter that `owner` makes of a record of `partition`.
///
/// It has the key and the value of the original, and its partition where the original's topic is keyed. Its headers
/// are `CloudEvents`', with the original as the cause in `ce_id`, the same however often it is written; then
/// `waypost_reason` and `waypost_detail` (why), `waypost_topic`, `waypost_partition` and `waypost_offset` (where),
/// `waypost_at` (the time of its append), `waypost_machine` (the owner); then the original's headers, each name
/// behind `original_`.
pub fn of(owner: &str, partition: TopicPartition, record: &Incoming, why: &Unfit) -> Outgoing {
    let mut headers: Headers = Vec::with_capacity(13 + record.headers.len());
    let position = Position { topic: partition.topic, partition: partition.partition, offset: record.offset };
    let mut put = |name: &str, value: String| headers.push((name.into(), Bytes::from(value)));
    put("ce_id", Cause { position, ordinal: 0 }.to_string());
    put("ce_type", "waypost.DeadLetter".into());
    put("ce_source", format!("/waypost/{owner}"));
    put("ce_specversion", "1.0".into());
    put("ce_time", record.append.to_string());
    put("waypost_reason", why.code.into());
    put("waypost_detail", why.detail.chars().take(DETAIL_CHARS_MAX).collect());
    put("waypost_topic", partition.topic.name().into());
    put("waypost_partition", partition.partition.to_string());
    put("waypost_offset", record.offset.to_string());
    put("waypost_at", record.append.to_string());
    put("waypost_machine", owner.into());
    for (name, value) in &record.headers {
        headers.push((format!("original_{name}").into(), value.clone()));
    }
    Outgoing {
        to: TopicPartition::new(Topic::DeadLetters, partition.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

/// The dead letter that a machine makes of a record of its driving topic: one of its effects, so it has a seq too.
pub fn derived(seq: &Seq, partition: TopicPartition, record: &Incoming, why: &Unfit) -> Outgoing {
    let mut letter = of(&seq.machine, partition, record, why);
    letter.headers.push(("seq".into(), Bytes::from(seq.to_string())));
    letter
}

#[cfg(test)]
mod tests {
    use waypost_schemas::time::Micros;

    use super::*;

    #[test]
    fn a_dead_letter_says_why_where_and_when_and_keeps_the_original() {
        let record = Incoming {
            offset: 12,
            append: Micros::parse("2018-07-30T02:00:23Z").unwrap(),
            key: None,
            value: Some(Bytes::from_static(b"\x00junk")),
            headers: vec![("seq".into(), Bytes::from_static(b"x"))],
        };
        let why = Unfit { code: "foreign_record", detail: "é".repeat(600) };
        let seq = Seq { machine: "spatial".into(), partition: 3, number: 7 };
        let letter = derived(&seq, TopicPartition::new(Topic::Inboxes, 3), &record, &why);
        assert_eq!(letter.to, TopicPartition::new(Topic::DeadLetters, 3));
        assert_eq!(letter.value, record.value);
        let header = |name: &str| {
            let (_, value) = letter.headers.iter().find(|(n, _)| &**n == name).expect(name);
            String::from_utf8(value.to_vec()).unwrap()
        };
        for (name, value) in [
            ("ce_id", "inboxes/3/12/0"),
            ("ce_time", "2018-07-30T02:00:23Z"),
            ("waypost_reason", "foreign_record"),
            ("waypost_topic", "inboxes"),
            ("waypost_partition", "3"),
            ("waypost_offset", "12"),
            ("waypost_at", "2018-07-30T02:00:23Z"),
            ("waypost_machine", "spatial"),
            ("seq", "spatial/3/7"),
            ("original_seq", "x"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        assert_eq!(header("waypost_detail").chars().count(), DETAIL_CHARS_MAX);
    }
}
