//! What every implementation of the seam must do, as checks that panic where one does not.
//!
//! They run on a log that other records may be in, as long as nobody else writes at the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::select_all;
use waypost_schemas::{
    cause::Position,
    topic::{Topic, TopicPartition},
};

use super::{
    Batch, Bounds, Broker, Error, Feed, GroupSpec, Incoming, Member, Membership, Outgoing, Producer, topics,
};

/// How many partitions the checks' keyed topics have.
pub const KEYED: i32 = 4;

/// How long a check waits for what must come: more than a session, and much more than a slow machine needs.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Runs every check in turn; `run` makes the names of its groups its own.
pub async fn check(broker: Arc<dyn Broker>, run: &str) {
    let broker = &*broker;
    the_catalogue_is_applied_once(broker).await;
    a_partition_keeps_the_order_of_its_sends(broker).await;
    a_feed_begins_where_it_is_told(broker).await;
    an_offset_outside_the_log_is_refused(broker).await;
    a_feed_that_is_not_read_loses_nothing_and_holds_up_no_other(broker).await;
    a_feed_that_is_closed_opens_again(broker).await;
    what_a_record_has_survives(broker).await;
    the_largest_record_passes_and_a_larger_one_is_refused(broker).await;
    a_group_shares_its_partitions_and_hands_them_over(broker, run).await;
    a_commit_counts_until_the_partition_is_lost(broker, run).await;
    an_instance_that_joins_again_replaces_the_first(broker, run).await;
    a_group_counts_its_members_until_their_sessions_end(broker, run).await;
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

fn partition(partition: i32) -> TopicPartition {
    TopicPartition::new(Topic::Positions, partition)
}

fn record(to: TopicPartition, value: impl Into<Bytes>) -> Outgoing {
    Outgoing { to, key: Some(Bytes::from_static(b"key")), value: Some(value.into()), headers: Vec::new() }
}

async fn bounds(broker: &dyn Broker, of: TopicPartition) -> Bounds {
    within("bounds", broker.bounds(vec![of.topic])).await.unwrap()[&of]
}

async fn send(producer: &dyn Producer, records: Vec<Outgoing>) -> Vec<Position> {
    let delivery = within("room to send", producer.send(records)).await.unwrap();
    within("a delivery", delivery).await.unwrap()
}

async fn next(feed: &mut Box<dyn Feed>) -> Batch {
    within("a batch", feed.next()).await.unwrap()
}

/// Reads until `count` records are there, and checks that their offsets have no hole.
async fn read(feed: &mut Box<dyn Feed>, from: i64, count: usize) -> Vec<Incoming> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = next(feed).await;
        records.extend(batch.records);
        assert_eq!(batch.next, from + records.len() as i64);
    }
    assert!(records.iter().zip(from..).all(|(r, offset)| r.offset == offset), "offsets have holes");
    records
}

async fn the_catalogue_is_applied_once(broker: &dyn Broker) {
    let id = within("the id", broker.cluster_id()).await.unwrap();
    assert_eq!(within("the id", broker.cluster_id()).await.unwrap(), id);
    within("topics", topics::apply(broker, KEYED)).await.unwrap();
    let plan = within("topics", topics::apply(broker, KEYED)).await.unwrap();
    assert_eq!(plan, topics::Plan::default());
    let refused = within("topics", topics::check(broker, KEYED + 1)).await;
    assert!(matches!(refused, Err(Error::Fatal { .. })), "{refused:?}");
    let all = within("bounds", broker.bounds(Topic::ALL.to_vec())).await.unwrap();
    let count: i32 = Topic::ALL.iter().map(|t| t.partitions(KEYED)).sum();
    assert_eq!(all.len(), count as usize);
}

async fn a_partition_keeps_the_order_of_its_sends(broker: &dyn Broker) {
    let producer = broker.producer().unwrap();
    let starts = [bounds(broker, partition(0)).await.high, bounds(broker, partition(1)).await.high];
    let mut deliveries = Vec::new();
    for i in 0..100 {
        let batch = (0..4).map(|j| record(partition(j % 2), format!("{i}/{j}"))).collect();
        deliveries.push(within("room to send", producer.send(batch)).await.unwrap());
    }
    for (i, delivery) in (0..).zip(deliveries) {
        let positions = within("a delivery", delivery).await.unwrap();
        let expected: Vec<_> = (0..4)
            .map(|j| Position {
                topic: Topic::Positions,
                partition: j % 2,
                offset: starts[j as usize % 2] + i * 2 + i64::from(j / 2),
            })
            .collect();
        assert_eq!(positions, expected);
    }
    within("a flush", producer.flush()).await.unwrap();
    let reader = broker.reader().unwrap();
    for (p, from) in (0..).zip(starts) {
        let mut feed = reader.open(partition(p), from).unwrap();
        let read = read(&mut feed, from, 200).await;
        let values: Vec<_> = read.iter().map(|r| r.value.clone().unwrap()).collect();
        let expected: Vec<_> =
            (0..100).flat_map(|i| [p, p + 2].map(|j| Bytes::from(format!("{i}/{j}")))).collect();
        assert_eq!(values, expected);
        assert!(read.is_sorted_by_key(|r| r.append));
        assert_eq!(bounds(broker, partition(p)).await.high, from + 200);
    }
    assert!(send(&*producer, Vec::new()).await.is_empty());
}

async fn a_feed_begins_where_it_is_told(broker: &dyn Broker) {
    let producer = broker.producer().unwrap();
    let from = bounds(broker, partition(0)).await.high;
    send(&*producer, (0..10).map(|i| record(partition(0), format!("{i}"))).collect()).await;
    let reader = broker.reader().unwrap();
    let mut middle = reader.open(partition(0), from + 7).unwrap();
    assert_eq!(read(&mut middle, from + 7, 3).await[0].value.as_deref(), Some(&b"7"[..]));
    assert!(matches!(reader.open(partition(0), from), Err(Error::Fatal { .. })), "it is open already");
    let other = broker.reader().unwrap();
    let mut end = other.open(partition(0), from + 10).unwrap();
    let batch = next(&mut end).await;
    assert_eq!(batch, Batch { records: Vec::new(), next: from + 10, at_end: true });
    send(&*producer, vec![record(partition(0), "new")]).await;
    let new = read(&mut end, from + 10, 1).await;
    assert_eq!(new[0].value.as_deref(), Some(&b"new"[..]));
}

async fn an_offset_outside_the_log_is_refused(broker: &dyn Broker) {
    let Bounds { low, high } = bounds(broker, partition(0)).await;
    let reader = broker.reader().unwrap();
    let mut good = reader.open(partition(1), bounds(broker, partition(1)).await.high).unwrap();
    for bad in [high + 1, high + 1_000, -1, -2] {
        let mut feed = reader.open(partition(0), bad).unwrap();
        match within("a refusal", feed.next()).await {
            Err(Error::OutOfRange { partition: p, offset, .. }) => {
                assert_eq!((p, offset), (partition(0), bad));
            }
            other => panic!("{other:?} for offset {bad} of {low} to {high}"),
        }
    }
    let producer = broker.producer().unwrap();
    let sent = send(&*producer, vec![record(partition(1), "on")]).await;
    read(&mut good, sent[0].offset, 0).await;
    loop {
        if next(&mut good).await.records.iter().any(|r| r.offset == sent[0].offset) {
            break;
        }
    }
}

async fn a_feed_that_is_not_read_loses_nothing_and_holds_up_no_other(broker: &dyn Broker) {
    const RECORDS: usize = 30_000;
    let producer = broker.producer().unwrap();
    let (full, free) = (partition(2), partition(3));
    let from = [bounds(broker, full).await.high, bounds(broker, free).await.high];
    let reader = broker.reader().unwrap();
    let mut feeds = [reader.open(full, from[0]).unwrap(), reader.open(free, from[1]).unwrap()];
    let mut deliveries = Vec::new();
    for batch in (0..RECORDS).collect::<Vec<_>>().chunks(1_000) {
        let records =
            batch.iter().flat_map(|i| [full, free].map(|to| record(to, format!("{i:0>200}")))).collect();
        deliveries.push(within("room to send", producer.send(records)).await.unwrap());
    }
    for delivery in deliveries {
        within("a delivery", delivery).await.unwrap();
    }
    for (feed, from) in feeds.iter_mut().zip(from).rev() {
        let records = read(feed, from, RECORDS).await;
        for (i, record) in records.iter().enumerate() {
            assert_eq!(record.value.as_deref(), Some(format!("{i:0>200}").as_bytes()));
        }
    }
}

async fn a_feed_that_is_closed_opens_again(broker: &dyn Broker) {
    let Bounds { low, high } = bounds(broker, partition(2)).await;
    let reader = broker.reader().unwrap();
    for step in 0..20 {
        let from = low + (high - low) / 20 * step;
        let mut feed = reader.open(partition(2), from).unwrap();
        read(&mut feed, from, 1).await;
    }
}

async fn what_a_record_has_survives(broker: &dyn Broker) {
    let producer = broker.producer().unwrap();
    let to = partition(0);
    let from = bounds(broker, to).await.high;
    let headers = |headers: &[(&str, &'static [u8])]| {
        headers.iter().map(|(n, v)| ((*n).into(), Bytes::from_static(v))).collect::<Vec<_>>()
    };
    let cases = [
        (None, None, headers(&[])),
        (Some(Bytes::new()), Some(Bytes::new()), headers(&[])),
        (Some(Bytes::from_static(b"k\0")), None, headers(&[("ce_id", b"positions/0/1/0")])),
        (None, Some(Bytes::from_static(&[0, 0xff])), headers(&[("a", b"1"), ("b", b""), ("a", &[0, 0xff])])),
    ];
    let records = cases.clone().map(|(key, value, headers)| Outgoing { to, key, value, headers });
    send(&*producer, records.into()).await;
    let mut feed = broker.reader().unwrap().open(to, from).unwrap();
    let read = read(&mut feed, from, cases.len()).await;
    for (record, (key, value, headers)) in read.into_iter().zip(cases) {
        assert_eq!((record.key, record.value, record.headers), (key, value, headers));
    }
}

async fn the_largest_record_passes_and_a_larger_one_is_refused(broker: &dyn Broker) {
    let producer = broker.producer().unwrap();
    let to = TopicPartition::new(Topic::Registry, 0);
    let from = bounds(broker, to).await.high;
    let room = Topic::Registry.spec().message_bytes_max as usize - record(to, "").bytes();
    let positions = send(&*producer, vec![record(to, vec![7; room])]).await;
    assert_eq!(positions[0].offset, from);
    let refused =
        within("a refusal", producer.send(vec![record(to, "small"), record(to, vec![7; room + 1])])).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "a larger one was taken");
    let positions = send(&*producer, vec![record(to, "after")]).await;
    assert_eq!(positions[0].offset, from + 1, "nothing of the refused batch was queued");
    let mut feed = broker.reader().unwrap().open(to, from).unwrap();
    let read = read(&mut feed, from, 2).await;
    assert_eq!(read[0].value.as_ref().map(Bytes::len), Some(room));
}

/// A member and what it owns, as it was told.
struct Joined {
    member: Box<dyn Member>,
    owned: BTreeSet<TopicPartition>,
}

impl Joined {
    fn join(broker: &dyn Broker, group: &str, instance: &str) -> Self {
        let topics = vec![Topic::Positions, Topic::Matches];
        let spec = GroupSpec { group: group.to_owned(), instance: instance.to_owned(), topics };
        Self { member: broker.join(spec).unwrap(), owned: BTreeSet::new() }
    }

    /// Waits for the next news and does what they say.
    async fn hear(&mut self) {
        match self.member.next().await {
            Membership::Assigned(partitions) => self.owned = partitions.into_iter().collect(),
            Membership::Revoked { partitions, done, .. } => {
                assert_eq!(partitions.into_iter().collect::<BTreeSet<_>>(), self.owned);
                self.owned.clear();
                drop(done);
            }
            Membership::Failed(error) => panic!("the membership failed: {error}"),
        }
    }
}

/// Lets the members hear their news until each owns as many partitions as said.
async fn settle(members: &mut [Joined], counts: &[usize]) {
    within("an assignment", async {
        while members.iter().zip(counts).any(|(m, count)| m.owned.len() != *count) {
            select_all(members.iter_mut().map(|m| Box::pin(m.hear()))).await;
        }
    })
    .await;
}

fn run_of(topic: Topic, partitions: std::ops::Range<i32>) -> impl Iterator<Item = TopicPartition> {
    partitions.map(move |p| TopicPartition::new(topic, p))
}

async fn a_group_shares_its_partitions_and_hands_them_over(broker: &dyn Broker, run: &str) {
    let group = format!("waypost.share-{run}");
    let both = |range: std::ops::Range<i32>| {
        run_of(Topic::Positions, range.clone()).chain(run_of(Topic::Matches, range)).collect::<BTreeSet<_>>()
    };
    let mut members = vec![Joined::join(broker, &group, "a")];
    settle(&mut members, &[8]).await;
    assert_eq!(members[0].owned, both(0..KEYED));
    members.push(Joined::join(broker, &group, "b"));
    settle(&mut members, &[4, 4]).await;
    assert_eq!(members[0].owned, both(0..KEYED / 2));
    assert_eq!(members[1].owned, both(KEYED / 2..KEYED));
    drop(members.remove(0));
    settle(&mut members, &[8]).await;
    assert_eq!(members[0].owned, both(0..KEYED));
}

async fn a_commit_counts_until_the_partition_is_lost(broker: &dyn Broker, run: &str) {
    let group = format!("waypost.commit-{run}");
    let topics = vec![Topic::Positions];
    let committed =
        || async { within("offsets", broker.committed(group.clone(), topics.clone())).await.unwrap() };
    assert_eq!(committed().await, BTreeMap::new());
    let mut members = vec![Joined::join(broker, &group, "a")];
    settle(&mut members, &[8]).await;
    let first = members[0].member.committer();
    let all: BTreeMap<_, _> = run_of(Topic::Positions, 0..KEYED).map(|p| (p, 3)).collect();
    within("a commit", first.commit(all.clone())).await.unwrap();
    assert_eq!(committed().await, all);
    members.push(Joined::join(broker, &group, "b"));
    settle(&mut members, &[4, 4]).await;
    let theirs = partition(KEYED - 1);
    match within("a refusal", first.commit([(theirs, 5)].into())).await {
        Err(Error::Fenced { partition }) => assert_eq!(partition, theirs),
        other => panic!("{other:?} for a partition that another owns"),
    }
    within("a commit", first.commit([(partition(0), 4)].into())).await.unwrap();
    let second = members[1].member.committer();
    within("a commit", second.commit([(theirs, 5)].into())).await.unwrap();
    let expected: BTreeMap<_, _> =
        [4, 3, 3, 5].into_iter().zip(0..).map(|(o, p)| (partition(p), o)).collect();
    assert_eq!(committed().await, expected);
}

async fn an_instance_that_joins_again_replaces_the_first(broker: &dyn Broker, run: &str) {
    let group = format!("waypost.again-{run}");
    let mut first = vec![Joined::join(broker, &group, "a")];
    settle(&mut first, &[8]).await;
    let mut second = vec![Joined::join(broker, &group, "a")];
    settle(&mut second, &[8]).await;
    let told = async {
        loop {
            match first[0].member.next().await {
                Membership::Failed(error) => break error,
                Membership::Assigned(_) | Membership::Revoked { .. } => {}
            }
        }
    };
    let error = within("the end of the first", told).await.to_string();
    assert!(error.contains("--instance"), "{error}");
    let commit = within("a refusal", first[0].member.committer().commit([(partition(0), 1)].into())).await;
    assert!(matches!(commit, Err(Error::Fenced { .. })), "{commit:?}");
    within("a commit", second[0].member.committer().commit([(partition(0), 1)].into())).await.unwrap();
}

async fn a_group_counts_its_members_until_their_sessions_end(broker: &dyn Broker, run: &str) {
    let group = format!("waypost.count-{run}");
    let count = || async { within("members", broker.members(group.clone())).await.unwrap() };
    assert_eq!(count().await, 0);
    let mut members = vec![Joined::join(broker, &group, "a")];
    settle(&mut members, &[8]).await;
    assert_eq!(count().await, 1);
    members.push(Joined::join(broker, &group, "b"));
    settle(&mut members, &[4, 4]).await;
    assert_eq!(count().await, 2);
    drop(members);
    within("an empty group", async {
        while count().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::{super::memory::Cluster, *};

    #[tokio::test]
    async fn the_twin_keeps_the_contract() {
        check(Arc::new(Cluster::empty().connect("test")), "twin").await;
    }
}
