//! Whether a process lives and is ready: named checks, and the routes that tell them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;

use crate::{http::Json, lifecycle::Lifecycle, telemetry::Telemetry};

/// The checks of a process; a cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Check>>>);

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether this part can do its work.
    pub ready: bool,
    /// Why not, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Tells whether one part is ready; dropped, its check is taken off the list.
#[derive(Debug)]
pub struct Reporter {
    health: Health,
    name: String,
}

impl Health {
    /// Registers a check, which is not ready until it says so. A second one of the same name replaces the first.
    pub fn check(&self, name: impl Into<String>, reason: impl Into<String>) -> Reporter {
        let reporter = Reporter { health: self.clone(), name: name.into() };
        reporter.not_ready(reason);
        reporter
    }

    /// Every check by name.
    pub fn checks(&self) -> BTreeMap<String, Check> {
        self.lock().clone()
    }

    /// Whether all are ready.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|check| check.ready)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Check>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Says that this part can do its work.
    pub fn ready(&self) {
        self.set(&Check { ready: true, reason: None });
    }

    /// Says that this part cannot do its work now, and why.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(&Check { ready: false, reason: Some(reason.into()) });
    }

    fn set(&self, check: &Check) {
        let was = self.health.lock().insert(self.name.clone(), check.clone());
        if was.as_ref() != Some(check) {
            let reason = check.reason.as_deref().unwrap_or_default();
            tracing::debug!(check = self.name, ready = check.ready, reason, "readiness changed");
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.health.lock().remove(&self.name);
    }
}

/// `/livez`, `/readyz` (503 while a check is not ready, or the process is stopping) and `/metrics`.
pub fn router(health: Health, telemetry: Telemetry, lifecycle: Lifecycle) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(serde_json::json!({"live": true})) }))
        .route("/readyz", get(readyz).with_state((health, lifecycle)))
        .route("/metrics", get(metrics).with_state(telemetry))
}

async fn readyz(State((health, lifecycle)): State<(Health, Lifecycle)>) -> impl IntoResponse {
    let mut checks = health.checks();
    if lifecycle.is_stopping() {
        let reason = Some("the process is stopping".to_owned());
        checks.insert("lifecycle".to_owned(), Check { ready: false, reason });
    }
    let ready = checks.values().all(|check| check.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({"ready": ready, "checks": checks})))
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry.render())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        http::{Limits, testing::Server},
        lifecycle::Cause,
        telemetry,
    };

    #[tokio::test]
    async fn a_process_is_ready_when_all_its_checks_are_and_it_does_not_stop() {
        let telemetry = telemetry::init(telemetry::Format::Json, "off").unwrap();
        let (health, lifecycle) = (Health::default(), Lifecycle::new());
        let routes = router(health.clone(), telemetry, lifecycle.clone());
        let server = Server::start(routes, Limits::default()).await;
        let check = async |status: u16, checks: serde_json::Value| {
            let answer = server.get("/readyz", "").await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.json(), json!({"ready": status == 200, "checks": checks}));
        };
        check(200, json!({})).await;

        let registry = health.check("registry", "reads from the beginning");
        let postgres = health.check("postgres", "not asked yet");
        postgres.ready();
        check(
            503,
            json!({"postgres": {"ready": true}, "registry": {"ready": false, "reason": "reads from the beginning"}}),
        )
        .await;
        registry.ready();
        check(200, json!({"postgres": {"ready": true}, "registry": {"ready": true}})).await;
        postgres.not_ready("away");
        assert!(!health.is_ready());
        drop(postgres);
        check(200, json!({"registry": {"ready": true}})).await;

        lifecycle.stop(Cause::Asked("the test".to_owned()));
        let stopping = json!({"ready": false, "reason": "the process is stopping"});
        check(503, json!({"registry": {"ready": true}, "lifecycle": stopping})).await;
        assert_eq!(server.get("/livez", "").await.json(), json!({"live": true}));
    }

    #[tokio::test]
    async fn metrics_are_told_in_the_text_format() {
        let telemetry = telemetry::init(telemetry::Format::Json, "off").unwrap();
        metrics::counter!("waypost_health_test_total").increment(3);
        metrics::histogram!("waypost_health_test_seconds").record(0.02);
        let routes = router(Health::default(), telemetry, Lifecycle::new());
        let answer = Server::start(routes, Limits::default()).await.get("/metrics", "").await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        assert!(answer.body.contains("waypost_health_test_total 3"), "{}", answer.body);
        assert!(
            answer.body.contains("waypost_health_test_seconds_bucket{le=\"0.025\"} 1"),
            "{}",
            answer.body
        );
    }
}
