//! The page `TOPICS.md`, which is made of the catalogue and the schema files and kept equal to them by a test.

use std::fmt::Write as _;

use crate::{
    codec::SCHEMAS,
    topic::{Partitions, Topic},
};

const HEAD: &str = "\
# Topics

Made from the catalogue in `schemas/src/topic.rs` and the schema files; `cargo test -p waypost-schemas` compares it,
`UPDATE_TOPICS=1 cargo test -p waypost-schemas` writes it anew.

Values are Avro in Confluent's wire format: 0x00, four bytes of schema id, the datum. Every topic has
`message.timestamp.type=LogAppendTime`: the log's own clock decides what was first. Keyed topics share one number of
partitions (`topics.partitions`, 16 by default) for life, and one partitioner, Kafka's `murmur2`.
";

const TAIL: &str = "
## Reading the topics from outside

A derived record (on `matches` and `inboxes`) carries CloudEvents headers and a `seq`. Delivery to an outside reader is
at least once: `ce_id` is the same for every copy of a record, so a reader that remembers the ids it has taken drops the
copies. A reader that starts at offset 0 (or at an offset that it stored together with its map) can do better: keep, per
output partition, the last number of each source named by `seq` (`spatial/3/1288` is the 1288th record that the machine
`spatial` has put into this partition because of its input partition 3).

```python
def take(last, seq):              # last: a dict stored together with the reader's offset
    source, number = seq.rsplit('/', 1)
    if int(number) <= last.get(source, 0):
        return False              # a copy of a record taken before
    if int(number) > last.get(source, 0) + 1:
        raise RuntimeError('records are missing')
    last[source] = int(number)
    return True
```

Of two copies the first in the log is the truth. Records on `positions` carry no headers: a fix is identified by its
device and its device time.

## Dead letters

`dead-letters` holds the original key and value of what could not be taken, in the partition of the same number, with
headers that say why (`waypost_reason`, a stable code, and `waypost_detail`), where (`waypost_topic`,
`waypost_partition`, `waypost_offset`), when (`waypost_at`, the append time) and which reader (`waypost_machine`).
";

/// The page's text.
pub fn text() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n## Catalogue\n\n| topic | key | records | partitions | kept | largest batch | written by | read by | dead letters by |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for topic in Topic::ALL {
        let spec = topic.spec();
        let partitions = match spec.partitions {
            Partitions::Keyed => "keyed",
            Partitions::One => "1",
        };
        let kept = spec
            .retention
            .map_or_else(|| "for ever".into(), |kept| format!("{} days", kept.as_secs() / 86_400));
        let list = |names: &[&str]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        writeln!(
            page,
            "| `{}` | {} | {} | {partitions} | {kept} | {} KiB | {} | {} | {} |",
            spec.name,
            spec.key,
            list(spec.records),
            spec.message_bytes_max / 1024,
            list(spec.writers),
            list(spec.readers),
            spec.dead_letters_by.unwrap_or("-"),
        )
        .expect("a String takes all");
    }
    page.push_str("\n## Schemas\n\n| id | record | file |\n| --- | --- | --- |\n");
    for schema in SCHEMAS {
        writeln!(page, "| {} | {1} | `schemas/avro/{1}.1.avsc` |", schema.id, schema.name)
            .expect("a String takes all");
    }
    page.push_str(TAIL);
    page
}
