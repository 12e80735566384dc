//! Settings: each declared once in [`rows`], resolved as flag, then `WAYPOST_*`, then TOML file, then default.
//!
//! [`Config::load`] reads all of them, knows where each value came from, and refuses names that it does not know;
//! [`Config::settings`] is the typed form, of which each piece takes its own part.

mod load;
mod near;
mod rows;
#[cfg(test)]
mod tests;
mod value;

pub use load::{Config, Error, Fault, Setting, Source, Sources, environment};
pub use rows::{
    Auth, Delivery, Http, Ingest, Kafka, Log, Postgres, Processor, Projector, Row, Settings, Shutdown,
    Snapshots, Topics,
};
pub use value::{Properties, Secret, SecretUrl};
