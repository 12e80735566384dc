//! JSON request bodies, bounded in size and time, whose failures are problems.

use axum::{
    Extension,
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::{
    problem::{Problem, codes},
    server::Limits,
};

/// How many times its limit a body that is too large is still read and thrown away: a client that is not read cannot
/// read what it is told either.
const DISCARD_TIMES: usize = 4;
/// The longest detail about a broken body, in bytes: the parser repeats what it met.
const DETAIL_BYTES_MAX: usize = 300;

/// How large a route's body may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BodyBytesMax(pub usize);

/// A layer that gives routes their own limit of a body's size, in bytes.
pub fn body_bytes_max(bytes: usize) -> Extension<BodyBytesMax> {
    Extension(BodyBytesMax(bytes))
}

/// A JSON body; as a response it is written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: serde::Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        serde_json::from_slice(&json_bytes(request).await?).map(Self).map_err(|error| {
            let mut detail = error.to_string();
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            Problem::new(&codes::BAD_JSON).detail(detail)
        })
    }
}

/// The bytes of a JSON body, for who reads them by itself: the content type is JSON's, size and time are within the
/// route's bounds, and it is UTF-8.
pub async fn json_bytes(request: Request) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(codes::BAD_CONTENT_TYPE.problem());
    }
    let body = read(request).await?;
    match std::str::from_utf8(&body) {
        Ok(_) => Ok(body),
        Err(error) => {
            let detail = format!("byte {} of the body is not UTF-8", error.valid_up_to());
            Err(Problem::new(&codes::BAD_UTF8).detail(detail))
        }
    }
}

/// Whether the content type is `application/json` or another of JSON's (`application/geo+json`).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    let limits = parts.extensions.get::<Limits>().copied().unwrap_or_default();
    let bytes_max = parts.extensions.get::<BodyBytesMax>().map_or(limits.request_bytes_max, |max| max.0);
    let too_large =
        || Problem::new(&codes::BODY_TOO_LARGE).detail(format!("a body is at most {bytes_max} bytes"));

    let announced = body.size_hint().lower();
    let waits_for_leave = parts.headers.contains_key(header::EXPECT);
    let discard_max = bytes_max.saturating_mul(DISCARD_TIMES);
    if announced > discard_max as u64 || (waits_for_leave && announced > bytes_max as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(limits.body_timeout, collect(body, bytes_max, discard_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(&codes::BAD_REQUEST).detail("the body broke off")),
        Err(_) => Err(codes::BODY_TOO_SLOW.problem()),
    }
}

/// The whole body, or `None` where it is larger than `bytes_max`.
async fn collect(body: Body, bytes_max: usize, discard_max: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut stream = body.into_data_stream();
    let mut all = BytesMut::new();
    let mut seen: usize = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        seen = seen.saturating_add(chunk.len());
        if seen > discard_max {
            return Ok(None);
        }
        if seen <= bytes_max {
            all.extend_from_slice(&chunk);
        }
    }
    Ok((seen <= bytes_max).then(|| all.freeze()))
}
