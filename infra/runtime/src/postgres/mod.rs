//! Postgres: a bounded pool, and the migrations of the schema `waypost`.

mod migrate;
mod pool;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use migrate::{Migrated, migrate};
pub use pool::{Client, Error, Pool, Transaction};
