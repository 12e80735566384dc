//! What may enter the log: pure checks of a body against its sender, the limits and the time.
//!
//! Admission refuses what token and record alone show; what only the log's order decides is left to the machines.
//! Nothing here waits, logs or reads a clock, and no input makes it panic.

mod crossing;
mod frame;
mod geojson;
mod limits;
mod media_type;
mod message;
mod object;
mod operator;
mod positions;
mod rings;
mod rule;

#[cfg(test)]
mod frame_tests;
#[cfg(test)]
mod tests;

pub use frame::{Frame, FrameRefusal, frame};
pub use geojson::{vertices, zone, zone_id};
pub use limits::Limits;
pub use message::message;
pub use operator::{behaviour, hole, skip};
pub use positions::{Report, Sender, report};
pub use rule::{rule, rule_id};

use waypost_schemas::time::Micros;

use crate::code::Code;

/// The longest detail, in bytes: a parser repeats what it met, which may be as long as the request.
const DETAIL_BYTES_MAX: usize = 500;

/// Why a request may not enter: a stable code, and a sentence that names the place in the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What is wrong and where, `fixes[3].lat is 91`; for the sender's eyes, never for a log line.
    pub detail: String,
    /// The server's time, where the sender's clock is what is wrong.
    pub time: Option<Micros>,
}

impl Refusal {
    /// Refuses with a code and a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { code, detail, time: None }
    }

    /// Refuses what could not be read as JSON of the expected form.
    fn unreadable(error: &serde_json::Error) -> Self {
        let code = if error.is_data() { Code::BadField } else { Code::BadJson };
        Self::new(code, format!("cannot be read: {error}"))
    }
}

/// Refuses where a condition does not hold.
fn ensure(holds: bool, code: Code, detail: impl FnOnce() -> String) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(code, detail())) }
}
