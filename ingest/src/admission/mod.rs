//! What may enter the log: pure checks of a body against its sender, the limits and the time.
//!
//! Admission refuses what token and record alone show; what only the log's order decides is left to the machines.
//! Nothing here waits, logs or reads a clock, and no input makes it panic.

mod crossing;
mod geojson;
mod limits;
mod object;
mod positions;
mod rings;
mod rule;

#[cfg(test)]
mod tests;

pub use geojson::{vertices, zone, zone_id};
pub use limits::Limits;
pub use positions::{Report, Sender, report};
pub use rule::{rule, rule_id};

use crate::code::Code;

/// Why a request may not enter: a stable code, and a sentence that names the place in the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What is wrong and where, `fixes[3].lat is 91`; for the sender's eyes, never for a log line.
    pub detail: String,
}

impl Refusal {
    /// Refuses with a code and a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Refuses where a condition does not hold.
fn ensure(holds: bool, code: Code, detail: impl FnOnce() -> String) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(code, detail())) }
}
