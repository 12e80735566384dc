//! Waypost's harness and laws: what must hold of the repository and of the whole pipeline, held by its tests.
//!
//! `tests/tidy.rs` holds the arrows between the crates, and which file may name which crate. [`stack`] runs the
//! program as a user does, [`input`] and [`track`] make what is imported, [`phone`] is a user's device, [`socket`]
//! a bare one, [`tail`] what it prints, [`link`] a network that can be cut; and `tests/pipeline.rs`, `tests/messages.rs` and
//! `tests/sockets.rs` kill whatever can be killed meanwhile. It stands on everything, and nothing stands on it.

pub mod input;
pub mod link;
pub mod phone;
pub mod socket;
pub mod stack;
pub mod tail;
pub mod track;
