//! Snapshots in both of their places, and a whole processor that is restored from them.

mod places;
#[path = "../projector/postgres.rs"]
#[allow(dead_code, reason = "the projector's tests use more of it")]
mod postgres;
mod whole;
