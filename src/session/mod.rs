//! One client: who it is, what it may do, what it has subscribed to, and when it must be heard of again.
//!
//! Flows in: decoded frames and `now`. Flows out: intents, encoded frames, deadlines.
//! Never imports a socket, another session, or the store but for its contract's types; time only as `now`.
//!
//! Invariants: nothing is authorised by a session that is not connected; a name a client chose is bounded
//! before it is kept.

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
