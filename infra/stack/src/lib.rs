//! The `waypost` command, and everything in one process.
//!
//! What it is: the place where the crates are wired. `up` starts a local Kafka and Postgres where no address is
//! given, and runs ingest and processor on one HTTP port; `cli` is the command line over it. What it is not: a
//! place where anything about fixes, zones or messages is decided. The way in: [`up::start`], which the
//! tests use too, and [`cli::run`].

pub mod cli;
pub mod client;
pub mod device;
mod local;
mod page;
pub mod up;

pub use local::{Environment, postgres::remove_store};
