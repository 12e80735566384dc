//! Which Postgres is there: its programs, and whether they are new enough.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::bail;
use tokio::process::Command;

use super::super::{Environment, run};

const MAJOR_MIN: u32 = 15;
/// Where Debian's and Red Hat's packages put them: a directory per version, beside `PATH`.
const PLACES: [&str; 2] = ["/usr/lib/postgresql", "/usr"];
const HOW: &str = "install it (Debian: apt install postgresql), or use one that is there: --postgres URL";

/// The programs of one Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// The Postgres versions that are new enough, by major version; at least one.
#[derive(Debug)]
pub(super) struct Found(BTreeMap<u32, Programs>);

impl Found {
    /// The newest.
    pub(super) fn newest(&self) -> &Programs {
        self.0.values().next_back().expect("there is at least one")
    }

    /// The one that a cluster was made by: no other major version can read it.
    pub(super) fn of_cluster(&self, major: &str, cluster: &Path) -> anyhow::Result<&Programs> {
        let Some(programs) = major.parse().ok().and_then(|major: u32| self.0.get(&major)) else {
            let have: Vec<String> = self.0.keys().map(u32::to_string).collect();
            bail!(
                "{} was made by Postgres {major}, but here is only {}: install that one, or delete the directory (all in it can be rebuilt from the log)",
                cluster.display(),
                have.join(", ")
            );
        };
        Ok(programs)
    }
}

/// Finds every Postgres by `PATH`, `pg_config` and the places of packages.
pub(super) async fn find(environment: &Environment) -> anyhow::Result<Found> {
    let mut dirs: Vec<PathBuf> =
        environment.get("PATH").map_or_else(Vec::new, |path| std::env::split_paths(path).collect());
    if let Some(said) = run(Command::new("pg_config").arg("--bindir")).await? {
        dirs.push(said.stdout.trim().into());
    }
    for place in PLACES {
        let versions = fs::read_dir(place).into_iter().flatten().flatten();
        dirs.extend(versions.map(|version| version.path().join("bin")));
    }
    let mut found = BTreeMap::new();
    let mut old = None;
    for dir in dirs {
        let postgres = dir.join("postgres");
        if !postgres.is_file() || !dir.join("initdb").is_file() {
            continue;
        }
        let Some(said) = run(Command::new(&postgres).arg("--version")).await? else { continue };
        match major(&said.stdout) {
            Some(major) if major >= MAJOR_MIN => {
                found.entry(major).or_insert(Programs { dir, major });
            }
            Some(major) => old = Some((postgres, major)),
            None => {}
        }
    }
    match (found.is_empty(), old) {
        (false, _) => Ok(Found(found)),
        (true, Some((path, major))) => {
            bail!("{} is Postgres {major}: Waypost needs {MAJOR_MIN} or newer; {HOW}", path.display())
        }
        (true, None) => bail!("no Postgres: the local store needs Postgres {MAJOR_MIN} or newer; {HOW}"),
    }
}

/// The major version in what `postgres --version` says.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once(") ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_as_every_release_tells_it() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(major(text), expected, "{text}");
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 9.6.24", Some(9));
        check("postgres (PostgreSQL) 18beta1", Some(18));
        check("postgres (PostgreSQL)", None);
    }

    #[test]
    fn a_cluster_is_run_by_the_version_that_made_it_and_a_new_one_by_the_newest() {
        let programs = |major| Programs { dir: PathBuf::from(format!("/pg/{major}")), major };
        let found = Found([15, 17].map(|major| (major, programs(major))).into());
        assert_eq!(found.newest(), &programs(17));
        assert_eq!(found.of_cluster("15", Path::new("/c")).expect("found"), &programs(15));
        let error = found.of_cluster("16", Path::new("/c")).expect_err("there is none").to_string();
        assert!(error.contains("made by Postgres 16, but here is only 15, 17"), "{error}");
    }
}
