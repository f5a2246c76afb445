//! Bytes to frames and frames to bytes, for every protocol the server speaks.
//!
//! Flows in: bytes as they arrive, in any pieces. Flows out: packets and frames that borrow from those bytes where
//! possible. Never imports a session, a clock, randomness, or anything that grows without a bound in [`crate::model::Limits`].
//!
//! Invariants: a decoder keeps only the bytes of an incomplete item; it never reserves the size that a header promises;
//! the result does not depend on how the bytes were split.

#[cfg(test)]
pub(crate) mod fuzz;
pub mod http;
pub mod json;
pub mod sockjs;
pub mod stomp;
pub mod websocket;
