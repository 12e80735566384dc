//! Waypost's laws: what must hold of the repository as a whole, held by its tests.
//!
//! Today this is `tests/tidy.rs`: the arrows between the crates, and which file may name which library.
