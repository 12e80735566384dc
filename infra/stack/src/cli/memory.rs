//! What commands that speak as a device remember of it from one run to the next.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use waypost_schemas::id::{DeviceName, UserId};

use crate::client;

/// How often a file that another run holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The directory of what is remembered: in the stack's data directory, or, where the stack is elsewhere, the user's
/// own place for state.
#[derive(Debug)]
pub(super) struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// Finds the directory, and makes it.
    pub(super) fn open(
        stack: &client::Options,
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let dir = place(stack, environment);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| format!("what a device has seen cannot be kept in {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The file of a command and a device.
    pub(super) fn file(&self, command: &str, user: &UserId, device: &DeviceName) -> PathBuf {
        // No id holds a tilde.
        self.dir.join(format!("{command}~{user}~{device}.json"))
    }
}

fn place(stack: &client::Options, environment: &BTreeMap<String, String>) -> PathBuf {
    if stack.data_dir.is_dir() {
        return stack.data_dir.join("clients");
    }
    // The XDG Base Directory Specification ignores paths that are not absolute.
    let of = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    let address = Sha256::digest(stack.url.trim_end_matches('/'));
    let address: String = address[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    state.unwrap_or_else(|| stack.data_dir.clone()).join("waypost").join(address)
}

/// What a file says; nothing where there is none, or where it is none of ours.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces a file in one step. It is not forced to the disk: a stack remembers what is acknowledged.
pub(super) fn write(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    let new = path.with_added_extension(format!("{}.new", std::process::id()));
    let text = serde_json::to_vec(content)?;
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).with_context(|| path.display().to_string())
}

/// A file that one run at a time holds.
pub(super) struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    /// Waits until no other run holds the file.
    pub(super) async fn wait(path: PathBuf) -> anyhow::Result<Self> {
        let named = || path.display().to_string();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).with_context(named)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, path }),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
                Err(TryLockError::Error(error)) => return Err(error).with_context(named),
            }
        }
    }

    /// What it says; nothing where it is new, or was left half written.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut text = Vec::new();
        self.file.rewind().ok()?;
        self.file.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write(&mut self, content: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_vec(content)?;
        let file = &mut self.file;
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
        written.with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_in_the_data_directory_or_where_the_user_keeps_state() {
        let data = tempfile::tempdir().unwrap();
        let stack = |data_dir: &Path, url: &str| client::Options {
            url: url.to_owned(),
            token: None,
            data_dir: data_dir.to_owned(),
        };
        let check = |data_dir: &Path, url: &str, pairs: &[(&str, &str)], expected: &Path| {
            let environment = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(place(&stack(data_dir, url), &environment), expected, "{pairs:?}");
        };
        let (none, home) = (Path::new("/nowhere/x"), ("HOME", "/home/me"));
        check(data.path(), "http://h:1", &[home], &data.path().join("clients"));
        let elsewhere = place(&stack(none, "http://h:1"), &[("HOME".into(), "/home/me".into())].into());
        assert_eq!(elsewhere.parent(), Some(Path::new("/home/me/.local/state/waypost")));
        check(none, "http://h:1/", &[home], &elsewhere);
        let xdg = Path::new("/s/waypost").join(elsewhere.file_name().unwrap());
        check(none, "http://h:1", &[home, ("XDG_STATE_HOME", "/s")], &xdg);
        check(none, "http://h:1", &[home, ("XDG_STATE_HOME", "s")], &elsewhere);
        assert_ne!(
            place(&stack(none, "http://h:2"), &[("HOME".into(), "/home/me".into())].into()),
            elsewhere
        );
    }

    #[tokio::test]
    async fn a_held_file_is_waited_for_and_keeps_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("send~a~b.json");
        let mut first = Held::wait(path.clone()).await.unwrap();
        assert_eq!(first.read::<String>(), None);
        first.write(&"a longer text").unwrap();
        first.write(&"short").unwrap();
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, Held::wait(path.clone())).await.is_err(), "it is held");
        drop(first);
        assert_eq!(Held::wait(path).await.unwrap().read::<String>().as_deref(), Some("short"));
    }
}
