//! What a stored state says of the log that it was made from, so that it is never continued on another one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use waypost_runtime::broker::Incoming;
use waypost_schemas::time::Micros;

/// The last record that a stored state covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where the record stands in its partition.
    pub offset: i64,
    /// The time of its append.
    pub append: Micros,
    /// The hash of its bytes.
    pub hash: [u8; 32],
}

impl Checkpoint {
    /// The checkpoint of a state whose last record this is.
    pub fn of(record: &Incoming) -> Self {
        Self { offset: record.offset, append: record.append, hash: hash(record) }
    }
}

/// SHA-256 of key, value and headers, each with its length before it; an absent one differs from an empty one.
fn hash(record: &Incoming) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut put = |bytes: Option<&[u8]>| {
        hasher.update(bytes.map_or(u64::MAX, |b| b.len() as u64).to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    put(record.key.as_deref());
    put(record.value.as_deref());
    for (name, value) in &record.headers {
        put(Some(name.as_bytes()));
        put(Some(value));
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn records_that_differ_anywhere_have_other_checkpoints() {
        let record = Incoming {
            offset: 7,
            append: Micros(1),
            key: Some(Bytes::from_static(b"ab")),
            value: Some(Bytes::from_static(b"c")),
            headers: vec![("n".into(), Bytes::from_static(b"v"))],
        };
        let same = Checkpoint::of(&record);
        assert_eq!(Checkpoint::of(&record.clone()), same);
        let others = [
            Incoming { offset: 8, ..record.clone() },
            Incoming { append: Micros(2), ..record.clone() },
            Incoming {
                key: Some(Bytes::from_static(b"a")),
                value: Some(Bytes::from_static(b"bc")),
                ..record.clone()
            },
            Incoming { value: None, ..record.clone() },
            Incoming { value: Some(Bytes::new()), ..record.clone() },
            Incoming { headers: Vec::new(), ..record.clone() },
        ];
        for other in others {
            assert_ne!(Checkpoint::of(&other), same, "{other:?}");
        }
    }
}
