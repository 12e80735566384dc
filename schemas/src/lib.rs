//! Waypost's contract: what every room and every outside reader must agree on.
//!
//! Ids, time and place ([`id`], [`client_id`], [`time`], [`place`]); the topic catalogue ([`topic`]); the records on the topics
//! and their bytes ([`event`], [`codec`]); where a derived record comes from ([`cause`], [`header`]); and what a
//! device says on its connection ([`frame`]).
//!
//! This crate does no I/O, reads no clock and knows no broker. Start at [`topic::Topic`] and [`event::Event`].

pub mod cause;
pub mod client_id;
pub mod codec;
pub mod event;
pub mod example;
pub mod frame;
pub mod header;
pub mod id;
pub mod machine;
pub mod partition;
pub mod place;
pub mod time;
pub mod topic;
pub mod topics_page;
