//! Refusals as RFC 9457 problem details, each with a stable code.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use waypost_schemas::time::Micros;

/// What begins the URI of a problem's type; RFC 9457 wants a URI, and no server has to answer it.
const TYPE_PREFIX: &str = "urn:waypost:problem:";

/// A kind of refusal: clients decide by its code, which never changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable code, `bad_json`.
    pub code: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// What it means, the same for every occurrence.
    pub title: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// The refusals that any route can give.
        pub mod codes {
            use super::{Code, StatusCode};
            $(
                #[doc = $title]
                pub static $name: Code = Code { code: $code, status: StatusCode::$status, title: $title };
            )*
        }
        /// Every refusal in [`codes`], for the documentation.
        pub static PROBLEMS: &[&Code] = &[$(&codes::$name),*];
    };
}

codes! {
    BAD_REQUEST = "bad_request", BAD_REQUEST, "The request cannot be understood.";
    BAD_JSON = "bad_json", BAD_REQUEST, "The body is not the JSON that this route takes.";
    BAD_UTF8 = "bad_utf8", BAD_REQUEST, "The body is not UTF-8.";
    BAD_CONTENT_TYPE = "bad_content_type", UNSUPPORTED_MEDIA_TYPE, "The body's content type is not application/json.";
    BODY_TOO_LARGE = "body_too_large", PAYLOAD_TOO_LARGE, "The body is larger than this route takes.";
    BODY_TOO_SLOW = "body_too_slow", REQUEST_TIMEOUT, "The body took too long to arrive.";
    TOKEN_MISSING = "token_missing", UNAUTHORIZED, "This route needs a token as Authorization: Bearer.";
    TOKEN_BAD = "token_bad", UNAUTHORIZED, "The token is not one that is taken here.";
    TOKEN_EXPIRED = "token_expired", UNAUTHORIZED, "The token was good, and is no longer.";
    FORBIDDEN = "forbidden", FORBIDDEN, "The token does not allow this.";
    NOT_FOUND = "not_found", NOT_FOUND, "There is nothing here.";
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, "This resource does not take that method.";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "Something went wrong here.";
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "This cannot be answered now; try again.";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, "Too much waits here; try again.";
    STOPPING = "stopping", SERVICE_UNAVAILABLE, "This node is stopping; try again.";
}

/// One refusal. Its detail goes to the client, and must not hold what the client may not know.
#[derive(Debug, Clone)]
pub struct Problem {
    code: &'static Code,
    detail: Option<String>,
    retry_after_s: Option<u32>,
    time: Option<Micros>,
    allow: Option<HeaderValue>,
}

impl Problem {
    /// A refusal of a kind.
    pub fn new(code: &'static Code) -> Self {
        Self { code, detail: None, retry_after_s: None, time: None, allow: None }
    }

    /// Says what was wrong this time, where, and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says after how many seconds to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Tells the server's time, to a client whose clock is wrong.
    #[must_use]
    pub fn time(mut self, now: Micros) -> Self {
        self.time = Some(now);
        self
    }

    /// The refusal's kind.
    pub fn code(&self) -> &'static Code {
        self.code
    }

    /// What was wrong this time.
    pub fn detail_text(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// A refusal of a method, with those that are allowed.
    pub(super) fn method_not_allowed(allow: Option<HeaderValue>) -> Self {
        Self { allow, ..Self::new(&codes::METHOD_NOT_ALLOWED) }
    }
}

impl From<&'static Code> for Problem {
    fn from(code: &'static Code) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Code { code, status, title } = self.code;
        let body = serde_json::json!({
            "type": format!("{TYPE_PREFIX}{code}"),
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail.as_deref().unwrap_or(title),
            "retry_after": self.retry_after_s,
            "time": self.time,
        });
        let body = match body {
            serde_json::Value::Object(mut members) => {
                members.retain(|_, value| !value.is_null());
                members
            }
            _ => serde_json::Map::new(),
        };
        let mut response = (*status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if *status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Told(code));
        response
    }
}

/// Marks a response that is a problem already, with its code for the metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told(pub(super) &'static str);

impl Code {
    /// A refusal of this kind, which needs no further detail.
    pub fn problem(&'static self) -> Problem {
        Problem::new(self)
    }
}
