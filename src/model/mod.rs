//! The vocabulary that all rooms share: ids, time, destinations, messages, commands and the one table of codes.
//!
//! Flows in: numbers and strings from the edge, parsed once. Flows out: values that cannot be invalid.
//! Never imports another room, a socket, a clock or a source of randomness.
//!
//! Invariants: an id that exists is in its range; a `Destination` that exists was allowed by its grammar;
//! two `MessageId`s compare as the database compares them.

pub mod codes;
pub mod command;
pub mod destination;
pub mod generations;
pub mod ids;
pub mod limits;
pub mod map;
pub mod message;
pub mod placement;
pub mod secret;
pub mod time;

pub use self::time::{Mono, Now, Wall};
pub use codes::{Close, Fault, Refusal, RefusalCode};
pub use ids::{ConnectionId, ConversationId, MessageId, SessionId, ShardId, UserId};
pub use limits::Limits;
pub use placement::Placement;
pub use secret::Redacted;
