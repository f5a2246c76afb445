//! Access: tokens, keys, origins, rate limits, and the one table of permissions.
//!
//! Flows in: a token or a principal, the action, and the time. Flows out: claims, or a refusal.
//! Never imports a session, a shard, a socket or a clock; it keeps no state but the rate limits that its callers own.
//!
//! Invariants: a token is believed for its signature, its key's own algorithm and its times, in that order; every
//! rule of authorisation is in [`permissions`].

pub mod origins;
pub mod permissions;
pub mod rate;
pub mod token;

pub use permissions::{Action, Caller, Membership, Principal, may};
