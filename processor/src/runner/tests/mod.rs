//! Machines on the deterministic twin: whatever dies, and wherever, a reader of the outputs takes what the straight
//! fold of the log derives, each record once.

mod crashes;
mod operators;
mod refusals;
mod two_inputs;
mod world;
