//! The data directory: what stands where in it, its lock, and `stack.json`, by which other processes find a stack.

mod addresses;
mod mark;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

pub use self::{addresses::Addresses, mark::Mark};

/// What can be wrong with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process works in it.
    #[error(
        "{} is in use by process {pid}: stop that one first, or name another directory with --data-dir",
        path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who holds the lock, or `unknown`.
        pid: String,
    },
    /// No stack has written its addresses there.
    #[error(
        "{} is not there: start a stack with `waypost up` in that directory first, or name the right one",
        path.display()
    )]
    NoStack {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A file in it does not say what it should.
    #[error("{} cannot be read", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The file system refused.
    #[error("{}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// A stack's data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens the directory, made with mode 0700 where it is missing.
    pub fn create(root: &Path) -> Result<Self, Error> {
        create_private(root)?;
        Self::existing(root)
    }

    /// Opens a directory that is there.
    pub fn existing(root: &Path) -> Result<Self, Error> {
        let root = root.canonicalize().map_err(Error::io(root))?;
        Ok(Self { root })
    }

    /// Its absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a running stack can be reached.
    pub fn stack_json(&self) -> PathBuf {
        self.root.join("stack.json")
    }

    /// The token by which commands on this machine act as the operator.
    pub fn operator_token(&self) -> PathBuf {
        self.root.join("operator.token")
    }

    /// The local broker's files.
    pub fn kafka(&self) -> PathBuf {
        self.root.join("kafka")
    }

    /// The local store's files, or the pointer to them.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The logs of what runs beside Waypost.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What a processor instance keeps beside its snapshots: its lock.
    pub fn instance(&self, number: u32) -> PathBuf {
        self.instance_of("processor", number)
    }

    /// What an instance of a part keeps: its lock, and what it knows.
    pub fn instance_of(&self, part: &str, number: u32) -> PathBuf {
        self.root.join("instances").join(format!("{part}-{number}"))
    }

    /// Takes the lock of the whole directory.
    pub fn lock(&self) -> Result<Lock, Error> {
        Lock::take(&self.root)
    }

    /// Takes the lock of one processor instance, whose directory is made where it is missing.
    pub fn lock_instance(&self, number: u32) -> Result<Lock, Error> {
        self.lock_instance_of("processor", number)
    }

    /// Takes the lock of one instance of a part, whose directory is made where it is missing.
    pub fn lock_instance_of(&self, part: &str, number: u32) -> Result<Lock, Error> {
        let dir = self.instance_of(part, number);
        create_private(&dir)?;
        Lock::take(&dir)
    }
}

/// Makes a directory and its parents where they are missing, with mode 0700.
pub fn create_private(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io(dir))
}

/// A new UUID of the kernel's random bits, as text.
pub fn random_uuid() -> Result<String, Error> {
    let source = Path::new("/proc/sys/kernel/random/uuid");
    Ok(fs::read_to_string(source).map_err(Error::io(source))?.trim().to_owned())
}

/// Replaces a file in one step, with mode 0600: a reader meets the old content or the new one.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let new = path.with_added_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(Error::io(path))
}

/// A lock that ends with the process that holds it, however that ends; it names the holder.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of a directory, or says who holds it.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
                return Err(Error::Held { path: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())?;
            file.flush()
        };
        write().map_err(Error::io(&path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays, because removing it would let a waiting process lock a file that is no longer there.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::create(&dir.path().join("deep/down")).expect("made");
        let first = data.lock().expect("free");
        let Err(Error::Held { pid, path }) = data.lock() else { panic!("locked twice") };
        assert_eq!((pid, path.as_path()), (std::process::id().to_string(), data.root()));
        let instance = data.lock_instance(2).expect("an instance has a lock of its own");
        drop((first, instance));
        data.lock().expect("free again");
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("operator.token");
        write_private(&path, b"a long first token").expect("written");
        write_private(&path, b"second").expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"second");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing else is left");
    }
}
