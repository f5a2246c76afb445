//! tidings: real-time messaging over STOMP, WebSocket and SockJS, one executor per core.
//!
//! The rooms and what they may know of each other are told in `docs/ARCHITECTURE.md` and held by a test in `tidy`.

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
