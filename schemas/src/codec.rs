//! Records as bytes: Avro in Confluent's wire format.
pub mod bytes {
    //! Byte strings for serde, which would write them as arrays.
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    /// Writes a byte string.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }
    /// Reads a byte string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Vec<u8>, E> {
                Ok(v.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, v: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(v)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut out = Vec::new();
                while let Some(b) = seq.next_element()? {
                    out.push(b);
                }
                Ok(out)
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

use crate::event::Event;

/// Why bytes are not a record of Waypost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no value.
    #[error("the record has no value")]
    Empty,
    /// The first byte is not 0, or fewer than five bytes are there: not Confluent's wire format.
    #[error("the value is not in Confluent's wire format")]
    Foreign,
    /// No schema of that id is known.
    #[error("schema id {0} is unknown")]
    UnknownSchema(i32),
    /// The datum does not fit its schema, ends early or goes on too long.
    #[error("the datum of a {schema} is broken: {detail}")]
    Broken {
        /// The schema's name.
        schema: &'static str,
        /// What is wrong with it; never a value of it.
        detail: String,
    },
}

impl Error {
    /// The stable code of a dead letter: `empty`, `foreign_record`, `unknown_schema` or `broken_datum`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Foreign => "foreign_record",
            Self::UnknownSchema(_) => "unknown_schema",
            Self::Broken { .. } => "broken_datum",
        }
    }
}

/// A record's bytes: 0x00, four bytes of schema id, the datum.
pub fn encode(event: &Event) -> Vec<u8> {
    imp::encode(event)
}

/// The record of some bytes.
pub fn decode(value: &[u8]) -> Result<Event, Error> {
    imp::decode(value)
}
mod imp {
    use super::{Error, Event};
    pub(super) fn encode(_: &Event) -> Vec<u8> {
        unreachable!("being written")
    }
    pub(super) fn decode(_: &[u8]) -> Result<Event, Error> {
        unreachable!("being written")
    }
}
