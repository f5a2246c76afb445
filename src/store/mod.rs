//! The store's contract: requests and replies as values, the same for every implementation.
//!
//! Flows in: a [`Request`] with the [`Ticket`] of the shard that asks. Flows out: one [`Reply`] for each, with the
//! same ticket. Never imports a session, a shard or a socket; files and drivers only inside their adapter.
//!
//! The contract has a module for each subject: [`log`], [`conversations`], [`accounts`] and [`erasure`]. A subject declares its
//! requests, one struct each, with the answer that belongs to it ([`Call`]), and says what holds for them.
//!
//! Invariants every implementation keeps, and `conformance` tests:
//! - a write is replied to only after it is durable;
//! - a write takes effect whole or not at all, also over a crash. Where the store is many machines, a crash may leave the
//!   sender's read mark without its message or the message without the mark, until the next message;
//! - writes with the same [`OrderKey`] take effect in the order in which they were given, and a read sees every write that was
//!   replied to before the read was asked;
//! - [`Failure::Unknown`] means that the write may or may not have happened. Repeating the same request gives the result of
//!   having done it once; only `changed` and `created` show that it was a repetition. If an append is not repeated, the next
//!   [`LoadConversation`](conversations::LoadConversation) that is answered settles it;
//! - a row that has expired at `now` counts as absent, whether or not it has been removed yet. Messages alone exist until they
//!   are removed.

pub mod accounts;
mod call;
pub mod conversations;
pub mod embedded;
pub mod erasure;
pub mod log;
pub mod memory;
mod one_time;
pub mod scylla;

#[cfg(test)]
mod conformance;

pub use call::Call;

use crate::model::ids::{ConversationId, UserId};

use accounts::SecretHash;

/// Names a request of one shard until its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request. Reads and writes are apart by type, because every implementation treats them apart: it may answer a read beside
/// the writer and in any order.
#[derive(Clone, Debug)]
pub enum Request {
    Read(Read),
    Write(Write),
}

/// A request that changes nothing a client could notice.
#[derive(Clone, Debug)]
pub enum Read {
    Log(log::Read),
    Conversations(conversations::Read),
    Accounts(accounts::Read),
}

/// A request that must be durable before it is replied to.
#[derive(Clone, Debug)]
pub enum Write {
    Log(log::Write),
    Conversations(conversations::Write),
    Accounts(accounts::Write),
    Erasure(erasure::Write),
}

/// The reply to a request. [`Call::answer`] takes the answer out of it.
#[derive(Clone, Debug)]
pub enum Reply {
    Log(log::Reply),
    Conversations(conversations::Reply),
    Accounts(accounts::Reply),
    Erasure(erasure::Reply),
    Failed(Failure),
}

/// Why the store could not carry a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Certain: nothing was written this time. The store is down, full or read-only.
    Unavailable,
    /// Certain: nothing was written this time. Too many requests are under way.
    Busy,
    /// The outcome is not known: repeat the same request.
    Unknown,
}

/// The answer to a write that has no other result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// False when nothing had to change, because of an earlier try of this request or otherwise.
    pub changed: bool,
}

/// Writes with the same key must take effect in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderKey {
    /// The messages of a conversation, and its creation.
    Log(ConversationId),
    /// The membership and the read mark of a user in a conversation.
    Participant(ConversationId, UserId),
    /// The blocks between two users, the lesser id first.
    Pair(UserId, UserId),
    /// The one-time code and the user of a login.
    Login(Box<str>),
    /// A refresh token.
    Token(SecretHash),
}

/// Shards send thousands of requests between threads: one that is large keeps its parts on the heap.
const _: () = assert!(size_of::<Request>() <= 112);

impl Request {
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Write(_) => false,
        }
    }
}

impl From<Read> for Request {
    fn from(read: Read) -> Self {
        Self::Read(read)
    }
}

impl From<Write> for Request {
    fn from(write: Write) -> Self {
        Self::Write(write)
    }
}

impl Write {
    /// The key that orders this write among others; `None` when any order will do.
    #[must_use]
    pub fn order(&self) -> Option<OrderKey> {
        match self {
            Self::Log(write) => Some(write.order()),
            Self::Conversations(write) => Some(write.order()),
            Self::Accounts(write) => Some(write.order()),
            Self::Erasure(write) => write.order(),
        }
    }
}

impl Reply {
    /// The name of the request that the reply belongs to.
    fn request(&self) -> &'static str {
        match self {
            Self::Log(reply) => reply.request(),
            Self::Conversations(reply) => reply.request(),
            Self::Accounts(reply) => reply.request(),
            Self::Erasure(reply) => reply.request(),
            Self::Failed(_) => "any request",
        }
    }
}
