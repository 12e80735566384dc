//! Waypost's ground: what every process stands on, and nothing that decides.

pub mod broker;

pub mod datadir;
