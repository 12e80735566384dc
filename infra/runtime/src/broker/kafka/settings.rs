//! What librdkafka is told: what each kind of client needs, and what an operator may add.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::Config;
use crate::broker::{Error, GroupSpec};

/// How long a member may be silent before its partitions go to others, in milliseconds.
pub(super) const SESSION_MS: u64 = 6_000;

/// The largest record that a client handles: more than any topic takes, in bytes.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How much the broker gathers for a reader in bulk before it answers, or `fetch.wait.max.ms` is over, in bytes.
const BULK_FETCH_BYTES: &str = "65536";

/// Settings that a guarantee needs, or that Waypost sets from its own configuration.
const REFUSED: &[(&str, &str)] = &[
    ("acks", NO_GAPS),
    ("allow.auto.create.topics", CATALOGUE),
    ("auto.commit.interval.ms", COMMIT_LAST),
    ("auto.offset.reset", NO_JUMPS),
    ("batch.size", CATALOGUE),
    ("bootstrap.servers", OWN),
    ("client.id", OWN),
    ("delivery.timeout.ms", NO_GAPS),
    ("enable.auto.commit", COMMIT_LAST),
    ("enable.auto.offset.store", COMMIT_LAST),
    ("enable.gapless.guarantee", NO_GAPS),
    ("enable.idempotence", NO_GAPS),
    ("enable.partition.eof", OWN),
    ("group.id", GROUPS),
    ("group.instance.id", GROUPS),
    ("group.protocol", GROUPS),
    ("group.remote.assignor", GROUPS),
    ("heartbeat.interval.ms", GROUPS),
    ("isolation.level", NO_JUMPS),
    ("log.queue", OWN),
    ("max.in.flight", NO_GAPS),
    ("max.in.flight.requests.per.connection", NO_GAPS),
    ("max.poll.interval.ms", GROUPS),
    ("message.max.bytes", CATALOGUE),
    ("message.send.max.retries", NO_GAPS),
    ("message.timeout.ms", NO_GAPS),
    ("metadata.broker.list", OWN),
    ("partition.assignment.strategy", GROUPS),
    ("partitioner", "every key has its partition for life"),
    ("queue.buffering.max.kbytes", OWN),
    ("queue.buffering.max.messages", OWN),
    ("request.required.acks", NO_GAPS),
    ("retries", NO_GAPS),
    ("session.timeout.ms", GROUPS),
    ("transactional.id", NO_GAPS),
];
const NO_GAPS: &str = "appends must be idempotent and without gaps";
const NO_JUMPS: &str = "a reader must not jump over records";
const COMMIT_LAST: &str = "offsets are committed only after their effects are durable";
const GROUPS: &str = "groups have static members and range assignment";
const CATALOGUE: &str = "the topic catalogue says so";
const OWN: &str = "waypost sets it from its own configuration";

/// What a client that reads or appends gives up some of the other for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Favour {
    /// Each record as soon as may be.
    Latency,
    /// Few requests of many records.
    Throughput,
}

/// What every client is told.
pub(super) struct Settings {
    base: ClientConfig,
    bulk_linger: Duration,
    pub(super) replication_factor: i32,
}

impl Settings {
    pub(super) fn new(config: Config) -> Result<Self, Error> {
        refuse(&config.properties)?;
        let mut base = ClientConfig::new();
        base.set("reconnect.backoff.max.ms", "1000").set("socket.keepalive.enable", "true");
        base.set("socket.nagle.disable", "true").set("allow.auto.create.topics", "false");
        base.extend(config.properties);
        base.set("bootstrap.servers", config.bootstrap).set("client.id", config.client_id);
        base.set_log_level(RDKafkaLogLevel::Info);
        Ok(Self {
            base,
            bulk_linger: config.limits.bulk_linger,
            replication_factor: config.replication_factor,
        })
    }

    /// A client that only asks. Nobody polls it between requests, so it keeps its log lines to itself.
    pub(super) fn inquirer(&self, group: Option<&str>) -> ClientConfig {
        let mut config = self.base.clone();
        config.set("enable.auto.commit", "false").set_log_level(RDKafkaLogLevel::Emerg);
        if let Some(group) = group {
            config.set("group.id", group);
        }
        config
    }

    /// A client that fetches partitions from given offsets.
    pub(super) fn fetcher(&self, favour: Favour) -> ClientConfig {
        let mut config = self.base.clone();
        for (name, value) in [("fetch.wait.max.ms", "50"), ("fetch.queue.backoff.ms", "10")] {
            unless_set(&mut config, name, value);
        }
        if favour == Favour::Throughput {
            unless_set(&mut config, "fetch.min.bytes", BULK_FETCH_BYTES);
        }
        unless_set(&mut config, "queued.max.messages.kbytes", "8192");
        // librdkafka assigns within a group, which a client that only fetches never joins.
        config.set("group.id", "waypost.reader").set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        config
    }

    /// A client that takes part in a group, and fetches nothing.
    pub(super) fn member(&self, spec: &GroupSpec) -> ClientConfig {
        let mut config = self.base.clone();
        config.set("group.id", &spec.group).set("group.instance.id", &spec.instance);
        config.set("partition.assignment.strategy", "range");
        config.set("session.timeout.ms", SESSION_MS.to_string()).set("heartbeat.interval.ms", "1500");
        // How long a change of the group waits for one that beats its heart and does not answer.
        config.set("max.poll.interval.ms", "15000");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config
    }

    /// A client that appends: idempotent, in order, without gaps, waiting as long as it takes.
    pub(super) fn producer(&self, favour: Favour) -> ClientConfig {
        let mut config = self.base.clone();
        match favour {
            Favour::Latency => unless_set(&mut config, "linger.ms", "1"),
            Favour::Throughput => {
                config.set("linger.ms", self.bulk_linger.as_millis().to_string());
            }
        }
        config.set("acks", "all").set("enable.idempotence", "true").set("enable.gapless.guarantee", "true");
        config.set("max.in.flight", "1").set("message.timeout.ms", "0").set("partitioner", "murmur2_random");
        config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
        // The permits of the producer bound its queue; librdkafka's own bound only gets out of the way.
        config.set("queue.buffering.max.messages", "0").set("queue.buffering.max.kbytes", "1048576");
        config
    }
}

fn unless_set(config: &mut ClientConfig, name: &str, value: &str) {
    if config.get(name).is_none() {
        config.set(name, value);
    }
}

fn refuse(properties: &BTreeMap<String, String>) -> Result<(), Error> {
    let refused = REFUSED.iter().find(|(name, _)| properties.contains_key(*name));
    match refused {
        Some((name, why)) => Err(Error::Fatal {
            what: format!("kafka.properties must not set {name}: {why}; take the line out"),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<Settings, Error> {
        let properties = [(name.to_owned(), value.to_owned())].into();
        Settings::new(Config { properties, ..Config::new("localhost:9092") })
    }

    #[test]
    fn what_a_guarantee_needs_is_refused_by_name() {
        for (name, _) in REFUSED {
            let error = check(name, "1").err().expect("refused").to_string();
            assert!(error.contains(&format!("must not set {name}: ")), "{error}");
        }
        assert!(REFUSED.is_sorted());
    }

    #[test]
    fn the_rest_passes_through_and_beats_a_default() {
        let settings = check("linger.ms", "7").unwrap();
        assert_eq!(settings.producer(Favour::Latency).get("linger.ms"), Some("7"));
        assert_eq!(
            check("security.protocol", "ssl").unwrap().fetcher(Favour::Latency).get("security.protocol"),
            Some("ssl")
        );
    }
}
