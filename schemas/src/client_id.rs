//! The ids that a device gives what it sends: `UUIDv7`, so that one device's ids increase.

use std::{fmt, str::FromStr};

use crate::time::Micros;

/// A text that is not a `UUIDv7` in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUIDv7 in lower case, such as 019b7600-0000-7000-8000-000000000001")]
pub struct Error;

/// A `UUIDv7`, in order of its time; equal ids have one text. Source: RFC 9562, sections 4 and 5.7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u128);

impl ClientId {
    const VERSION: u128 = 7 << 76;
    const VERSION_BITS: u128 = 0xf << 76;
    const VARIANT: u128 = 0b10 << 62;
    const VARIANT_BITS: u128 = 0b11 << 62;
    /// The bits of the time, in milliseconds.
    const MILLIS: u32 = 48;

    /// Makes an id of a time, cut to milliseconds and to what 48 bits hold, and of random bits; with none of them set
    /// it is the lowest id of its time.
    pub fn new(at: Micros, random: u128) -> Self {
        let millis = at.0.div_euclid(1_000).clamp(0, (1 << Self::MILLIS) - 1) as u128;
        let fixed = Self::VERSION_BITS | Self::VARIANT_BITS;
        let rest = random & ((1 << 80) - 1) & !fixed;
        Self(millis << 80 | rest | Self::VERSION | Self::VARIANT)
    }

    /// When it was made, by the clock of whoever made it, in whole milliseconds.
    pub fn at(self) -> Micros {
        Micros::from_millis((self.0 >> 80) as i64)
    }

    /// Its 16 bytes, whose order is the ids'.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, Error> {
        Self::checked(u128::from_be_bytes(bytes))
    }

    fn checked(bits: u128) -> Result<Self, Error> {
        let is_v7 = bits & Self::VERSION_BITS == Self::VERSION && bits & Self::VARIANT_BITS == Self::VARIANT;
        if is_v7 { Ok(Self(bits)) } else { Err(Error) }
    }
}

impl FromStr for ClientId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bits: u128 = 0;
        if text.len() != 36 {
            return Err(Error);
        }
        for (i, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'-' if matches!(i, 8 | 13 | 18 | 23) => continue,
                _ if matches!(i, 8 | 13 | 18 | 23) => return Err(Error),
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(Error),
            };
            bits = bits << 4 | u128::from(digit);
        }
        Self::checked(bits)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |from: u32, digits: u32| (self.0 >> from) & ((1 << (4 * digits)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 8),
            part(80, 4),
            part(64, 4),
            part(48, 4),
            part(0, 12)
        )
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text_and_tells_its_time() {
        // The example of RFC 9562, appendix A.6.
        let id: ClientId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(id.at(), Micros::parse("2022-02-22T19:22:22Z").unwrap());
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(ClientId::new(id.at(), id.0), id);
        assert_eq!(ClientId::from_bytes(id.to_bytes()), Ok(id));
        assert_eq!(ClientId::from_bytes([0; 16]), Err(Error));
        let lowest = ClientId::new(Micros(id.at().0 + 999), 0);
        assert_eq!(lowest.to_string(), "017f22e2-79b0-7000-8000-000000000000");
        assert!(lowest < id && id < ClientId::new(Micros(id.at().0 + 1_000), 0));
        assert_eq!(ClientId::new(Micros(-1), u128::MAX).to_string(), "00000000-0000-7fff-bfff-ffffffffffff");
        assert_eq!(
            ClientId::new(Micros(i64::MAX), u128::MAX).to_string().parse::<ClientId>().map(|id| id.at().0),
            Ok(((1 << 48) - 1) * 1_000)
        );
    }

    #[test]
    fn what_is_no_canonical_uuidv7_is_refused() {
        for bad in [
            "",
            "017f22e2",
            "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
            "{17f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
            "017f22e279b0-7cc3-98c4-dc0c0c07398f-",
            "017f22e2-79b0-7cc3-98c4-dc0c0c0739-f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
            "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c0739é",
        ] {
            assert_eq!(bad.parse::<ClientId>(), Err(Error), "{bad:?}");
        }
    }
}
