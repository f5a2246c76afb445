//! Who may: tokens, keys, origins, budgets, and the one table of permissions.
//!
//! Flows in: a token or a principal, what is asked, and the time. Flows out: claims, or a refusal.
//! Never imports a session, a shard, a socket or a clock; it keeps no state but the budgets its callers own.
//!
//! Invariants: a token is believed for its signature, its key's own algorithm and its times, in that order; every rule
//! about who may do what stands in [`permissions`].

pub mod origins;
pub mod permissions;
pub mod rate;
pub mod token;

pub use permissions::{Action, Caller, Membership, Principal, may};
