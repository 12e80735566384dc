//! Waypost's ground: what every process stands on, and nothing that decides.
//!
//! A process loads its settings ([`config`]), starts to tell what it does ([`telemetry`], [`health`]), runs tasks
//! that stop together ([`lifecycle`]), serves HTTP ([`http`]) to those who show a token ([`auth`]), and stands on
//! the log ([`broker`]) and on Postgres ([`postgres`]). [`connect`]
//! reaches both, and [`join`] is all of it for a process that joins a running stack by its data directory
//! ([`datadir`]). What a reader asks of each record is [`intake`], what operators have said about
//! the log [`facts`]. The only clock is in [`clock`]; what tasks tell each other goes by [`watch`].

pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod connect;
pub mod datadir;
pub mod facts;
pub mod health;
pub mod http;
pub mod intake;
pub mod join;
pub mod lifecycle;
pub mod pace;
pub mod postgres;
pub mod telemetry;
pub mod watch;
