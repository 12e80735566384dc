//! The settings of a command that runs or looks at a stack's own pieces: flags over `WAYPOST_*` over a TOML file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::bail;
use waypost_runtime::config::{Config, Sources, environment};

/// How any setting is given
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Settings {
    /// TOML file with settings; default: waypost.toml in this directory, where it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting by its name, over WAYPOST_* variables and the file; `waypost config` lists them
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// Loads the settings; `flags` are those that have a flag of their own.
    pub(super) fn load<'a>(
        &self,
        flags: impl IntoIterator<Item = (&'a str, Option<String>)>,
    ) -> anyhow::Result<Config> {
        let mut all = BTreeMap::new();
        for pair in &self.set {
            let Some((name, value)) = pair.split_once('=') else {
                bail!("--set takes NAME=VALUE, not {pair}");
            };
            all.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let given = flags.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        all.extend(given);
        let sources = Sources::read(all, environment(), self.config.as_deref())?;
        Ok(Config::load(&sources)?)
    }
}
