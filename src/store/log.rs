//! The log of each conversation: its messages in their order, and how far each participant has read them.
//!
//! Invariants:
//! - a log grows at its end only: each message has a later id than the one before it, names that one in `prev`, and has the
//!   next higher `sequence`;
//! - a client message id stores one message of its sender in a conversation, until it expires;
//! - a read mark never moves back, and sending a message moves the sender's mark to it;
//! - the end of a log outlives its messages. Once their retention is over, messages are removed at some later time. The
//!   messages that follow are linked and counted as if the removed ones existed; a removed message is neither shown nor
//!   found, nor counted as unread.
//!
//! Order: the appends of a conversation take effect in the order given, and so do the writes about one participant of it.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Draft, Head, Message, ReadMark};
use crate::model::time::Wall;

use super::OrderKey;
use super::call::subject;

/// How long after its `now` the same [`Append`] gives the same answer, as far as client message ids decided it: a store keeps
/// them for this long beyond their expiry. A shard stops repeating an append far sooner.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);

/// Appends to one conversation, in order.
///
/// The store looks up client message ids, links `prev`, and counts `sequence` from `head`. A store that knows the end of the
/// log itself takes `head` for a hint only. The answer is `None` when the conversation does not exist. A message with the
/// client id of an earlier message of the same request is a replay of that message.
///
/// After an unknown outcome the shard repeats the same request, `now` included. The repetition gives the answer that the
/// first request would have given, even if client ids have expired meanwhile or `head` is behind by then. A message that was
/// stored is recognized for ever. A decision by a client id is recognized within [`REPEAT_WINDOW`] and until a later message
/// has taken over that client id, which cannot happen while the shard appends nothing else.
///
/// In every case nothing is stored twice and no answer is invented. If an id is not later than the last one of the
/// conversation, is not stored, and has no client id that leads to an earlier message, then the whole request fails with
/// [`Unavailable`](super::Failure::Unavailable).
#[derive(Clone, Debug)]
pub struct Append {
    pub conversation: ConversationId,
    pub head: Head,
    pub messages: Vec<NewMessage>,
    pub keys_expire: Wall,
    pub now: Wall,
}

/// One message to append, under the id that the conversation's shard gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Later than every id of the conversation and than those before it in the same request.
    pub id: MessageId,
    pub sender: UserId,
    pub draft: Draft,
}

impl NewMessage {
    /// The message as it is stored, behind the end of the log.
    pub(super) fn link(&self, conversation: ConversationId, head: Head) -> Message {
        Message {
            id: self.id,
            conversation,
            sender: self.sender,
            content: self.draft.content.clone(),
            client_id: self.draft.client_id.clone(),
            prev: head.last,
            sequence: head.sequence + 1,
            headers: self.draft.headers.clone(),
        }
    }
}

/// The answer to [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendAnswer {
    /// One for each message of the request, in its order.
    pub results: Vec<Appended>,
    /// The end of the log after them.
    pub head: Head,
}

/// The result for one appended message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Stored(Arc<Message>),
    /// The client message id was in use with the same content: nothing new is stored, this is the first message.
    Replay(Arc<Message>),
    /// The client message id was in use with other content.
    KeyReused,
}

/// Sets a read mark. An older mark than the one in force changes nothing.
///
/// The message must be a stored one of the conversation, so that no mark is ever beyond the end of the log. The answer is
/// `None` when the conversation does not exist.
#[derive(Clone, Debug)]
pub struct SetReadMark {
    pub conversation: ConversationId,
    pub mark: ReadMark,
}

/// The answer to [`SetReadMark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMarkAnswer {
    /// The mark in force.
    pub mark: ReadMark,
    pub changed: bool,
}

/// A page of messages with an id below `before`, newest first; `None` when the conversation does not exist.
#[derive(Clone, Debug)]
pub struct ReadBefore {
    pub conversation: ConversationId,
    pub before: MessageId,
    pub limit: u16,
}

/// A page of messages with an id above `after`, oldest first; `None` when the conversation does not exist.
#[derive(Clone, Debug)]
pub struct ReadAfter {
    pub conversation: ConversationId,
    pub after: MessageId,
    pub limit: u16,
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    pub messages: Vec<Arc<Message>>,
    /// Whether there are messages beyond the page.
    pub more: bool,
}

/// One message of a conversation; `None` when it is not stored there.
#[derive(Clone, Debug)]
pub struct ReadMessage {
    pub conversation: ConversationId,
    pub message: MessageId,
}

/// The conversation that a message is in; `None` when it is not stored.
#[derive(Clone, Debug)]
pub struct FindMessage {
    pub message: MessageId,
}

/// All read marks of a conversation, by user; `None` when the conversation does not exist.
#[derive(Clone, Debug)]
pub struct ListReadMarks {
    pub conversation: ConversationId,
}

subject! {
    Log:
    writes {
        Append => Option<AppendAnswer>,
        SetReadMark => Option<ReadMarkAnswer>,
    }
    reads {
        ReadBefore => Option<Messages>,
        ReadAfter => Option<Messages>,
        ReadMessage => Option<Arc<Message>>,
        FindMessage => Option<ConversationId>,
        ListReadMarks => Option<Vec<ReadMark>>,
    }
}

impl Write {
    /// The key of the writes that must keep their order with this one.
    pub(super) fn order(&self) -> OrderKey {
        match self {
            Self::Append(append) => OrderKey::Log(append.conversation),
            Self::SetReadMark(set) => OrderKey::Participant(set.conversation, set.mark.user),
        }
    }
}

/// Counts the messages behind a read mark that still exist. `first` gives the sequence of the oldest existing message, or
/// `None` when there is none.
pub(super) fn unread(head: Head, read: u64, first: impl FnOnce() -> Option<u64>) -> u64 {
    if head.sequence <= read {
        return 0;
    }
    first().map_or(0, |first| head.sequence - read.max(first.saturating_sub(1)))
}
