use waypost_runtime::http::{Problem, codes};

use crate::{admission::Refusal, appender::Error, registry::Outcome};

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        count(refusal.code.as_str());
        let problem = Self::new(refusal.code.row()).detail(refusal.detail);
        match refusal.time {
            Some(now) => problem.time(now),
            None => problem,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let row = error.row();
        count(row.code);
        let problem = Self::new(row).detail(error.to_string());
        match error.retry_after_s() {
            Some(seconds) => problem.retry_after_s(seconds),
            None => problem,
        }
    }
}

fn count(code: &'static str) {
    metrics::counter!("waypost_ingest_refusals_total", "code" => code).increment(1);
}

/// The answer to a write of the registry: `{"id", "version", "changed"}`, or that there is nothing to remove.
pub(super) fn written(
    kind: &str,
    id: &str,
    outcome: Outcome,
) -> Result<axum::Json<serde_json::Value>, Problem> {
    let (version, changed) = match outcome {
        Outcome::Changed(version) => (version, true),
        Outcome::Same(version) => (version, false),
        Outcome::Absent => return Err(absent(kind, id)),
    };
    Ok(axum::Json(serde_json::json!({"id": id, "version": version, "changed": changed})))
}

pub(super) fn absent(kind: &str, id: &str) -> Problem {
    Problem::new(&codes::NOT_FOUND).detail(format!("there is no {kind} {id}"))
}
