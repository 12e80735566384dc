//! The types that a setting can have, and how each is read from text and shown.

use std::{collections::BTreeMap, fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use waypost_schemas::time::Micros;

use super::{
    load::{Fault, Resolved},
    rows::Row,
};
use crate::telemetry::Format;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// A type that a setting can have.
pub(super) trait Value: Sized {
    /// Reads the text; `Err` says what was expected.
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String>;

    /// Writes the text as it may be shown.
    fn show(text: &str) -> String {
        text.to_owned()
    }

    /// Reads the setting of a row; what is wrong is added to `faults`.
    fn read(resolved: &Resolved, row: &Row, faults: &mut Vec<Fault>) -> Option<Self> {
        let (text, source) = resolved.text(row);
        match Self::parse(text, &row.bounds) {
            Ok(value) => Some(value),
            Err(expected) => {
                let value = Self::show(text);
                let origin = source.clone();
                faults.push(Fault::Invalid { origin, key: row.key.to_owned(), value, expected });
                None
            }
        }
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
                number(text, bounds).and_then(|n| Self::try_from(n).map_err(|_| range(bounds)))
            }
        }
    )*};
}
numbers!(usize, u32, u64, i32);

impl Value for Duration {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        number(text, bounds).map(Self::from_millis)
    }
}

impl Value for bool {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false".to_owned())
    }
}

impl Value for String {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        if bounds.contains(&(text.len() as u64)) {
            Ok(text.to_owned())
        } else {
            Err(format!("a text of {} to {} bytes", bounds.start(), bounds.end()))
        }
    }
}

impl Value for PathBuf {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        String::parse(text, bounds).map(Self::from)
    }
}

impl Value for SocketAddr {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Result<Self, String> {
        text.parse().map_err(|_| "an address and a port such as 127.0.0.1:7400".to_owned())
    }
}

impl Value for Micros {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Result<Self, String> {
        Self::parse(text).map_err(|_| "a time such as 2018-07-30T02:00:23Z".to_owned())
    }
}

impl Value for Format {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("auto, pretty or json".to_owned()),
        }
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text, bounds).map(Some) }
    }
    fn show(text: &str) -> String {
        if text.is_empty() { String::new() } else { T::show(text) }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Value for Secret {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        String::parse(text, bounds).map(Self)
    }
    fn show(_: &str) -> String {
        MASK.to_owned()
    }
}

/// A URL whose password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// A URL as it was written.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for the one who connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_password(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for SecretUrl {
    fn parse(text: &str, bounds: &RangeInclusive<u64>) -> Result<Self, String> {
        let url = String::parse(text, bounds)?;
        if url.starts_with("postgresql://") || url.starts_with("postgres://") {
            Ok(Self(url))
        } else {
            Err("a URL such as postgresql://user@host:5432/name or postgresql:///name?host=/socket/dir"
                .to_owned())
        }
    }
    fn show(text: &str) -> String {
        mask_password(text)
    }
}

/// Replaces the password of `scheme://user:password@host/...?password=...`.
fn mask_password(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    if query.is_some_and(|query| query.contains('@')) {
        // Perhaps the question mark is part of a password that somebody forgot to encode.
        return MASK.to_owned();
    }
    let mut shown = match url.split_once("://") {
        // The last @ ends the user's part: a password may hold one that somebody forgot to encode.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or(user.to_owned(), |(user, _)| format!("{user}:{MASK}"));
                format!("{scheme}://{user}@{host}")
            }
            None => url.to_owned(),
        },
        None => MASK.to_owned(),
    };
    if let Some(query) = query {
        let parts = query.split('&').map(|part| match part.split_once('=') {
            Some((name, _)) if name.contains("password") => format!("{name}={MASK}"),
            _ => part.to_owned(),
        });
        shown.push('?');
        shown.push_str(&parts.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// Settings that are passed on by their own names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, show_property(name, value)))).finish()
    }
}

impl Value for Properties {
    fn parse(text: &str, _: &RangeInclusive<u64>) -> Result<Self, String> {
        if text.is_empty() { Ok(Self::default()) } else { Err("a table of names and values".to_owned()) }
    }
    fn read(resolved: &Resolved, row: &Row, faults: &mut Vec<Fault>) -> Option<Self> {
        // The name itself, without a property's name behind it, has no value.
        let (text, source) = resolved.text(row);
        if let Err(expected) = Self::parse(text, &row.bounds) {
            let (origin, key) = (source.clone(), row.key.to_owned());
            faults.push(Fault::Invalid { origin, key, value: MASK.to_owned(), expected });
            return None;
        }
        Some(resolved.under(row.key).map(|(name, value, _)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Shows a property, but not one that is a secret by its name: passwords, keys, token and OAuth settings.
pub(super) fn show_property(name: &str, value: &str) -> String {
    let secret = ["password", "secret", ".key", "key.pem", "token", "sasl.oauthbearer.config", "jaas"];
    if secret.iter().any(|part| name.contains(part)) { MASK.to_owned() } else { value.to_owned() }
}

fn number(text: &str, bounds: &RangeInclusive<u64>) -> Result<u64, String> {
    // TOML's own grouping, so that a value may be copied from a file into a flag.
    match text.replace('_', "").parse() {
        Ok(n) if bounds.contains(&n) => Ok(n),
        _ => Err(range(bounds)),
    }
}

fn range(bounds: &RangeInclusive<u64>) -> String {
    format!("a whole number from {} to {}", bounds.start(), bounds.end())
}
