//! What every response goes through: problems for what axum answers by itself, panics, and metrics.

use std::panic::AssertUnwindSafe;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::problem::{Problem, Told, codes};
use crate::clock::Clock;

/// Wraps a router: 404 and 405 become problems, a panic becomes a 500, and each request is counted and timed by
/// method, route template and status.
pub fn observe(router: Router, clock: Clock) -> Router {
    router
        .fallback(|| async { Problem::new(&codes::NOT_FOUND) })
        .layer(middleware::from_fn(move |request, next| watch(clock.clone(), request, next)))
}

async fn watch(clock: Clock, request: Request, next: Next) -> Response {
    let began = clock.monotonic();
    let method = known(request.method());
    // The template and never the path: a path is as many labels as clients like, and holds ids.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => as_problem(response),
        // The panic itself has been logged by the hook of `telemetry`.
        Err(_) => Problem::new(&codes::INTERNAL).into_response(),
    };
    let status = response.status().as_str().to_owned();
    let labels = [("method", method.to_owned()), ("route", route), ("status", status)];
    metrics::counter!("waypost_http_requests_total", &labels).increment(1);
    metrics::histogram!("waypost_http_request_seconds", &labels).record(clock.elapsed(began).as_secs_f64());
    if let Some(Told(code)) = response.extensions().get::<Told>() {
        metrics::counter!("waypost_http_problems_total", "code" => *code).increment(1);
    }
    response
}

/// What axum answers by itself (a method that is not allowed, a path or a query that cannot be read) as a problem.
fn as_problem(response: Response) -> Response {
    if response.extensions().get::<Told>().is_some() {
        return response;
    }
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::method_not_allowed(response.headers().get(header::ALLOW).cloned()).into_response()
        }
        StatusCode::BAD_REQUEST => Problem::new(&codes::BAD_REQUEST).into_response(),
        StatusCode::NOT_FOUND => Problem::new(&codes::NOT_FOUND).into_response(),
        _ => response,
    }
}

/// A method as a label; what clients make up is one label.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
