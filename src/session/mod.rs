//! One client: its identity, its rights, its subscriptions, and its deadlines.
//!
//! Flows in: decoded frames and `now`. Flows out: intents, encoded frames, deadlines.
//! Never imports a socket, another session, or the store beyond its contract's types; time only as `now`.
//!
//! Invariants: a session that is not connected authorises nothing; names that a client chose are bounded before they are kept.

pub mod content;
pub mod endpoints;
pub mod frames;
pub mod heartbeat;
pub mod intent;
pub mod policy;
pub mod sockjs;
pub mod state;

pub use policy::Policy;
pub use state::{Session, Subscription};
