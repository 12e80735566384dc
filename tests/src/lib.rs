//! Waypost's harness and laws: what must hold of the repository and of the whole pipeline, held by its tests.
//!
//! `tests/tidy.rs` holds the arrows between the crates, and which file may name which library. [`track`] makes the
//! fleet that end-to-end tests import. It stands on everything, and nothing stands on it.

pub mod track;
