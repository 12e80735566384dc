//! What librdkafka's errors mean to a caller.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::Error;

/// The error of a request that failed; `what` was asked.
pub(super) fn of_request(what: &str, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => of_code(what, code),
        None => fatal(what, error),
    }
}

/// The error of a request that was answered with a code.
pub(super) fn of_code(what: &str, code: Code) -> Error {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Error::Fatal { what: format!("{what}: a topic is missing; create it with waypost topics apply") }
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::Fatal => fatal(what, code),
        _ => Error::Unavailable { what: format!("{what}: {code}") },
    }
}

/// The error of what cannot be mended by waiting.
pub(super) fn fatal(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Fatal { what: format!("{what}: {why}") }
}
