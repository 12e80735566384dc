//! A client of a running stack's HTTP routes: what the commands talk through.
//!
//! Plain HTTP only: this build carries no TLS for it, and an `https` address is refused with a word on that.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use waypost_schemas::time::Micros;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take: longer than the stack itself waits for its broker, so that its answer is heard.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest text of a foreign answer that is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// How a command finds the stack, and as whom it speaks.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The stack")]
pub struct Options {
    /// Address of the stack
    #[arg(long, value_name = "URL", env = "WAYPOST_URL", default_value = "http://127.0.0.1:7400")]
    pub url: String,
    /// Bearer token; default: the file `operator.token` in the data directory
    #[arg(long, value_name = "TOKEN", env = "WAYPOST_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// Data directory of the stack, for its `operator.token`
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR", default_value = ".waypost")]
    pub data_dir: PathBuf,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The value of an `Authorization` header, which is not shown either.
    pub(crate) fn bearer(&self) -> Result<header::HeaderValue, Error> {
        let mut bearer =
            header::HeaderValue::try_from(format!("Bearer {}", self.0)).map_err(|_| Error::BadToken)?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A refusal of the stack (RFC 9457), with what Waypost adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// The stable code, `place_range`.
    #[serde(default = "unnamed")]
    pub code: String,
    /// What was wrong, for a person.
    #[serde(default)]
    pub detail: String,
    /// Which element of the request was wrong, counted from 0.
    #[serde(default)]
    pub index: Option<usize>,
    /// After how many seconds to try again.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// The server's time, where the client's is wrong.
    #[serde(default)]
    pub time: Option<Micros>,
}

impl Problem {
    /// Which fix of a report was wrong, counted from 0: by its index, or by the detail's `fixes[7]`.
    pub fn fix(&self) -> Option<usize> {
        let named = || self.detail.split_once("fixes[")?.1.split_once(']')?.0.parse().ok();
        self.index.or_else(named)
    }
}

fn unnamed() -> String {
    "refused".to_owned()
}

/// Why a request brought no answer, or another than hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none, or one that this build cannot speak to.
    #[error("the address {url:?} cannot be used: {why}")]
    Address {
        /// The address.
        url: String,
        /// Why, and what to do.
        why: String,
    },
    /// There is no token to speak with.
    #[error(
        "no token: {path} cannot be read; name the stack's data directory with --data-dir, or give --token",
        path = path.display()
    )]
    NoToken {
        /// Where it was looked for.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The token has characters that no HTTP header can carry.
    #[error("the token is not one: it has characters that no header can carry")]
    BadToken,
    /// An id that no URL can carry, because dots stand for folders there.
    #[error("the id {0:?} cannot stand in a URL")]
    Dots(String),
    /// The stack did not answer; trying again may help.
    #[error("the stack at {url} does not answer; start it with `waypost up`, or name its address with --url")]
    Away {
        /// The stack's address.
        url: String,
        /// What happened underneath.
        #[source]
        source: reqwest::Error,
    },
    /// The stack refused the request.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// What answered is no Waypost, or a newer one.
    #[error("the answer of {url} is not understood; is that a waypost of this version?")]
    Foreign {
        /// The whole address.
        url: String,
        /// What could not be read.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Whether trying again may help, and after how long at least: the stack is away, starting, or busy.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { .. } => Some(Duration::ZERO),
            Self::Refused(problem) if problem.status >= 500 || matches!(problem.status, 408 | 429) => {
                Some(Duration::from_secs(problem.retry_after.unwrap_or(0)))
            }
            _ => None,
        }
    }

    /// The refusal, where it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// A connection pool to one stack, with a token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// Checks the address and reads the token; connects with the first request.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let token = match options.token.clone() {
            Some(token) => token,
            None => token_of(&options.data_dir)?,
        };
        Self::with_token(&options.url, &token)
    }

    /// Speaks with another token.
    pub fn with_token(url: &str, token: &Secret) -> Result<Self, Error> {
        let base = base(url)?;
        let bearer = token.bearer()?;
        let http = reqwest::Client::builder()
            .default_headers(header::HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]))
            .user_agent(concat!("waypost/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|e| Error::Address { url: url.to_owned(), why: e.to_string() })?;
        Ok(Self { http, base })
    }

    /// The stack's address.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Gets a JSON answer. Path segments are percent-encoded here.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, Error> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.answer(Method::GET, url, None).await
    }

    /// Reads what a document of the stack says.
    pub fn understand<T: DeserializeOwned>(&self, document: &serde_json::Value) -> Result<T, Error> {
        T::deserialize(document).map_err(|source| Error::Foreign { url: self.address().to_owned(), source })
    }

    /// Puts a JSON body.
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("the commands' bodies are plain data");
        self.answer(Method::PUT, self.url(path)?, Some(body.into())).await
    }

    /// Posts a JSON body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("the commands' bodies are plain data");
        self.answer(Method::POST, self.url(path)?, Some(body.into())).await
    }

    /// Posts JSON text, and reads of the answer only whether it is one of success.
    pub async fn post_text(&self, path: &[&str], body: Bytes) -> Result<(), Error> {
        self.send(Method::POST, self.url(path)?, Some(body)).await.map(drop)
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        self.send(Method::DELETE, self.url(path)?, None).await.map(drop)
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        if let Some(dots) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            return Err(Error::Dots((*dots).to_owned()));
        }
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(path);
        Ok(url)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<Bytes>,
    ) -> Result<T, Error> {
        let shown = url.to_string();
        let answer = self.send(method, url, body).await?;
        serde_json::from_slice(&answer).map_err(|source| Error::Foreign { url: shown, source })
    }

    async fn send(&self, method: Method, url: Url, body: Option<Bytes>) -> Result<Bytes, Error> {
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let away =
            |e: reqwest::Error| Error::Away { url: self.address().to_owned(), source: e.without_url() };
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let waits = retry_after(response.headers());
        let body = response.bytes().await.map_err(away)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(Error::Refused(problem(status, waits, &body)))
    }
}

/// The operator's token, which a stack writes to its data directory.
fn token_of(data_dir: &Path) -> Result<Secret, Error> {
    let path = data_dir.join("operator.token");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Secret(text.trim().to_owned())),
        Err(source) => Err(Error::NoToken { path, source }),
    }
}

fn base(text: &str) -> Result<Url, Error> {
    let refuse = |why: &str| Error::Address { url: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|e| refuse(&format!("{e}; it looks like http://127.0.0.1:7400")))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "https" => Err(refuse(
            "this build speaks plain http only; put the stack behind a local proxy that ends TLS, or use http",
        )),
        _ => Err(refuse("it looks like http://127.0.0.1:7400")),
    }
}

/// The address of the WebSocket of a stack.
pub(crate) fn socket(stack: &str) -> Result<Url, Error> {
    let mut url = base(stack)?;
    url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(["v1", "socket"]);
    url.set_scheme("ws").expect("http may become ws");
    Ok(url)
}

pub(crate) fn retry_after(headers: &header::HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The refusal as problem+json, or what can be said of another one.
pub(crate) fn problem(status: StatusCode, waits: Option<u64>, body: &[u8]) -> Problem {
    let mut problem = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String =
            String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
        Problem {
            status: 0,
            code: format!("http_{}", status.as_u16()),
            detail: if text.is_empty() { status.to_string() } else { text },
            index: None,
            retry_after: None,
            time: None,
        }
    });
    problem.status = status.as_u16();
    problem.retry_after = problem.retry_after.or(waits);
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, Error> {
        let token = Some(Secret("t".to_owned()));
        Client::new(&Options { url: url.to_owned(), token, data_dir: PathBuf::new() })
    }

    #[test]
    fn an_address_that_cannot_be_used_says_why() {
        for (url, why) in [
            ("https://example.org", "plain http only"),
            ("127.0.0.1:7400", "it looks like http://127.0.0.1:7400"),
            ("ftp://example.org", "it looks like http://127.0.0.1:7400"),
            ("", "it looks like http://127.0.0.1:7400"),
        ] {
            let Err(error) = client(url) else { panic!("{url} was taken") };
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn a_missing_token_file_is_named() {
        let data_dir = tempfile::tempdir().unwrap();
        let options =
            Options { url: "http://localhost:1".into(), token: None, data_dir: data_dir.path().into() };
        let Err(error) = Client::new(&options) else { panic!("made without a token") };
        assert!(error.to_string().contains("operator.token"), "{error}");
    }

    #[test]
    fn ids_are_percent_encoded_in_paths() {
        let path =
            |base: &str, id: &str| client(base).unwrap().url(&["v1", "zones", id]).unwrap().to_string();
        assert_eq!(path("http://h:1", "depot/van-7"), "http://h:1/v1/zones/depot%2Fvan-7");
        assert_eq!(path("http://h:1/a/", "Côte d'Ivoire?"), "http://h:1/a/v1/zones/C%C3%B4te%20d'Ivoire%3F");
        assert_eq!(path("http://h:1", "50%"), "http://h:1/v1/zones/50%25");
        for bad in ["", ".", ".."] {
            assert!(matches!(client("http://h:1").unwrap().url(&["v1", bad]), Err(Error::Dots(_))));
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_a_foreign_one_gets_one() {
        let body = br#"{"type":"about:blank","title":"t","status":422,"code":"place_range","detail":"fix 3","index":3}"#;
        let known = problem(StatusCode::UNPROCESSABLE_ENTITY, Some(2), body);
        assert_eq!((known.code.as_str(), known.index, known.retry_after), ("place_range", Some(3), Some(2)));
        let named = br#"{"code":"bad_latitude","detail":"fixes[12].lat is no latitude"}"#;
        assert_eq!((known.fix(), problem(StatusCode::BAD_REQUEST, None, named).fix()), (Some(3), Some(12)));
        let foreign = problem(StatusCode::BAD_GATEWAY, None, b"<html>");
        assert_eq!((foreign.code.as_str(), foreign.detail.as_str()), ("http_502", "<html>"));
        assert_eq!(Error::Refused(foreign).retry_after(), Some(Duration::ZERO));
        assert_eq!(Error::Refused(known).retry_after(), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", "abc".parse::<Secret>().unwrap()).contains("abc"));
    }
}
