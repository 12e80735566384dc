use waypost_runtime::http::{Problem, codes};

use crate::{admission::Refusal, appender::Error, code::Code, registry::Outcome};

/// After how many seconds a request that met a busy or waiting node is sent again.
const RETRY_AFTER_S: u32 = 1;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        count(refusal.code.as_str());
        Self::new(refusal.code.row()).detail(refusal.detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = match &error {
            Error::Overloaded => Self::new(&codes::OVERLOADED).retry_after_s(RETRY_AFTER_S),
            Error::RegistryBehind => Self::new(Code::RegistryBehind.row()).retry_after_s(RETRY_AFTER_S),
            Error::Unavailable => Self::new(Code::LogUnavailable.row()).retry_after_s(RETRY_AFTER_S),
            Error::TooLarge { .. } => Self::new(Code::RecordTooLarge.row()).detail(error.to_string()),
            Error::Encoding => Self::new(&codes::INTERNAL),
        };
        count(problem.code().code);
        problem
    }
}

fn count(code: &'static str) {
    metrics::counter!("waypost_ingest_refusals_total", "code" => code).increment(1);
}

/// The answer to a write of the registry: `{"id", "version", "changed"}`, or that there is nothing to remove.
pub(super) fn written(id: &str, outcome: Outcome) -> Result<axum::Json<serde_json::Value>, Problem> {
    let (version, changed) = match outcome {
        Outcome::Changed(version) => (version, true),
        Outcome::Same(version) => (version, false),
        Outcome::Absent => return Err(absent()),
    };
    Ok(axum::Json(serde_json::json!({"id": id, "version": version, "changed": changed})))
}

pub(super) fn absent() -> Problem {
    Problem::new(&codes::NOT_FOUND).detail("there is nothing of that id")
}
