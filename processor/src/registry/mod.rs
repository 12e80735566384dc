//! The registry as machines see it: changes by offset, each read and decoded once for all partitions.

pub mod reader;

use std::sync::Arc;

use waypost_schemas::{
    event::RuleDefined,
    id::{RuleId, ZoneId},
};

use crate::spatial::zone::Zone;

pub use reader::Registry;

/// One record of the registry, ready for machines; at offsets that say nothing to machines there is none.
#[derive(Debug, Clone)]
pub struct Change {
    /// The record's offset in `registry`.
    pub offset: i64,
    /// What it changes.
    pub what: What,
}

/// What a registry record changes.
#[derive(Debug, Clone)]
pub enum What {
    /// A zone is defined, or redefined.
    Zone(Arc<Zone>),
    /// A zone is removed.
    NoZone(ZoneId),
    /// A rule is defined, or redefined.
    Rule(Arc<RuleDefined>),
    /// A rule is removed.
    NoRule(RuleId),
}
