//! A member whose broker fences it, on librdkafka's own mock of a cluster.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use waypost_schemas::topic::{Topic, TopicPartition};

use super::{Broker, Config};
use crate::broker::{self, Broker as _, Error, GroupSpec, Membership};

const PARTITIONS: i32 = 3;

type Mock = MockCluster<'static, rdkafka::producer::DefaultProducerContext>;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(output) = tokio::time::timeout(Duration::from_mins(1), future).await else {
        panic!("{what} did not come");
    };
    output
}

fn all() -> BTreeSet<TopicPartition> {
    (0..PARTITIONS).map(|p| TopicPartition::new(Topic::Positions, p)).collect()
}

async fn assigned(member: &mut Box<dyn broker::Member>) {
    match within("an assignment", member.next()).await {
        Membership::Assigned(partitions) => {
            assert_eq!(partitions.into_iter().collect::<BTreeSet<_>>(), all());
        }
        other => panic!("{other:?}"),
    }
}

async fn lost(member: &mut Box<dyn broker::Member>) {
    match within("a revocation", member.next()).await {
        Membership::Revoked { partitions, lost: true, done } => {
            assert_eq!(partitions.into_iter().collect::<BTreeSet<_>>(), all());
            drop(done);
        }
        other => panic!("{other:?}"),
    }
}

async fn failed(member: &mut Box<dyn broker::Member>) {
    match within("an end", member.next()).await {
        Membership::Failed(error) => assert!(error.to_string().contains("--instance"), "{error}"),
        other => panic!("{other:?}"),
    }
}

fn commit(member: &dyn broker::Member) -> broker::Boxed<'static, Result<(), Error>> {
    let committer = member.committer();
    let offsets = all().into_iter().map(|p| (p, 0)).collect();
    Box::pin(async move { committer.commit(offsets).await })
}

/// The next heartbeat is refused as one of an instance that has joined again.
fn fence(cluster: &Mock) {
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID]);
}

fn cluster() -> (Mock, Box<dyn broker::Member>) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(Topic::Positions.name(), PARTITIONS, 1).unwrap();
    let broker = Broker::connect(Config::new(cluster.bootstrap_servers())).unwrap();
    let spec = GroupSpec {
        group: "waypost.test".to_owned(),
        instance: "a".to_owned(),
        topics: vec![Topic::Positions],
    };
    (cluster, broker.join(spec).unwrap())
}

#[tokio::test]
async fn a_member_that_is_fenced_while_its_connections_hold_has_been_replaced() {
    let (cluster, mut member) = cluster();
    assigned(&mut member).await;
    fence(&cluster);
    failed(&mut member).await;
    let commit = within("a refusal", commit(&*member)).await;
    assert!(matches!(commit, Err(Error::Fenced { .. })), "{commit:?}");
}

#[tokio::test]
async fn a_member_that_is_fenced_after_a_lost_connection_joins_again_once() {
    let (cluster, mut member) = cluster();
    assigned(&mut member).await;
    within("a commit", commit(&*member)).await.unwrap();
    // Whatever answers when the broker is up again, answers on a new connection.
    cluster.broker_down(1).unwrap();
    fence(&cluster);
    cluster.broker_up(1).unwrap();
    lost(&mut member).await;
    let refused = within("a refusal", commit(&*member)).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assigned(&mut member).await;
    within("a commit by the new client", commit(&*member)).await.unwrap();
    fence(&cluster);
    failed(&mut member).await;
}
