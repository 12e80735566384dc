//! Tries the broker seam on a real Kafka: its contract, its speed, a member to be stopped and woken, or a stream that
//! must outlive the broker.
//!
//! `cargo run -p waypost-runtime --features contract --example broker -- contract 127.0.0.1:9092`

#![allow(clippy::disallowed_methods, reason = "an example times what it does, and owns its tasks")]

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use waypost_runtime::broker::{
    Broker, Error, GroupSpec, Membership, Outgoing, contract,
    kafka::{self, Config},
    topics,
};
use waypost_schemas::topic::{Topic, TopicPartition};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (what, address, rest) = match &arguments[..] {
        [what, address, rest @ ..] => (what.as_str(), address, rest),
        _ => usage(),
    };
    let mut config = Config::new(address);
    let (properties, rest): (Vec<_>, Vec<_>) = rest.iter().partition(|argument| argument.contains('='));
    config
        .properties
        .extend(properties.into_iter().filter_map(|p| p.split_once('=')).map(|(n, v)| (n.into(), v.into())));
    let broker: Arc<dyn Broker> = Arc::new(kafka::Broker::connect(config.clone()).expect("settings"));
    match (what, &rest[..]) {
        ("contract", []) => {
            contract::check(broker, &process::id().to_string()).await;
            kafka::bare::check_partitioner(config, contract::KEYED);
        }
        ("bench", []) => bench(&*broker, config).await.expect("bench"),
        ("member", [group, instance]) => member(&*broker, group, instance).await,
        ("stream", [seconds]) => stream(broker, seconds.parse().expect("seconds")).await.expect("stream"),
        _ => usage(),
    }
    println!("done");
}

fn usage() -> ! {
    eprintln!(
        "broker (contract | bench | member GROUP INSTANCE | stream SECONDS), each with HOST:PORT second"
    );
    process::exit(2)
}

fn partition(partition: i32) -> TopicPartition {
    TopicPartition::new(Topic::Positions, partition)
}

fn record(to: i32, value: Bytes) -> Outgoing {
    let key = Some(Bytes::from_static(b"stork-17"));
    Outgoing { to: partition(to), key, value: Some(value), headers: Vec::new() }
}

/// Appends and reads a million records of 200 bytes, and times single appends.
async fn bench(broker: &dyn Broker, config: Config) -> Result<(), Error> {
    const BATCHES: usize = 1_000;
    const BATCH: usize = 1_000;
    topics::apply(broker, contract::KEYED).await?;
    let value = Bytes::from(vec![7; 200]);
    let producer = broker.producer()?;
    let from = broker.bounds(vec![Topic::Positions]).await?;
    let began = Instant::now();
    let mut deliveries = Vec::new();
    for _ in 0..BATCHES {
        let batch = (0..BATCH as i32).map(|i| record(i % contract::KEYED, value.clone())).collect();
        deliveries.push(producer.send(batch).await?);
    }
    for delivery in join_all(deliveries).await {
        delivery?;
    }
    let per_second = |began: Instant| (BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64();
    println!("appended {:.0} records of 200 bytes a second", per_second(began));
    let began = Instant::now();
    kafka::bare::append(config, &value, BATCHES * BATCH, contract::KEYED);
    println!("librdkafka alone appended {:.0} a second", per_second(began));

    let reader = broker.reader()?;
    let began = Instant::now();
    let mut feeds: Vec<_> = (0..contract::KEYED)
        .map(|p| reader.open(partition(p), from[&partition(p)].high))
        .collect::<Result<_, _>>()?;
    let share = BATCHES * BATCH / contract::KEYED as usize;
    let reads = feeds.iter_mut().map(|feed| async move {
        let mut count = 0;
        while count < share {
            count += feed.next().await?.records.len();
        }
        Ok::<_, Error>(())
    });
    for read in join_all(reads).await {
        read?;
    }
    println!("read {:.0} records a second", per_second(began));

    for (rate, batch) in [(500, 1), (5_000, 10), (60_000, 120)] {
        let mut delays = paced(&*producer, &value, rate, batch).await?;
        delays.sort();
        let at = |percent: usize| delays[(delays.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!("at {rate} a second: acknowledged after {:.1} ms (p50), {:.1} ms (p99)", at(50), at(99));
    }
    Ok(())
}

/// Appends at a rate for five seconds; returns how long each batch took.
async fn paced(
    producer: &dyn waypost_runtime::broker::Producer,
    value: &Bytes,
    rate: u32,
    batch: u32,
) -> Result<Vec<Duration>, Error> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * batch / rate);
    let mut waiting = tokio::task::JoinSet::new();
    for i in 0..rate / batch * 5 {
        ticks.tick().await;
        let began = Instant::now();
        let to = i as i32 % contract::KEYED;
        let delivery = producer.send((0..batch).map(|_| record(to, value.clone())).collect()).await?;
        waiting.spawn(async move { delivery.await.map(|_| began.elapsed()) });
    }
    waiting.join_all().await.into_iter().collect()
}

/// Takes part in a group, commits every second, and tells what it hears.
async fn member(broker: &dyn Broker, group: &str, instance: &str) {
    topics::apply(broker, contract::KEYED).await.expect("topics");
    let spec =
        GroupSpec { group: group.to_owned(), instance: instance.to_owned(), topics: vec![Topic::Positions] };
    let mut member = broker.join(spec).expect("join");
    let committer = member.committer();
    let mut owned = Vec::new();
    let mut offset = 0;
    loop {
        tokio::select! {
            news = member.next() => {
                println!("heard {news:?}");
                match news {
                    Membership::Assigned(partitions) => owned = partitions,
                    Membership::Revoked { .. } => {}
                    Membership::Failed(_) => return,
                }
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                offset += 1;
                let committed = committer.commit(owned.iter().map(|p| (*p, offset)).collect()).await;
                println!("committed {offset} of {} partitions: {committed:?}", owned.len());
            }
        }
    }
}

/// Appends numbers to a partition and reads them back, and checks that none is missing and none comes twice.
async fn stream(broker: Arc<dyn Broker>, seconds: u64) -> Result<(), Error> {
    topics::apply(&*broker, contract::KEYED).await?;
    let from = broker.bounds(vec![Topic::Positions]).await?[&partition(0)].high;
    let producer = broker.producer()?;
    let write = async {
        let began = Instant::now();
        let mut number = 0_u64;
        while began.elapsed() < Duration::from_secs(seconds) {
            let batch = (number..number + 100).map(|n| record(0, Bytes::from(n.to_string()))).collect();
            producer.send(batch).await?.await?;
            number += 100;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok::<_, Error>(number)
    };
    let mut feed = broker.reader()?.open(partition(0), from)?;
    let mut written = None;
    let mut expected = 0_u64;
    tokio::pin!(write);
    while written != Some(expected) {
        tokio::select! {
            number = &mut write, if written.is_none() => written = Some(number?),
            batch = feed.next() => for record in batch?.records {
                assert_eq!(record.value, Some(Bytes::from(expected.to_string())), "at offset {}", record.offset);
                expected += 1;
            },
        }
    }
    println!("read all {expected} numbers in order, none twice");
    Ok(())
}
