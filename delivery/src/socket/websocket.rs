//! `GET /v1/socket`: the handshake of RFC 6455, section 4.2, and then a session.

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::time::timeout;
use waypost_runtime::{
    auth::Identity,
    http::{Code, Problem, codes},
};
use waypost_schemas::frame::SUBPROTOCOL;

use super::{Doors, live};
use crate::registry::Full;

pub(super) static UPGRADE_REQUIRED: Code = Code {
    code: "upgrade_required",
    status: StatusCode::UPGRADE_REQUIRED,
    title: "This resource speaks WebSocket only, of version 13.",
};

pub(super) static BAD_SUBPROTOCOL: Code = Code {
    code: "bad_subprotocol",
    status: StatusCode::BAD_REQUEST,
    title: "The client does not offer the subprotocol waypost.v1.",
};

/// What a key is hashed with (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What begins a subprotocol that is a token, for browsers, which can set no other header.
const BEARER: &str = "bearer.";
/// After how many seconds a client comes again that found no place.
const RETRY_AFTER_S: u32 = 5;

pub(super) async fn open(State(doors): State<Doors>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    match shake(&doors, &mut parts).await {
        Ok(response) => response,
        Err(problem) => {
            let mut response = problem.into_response();
            if response.status() == StatusCode::UPGRADE_REQUIRED {
                let headers = response.headers_mut();
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            response
        }
    }
}

async fn shake(doors: &Doors, parts: &mut Parts) -> Result<Response, Problem> {
    let identity = identity(doors, parts).await?;
    let accept = accept(&parts.headers)?;
    if !subprotocols(&parts.headers).any(|offered| offered == SUBPROTOCOL) {
        return Err(BAD_SUBPROTOCOL.problem());
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| UPGRADE_REQUIRED.problem())?;
    let place = doors.node.connections.place().map_err(|full| match full {
        Full::Sessions => codes::OVERLOADED.problem().retry_after_s(RETRY_AFTER_S),
        Full::Stopping => codes::STOPPING.problem().retry_after_s(RETRY_AFTER_S),
    })?;
    let (node, sessions) = (doors.node.clone(), doors.sessions.clone());
    doors.sessions.spawn(async move {
        if let Ok(Ok(stream)) = timeout(node.settings.hello_timeout, upgrade).await {
            // A task of its own: this one is as large as the handshake.
            sessions.spawn(live::serve(node, identity, place, TokioIo::new(stream)));
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Who it is, by the header or, where there is none, by the subprotocol.
async fn identity(doors: &Doors, parts: &mut Parts) -> Result<Identity, Problem> {
    if !parts.headers.contains_key(header::AUTHORIZATION) {
        let token = subprotocols(&parts.headers).find_map(|offered| offered.strip_prefix(BEARER));
        if let Some(token) = token {
            let auth = &doors.node.auth;
            return Ok(auth.keys.verify(token, auth.clock.now())?);
        }
    }
    Identity::from_request_parts(parts, doors).await
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// Checks the handshake, and gives the answer to its key.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let names = |name, wanted: &str| {
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|named| named.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = names(header::CONNECTION, "upgrade") && names(header::UPGRADE, "websocket");
    if !asks || !names(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(UPGRADE_REQUIRED.problem());
    }
    let bad_key = || Problem::new(&codes::BAD_REQUEST).detail("Sec-WebSocket-Key is no base64 of 16 bytes");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(bad_key)?.as_bytes();
    if BASE64.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(bad_key());
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::try_from(BASE64.encode(hash)).map_err(|_| codes::INTERNAL.problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn answer(
        key: &'static str,
        connection: &'static str,
        version: &'static str,
    ) -> Result<String, &'static str> {
        let lines = [
            ("connection", connection),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", version),
            ("sec-websocket-key", key),
        ];
        let accepted = accept(&headers(&lines)).map_err(|problem| problem.code().code)?;
        Ok(accepted.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        // The example of RFC 6455, 1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(answer(key, "keep-alive, Upgrade", "13"), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()));
        assert_eq!(answer(key, "keep-alive", "13"), Err("upgrade_required"));
        assert_eq!(answer(key, "upgrade", "8"), Err("upgrade_required"));
        assert_eq!(answer("c2hvcnQ=", "upgrade", "13"), Err("bad_request"));
        assert_eq!(answer("?", "upgrade", "13"), Err("bad_request"));
    }
}
