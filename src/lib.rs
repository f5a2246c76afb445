//! tidings: real-time messaging over STOMP, WebSocket and SockJS, one executor per core.
//!
//! `docs/ARCHITECTURE.md` describes the rooms and the imports that each may have; a test in `tidy` holds them to it. Without the
//! feature `server` there are only the rooms that a client needs.

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod api;
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(test)]
mod fuzz;
#[cfg(feature = "server")]
pub mod import;
#[cfg(feature = "server")]
pub mod io;
#[cfg(feature = "server")]
pub mod log;
pub mod model;
pub mod protocol;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod sim;
#[cfg(feature = "server")]
pub mod store;
#[cfg(test)]
mod tidy;
