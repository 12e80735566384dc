//! The spatial machine: which zones each device is inside, and which rules that fires.

pub mod zone;
