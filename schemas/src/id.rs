//! Names of users, devices, zones, rules and conversations, each checked once and then trusted.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest user or device name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest zone or rule id, in characters.
pub const LABEL_CHARS_MAX: usize = 128;

/// Why a text is not the id that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A user or a device name breaks the rule for names.
    #[error("a {0} is 1 to 64 characters of A-Z a-z 0-9 . _ @ -")]
    Name(&'static str),
    /// A zone or rule id breaks the rule for labels.
    #[error("a {0} is 1 to 128 printable characters, without spaces at its ends")]
    Label(&'static str),
    /// A direct conversation does not name two users in byte order.
    #[error("a direct conversation is two user ids in byte order with a ~ between them")]
    Conversation,
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'))
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.chars().count() <= LABEL_CHARS_MAX
        && !text.chars().any(is_unprintable)
}

/// Whether a character cannot be seen, or changes how its neighbours are shown (controls, line and paragraph
/// separators, bidirectional overrides, zero-width characters, private use and non-characters).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}'
            | '\u{e0000}'..='\u{10ffff}')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes a text that obeys the id's rule.
            pub fn new(text: impl Into<Box<str>>) -> Result<Self, Error> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// An account: `alice`, `depot-7`; 1 to 64 characters of `[A-Za-z0-9._@-]`.
    UserId, |t: &str| if is_name(t) { Ok(()) } else { Err(Error::Name("user id")) }
}
text_id! {
    /// The name of one device of a user, by the same rule as a user id.
    DeviceName, |t: &str| if is_name(t) { Ok(()) } else { Err(Error::Name("device name")) }
}
text_id! {
    /// One phone or tracker: `user/name`, or `x` alone where user and name are both `x`.
    DeviceId, check_device
}
text_id! {
    /// A zone's id: 1 to 128 printable characters.
    ZoneId, |t: &str| if is_label(t) { Ok(()) } else { Err(Error::Label("zone id")) }
}
text_id! {
    /// A rule's id: 1 to 128 printable characters.
    RuleId, |t: &str| if is_label(t) { Ok(()) } else { Err(Error::Label("rule id")) }
}
text_id! {
    /// A direct conversation: two user ids in byte order with `~` between them, `alice~bob`.
    ConversationId, check_conversation
}

fn check_device(text: &str) -> Result<(), Error> {
    match text.split_once('/') {
        None if is_name(text) => Ok(()),
        // `x/x` has one written form, `x`: a second would be a second key.
        Some((user, name)) if is_name(user) && is_name(name) && user != name => Ok(()),
        _ => Err(Error::Name("device id (user/name, or x where both are x)")),
    }
}

fn check_conversation(text: &str) -> Result<(), Error> {
    match text.split_once('~') {
        Some((a, b)) if is_name(a) && is_name(b) && a <= b => Ok(()),
        _ => Err(Error::Conversation),
    }
}

impl DeviceId {
    /// Joins a user and a device name into the one written form.
    pub fn of(user: &UserId, name: &DeviceName) -> Self {
        if user.as_str() == name.as_str() {
            Self(user.0.clone())
        } else {
            Self(format!("{user}/{name}").into_boxed_str())
        }
    }
    /// The user that the device belongs to.
    pub fn user(&self) -> UserId {
        UserId(self.0.split('/').next().expect("a split yields one part").into())
    }
    /// The device's own name.
    pub fn name(&self) -> DeviceName {
        DeviceName(self.0.rsplit('/').next().expect("a split yields one part").into())
    }
}

impl ConversationId {
    /// The direct conversation of two users; a user may write to itself.
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self(format!("{first}~{second}").into_boxed_str())
    }
    /// Its two members, in byte order.
    pub fn members(&self) -> (UserId, UserId) {
        let (a, b) = self.0.split_once('~').expect("checked at its making");
        (UserId(a.into()), UserId(b.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_written_form() {
        let id = |user: &str, name: &str| {
            DeviceId::of(&UserId::new(user).unwrap(), &DeviceName::new(name).unwrap()).to_string()
        };
        assert_eq!(id("x", "x"), "x");
        assert_eq!(id("depot", "van-7"), "depot/van-7");
        assert!(DeviceId::new("x/x").is_err());
        assert!(DeviceId::new("a/b/c").is_err());
        let van = DeviceId::new("depot/van-7").unwrap();
        assert_eq!((van.user().as_str(), van.name().as_str()), ("depot", "van-7"));
        let tracker = DeviceId::new("x").unwrap();
        assert_eq!((tracker.user().as_str(), tracker.name().as_str()), ("x", "x"));
    }

    #[test]
    fn names_and_labels_refuse_what_breaks_keys_and_screens() {
        for good in ["a", "alice@example.org", "A-1_b.c", &"x".repeat(64)] {
            assert!(UserId::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a b", "a/b", "a~b", "é", &"x".repeat(65)] {
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["Côte d'Ivoire", "Åland", "zone, \"the 7th\"", &"ß".repeat(128)] {
            assert!(ZoneId::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{202e}b", "\u{200b}", &"ß".repeat(129)] {
            assert!(ZoneId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_direct_conversation_is_the_same_from_both_sides() {
        let (a, b) = (UserId::new("alice").unwrap(), UserId::new("bob").unwrap());
        assert_eq!(ConversationId::direct(&b, &a), ConversationId::direct(&a, &b));
        assert_eq!(ConversationId::direct(&a, &b).as_str(), "alice~bob");
        assert_eq!(ConversationId::direct(&a, &a).members(), (a.clone(), a));
        assert!(ConversationId::new("bob~alice").is_err());
    }
}
