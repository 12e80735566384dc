//! Where values come from, and what is said of those that are wrong.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    near::near,
    rows::{ROWS, Row, Settings},
    value::show_property,
};

/// What every variable of Waypost's begins with.
const ENV_PREFIX: &str = "WAYPOST_";
/// The variable that names the TOML file; it is no setting, for the file cannot name itself.
const ENV_FILE: &str = "WAYPOST_CONFIG";
/// The file that is read where none is named and it is there.
const FILE_DEFAULT: &str = "waypost.toml";
/// The one key under which any name is taken.
const OPEN: &str = "kafka.properties";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable, by its name.
    Env(String),
    /// A TOML file, by its path.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Env(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A name that is no setting.
    #[error("{origin}: {name} is no setting{}", hint(near))]
    Unknown {
        /// Where it stands.
        origin: Source,
        /// The name.
        name: String,
        /// Names that may have been meant.
        near: Vec<String>,
    },
    /// A value that is not what the setting takes.
    #[error("{origin}: {key} is {value:?}, but should be {expected}")]
    Invalid {
        /// Where it stands.
        origin: Source,
        /// The setting.
        key: String,
        /// The value, without secrets.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// The file cannot be read.
    #[error("file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The file is no TOML.
    #[error("file {} is no TOML: {error}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
}

fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) }
}

/// All that is wrong with the settings.
#[derive(Debug)]
pub struct Error {
    /// Each thing, in the order of the table.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What settings are made of, before it is understood.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// What the command line said, by key.
    pub flags: BTreeMap<String, String>,
    /// The environment, all of it.
    pub env: BTreeMap<String, String>,
    /// The TOML file's path and text.
    pub file: Option<(PathBuf, String)>,
}

impl Sources {
    /// Takes flags and environment, and reads the file: the one named, or `WAYPOST_CONFIG`, or `waypost.toml` in
    /// the working directory where it is there.
    pub fn read(
        flags: BTreeMap<String, String>,
        env: BTreeMap<String, String>,
        file: Option<&Path>,
    ) -> Result<Self, Error> {
        let named = file.map(Path::to_path_buf).or_else(|| env.get(ENV_FILE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE_DEFAULT));
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => Some((path, text)),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error { faults: vec![Fault::Unreadable { path, error }] }),
        };
        Ok(Self { flags, env, file })
    }
}

/// The process's environment. What is not UTF-8 is made so with replacement characters.
pub fn environment() -> BTreeMap<String, String> {
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value, without secrets.
    pub value: String,
    /// Where the value came from, in words.
    pub source: String,
    /// What it is when nobody sets it.
    pub default: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// Values by key, with where each came from; those of a higher source have replaced those of a lower.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolved(BTreeMap<String, (String, Source)>);

impl Resolved {
    pub(super) fn text(&self, row: &Row) -> (&str, &Source) {
        self.0.get(row.key).map_or((row.default, &Source::Default), |(text, source)| (text.as_str(), source))
    }

    /// Names, values and sources under an open key.
    pub(super) fn under(&self, key: &str) -> impl Iterator<Item = (&str, &str, &Source)> {
        let prefix = format!("{key}.");
        self.0.iter().filter_map(move |(name, (value, source))| {
            Some((name.strip_prefix(&prefix)?, value.as_str(), source))
        })
    }
}

/// All settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Config {
    resolved: Resolved,
    settings: Settings,
}

impl Config {
    /// Resolves every setting, and tells all that is wrong at once.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let mut faults = Vec::new();
        let mut resolved = Resolved::default();
        if let Some((path, text)) = &sources.file {
            match text.parse::<toml::Table>() {
                Ok(table) => take_table(&mut resolved, &mut faults, &Source::File(path.clone()), "", table),
                Err(error) => faults.push(Fault::Toml { path: path.clone(), error: Box::new(error) }),
            }
        }
        take_env(&mut resolved, &mut faults, &sources.env);
        for (key, value) in &sources.flags {
            take(&mut resolved, &mut faults, Source::Flag, key, value.clone());
        }
        let settings = Settings::read(&resolved, &mut faults);
        match settings {
            Some(settings) if faults.is_empty() => Ok(Self { resolved, settings }),
            _ => Err(Error { faults }),
        }
    }

    /// The settings, typed.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every setting as it is in force, in the order of the table; what stands under an open key follows it.
    pub fn in_force(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        for row in ROWS {
            let (value, source) = self.resolved.text(row);
            let setting = |key: String, value: String, source: &Source| Setting {
                key,
                value,
                source: source.to_string(),
                default: row.default,
                unit: row.unit,
                doc: row.doc,
            };
            all.push(setting(row.key.to_owned(), (row.show)(value), source));
            all.extend(self.resolved.under(row.key).map(|(name, value, source)| {
                setting(format!("{}.{name}", row.key), show_property(name, value), source)
            }));
        }
        all
    }

    /// The settings as TOML that could be read again (but for secrets), each with its sentence and its source.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for Setting { key, value, source, unit, doc, .. } in self.in_force() {
            if key == OPEN {
                continue;
            }
            let key = key
                .strip_prefix(OPEN)
                .and_then(|rest| rest.strip_prefix('.'))
                .map_or_else(|| key.clone(), |name| format!("{OPEN}.\"{name}\""));
            let value =
                if value.parse::<u64>().is_ok() { value } else { toml::Value::from(value).to_string() };
            let _ = writeln!(text, "# {doc}\n{key} = {value}  # {unit}, {source}\n");
        }
        text
    }
}

fn take(resolved: &mut Resolved, faults: &mut Vec<Fault>, source: Source, key: &str, value: String) {
    let open = key.strip_prefix(OPEN).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'));
    if open || ROWS.iter().any(|row| row.key == key) {
        resolved.0.insert(key.to_owned(), (value, source));
    } else {
        let near = near(key, ROWS.iter().map(|row| row.key.to_owned()));
        faults.push(Fault::Unknown { origin: source, name: key.to_owned(), near });
    }
}

fn take_table(
    resolved: &mut Resolved,
    faults: &mut Vec<Fault>,
    source: &Source,
    under: &str,
    table: toml::Table,
) {
    for (name, value) in table {
        let key = if under.is_empty() { name } else { format!("{under}.{name}") };
        match value {
            toml::Value::Table(table) => take_table(resolved, faults, source, &key, table),
            toml::Value::String(text) => take(resolved, faults, source.clone(), &key, text),
            other => take(resolved, faults, source.clone(), &key, other.to_string()),
        }
    }
}

fn take_env(resolved: &mut Resolved, faults: &mut Vec<Fault>, env: &BTreeMap<String, String>) {
    let open = env_name(OPEN) + "_";
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX) && *name != ENV_FILE) {
        let source = Source::Env(name.clone());
        if let Some(row) = ROWS.iter().find(|row| env_name(row.key) == *name) {
            take(resolved, faults, source, row.key, value.clone());
        } else if let Some(property) = name.strip_prefix(&open) {
            // librdkafka's names have dots and no underscores.
            let property = property.to_lowercase().replace('_', ".");
            take(resolved, faults, source, &format!("{OPEN}.{property}"), value.clone());
        } else {
            let near = near(name, ROWS.iter().map(|row| env_name(row.key)));
            faults.push(Fault::Unknown { origin: Source::Env(name.clone()), name: name.clone(), near });
        }
    }
}

/// `WAYPOST_INGEST_ACCEPT_TIMEOUT_MS` for `ingest.accept_timeout_ms`.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}
