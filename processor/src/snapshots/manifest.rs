//! A snapshot's manifest: a line with the SHA-256 of what follows, then JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waypost_schemas::{cause::SeqMap, topic::TopicPartition};

use super::{Flaw, Owner, packed::hex};
use crate::checkpoint::Checkpoint;

/// The layout of manifests that this version writes and reads.
const LAYOUT: u16 = 1;

/// Everything of a partition's fold but the machine's own state, and the chunks that hold that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of the manifest itself.
    pub layout: u16,
    /// The machine.
    pub machine: String,
    /// The partition of its driving topic.
    pub partition: i32,
    /// The format of the chunks.
    pub format: u16,
    /// The id of the Kafka cluster whose log was folded.
    pub cluster: String,
    /// The offset of the driving topic from which the fold goes on.
    pub next: i64,
    /// The highest registry offset that the partition had been stamped with; -1 where none.
    pub view: i64,
    /// The last number taken of each source, where the driving topic is derived.
    pub taken: SeqMap,
    /// The last number given to each output partition.
    #[serde(with = "by_name")]
    pub given: BTreeMap<TopicPartition, u64>,
    /// The last record that the snapshot covers; absent where it covers none.
    pub checkpoint: Option<Checkpoint>,
    /// How far the topic was folded that the machine looks at; absent where it looks at none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Looked>,
    /// The machine's chunks, in order of their numbers.
    pub chunks: Vec<ChunkRef>,
}

/// How far the topic was folded that a machine looks at beside its driving one; of one cut with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The topic; the partition is the machine's.
    pub topic: String,
    /// The offset from which the fold goes on.
    pub next: i64,
    /// The last number taken of each source, where the topic is derived.
    pub taken: SeqMap,
    /// The last record that was folded; absent where none was.
    pub checkpoint: Option<Checkpoint>,
}

/// A chunk as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Which piece of the machine's state.
    pub number: u16,
    /// The SHA-256 of its compressed bytes, in hexadecimal digits.
    pub hash: String,
    /// Its size uncompressed, in bytes.
    pub bytes: u64,
}

impl Manifest {
    /// A manifest of this version, without chunks yet.
    pub fn new(owner: Owner, cluster: String) -> Self {
        Self {
            layout: LAYOUT,
            machine: owner.machine.to_owned(),
            partition: owner.partition,
            format: owner.format,
            cluster,
            next: 0,
            view: -1,
            taken: SeqMap::default(),
            given: BTreeMap::new(),
            checkpoint: None,
            looked: None,
            chunks: Vec::new(),
        }
    }

    /// The manifest's bytes as they are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a manifest has only string keys");
        format!("{}\n{body}\n", hex(body.as_bytes())).into_bytes()
    }

    /// Reads a manifest's bytes; it must be `owner`'s.
    pub fn from_bytes(bytes: &[u8], owner: Owner) -> Result<Self, Flaw> {
        #[derive(Deserialize)]
        struct Shape {
            layout: u16,
            format: u16,
        }
        let broken = |what: &str| Flaw::Broken(format!("its manifest {what}"));
        let text = std::str::from_utf8(bytes).map_err(|_| broken("is not text"))?;
        let (hash, body) = text.split_once('\n').ok_or_else(|| broken("is cut"))?;
        let body = body.strip_suffix('\n').ok_or_else(|| broken("is cut"))?;
        if hex(body.as_bytes()) != hash {
            return Err(broken("does not have the hash that it names"));
        }
        let shape: Shape = serde_json::from_str(body).map_err(|e| broken(&e.to_string()))?;
        if shape.layout != LAYOUT {
            return Err(Flaw::OtherFormat { found: shape.layout, known: LAYOUT });
        }
        if shape.format != owner.format {
            return Err(Flaw::OtherFormat { found: shape.format, known: owner.format });
        }
        let manifest: Self = serde_json::from_str(body).map_err(|e| broken(&e.to_string()))?;
        if manifest.machine != owner.machine || manifest.partition != owner.partition {
            return Err(broken("belongs to another machine or partition"));
        }
        Ok(manifest)
    }
}

mod by_name {
    //! Numbers by output partition, as JSON whose keys are `topic/partition`.

    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use waypost_schemas::topic::{Topic, TopicPartition};

    pub(super) fn serialize<S: Serializer>(
        given: &BTreeMap<TopicPartition, u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(given.iter().map(|(to, number)| (to.to_string(), number)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<TopicPartition, u64>, D::Error> {
        let read = |(name, number): (String, u64)| {
            let (topic, partition) = name.split_once('/')?;
            Some((TopicPartition::new(Topic::from_name(topic)?, partition.parse().ok()?), number))
        };
        let given = BTreeMap::<String, u64>::deserialize(deserializer)?;
        given
            .into_iter()
            .map(read)
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("an unknown output"))
    }
}
