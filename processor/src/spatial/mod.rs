//! The spatial machine: which zones each device is inside, and which rules that fires.
//!
//! Start at [`SpatialMachine`], the fold of `positions`, and at [`zone::Zone`], which knows what is inside it.
//! Nothing here asks how a fix came or where a match goes.

mod circle;
mod ellipsoid;
mod envelope;
mod index;
mod machine;
mod polygon;
mod state;
mod view;
pub mod zone;

pub use index::ZoneIndex;
pub use machine::{AUDIENCE_PART_USERS_MAX, SpatialMachine};
pub(crate) use machine::{fit, is_ahead};

/// The registry offset at which a zone was first defined since it was last absent. A zone keeps it while it is
/// redefined and loses it when it is removed, so it names one life of one zone.
type Generation = i64;

#[cfg(test)]
mod tests;
