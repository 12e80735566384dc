//! Media types by their grammar: `type/subtype`, and parameters. Source: RFC 9110, sections 5.6.2, 5.6.4 and 8.3.1.

use super::{Refusal, ensure};
use crate::code::Code;

/// What may stand around a semicolon.
const BLANK: [char; 2] = [' ', '\t'];

/// Refuses a text that is no media type, or is longer than `bytes_max`.
pub(super) fn check(text: &str, bytes_max: usize) -> Result<(), Refusal> {
    ensure(text.len() <= bytes_max, Code::BadMediaType, || {
        format!("content_type has {} bytes; {bytes_max} are taken", text.len())
    })?;
    ensure(is_media_type(text), Code::BadMediaType, || {
        "content_type is no media type such as text/plain or application/json; charset=utf-8".into()
    })
}

fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let essence = if parameters.is_empty() { essence } else { essence.trim_end_matches(BLANK) };
    essence.split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b)) && are_parameters(parameters)
}

/// `*( OWS ";" OWS token "=" ( token / quoted-string ) )`, from a semicolon on.
fn are_parameters(mut rest: &str) -> bool {
    while let Some(after) = rest.strip_prefix(';') {
        let Some((name, value)) = after.trim_start_matches(BLANK).split_once('=') else { return false };
        if !is_token(name) {
            return false;
        }
        let end = match value.strip_prefix('"') {
            Some(quoted) => match quoted_end(quoted) {
                Some(end) => end + 1,
                None => return false,
            },
            None => value.find([';', ' ', '\t']).unwrap_or(value.len()),
        };
        let (value, tail) = value.split_at(end);
        if !value.starts_with('"') && !is_token(value) {
            return false;
        }
        rest = tail.trim_start_matches(BLANK);
    }
    rest.is_empty()
}

/// Where a quoted string ends, its closing quote included, counted from after its opening one.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            '\t' | ' '..='~' if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(i + 1),
            '\t' | ' '..='~' => {}
            _ => return None,
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_from_other_texts() {
        for good in [
            "text/plain",
            "application/vnd.api+json",
            "text/plain;charset=utf-8",
            "text/plain ; charset=\"u\\\"t;f\" ; q=1",
            "a/b;c=\"\"",
        ] {
            assert!(is_media_type(good), "{good:?}");
        }
        for bad in [
            "",
            "text",
            "/",
            "text/",
            "/plain",
            "a/b/c",
            "text/plain;",
            "text/plain;a",
            "text/plain;a=",
            "text/plain;a=\"",
            "text/plain;a=\"\\",
            "text/plain;a=b c",
            "text/pla in",
            " text/plain",
            "text/plain ",
            "text/plän",
            "text/plain\n",
            "text/plain;a=\"\u{7f}\"",
            "text/plain;;a=b",
        ] {
            assert!(!is_media_type(bad), "{bad:?}");
        }
        assert!(check(&format!("a/{}", "b".repeat(126)), 128).is_ok());
        assert!(check(&format!("a/{}", "b".repeat(127)), 128).is_err());
    }
}
