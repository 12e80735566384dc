//! What a node keeps of its tails on its own disk, so that it can begin them while the store is away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use waypost_runtime::{
    datadir::{self, write_private},
    lifecycle::blocking,
    telemetry::Chain,
};
use waypost_schemas::cause::SeqMap;

use super::cursors::Written;

/// A tail as it stood: where its ring could begin again, and the cursors of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stood {
    /// The Kafka cluster whose log it read.
    pub(crate) cluster: String,
    /// The next offset of `inboxes`, with the numbers that were taken below it.
    pub(crate) inbox_next: i64,
    pub(crate) seqs: SeqMap,
    /// The offset of `acks` since which every acknowledgement is in the cursors, and the next one.
    pub(crate) acks_since: i64,
    pub(crate) acks_next: i64,
    pub(crate) cursors: Vec<Written>,
}

/// The node's directory.
#[derive(Clone, Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Keeps tails in a directory, made with mode 0700 where it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, datadir::Error> {
        datadir::create_private(dir)?;
        Ok(Self(dir.to_owned()))
    }

    fn path(&self, partition: i32) -> PathBuf {
        self.0.join(format!("tail-{partition}.json"))
    }

    /// How a partition's tail stood; nothing where it was not kept, or cannot be read.
    pub(crate) async fn read(&self, partition: i32) -> Option<Stood> {
        let path = self.path(partition);
        blocking(move || {
            let text = fs::read(&path).ok()?;
            match serde_json::from_slice(&text) {
                Ok(stood) => Some(stood),
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "this file of a tail cannot be read, and is not needed: leaving it");
                    None
                }
            }
        })
        .await
    }

    /// Keeps how a partition's tail stands; where that fails the last one stays.
    pub(crate) async fn write(&self, partition: i32, stood: Stood) {
        let path = self.path(partition);
        let written = blocking(move || {
            let text = serde_json::to_vec(&stood).expect("numbers and texts are JSON");
            write_private(&path, &text)
        });
        if let Err(error) = written.await {
            tracing::warn!(error = %Chain(&error), partition, "a tail cannot be kept on the disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tail_stands_as_it_was_kept_and_a_broken_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("delivery-1")).unwrap();
        let stood = Stood {
            cluster: "c".to_owned(),
            inbox_next: 7,
            seqs: SeqMap::default(),
            acks_since: 1,
            acks_next: 3,
            cursors: serde_json::from_str(r#"[["bob/phone",5,true,2]]"#).unwrap(),
        };
        assert_eq!(disk.read(3).await, None);
        disk.write(3, stood.clone()).await;
        assert_eq!(disk.read(3).await, Some(stood));
        fs::write(disk.path(3), "{").unwrap();
        assert_eq!(disk.read(3).await, None);
    }
}
