//! Why a partition, and with it the process, cannot go on.

use std::ops::RangeInclusive;

use waypost_runtime::{broker, intake::Hole};
use waypost_schemas::{cause::Position, topic::TopicPartition};

use crate::registry::reader;

/// Why a runner stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker failed or refused.
    #[error("{machine}: the log cannot be read or written")]
    Broker {
        /// The machine.
        machine: &'static str,
        /// What went wrong.
        #[source]
        source: broker::Error,
    },
    /// Records of a topic that is folded are missing.
    #[error("{machine}: the log has a hole")]
    Hole {
        /// The machine.
        machine: &'static str,
        /// Where.
        #[source]
        source: Hole,
    },
    /// A record makes the machine panic; it will again, until it is skipped or the machine is mended.
    #[error(
        "{machine} cannot fold {position}: it panicked. Mend it with another version, or take the record out of what it \
         folds: stop every process that runs it, start waypost up --only ingest where nothing else takes it, then \
         waypost records skip --machine {machine} {position}"
    )]
    Panicked {
        /// The machine.
        machine: &'static str,
        /// The record.
        position: Position,
    },
    /// The registry asks for a behaviour that this version does not have.
    #[error(
        "{machine}: the registry sets its behaviour {number}, and this version of waypost has {} to {}: start a version \
         that has behaviour {number} of {machine}",
        known.start(),
        known.end()
    )]
    Behaviour {
        /// The machine.
        machine: &'static str,
        /// The number that is set.
        number: i32,
        /// The numbers that this version has.
        known: RangeInclusive<i32>,
    },
    /// The facts of the registry cannot be read.
    #[error("{machine}: the registry cannot be read to its end")]
    Facts {
        /// The machine.
        machine: &'static str,
        /// Why not.
        #[source]
        source: reader::Error,
    },
    /// The registry does not reach where a record asks for.
    #[error("{machine}: {partition} at offset {offset} needs the registry")]
    Registry {
        /// The machine.
        machine: &'static str,
        /// The partition.
        partition: TopicPartition,
        /// The offset of the record, or of the snapshot.
        offset: i64,
        /// Why it cannot be had.
        #[source]
        source: reader::Error,
    },
    /// The topic that the machine looks at does not reach where a record asks for.
    #[error(
        "{machine}: {partition} at offset {offset} asks for {looked} up to offset {asked}, but that ends at {end}: it \
         lost its end, or belongs to another log; put its records back, or start with the right cluster"
    )]
    BeyondEnd {
        /// The machine.
        machine: &'static str,
        /// The driving partition.
        partition: TopicPartition,
        /// The offset of the record that asks.
        offset: i64,
        /// The partition that is looked at.
        looked: TopicPartition,
        /// The offset asked for.
        asked: i64,
        /// The next offset to be written there.
        end: i64,
    },
    /// What is stored does not fit the log, and going on could lose or double records.
    #[error("{machine} does not start on {partition}")]
    Refused {
        /// The machine.
        machine: &'static str,
        /// The partition.
        partition: TopicPartition,
        /// What does not fit, and the way out.
        #[source]
        source: Refusal,
    },
    /// A test's planted crash.
    #[cfg(test)]
    #[error("planted crash")]
    Planted,
}

/// Why a stored state and a log do not belong together; each says the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The snapshot was made of another cluster's log.
    #[error(
        "the snapshot at {next} in {place} was made on cluster {found}, and this is cluster {here}: start with the \
         address of {found}, or remove the snapshots to fold this cluster's log from its beginning"
    )]
    OtherCluster {
        /// The snapshot's offset.
        next: i64,
        /// Where it is kept.
        place: &'static str,
        /// The cluster that it names.
        found: String,
        /// The cluster at hand.
        here: String,
    },
    /// The group's committed offset is gone.
    #[error(
        "the group {group} has no committed offset, though a snapshot at {next} exists, so the offset was deleted or \
         has expired: set it to {next} (kafka-consumer-groups.sh --group {group} --topic {partition} \
         --reset-offsets --to-offset {next} --execute), or remove the snapshots to begin anew"
    )]
    CommitMissing {
        /// The group.
        group: String,
        /// The partition as Kafka's tools write it, `positions:3`.
        partition: String,
        /// The offset of the newest snapshot.
        next: i64,
    },
    /// The log ends before what was read of it.
    #[error(
        "{what} says that the log was read up to {next}, but it ends at {high}: it lost its end or is another log; \
         restore it or start with the right address, or remove the snapshots and the group to begin anew"
    )]
    EndLost {
        /// The snapshot or the committed offset.
        what: &'static str,
        /// Up to where it was read.
        next: i64,
        /// Where it ends.
        high: i64,
    },
    /// The last record that a snapshot covers is another one now.
    #[error(
        "the record at {offset} is not the one that the snapshot after it covers: this is another log, or it was \
         changed; start with the right address, or remove the snapshots and the group to begin anew"
    )]
    Differs {
        /// The offset of the record.
        offset: i64,
    },
    /// What would have to be read was removed from the log.
    #[error(
        "the log begins at {low}, and reading must begin at {from}: no snapshot covers what was removed; restore one \
         or the log"
    )]
    Cut {
        /// The lowest offset there is.
        low: i64,
        /// Where reading must begin.
        from: i64,
    },
}
