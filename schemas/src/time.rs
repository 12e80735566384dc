//! Moments as microseconds since the Unix epoch, UTC, and their RFC 3339 text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in microseconds since 1970-01-01T00:00:00Z; in Avro a `timestamp-micros`, in JSON RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// A text that is not an RFC 3339 time with an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2018-07-30T02:00:23Z")]
pub struct Error;

impl Micros {
    /// One second.
    pub const SECOND: i64 = 1_000_000;
    /// One minute.
    pub const MINUTE: i64 = 60 * Self::SECOND;
    /// One hour.
    pub const HOUR: i64 = 60 * Self::MINUTE;

    /// Reads RFC 3339; what is finer than a microsecond is cut off.
    pub fn parse(text: &str) -> Result<Self, Error> {
        text.parse::<jiff::Timestamp>().map(|t| Self(t.as_microsecond())).map_err(|_| Error)
    }
    /// From milliseconds since the epoch, as Kafka's record timestamps are.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }
}

impl fmt::Display for Micros {
    /// RFC 3339 in UTC, `2018-07-30T02:00:23Z`, with a fraction only where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
            Self::parse(&text).map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_a_fraction_only_where_there_is_one() {
        for text in ["2018-07-30T02:00:23Z", "1969-12-31T23:59:59.5Z", "2026-01-01T00:00:00.000001Z"] {
            assert_eq!(Micros::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Micros::parse("2018-07-30T04:00:23+02:00").unwrap().to_string(), "2018-07-30T02:00:23Z");
        for bad in ["", "2018-07-30", "2018-07-30T02:00:23", "2018-13-30T02:00:23Z", "now"] {
            assert!(Micros::parse(bad).is_err(), "{bad:?}");
        }
    }
}
