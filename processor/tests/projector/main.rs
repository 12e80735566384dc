//! The projector and the reads, on a log in memory and a Postgres of their own.

mod faults;
mod postgres;
mod reads;
mod refusals;
mod tables;
mod throughput;
mod world;
