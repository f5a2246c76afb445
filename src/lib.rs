//! tidings: real-time messaging over STOMP, WebSocket and SockJS, one executor per core.
//!
//! `docs/ARCHITECTURE.md` lists the rooms and their dependencies; a test in `tidy` checks them.

pub mod access;
pub mod api;
pub mod config;
#[cfg(test)]
mod fuzz;
pub mod import;
pub mod io;
pub mod log;
pub mod model;
pub mod protocol;
pub mod session;
pub mod shard;
pub mod sim;
pub mod store;
#[cfg(test)]
mod tidy;
