//! Where the cluster and its socket stand, and whose they are.
//!
//! Postgres refuses to run as root. Root's store is therefore the user `postgres`'s and stands below
//! `/var/lib/waypost`, for that user can enter neither a home directory of mode 0700 nor this data directory; a
//! pointer in the data directory names it. Anyone else's stands in the data directory.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use waypost_runtime::datadir::{DataDir, create_private, random_uuid, write_private};

use super::super::{Environment, run, short_hash};

const ROOTS_BASE: &str = "/var/lib/waypost";
/// The file in such a base that says whose it is.
const BELONGS: &str = "data-dir.json";
/// What a socket's address holds on Linux without its closing zero: see unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What Postgres calls the socket of port 5432.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Where the store stands.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory of the cluster.
    pub(super) base: PathBuf,
    /// The directory of the socket; only its owner may enter it, and root.
    pub(super) socket_dir: PathBuf,
    /// Whom Postgres runs as, where that is not ourselves: user and group id.
    pub(super) owner: Option<(u32, u32)>,
    /// What a base outside the data directory must hold to be its own.
    pointer: Option<Pointer>,
}

/// That a base outside belongs to a data directory: both keep the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    base: PathBuf,
    /// Of the data directory's making, so that one made anew at the same path does not take an old store for its own.
    token: String,
}

impl Pointer {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

fn pointer_of(data: &DataDir) -> PathBuf {
    data.postgres().join("pointer.json")
}

/// Removes what a stopped stack keeps outside its data directory: root's local store. Call it before removing the
/// data directory itself; where there is nothing outside, it does nothing.
pub fn remove_store(data: &DataDir) -> io::Result<()> {
    match Pointer::read(&pointer_of(data)) {
        Some(pointer) if Pointer::read(&pointer.base.join(BELONGS)).as_ref() == Some(&pointer) => {
            fs::remove_dir_all(&pointer.base)
        }
        _ => Ok(()),
    }
}

/// The place of a data directory's store.
pub(super) async fn of(data: &DataDir, environment: &Environment) -> anyhow::Result<Place> {
    if rustix::process::geteuid().is_root() { of_root(data).await } else { of_user(data, environment) }
}

async fn of_root(data: &DataDir) -> anyhow::Result<Place> {
    let hash = short_hash(data.root().as_os_str().as_encoded_bytes());
    let base = Path::new(ROOTS_BASE).join(&hash);
    let owner = user_of_root().await?;
    let path = pointer_of(data);
    let pointer = if let Some(had) = Pointer::read(&path).filter(|pointer| pointer.base == base) {
        had
    } else {
        let pointer = Pointer { base: base.clone(), token: random_uuid()? };
        write_private(&path, &serde_json::to_vec(&pointer)?)?;
        pointer
    };
    Ok(Place { socket_dir: base.join("run"), base, owner: Some(owner), pointer: Some(pointer) })
}

/// The user and the group that root's store runs as.
pub(super) async fn user_of_root() -> anyhow::Result<(u32, u32)> {
    Ok((id_of_postgres("-u").await?, id_of_postgres("-g").await?))
}

async fn id_of_postgres(which: &str) -> anyhow::Result<u32> {
    let said = run(Command::new("id").args([which, "postgres"])).await?;
    said.filter(|said| said.success).and_then(|said| said.stdout.trim().parse().ok()).context(
        "there is no user postgres: Postgres refuses to run as root, so root's local store runs as that user; make it (useradd --system postgres), run as another user, or use --postgres URL",
    )
}

fn of_user(data: &DataDir, environment: &Environment) -> anyhow::Result<Place> {
    let base = data.postgres();
    let user = rustix::process::geteuid().as_raw();
    let hash = short_hash(data.root().as_os_str().as_encoded_bytes());
    let runtime = environment.get("XDG_RUNTIME_DIR").map(Path::new);
    let Some(socket_dir) = socket_dir(&base, runtime, user, &hash) else {
        bail!(
            "no directory for the store's socket is short enough: name a shorter --data-dir than {}",
            data.root().display()
        );
    };
    Ok(Place { base, socket_dir, owner: None, pointer: None })
}

/// The first directory whose socket's path is short enough: the base, the user's runtime directory, `/tmp`.
fn socket_dir(base: &Path, runtime: Option<&Path>, user: u32, hash: &str) -> Option<PathBuf> {
    let runtime = runtime.filter(|dir| dir.is_absolute()).map(|dir| dir.join(format!("waypost-{hash}")));
    let fits = |dir: &PathBuf| dir.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    [Some(base.to_owned()), runtime, Some(format!("/tmp/waypost-{user}-{hash}").into())]
        .into_iter()
        .flatten()
        .find(fits)
}

impl Place {
    /// The cluster's own directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.base.join("cluster")
    }

    /// The socket's directory where it stands outside the base.
    pub(super) fn outside(&self) -> Option<PathBuf> {
        (!self.socket_dir.starts_with(&self.base)).then(|| self.socket_dir.clone())
    }

    /// Makes the directories; a base that belongs to a data directory that is gone is emptied first.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        if let Some(pointer) = &self.pointer {
            self.take_base(pointer)?;
            self.make_owned(&self.socket_dir)
        } else {
            create_private(&self.base)?;
            create_private(&self.socket_dir)?;
            self.check_socket_dir()
        }
    }

    /// The base stays root's, so that `postgres` cannot lead root astray by what it writes there.
    fn take_base(&self, pointer: &Pointer) -> anyhow::Result<()> {
        make_passable(Path::new(ROOTS_BASE))?;
        let belongs = self.base.join(BELONGS);
        if Pointer::read(&belongs).as_ref() == Some(pointer) {
            return Ok(());
        }
        if self.base.exists() {
            tracing::info!(dir = %self.base.display(), "emptying the store of a data directory that is gone");
            fs::remove_dir_all(&self.base).with_context(|| self.base.display().to_string())?;
        }
        make_passable(&self.base)?;
        Ok(write_private(&belongs, &serde_json::to_vec(pointer)?)?)
    }

    /// Makes a directory that only the one whom Postgres runs as may enter.
    pub(super) fn make_owned(&self, dir: &Path) -> anyhow::Result<()> {
        create_private(dir)?;
        if let Some((user, group)) = self.owner {
            chown(dir, Some(user), Some(group)).with_context(|| dir.display().to_string())?;
        }
        Ok(())
    }

    /// Refuses a socket directory that someone else has made, or can enter: `/tmp` is everybody's.
    fn check_socket_dir(&self) -> anyhow::Result<()> {
        let dir =
            fs::symlink_metadata(&self.socket_dir).with_context(|| self.socket_dir.display().to_string())?;
        if !dir.is_dir() || dir.uid() != rustix::process::geteuid().as_raw() || dir.mode() & 0o077 != 0 {
            bail!(
                "{} is not a directory of ours with mode 0700: delete it, or chmod it",
                self.socket_dir.display()
            );
        }
        Ok(())
    }

    /// The store as a connection URL, whose host is the socket's directory, percent-encoded.
    pub(super) fn url(&self, user: &str) -> String {
        let bytes = self.socket_dir.as_os_str().as_encoded_bytes();
        let host: String = bytes
            .iter()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(*byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("postgresql://{user}@{host}/postgres")
    }
}

/// Makes a directory that everyone may pass through, whatever the umask.
fn make_passable(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir)
        .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755)))
        .with_context(|| dir.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_stands_where_its_path_is_short_enough() {
        let long = |bytes: usize| format!("/{}", "d".repeat(bytes - 1));
        let check = |base: &str, runtime: Option<&str>, expected: &str| {
            let dir = socket_dir(Path::new(base), runtime.map(Path::new), 1000, "0123456789abcdef");
            assert_eq!(dir.as_deref(), Some(Path::new(expected)), "{base}");
        };
        let (fits, too_long) = (long(93), long(94));
        assert_eq!(format!("{fits}/{SOCKET_NAME}").len(), SOCKET_PATH_BYTES_MAX);
        check("/home/me/waypost-data/postgres", None, "/home/me/waypost-data/postgres");
        check(&fits, Some("/run/user/1000"), &fits);
        check(&too_long, Some("/run/user/1000"), "/run/user/1000/waypost-0123456789abcdef");
        check(&too_long, Some(&too_long), "/tmp/waypost-1000-0123456789abcdef");
        check(&too_long, Some("run"), "/tmp/waypost-1000-0123456789abcdef");
        check(&too_long, None, "/tmp/waypost-1000-0123456789abcdef");
    }

    #[test]
    fn the_url_names_the_sockets_directory_as_its_host() {
        let place =
            Place { base: "/b".into(), socket_dir: "/home/me/my data".into(), owner: None, pointer: None };
        assert_eq!(place.url("waypost"), "postgresql://waypost@%2Fhome%2Fme%2Fmy%20data/postgres");
    }
}
