//! Postgres: a bounded pool, and the migrations of the schema `waypost`.

mod migrate;
mod pool;

pub use migrate::{Migrated, migrate};
pub use pool::{Client, Error, Pool, Transaction};
