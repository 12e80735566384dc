//! Waypost's memory: machines that fold the log, the runner that drives them, and the projector that fills the
//! read models.

pub mod alerts;
pub mod bench;
pub mod checkpoint;
pub mod dead_letter;
pub mod intake;
pub mod machine;
pub mod projector;
pub mod registry;
pub mod spatial;
