//! Waypost's way down: what the log says to users reaches their devices, each entry until its device acknowledges it.

pub mod catchup;
pub mod code;
pub mod entry;
pub mod session;
