//! Tokens of all kinds, and the routes that ask for them.

use std::{os::unix::fs::PermissionsExt, sync::Arc, thread, time::Duration};

use axum::{Router, extract::FromRef, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};
use waypost_schemas::{id::UserId, time::Micros};

use super::{Auth, Claims, Identity, Keys, Operator, Refusal, Role, keys};
use crate::{
    clock::Clock,
    config,
    http::{Limits, testing::Server},
};

const NOW_S: i64 = 1_800_000_000;
const NOW: Micros = Micros(NOW_S * Micros::SECOND);

fn settings() -> config::Auth {
    config::Auth {
        issuer: "waypost".to_owned(),
        token_lifetime: Duration::from_hours(24),
        clock_skew: Duration::from_mins(1),
    }
}

fn keys() -> Keys {
    Keys::from_seed(&[7; 32], &settings()).unwrap()
}

fn claims(user: &str, device: Option<&str>, role: Role) -> Claims {
    Claims { user: user.parse().unwrap(), device: device.map(|d| d.parse().unwrap()), role }
}

/// A body that is taken at `NOW`, for cases that break one part of it.
fn body() -> Value {
    json!({"sub": "alice", "dev": "phone", "role": "device", "iss": "waypost", "aud": "waypost",
        "iat": NOW_S, "exp": NOW_S + 100})
}

fn signed(keys: &Keys, kid: Option<&str>, body: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
    encode(&header, body, &EncodingKey::from_ed_der(&keys::pkcs8(&[7; 32])))
        .unwrap_or_else(|e| panic!("{keys:?}: {e}"))
}

#[test]
fn a_minted_token_says_who_it_is_from() {
    let keys = keys();
    let check = |user, device, role, written: &str| {
        let minted = keys.mint(&claims(user, device, role), NOW).unwrap();
        let identity = keys.verify(&minted.token, NOW).unwrap();
        assert_eq!((identity.device_id().as_str(), identity.role), (written, role));
        assert_eq!(minted.expires, Micros(NOW.0 + 24 * Micros::HOUR));
        assert!(!format!("{minted:?}{keys:?}").contains(&minted.token));
    };
    check("alice", Some("phone"), Role::Device, "alice/phone");
    check("van-7", None, Role::Device, "van-7");
    check("warden", Some("warden"), Role::Operator, "warden");
}

#[test]
fn a_token_is_good_for_its_time_and_the_skew_of_clocks() {
    let keys = keys();
    let token = keys.mint(&claims("alice", None, Role::Device), NOW).unwrap().token;
    let check = |seconds: i64, expected: Result<(), Refusal>| {
        let at = Micros(NOW.0 + seconds * Micros::SECOND);
        assert_eq!(keys.verify(&token, at).map(|_| ()), expected, "{seconds}");
    };
    check(0, Ok(()));
    check(-60, Ok(()));
    check(-61, Err(Refusal::Bad("the token is not good yet; are the clocks apart?")));
    check(24 * 3600 + 59, Ok(()));
    check(24 * 3600 + 60, Err(Refusal::Expired));
    check(i64::MAX / Micros::SECOND - 2 * NOW_S, Err(Refusal::Expired));
}

#[test]
fn a_token_that_is_not_ours_or_not_for_us_is_refused() {
    let keys = keys();
    let kid = keys.kid().to_owned();
    let check = |change: Value, says: &str| {
        let mut body = body();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let refusal = keys.verify(&signed(&keys, Some(&kid), &body), NOW).unwrap_err();
        assert_eq!(refusal.code().code, "token_bad", "{refusal}");
        assert!(refusal.to_string().contains(says), "{refusal}");
    };
    assert!(keys.verify(&signed(&keys, Some(&kid), &body()), NOW).is_ok());
    check(json!({"aud": "elsewhere"}), "aud");
    check(json!({"iss": "someone"}), "iss");
    check(json!({"sub": "a b"}), "sub");
    check(json!({"sub": ""}), "sub");
    check(json!({"dev": "a/b"}), "dev");
    check(json!({"role": "root"}), "claim");
    check(json!({"exp": null}), "claim");
    check(json!({"iat": "now"}), "claim");
    check(json!({"nbf": NOW_S + 61}), "not good yet");
    check(json!({"iat": NOW_S + 61}), "not good yet");

    let bad =
        |token: &str| assert_eq!(keys.verify(token, NOW).unwrap_err().code().code, "token_bad", "{token}");
    bad(&signed(&keys, None, &body()));
    bad(&signed(&keys, Some("0000000000000000"), &body()));
    bad("");
    bad("..");
    bad(&"x".repeat(100_000));

    let other = Keys::from_seed(&[8; 32], &settings()).unwrap();
    bad(&other.mint(&claims("alice", None, Role::Operator), NOW).unwrap().token);
}

#[test]
fn no_other_algorithm_is_taken_whatever_signs_it() {
    let keys = keys();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let good = signed(&keys, Some(keys.kid()), &body());
    let signature = good.rsplit('.').next().unwrap();
    for alg in ["none", "None", "HS256", "RS256", "ES256", "EdDSA2"] {
        let head = part(&json!({"alg": alg, "typ": "JWT", "kid": keys.kid()}));
        for signature in [signature, ""] {
            let refusal = keys.verify(&format!("{head}.{}.{signature}", part(&body())), NOW).unwrap_err();
            assert_eq!(refusal.code().code, "token_bad", "{alg}");
        }
    }
    // The public key is no secret, so a signature made of it must not count.
    let header = Header { kid: Some(keys.kid().to_owned()), ..Header::new(Algorithm::HS256) };
    let hmac = encode(&header, &body(), &EncodingKey::from_secret(&[7; 32])).unwrap();
    assert_eq!(keys.verify(&hmac, NOW).unwrap_err().code().code, "token_bad");
}

proptest! {
    #[test]
    fn a_token_with_one_character_changed_is_refused(at in 0usize..400, to in "[A-Za-z0-9_.-]") {
        let keys = keys();
        let token = keys.mint(&claims("alice", Some("phone"), Role::Device), NOW).unwrap().token;
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        // The last character of a signature holds spare bits, and a decoder that is strict refuses them too.
        prop_assume!(changed != token);
        prop_assert!(keys.verify(&changed, NOW).is_err());
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        prop_assert!(keys().verify(&text, NOW).is_err());
    }
}

#[test]
fn a_key_is_made_once_and_stays_even_when_many_make_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let kids: Vec<String> = thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Keys::load_or_create(&data, &settings()).unwrap().kid().to_owned()))
            .collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["token.key"]);
    let mode = std::fs::metadata(data.join("token.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_broken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Keys::load_or_create(dir.path(), &settings()).unwrap();
    let path = dir.path().join("token.key");
    let check = |expected: &str| {
        let error = Keys::load_or_create(dir.path(), &settings()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    check("can be read by others (mode 644)");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for broken in ["", "x", &text[..60], &text.replace("PRIVATE", "PUBLIC")] {
        std::fs::write(&path, broken).unwrap();
        check("is no PKCS #8 PEM of an Ed25519 key");
    }
    std::fs::write(&path, &text).unwrap();
    Keys::load_or_create(dir.path(), &settings()).unwrap();
}

#[derive(Clone)]
struct State(Auth);

impl FromRef<State> for Auth {
    fn from_ref(state: &State) -> Self {
        state.0.clone()
    }
}

#[tokio::test]
async fn routes_take_whom_they_should_and_refuse_others_with_a_code() {
    let keys = Arc::new(keys());
    let token = |role| keys.mint(&claims("alice", Some("phone"), role), NOW).unwrap().token;
    let (device, operator) = (token(Role::Device), token(Role::Operator));
    let old = keys.mint(&claims("alice", None, Role::Operator), Micros(0)).unwrap().token;
    let state = State(Auth { keys: keys.clone(), clock: Clock::manual(NOW) });
    let router = Router::new()
        .route("/who", get(|identity: Identity| async move { identity.device_id().to_string() }))
        .route("/admin", get(|Operator(identity): Operator| async move { identity.user.to_string() }))
        .with_state(state);
    let server = Server::start(router, Limits::default()).await;

    for (path, token, expected) in
        [("/who", &device, "alice/phone"), ("/who", &operator, "alice/phone"), ("/admin", &operator, "alice")]
    {
        for scheme in ["Bearer", "bearer"] {
            let answer = server.get(path, &format!("authorization: {scheme} {token}")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, expected));
        }
    }
    let check = async |path: &str, header: String, expected: (u16, &str)| {
        let answer = server.get(path, &header).await;
        let (status, code) = answer.problem();
        assert_eq!((status, code.as_str()), expected, "{path} {header}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    };
    check("/who", String::new(), (401, "token_missing")).await;
    check("/who", "authorization: Basic YWxpY2U6eA==".to_owned(), (401, "token_missing")).await;
    check("/who", "authorization: Bearer x".to_owned(), (401, "token_bad")).await;
    check("/who", format!("authorization: Bearer {old}"), (401, "token_expired")).await;
    check("/admin", format!("authorization: Bearer {device}"), (403, "forbidden")).await;
    let twice = format!("authorization: Bearer {device}\r\nauthorization: Bearer {operator}");
    check("/admin", twice, (401, "token_bad")).await;
}

#[test]
fn a_user_id_in_a_token_is_checked_like_any_other() {
    let keys = keys();
    let longest = "u".repeat(64);
    assert!(UserId::new(longest.as_str()).is_ok());
    let mut body = body();
    body["sub"] = json!(longest);
    assert!(keys.verify(&signed(&keys, Some(keys.kid()), &body), NOW).is_ok());
    body["sub"] = json!("u".repeat(65));
    assert!(keys.verify(&signed(&keys, Some(keys.kid()), &body), NOW).is_err());
}
