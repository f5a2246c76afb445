//! Erasing all data of a user, a bounded step at a time.
//!
//! Invariants, after the last step:
//! - the user's messages are [erased](crate::model::message::Message::erased) in every conversation that the user takes part
//!   in or has left. Their ids, `prev`, sequences and senders stay, and so do all positions in logs. Decisions by the user's
//!   client ids are forgotten;
//! - the user is in no group, and has no listed conversation, no read mark, no block, no name, no role, no login and no
//!   one-time code. A direct conversation keeps both participants, as it belongs to both;
//! - the user's families of refresh tokens are revoked.
//!
//! Order: none is kept. A step is asked while nothing else is asked about the user.

use crate::model::ids::UserId;
use crate::model::time::Wall;

use super::OrderKey;
use super::call::subject;

/// One step of an erasure: it looks at about `limit` rows, from `cursor` on or from the beginning. An erasure that was
/// interrupted and begins again finds the rest.
#[derive(Clone, Debug)]
pub struct EraseUser {
    pub user: UserId,
    pub cursor: Option<EraseCursor>,
    pub limit: u16,
    pub now: Wall,
}

/// The position of an erasure. Only the store that made it understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EraseCursor(pub(super) Box<[u8]>);

/// The answer to [`EraseUser`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EraseAnswer {
    /// The rows of this step.
    pub erased: Erased,
    /// The position of the next step; `None` after the last one.
    pub next: Option<EraseCursor>,
}

/// Counts of the rows that were found and erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// All rows of the user, including those that an earlier erasure left: zero for a user without any.
    pub found: u64,
    pub messages: u64,
    /// Conversations of the user's list.
    pub conversations: u64,
    pub blocks: u64,
    pub logins: u64,
    /// Families revoked.
    pub families: u64,
}

impl std::ops::AddAssign for Erased {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.messages += other.messages;
        self.conversations += other.conversations;
        self.blocks += other.blocks;
        self.logins += other.logins;
        self.families += other.families;
    }
}

subject! {
    Erasure:
    writes {
        EraseUser => EraseAnswer,
    }
}

impl Write {
    /// A step has no key: no other write about the user is asked meanwhile.
    pub(super) fn order(&self) -> Option<OrderKey> {
        match self {
            Self::EraseUser(_) => None,
        }
    }
}
