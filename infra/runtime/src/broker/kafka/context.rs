//! What librdkafka says of itself, in our log: an outage once, the rest for who debugs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Whether no broker can be reached, as the clients of a process find out together.
#[derive(Default)]
pub(super) struct Outage(AtomicBool);

impl Outage {
    fn begun(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!("no broker can be reached; waiting for one");
        }
    }

    /// A broker did what it was asked.
    pub(super) fn over(&self) {
        if self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("a broker answers again");
        }
    }
}

/// The context of a client that does nothing but log.
pub(super) struct Context(pub(super) Arc<Outage>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        error_event(&self.0, &error, reason);
    }
}

impl ConsumerContext for Context {}

/// librdkafka's lines repeat with every attempt to connect, and a fatal one comes as an error too; it is told where
/// that is handled.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    tracing::debug!(?level, facility, "librdkafka: {line}");
}

pub(super) fn error_event(outage: &Outage, error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::AllBrokersDown) => outage.begun(),
        _ => tracing::debug!(%error, "librdkafka: {reason}"),
    }
}
