//! What devices meet on their connections: delivery nodes on the broker's twin, and phones that speak WebSocket.

mod begins;
mod faults;
mod flows;
mod http;
mod world;
