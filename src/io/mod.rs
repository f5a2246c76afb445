//! glommio: sockets, clocks and threads, no decisions.
//!
//! Flows in: bytes from sockets, time, replies of the store, mail of other shards, signals. Each becomes an
//! [`Input`](crate::shard::Input) of a shard. Flows out: the shard's [`Effect`](crate::shard::Effect)s, carried out in
//! order. Never branches on a protocol and never routes: it knows a connection's descriptor, not its meaning.
//!
//! Invariants:
//! - of the server, only this room imports glommio, reads the machine's clocks, holds a socket, or says `unsafe`; the driver of
//!   ScyllaDB, behind `store/scylla`, has connections and timers of its own;
//! - only its own executor touches a shard's state; owned messages cross between executors;
//! - a full mailbox neither blocks nor drops: messages that do not fit wait in order, and meanwhile the sending shard
//!   reads no socket;
//! - handlers write nothing to sockets: afterwards each connection with output gets its share, many buffers in one
//!   gathering call;
//! - a panic ends only the connection that caused it. If an executor or a thread of the store ends, the process ends.
//!
//! System calls go through `rustix`: it has owned descriptors and typed flags where `libc` would need an `unsafe`
//! block a call. `libc` stays for signals and `prctl`, which `rustix` leaves to the C library.

pub mod bulk;
pub mod clock;
mod connections;
mod embedded;
mod executor;
mod listener;
pub mod mesh;
pub mod node;
mod otp_sender;
mod poller;
pub mod preflight;
mod pump;
pub mod scylla;
mod signals;
pub mod store_bridge;
pub mod tick;
mod watchdog;

pub use node::{Node, NodeOptions, Ready, StartError, run};
