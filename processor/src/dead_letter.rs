//! A dead letter: the original bytes of a record that could not be taken, with why, where and when in headers.

use bytes::Bytes;
use waypost_runtime::broker::{Headers, Incoming, Outgoing};
use waypost_schemas::topic::{Topic, TopicPartition};

use crate::machine::Unfit;

/// The longest detail that a dead letter carries, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// The dead letter that `owner` makes of a record of `partition`.
///
/// It has the key and the value of the original, and its partition where the original's topic is keyed. Its headers
/// are CloudEvents', with `ce_id` = `dead-letter/OWNER/TOPIC/PARTITION/OFFSET`, the same however often it is written;
/// then `code` and `detail` (why), `topic`, `partition` and `offset` (where), `append_time` (when); then the
/// original's headers, each name behind `original_`.
pub fn of(owner: &str, partition: TopicPartition, record: &Incoming, why: &Unfit) -> Outgoing {
    let mut headers: Headers = Vec::with_capacity(12 + record.headers.len());
    let mut put = |name: &str, value: String| headers.push((name.into(), Bytes::from(value)));
    put("ce_id", format!("dead-letter/{owner}/{partition}/{}", record.offset));
    put("ce_type", "waypost.DeadLetter".into());
    put("ce_source", format!("/waypost/{owner}"));
    put("ce_specversion", "1.0".into());
    put("ce_time", record.append.to_string());
    put("code", why.code.into());
    put("detail", why.detail.chars().take(DETAIL_CHARS_MAX).collect());
    put("topic", partition.topic.name().into());
    put("partition", partition.partition.to_string());
    put("offset", record.offset.to_string());
    put("append_time", record.append.to_string());
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
        let letter = of("projector", TopicPartition::new(Topic::Inboxes, 3), &record, &why);
        assert_eq!(letter.to, TopicPartition::new(Topic::DeadLetters, 3));
        assert_eq!(letter.value, record.value);
        let header = |name: &str| {
            let (_, value) = letter.headers.iter().find(|(n, _)| &**n == name).expect(name);
            String::from_utf8(value.to_vec()).unwrap()
        };
        for (name, value) in [
            ("ce_id", "dead-letter/projector/inboxes/3/12"),
            ("ce_time", "2018-07-30T02:00:23Z"),
            ("code", "foreign_record"),
            ("topic", "inboxes"),
            ("partition", "3"),
            ("offset", "12"),
            ("append_time", "2018-07-30T02:00:23Z"),
            ("original_seq", "x"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        assert_eq!(header("detail").chars().count(), DETAIL_CHARS_MAX);
    }
}
