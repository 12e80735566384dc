//! What a stack has written, read back from its log.

use waypost_runtime::broker::{Broker, Incoming, Outgoing};
use waypost_schemas::topic::{Topic, TopicPartition};

/// All records of a topic, by partition and offset.
pub(super) async fn records(
    broker: &dyn Broker,
    topic: Topic,
) -> anyhow::Result<Vec<(TopicPartition, Incoming)>> {
    let reader = broker.reader()?;
    let mut all = vec![];
    for (from, bounds) in broker.bounds(vec![topic]).await? {
        if bounds.low == bounds.high {
            continue;
        }
        let mut feed = reader.open(from, bounds.low)?;
        let mut next = bounds.low;
        while next < bounds.high {
            let batch = feed.next().await?;
            next = batch.next;
            all.extend(batch.records.into_iter().map(|record| (from, record)));
        }
    }
    Ok(all)
}

/// The same record, to be appended elsewhere.
pub(super) fn again(record: Incoming, to: TopicPartition) -> Outgoing {
    Outgoing { to, key: record.key, value: record.value, headers: record.headers }
}
