//! Where a derived record comes from ([`Cause`]) and which one of its stream it is ([`Seq`]).

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::topic::Topic;

/// A record's place in the log: `positions/3/1288`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset, from 0.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let [topic, partition, offset] = parts[..] else { return Err(Error::Position) };
        let read = || {
            Some(Self {
                topic: Topic::from_name(topic)?,
                partition: decimal(partition)?,
                offset: decimal(offset)?,
            })
        };
        read().filter(|p| p.partition >= 0 && p.offset >= 0).ok_or(Error::Position)
    }
}

/// The input record that made a derived record, and the ordinal among its outputs: `positions/3/1288/0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause {
    /// The input record.
    pub position: Position,
    /// Which of its outputs, from 0.
    pub ordinal: u32,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.position, self.ordinal)
    }
}

/// A text that is not a position, a cause or a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `topic/partition/offset`.
    #[error("a position is topic/partition/offset, as in positions/3/1288")]
    Position,
    /// Not `topic/partition/offset/ordinal`.
    #[error("a cause is topic/partition/offset/ordinal")]
    Cause,
    /// Not `machine/partition/number`.
    #[error("a seq is machine/partition/number, numbered from 1")]
    Seq,
}

/// Reads a decimal without sign or leading zeros, so that equal numbers have one text.
fn decimal<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|n| n.to_string() == text)
}

impl FromStr for Cause {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (position, ordinal) = text.rsplit_once('/').ok_or(Error::Cause)?;
        let position = position.parse().map_err(|_| Error::Cause)?;
        decimal(ordinal).map(|ordinal| Self { position, ordinal }).ok_or(Error::Cause)
    }
}

/// A producer's sequence number that any owner derives again: this is the `number`-th record that `machine` has
/// put into the output partition because of its input partition `partition`. Written `spatial/3/1288`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seq {
    /// The machine that derived the record.
    pub machine: Box<str>,
    /// The partition of its driving topic.
    pub partition: i32,
    /// From 1, without holes.
    pub number: u64,
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.machine, self.partition, self.number)
    }
}

impl FromStr for Seq {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.rsplitn(3, '/');
        let mut read = || {
            let number: u64 = decimal(parts.next()?)?;
            let partition: i32 = decimal(parts.next()?)?;
            let machine = parts.next().filter(|m| !m.is_empty() && !m.contains('/'))?;
            (number >= 1 && partition >= 0).then(|| Self { machine: machine.into(), partition, number })
        };
        read().ok_or(Error::Seq)
    }
}

/// What a reader keeps for one output partition: the last number taken of each (machine, input partition).
///
/// It is stored with the reader's offset, in the same transaction or snapshot; without its offset it is worthless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeqMap(BTreeMap<Box<str>, u64>);

/// What a reader does with a record that carries a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next of its stream: take it.
    Next,
    /// A copy of one taken before: drop it.
    Copy,
    /// Numbers are missing between the last one taken and this one: stop.
    Hole {
        /// The number that should have come.
        expected: u64,
    },
}

impl SeqMap {
    /// Looks at a seq and, where it is the next, remembers it; a source not in the map begins at 1.
    pub fn take(&mut self, seq: &Seq) -> Taken {
        let key = format!("{}/{}", seq.machine, seq.partition);
        let last = self.0.get(key.as_str()).copied().unwrap_or(0);
        if seq.number <= last {
            return Taken::Copy;
        }
        if seq.number > last + 1 {
            return Taken::Hole { expected: last + 1 };
        }
        self.0.insert(key.into(), seq.number);
        Taken::Next
    }

    /// Passes a hole that was accepted: a seq is the next of its stream then, whatever is missing before it.
    pub fn pass(&mut self, seq: &Seq) {
        let last = self.0.entry(format!("{}/{}", seq.machine, seq.partition).into()).or_insert(0);
        *last = (*last).max(seq.number - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_seqs_have_one_text() {
        for text in ["positions/3/1288/0", "registry/0/0/7"] {
            assert_eq!(text.parse::<Cause>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "positions/3/1288",
            "nowhere/3/1/0",
            "positions/-1/1/0",
            "positions/03/1/0",
            "positions/3/+1/0",
        ] {
            assert_eq!(bad.parse::<Cause>(), Err(Error::Cause), "{bad:?}");
        }
        assert_eq!("spatial/3/1288".parse::<Seq>().unwrap().to_string(), "spatial/3/1288");
        for bad in ["", "spatial/3", "/3/1", "spatial/3/0", "spatial/x/1", "a/b/3/1", "spatial/-3/1"] {
            assert_eq!(bad.parse::<Seq>(), Err(Error::Seq), "{bad:?}");
        }
    }

    #[test]
    fn a_reader_takes_the_next_drops_copies_and_stops_at_holes() {
        let seq = |machine: &str, number| Seq { machine: machine.into(), partition: 0, number };
        let mut map = SeqMap::default();
        assert_eq!(map.take(&seq("spatial", 2)), Taken::Hole { expected: 1 });
        assert_eq!(map.take(&seq("spatial", 1)), Taken::Next);
        assert_eq!(map.take(&seq("spatial", 1)), Taken::Copy);
        assert_eq!(map.take(&seq("alerts", 1)), Taken::Next);
        assert_eq!(map.take(&seq("spatial", 2)), Taken::Next);
        assert_eq!(map.take(&seq("spatial", 4)), Taken::Hole { expected: 3 });
        assert_eq!(map.take(&seq("spatial", 3)), Taken::Next);
        map.pass(&seq("spatial", 6));
        map.pass(&seq("spatial", 2));
        assert_eq!(map.take(&seq("spatial", 5)), Taken::Copy);
        assert_eq!(map.take(&seq("spatial", 6)), Taken::Next);
    }
}
