//! `stack.json`: where the parts of a running stack are.

use std::{collections::BTreeMap, fs, io};

use serde::{Deserialize, Serialize};

use super::{DataDir, Error, Mark, write_private};

/// Where the parts of a running stack are, and which processes they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The HTTP port, `http://127.0.0.1:7400`.
    pub url: String,
    /// Kafka's bootstrap servers, `127.0.0.1:21042`.
    pub kafka: String,
    /// Postgres, as a connection URL.
    pub postgres: String,
    /// The processes, by part: `waypost`, and `kafka` and `postgres` where this stack started them.
    pub processes: BTreeMap<String, Mark>,
}

impl Addresses {
    /// Reads what the stack of a data directory has written.
    pub fn read(dir: &DataDir) -> Result<Self, Error> {
        let path = dir.stack_json();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(Error::NoStack { path }),
            Err(source) => return Err(Error::Io { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| Error::Malformed { path, source })
    }

    /// Writes them in one step.
    pub fn write(&self, dir: &DataDir) -> Result<(), Error> {
        let path = dir.stack_json();
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::Malformed { path: path.clone(), source })?;
        write_private(&path, &text)
    }

    /// Removes them when the stack stops; that they are gone already is no error.
    pub fn remove(dir: &DataDir) -> Result<(), Error> {
        let path = dir.stack_json();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io { path, source }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_json_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = DataDir::create(dir.path()).expect("made");
        let written = Addresses {
            url: "http://127.0.0.1:7400".into(),
            kafka: "127.0.0.1:21042".into(),
            postgres: "postgresql://waypost@%2Fvar%2Flib/postgres".into(),
            processes: BTreeMap::from([("kafka".into(), Mark { pid: 7, started: 123_456 })]),
        };
        written.write(&dir).expect("written");
        assert_eq!(Addresses::read(&dir).expect("read"), written);
        Addresses::remove(&dir).expect("removed");
        Addresses::remove(&dir).expect("removing twice is no error");
        assert!(matches!(Addresses::read(&dir), Err(Error::NoStack { .. })));
        fs::write(dir.stack_json(), "{\"url\":").expect("written");
        assert!(matches!(Addresses::read(&dir), Err(Error::Malformed { .. })));
    }
}
