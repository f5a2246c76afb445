//! What a user can ask for, over STOMP or REST, and the outcomes.

use std::sync::Arc;

use crate::model::codes::Refusal;
use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{
    Conversation, ConversationKind, ConversationSummary, Draft, Message, ParticipantRole, ReadMark, SenderSession,
};
use crate::model::secret::Redacted;

/// A request of an authenticated user, by the owner of what it is about: that shard carries it out. STOMP and REST make
/// the same commands: one path.
#[derive(Clone, Debug)]
pub enum Command {
    Conversation(ConversationId, ConversationCommand),
    User(UserCommand),
}

/// What the shard of a conversation carries out.
#[derive(Clone, Debug)]
pub enum ConversationCommand {
    Send {
        draft: Draft,
        from: Option<SenderSession>,
    },
    MarkRead {
        message: MessageId,
    },
    ListReadMarks,
    ReadHistory {
        page: Page,
    },
    ReadMessage {
        message: MessageId,
    },
    /// Import by role admin: creates the conversation under this id, or answers with the one that exists.
    Put {
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<Box<str>>,
    },
    Read,
    ChangeParticipants(ParticipantChange),
}

/// A change of a group's participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParticipantChange {
    Add {
        user: UserId,
        role: ParticipantRole,
    },
    SetRole {
        user: UserId,
        role: ParticipantRole,
    },
    /// Removing oneself is leaving.
    Remove {
        user: UserId,
    },
}

/// What the shard of the asking user carries out.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// The request names no conversation: the store's index is asked for it first.
    MarkRead {
        message: MessageId,
    },
    /// 1:1 when `kind` is direct: the pair's conversation is found or created.
    CreateConversation {
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<Box<str>>,
    },
    ListConversations {
        after: Option<ConversationId>,
        limit: u16,
    },
    SetBlock {
        user: UserId,
        blocked: bool,
    },
    ListBlocks,
    /// The caller's own account: `GET /users/me`.
    ReadMe,
}

/// Which part of a conversation's log to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    pub from: Position,
    /// 1 to `limits.page_max`.
    pub limit: u16,
}

/// Any well-formed id is a position, stored or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The newest messages, newest first.
    Newest,
    /// Older than this, newest first.
    Before(MessageId),
    /// Newer than this, oldest first.
    After(MessageId),
}

/// Requests of the `/auth` routes, which need no access token.
#[derive(Clone, Debug)]
pub enum AuthCommand {
    RequestCode { phone: Redacted<Box<str>> },
    Login { phone: Redacted<Box<str>>, code: Redacted<Box<str>> },
    Refresh { token: Redacted<Box<str>> },
    Logout { token: Redacted<Box<str>> },
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// `replay`: the same client message id had been stored before; this is that first message.
    Sent {
        message: Arc<Message>,
        replay: bool,
    },
    Marked(ReadMark),
    ReadMarks(Vec<ReadMark>),
    History(HistoryPage),
    Message(Arc<Message>),
    Conversation {
        conversation: Arc<Conversation>,
        created: bool,
    },
    Conversations {
        summaries: Vec<ConversationSummary>,
        next: Option<ConversationId>,
    },
    Blocks(Vec<UserId>),
    Me {
        user: UserId,
        roles: Vec<Box<str>>,
        display_name: Option<Box<str>>,
    },
    /// Done, with nothing to tell: 204.
    Done,
    /// The code is on its way: 202.
    CodeSent {
        expires_in_seconds: u32,
    },
    LoggedIn(LoggedIn),
    Refused(Refusal),
}

/// Messages of one page, in the order the position asks for.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    pub messages: Vec<Arc<Message>>,
    pub has_more: bool,
    /// Where the page began: an empty forward page's `nextCursor` is the `after` it was asked with.
    pub from: Position,
}

#[derive(Clone, Debug)]
pub struct LoggedIn {
    pub user: UserId,
    pub access_token: Redacted<String>,
    pub refresh_token: Redacted<String>,
    pub expires_in_seconds: u32,
}
