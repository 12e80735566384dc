//! What the twin does wrong when it is told to.

use std::{collections::BTreeSet, future::Future, task::Poll};

use bytes::Bytes;
use waypost_schemas::{
    time::Micros,
    topic::{Topic, TopicPartition},
};

use super::{
    super::{Broker as _, Delivery, Error, GroupSpec, Member, Membership, Outgoing, Producer},
    Cluster,
};

const POSITIONS: TopicPartition = TopicPartition { topic: Topic::Positions, partition: 0 };
const MATCHES: TopicPartition = TopicPartition { topic: Topic::Matches, partition: 0 };

fn record(to: TopicPartition, value: &'static str) -> Outgoing {
    Outgoing { to, key: None, value: Some(Bytes::from_static(value.as_bytes())), headers: Vec::new() }
}

fn values(cluster: &Cluster, of: TopicPartition) -> Vec<Bytes> {
    cluster.records(of).into_iter().filter_map(|r| r.value).collect()
}

async fn send(producer: &dyn Producer, records: &[(TopicPartition, &'static str)]) -> Delivery {
    let records = records.iter().map(|(to, value)| record(*to, value)).collect();
    producer.send(records).await.unwrap()
}

/// What a future gives now, if anything.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn join(cluster: &Cluster, process: &str) -> Box<dyn Member> {
    let spec = GroupSpec {
        group: "waypost.test".to_owned(),
        instance: process.to_owned(),
        topics: vec![Topic::Positions],
    };
    cluster.connect(process).join(spec).unwrap()
}

/// What a member owns after it has heard all that there is to hear.
async fn owned(member: &mut Box<dyn Member>, mut owned: BTreeSet<i32>) -> BTreeSet<i32> {
    while let Some(news) = now(member.next()).await {
        match news {
            Membership::Assigned(partitions) => owned = partitions.iter().map(|p| p.partition).collect(),
            Membership::Revoked { .. } => owned.clear(),
            Membership::Failed(error) => panic!("{error}"),
        }
    }
    owned
}

#[tokio::test]
async fn what_is_held_lands_when_told_even_after_a_crash() {
    let cluster = Cluster::new(2);
    let producer = cluster.connect("old").producer().unwrap();
    cluster.set_held("old", true);
    let mut delivery = send(&*producer, &[(POSITIONS, "1"), (MATCHES, "2"), (POSITIONS, "3")]).await;
    assert!(now(&mut delivery).await.is_none());
    assert_eq!(cluster.land("old", POSITIONS, 1), 1);
    cluster.crash("old");
    let next = cluster.connect("old").producer().unwrap();
    cluster.append(record(POSITIONS, "between")).unwrap();
    assert_eq!(cluster.land("old", POSITIONS, 9), 1);
    assert_eq!(values(&cluster, POSITIONS), ["1", "between", "3"]);
    cluster.lose_held("old");
    cluster.set_held("old", false);
    assert_eq!(values(&cluster, MATCHES), Vec::<Bytes>::new());
    assert!(now(delivery).await.is_none(), "a dead process hears nothing");
    assert_eq!(send(&*next, &[(MATCHES, "4")]).await.await.unwrap()[0].offset, 0);
}

#[tokio::test]
async fn a_record_lands_twice_and_a_refusal_is_the_end_of_its_producer() {
    let cluster = Cluster::new(2);
    let broker = cluster.connect("p");
    let producer = broker.producer().unwrap();
    cluster.double_next("p");
    send(&*producer, &[(POSITIONS, "1"), (POSITIONS, "2")]).await.await.unwrap();
    assert_eq!(values(&cluster, POSITIONS), ["1", "1", "2"]);
    cluster.refuse_next("p");
    let refused = send(&*producer, &[(POSITIONS, "3")]).await.await;
    assert!(matches!(refused, Err(Error::Fatal { .. })));
    assert!(matches!(producer.send(vec![record(POSITIONS, "4")]).await, Err(Error::Fatal { .. })));
    assert!(matches!(producer.flush().await, Err(Error::Fatal { .. })));
    send(&*broker.producer().unwrap(), &[(POSITIONS, "5")]).await.await.unwrap();
    assert_eq!(values(&cluster, POSITIONS), ["1", "1", "2", "5"]);
}

#[tokio::test]
async fn while_the_broker_is_away_all_waits_and_nothing_is_lost() {
    let cluster = Cluster::new(2);
    let broker = cluster.connect("p");
    let producer = broker.producer().unwrap();
    let mut feed = broker.reader().unwrap().open(POSITIONS, 0).unwrap();
    cluster.set_away(true);
    let mut delivery = send(&*producer, &[(POSITIONS, "1")]).await;
    assert!(now(&mut delivery).await.is_none());
    assert!(now(feed.next()).await.is_none());
    assert!(matches!(broker.bounds(vec![Topic::Positions]).await, Err(Error::Unavailable { .. })));
    cluster.set_time(Micros(7));
    cluster.set_away(false);
    assert_eq!(delivery.await.unwrap()[0].offset, 0);
    assert_eq!(feed.next().await.unwrap().records[0].append, Micros(7));
}

#[tokio::test]
async fn a_log_that_lost_an_end_refuses_its_reader() {
    let cluster = Cluster::new(1);
    for _ in 0..5 {
        cluster.append(record(POSITIONS, "x")).unwrap();
    }
    let reader = cluster.connect("p").reader().unwrap();
    let mut feed = reader.open(POSITIONS, 5).unwrap();
    assert!(feed.next().await.unwrap().at_end);
    cluster.lose_end(POSITIONS, 3);
    cluster.cut(POSITIONS, 1);
    let refused = feed.next().await.unwrap_err();
    assert!(matches!(refused, Error::OutOfRange { offset: 5, low: 1, high: 3, .. }), "{refused}");
}

#[tokio::test]
async fn a_zombie_appends_cannot_commit_and_comes_back() {
    let cluster = Cluster::new(4);
    let (mut a, mut b) = (join(&cluster, "a"), join(&cluster, "b"));
    assert_eq!(owned(&mut a, BTreeSet::new()).await.len(), 2);
    assert_eq!(owned(&mut b, BTreeSet::new()).await.len(), 2);
    cluster.set_suspended("a", true);
    cluster.expire("a");
    assert_eq!(owned(&mut b, BTreeSet::new()).await.len(), 4);
    assert!(now(a.next()).await.is_none());
    let commit = a.committer().commit([(POSITIONS, 1)].into()).await;
    assert!(matches!(commit, Err(Error::Fenced { partition: POSITIONS })));
    let producer = cluster.connect("a").producer().unwrap();
    send(&*producer, &[(MATCHES, "from a zombie")]).await.await.unwrap();
    cluster.set_suspended("a", false);
    match now(a.next()).await {
        Some(Membership::Revoked { lost: true, partitions, .. }) => assert_eq!(partitions.len(), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(owned(&mut b, (0..4).collect()).await.len(), 2);
    assert_eq!(owned(&mut a, BTreeSet::new()).await.len(), 2);
    a.committer().commit([(POSITIONS, 1)].into()).await.unwrap();
}

#[tokio::test]
async fn a_crashed_instance_takes_its_partitions_back_or_loses_them_with_its_session() {
    let cluster = Cluster::new(4);
    let (mut a, mut b) = (join(&cluster, "a"), join(&cluster, "b"));
    owned(&mut a, BTreeSet::new()).await;
    let of_b = owned(&mut b, BTreeSet::new()).await;
    owned(&mut a, BTreeSet::new()).await;
    cluster.crash("a");
    assert!(now(a.next()).await.is_none());
    let mut again = join(&cluster, "a");
    assert_eq!(owned(&mut again, BTreeSet::new()).await, [0, 1].into());
    assert!(now(b.next()).await.is_none(), "the other hears nothing of it");
    cluster.crash("a");
    cluster.expire("a");
    assert_eq!(owned(&mut b, of_b).await.len(), 4);
}
