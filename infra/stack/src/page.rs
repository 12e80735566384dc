//! The page at `/`: files of the repository, which a browser may use with this stack alone.

use axum::{
    Router,
    http::{HeaderMap, HeaderName, header},
    routing::get,
};

/// Only what this stack serves, and nothing in the page itself; nobody may frame it or lead it elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; connect-src 'self'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // Another version of the stack has another page at the same address.
    (header::CACHE_CONTROL, "no-cache"),
];

macro_rules! files {
    ($($path:literal: $kind:literal = $file:literal),+ $(,)?) => {
        /// Every file: where it is served, as what, and its text.
        const FILES: &[(&str, &str, &str)] =
            &[$(($path, $kind, include_str!(concat!("../page/", $file)))),+];
    };
}

files! {
    "/": "text/html; charset=utf-8" = "index.html",
    "/page/page.css": "text/css; charset=utf-8" = "page.css",
    "/page/page.js": "text/javascript; charset=utf-8" = "page.js",
    "/page/map.js": "text/javascript; charset=utf-8" = "map.js",
    "/page/socket.js": "text/javascript; charset=utf-8" = "socket.js",
    "/page/world.json": "application/json" = "world.json",
    "/page/icon.svg": "image/svg+xml" = "icon.svg",
}

/// The routes of the page; they need no token, and say nothing of what the stack knows.
pub(crate) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, &(path, kind, text)| {
        let file = move |headers: HeaderMap| async move {
            let policy = policy(headers.get(header::HOST).and_then(|host| host.to_str().ok()));
            let own = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_SECURITY_POLICY, policy)];
            (HEADERS, own, text)
        };
        router.route(path, get(file))
    })
}

/// The policy of a page at a host. Not every browser takes the socket at the same host for `'self'`, as Content
/// Security Policy Level 3 (6.7.2.8) has it, so it is named.
fn policy(host: Option<&str>) -> String {
    let is_host = |host: &&str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
    };
    match host.filter(is_host) {
        Some(host) => format!("{POLICY} ws://{host} wss://{host}"),
        None => POLICY.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_file_is_served_under_a_policy_that_lets_nothing_else_in() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let check = async {
            for (path, kind, text) in FILES {
                let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
                let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
                assert_eq!(answer.status(), 200, "{path}");
                assert_eq!(header("content-type"), *kind, "{path}");
                assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
                assert_eq!(header("x-content-type-options"), "nosniff");
                assert_eq!(answer.text().await.unwrap(), *text);
            }
        };
        tokio::select! {
            _ = axum::serve(listener, router()) => unreachable!(),
            () = check => {}
        }
    }

    #[test]
    fn the_policy_names_the_socket_of_the_pages_own_host_alone() {
        let check = |host: Option<&str>, rest: &str| {
            assert_eq!(policy(host).strip_prefix(POLICY), Some(rest), "{host:?}");
        };
        check(Some("127.0.0.1:7400"), " ws://127.0.0.1:7400 wss://127.0.0.1:7400");
        check(Some("[::1]:7400"), " ws://[::1]:7400 wss://[::1]:7400");
        for bad in [None, Some(""), Some("a *"), Some("a; script-src *"), Some("a/b"), Some("a,b")] {
            check(bad, "");
        }
    }

    #[test]
    fn the_page_names_only_files_that_are_served_and_nothing_elsewhere() {
        let served: Vec<&str> = FILES.iter().map(|(path, _, _)| *path).collect();
        for (path, _, text) in FILES {
            for (at, _) in text.match_indices("/page/") {
                let name: String = text[at..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c))
                    .collect();
                assert!(served.contains(&&*name), "{path} names {name}");
            }
            let elsewhere: Vec<&str> = text
                .match_indices("://")
                .map(|(at, _)| &text[at..text.len().min(at + 20)])
                .filter(|rest| !rest.starts_with("://www.w3.org/2000"))
                .collect();
            assert!(elsewhere.is_empty(), "{path} leads to {elsewhere:?}");
            for inline in [" style=\"", " onclick=", "innerHTML", "insertAdjacentHTML", "eval("] {
                assert!(!text.contains(inline), "{path} holds {inline}");
            }
        }
    }

    #[test]
    fn the_outlines_are_rings_on_the_globe() {
        let (_, _, text) = FILES.iter().find(|(path, _, _)| path.ends_with("world.json")).unwrap();
        let world: serde_json::Value = serde_json::from_str(text).unwrap();
        for kind in ["land", "water"] {
            for (name, ring) in world[kind].as_object().unwrap() {
                let ring: Vec<[f64; 2]> = serde_json::from_value(ring.clone()).unwrap();
                assert!(ring.len() >= 3, "{name}");
                for [lon, lat] in ring {
                    assert!(lon.abs() <= 180.0 && lat.abs() <= 90.0, "{name}: {lon}, {lat}");
                }
            }
        }
    }
}
