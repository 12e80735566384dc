//! What a partition's task tells of itself.

use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};

/// The metrics of one partition of a machine.
pub(super) struct Measures {
    machine: &'static str,
    applied: Counter,
    snapshot_age: Gauge,
}

impl Measures {
    pub(super) fn new(machine: &'static str, partition: i32) -> Self {
        let partition = partition.to_string();
        Self {
            machine,
            applied: counter!("waypost_machine_records_total", "machine" => machine),
            snapshot_age: gauge!("waypost_snapshot_age_seconds", "machine" => machine, "partition" => partition),
        }
    }

    /// So many records of the driving topic were folded.
    pub(super) fn applied(&self, records: usize) {
        self.applied.increment(records as u64);
    }

    /// A record became a dead letter.
    pub(super) fn buried(&self, code: &'static str) {
        counter!("waypost_dead_letters_total", "machine" => self.machine, "code" => code).increment(1);
    }

    /// So long ago the last snapshot was taken.
    pub(super) fn snapshot_age(&self, age: Duration) {
        self.snapshot_age.set(age.as_secs_f64());
    }
}

/// How far a partition is behind the end of its driving topic, in records.
pub(super) fn lag(machine: &'static str, partition: i32, records: i64) {
    let partition = partition.to_string();
    gauge!("waypost_machine_lag_records", "machine" => machine, "partition" => partition).set(records as f64);
}
