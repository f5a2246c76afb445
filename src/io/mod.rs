//! glommio: sockets, clocks and threads, and no decisions.
//!
//! Flows in: bytes from sockets, time, replies of the store, mail of other shards, signals. All of it becomes an
//! [`Input`](crate::shard::Input) of a shard. Flows out: the shard's [`Effect`](crate::shard::Effect)s, carried out in
//! their order. Never branches on a protocol and never routes: it knows a connection's descriptor, not its meaning.
//!
//! Invariants:
//! - of the server, only this room imports glommio, reads the machine's clocks, holds a socket, or says `unsafe`; the driver of
//!   ScyllaDB, behind `store/scylla`, has connections and timers of its own;
//! - a shard's state is touched by its own executor only; what crosses is an owned message;
//! - a mailbox that is full neither blocks nor drops: what does not fit waits, in order, and meanwhile the shard that
//!   sends reads no socket;
//! - nothing is written while inputs are handled: afterwards each connection with something to write gets its share, many buffers
//!   in one gathering call;
//! - work of one connection is contained: if it panics, that connection ends. If an executor or the store's thread
//!   ends, the process ends.
//!
//! System calls go through `rustix`: it has owned descriptors and typed flags where `libc` would need an `unsafe`
//! block a call. `libc` stays for the signals and `prctl`, which `rustix` leaves to the C library.

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
