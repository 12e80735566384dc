//! What all of Waypost's HTTP has in common: problems, JSON bodies, and a server that bears hostile clients.

mod json;
mod observe;
mod params;
mod problem;
mod server;
mod stall;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use json::{BodyBytesMax, Json, body_bytes_max, json_bytes};
pub use observe::observe;
pub use params::{Path, Query};
pub use problem::{Code, PROBLEMS, Problem, codes};
pub use server::{Connections, Limits, serve};
