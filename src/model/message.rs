//! Stored messages, conversations and broadcasts.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::codes::{Refusal, RefusalCode};
use crate::model::ids::{ConversationId, MessageId, SessionId, UserId};
use crate::model::limits::Limits;
use crate::model::time::Wall;

/// Headers of a SEND that are passed on to receivers, in their order, no name twice, none of them reserved.
pub type PassedHeaders = Vec<(Box<str>, Box<str>)>;

/// One stored message. Shared between shards, never changed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub conversation: ConversationId,
    pub sender: UserId,
    pub content: Box<str>,
    /// The client's own id of the message: unique per conversation, sender and key for `limits.idempotency_ttl`.
    pub client_id: Option<Box<str>>,
    /// The conversation's previous stored message, so that a client can see a gap.
    pub prev: Option<MessageId>,
    /// Position in the conversation, from 1. Hidden from clients; unread counts are differences of it.
    pub sequence: u64,
    pub headers: PassedHeaders,
}

impl Message {
    #[must_use]
    pub fn created_at(&self) -> Wall {
        self.id.at()
    }

    /// The message without its sender's text, at the same position in the log.
    #[must_use]
    pub fn erased(&self) -> Self {
        Self { content: "".into(), client_id: None, headers: Vec::new(), ..self.clone() }
    }

    /// Every message is sent with content, so an empty one was erased.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.content.is_empty()
    }
}

/// A message that was accepted but not yet stored: the parts that the sender chose.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    pub content: Box<str>,
    pub client_id: Option<Box<str>>,
    pub headers: PassedHeaders,
}

/// Hides the client's text, which must not reach a log.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, conversation, sender, prev, sequence, .. } = self;
        write!(f, "Message({id} in {conversation} by {sender}, number {sequence}, after {prev:?})")
    }
}

/// Hides the client's text, which must not reach a log.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} bytes)", self.content.len())
    }
}

/// 1:1 or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConversationKind {
    /// Two participants, unique per pair, membership fixed.
    Direct,
    Group,
}

/// What a participant may do in a group. In a direct conversation both are members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantRole {
    Member,
    /// May add and remove participants and change their roles.
    Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    pub user: UserId,
    pub role: ParticipantRole,
    pub joined_at: Wall,
}

/// A conversation without its messages, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    pub id: ConversationId,
    pub kind: ConversationKind,
    pub title: Option<Box<str>>,
    pub created_by: UserId,
    pub created_at: Wall,
    /// Ascending by user, no user twice.
    pub participants: Vec<Participant>,
}

impl Conversation {
    /// A conversation created now. Its creator is the admin of a group.
    ///
    /// # Errors
    /// `bad_request`: a direct conversation without two participants, too many of them, or too long a title.
    pub fn new(
        limits: &Limits,
        now: Wall,
        id: ConversationId,
        kind: ConversationKind,
        mut users: Vec<UserId>,
        title: Option<&str>,
        created_by: UserId,
    ) -> Result<Self, Refusal> {
        let refuse = |message: String| Err(Refusal::new(RefusalCode::BadRequest, message));
        users.sort_unstable();
        users.dedup();
        if kind == ConversationKind::Direct && users.len() != 2 {
            return refuse("a direct conversation has two participants".into());
        }
        if users.is_empty() || users.len() > limits.participants {
            return refuse(format!("a conversation has 1 to {} participants", limits.participants));
        }
        if title.is_some_and(|title| title.chars().count() > limits.title_chars) {
            return refuse(format!("a title has at most {} characters", limits.title_chars));
        }
        let role = |user| match kind {
            ConversationKind::Group if user == created_by => ParticipantRole::Admin,
            ConversationKind::Group | ConversationKind::Direct => ParticipantRole::Member,
        };
        let participants = users.into_iter().map(|user| Participant { user, role: role(user), joined_at: now }).collect();
        Ok(Self { id, kind, title: title.map(Into::into), created_by, created_at: now, participants })
    }

    #[must_use]
    pub fn participant(&self, user: UserId) -> Option<&Participant> {
        self.participants.binary_search_by_key(&user, |p| p.user).ok().map(|at| &self.participants[at])
    }
}

/// The end of a conversation's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    /// The last stored message.
    pub last: Option<MessageId>,
    /// Its sequence; zero when the log is empty.
    pub sequence: u64,
}

/// How far a participant has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    pub user: UserId,
    pub message: MessageId,
    pub sequence: u64,
}

/// A conversation as a participant's list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    pub conversation: Conversation,
    pub last_message: Option<Arc<Message>>,
    /// Messages after the participant's read mark, without the participant's own ones as long as
    /// sending moves the sender's mark.
    pub unread: u64,
}

/// An event that is broadcast and not stored.
#[derive(Clone, Debug)]
pub struct Event {
    /// A fresh id: events that are not stored messages carry one as `message-id`.
    pub id: MessageId,
    pub content_type: Box<str>,
    pub body: Bytes,
    pub headers: PassedHeaders,
}

/// The session that sent a command, if any: it must not receive its own message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderSession {
    pub session: SessionId,
    /// The SEND asked for its own copy on `/user/queue/messages` (`echo:true`).
    pub echo: bool,
}
