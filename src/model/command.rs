//! What a user can ask for, whichever door the request came through, and how it is answered.

use std::sync::Arc;

use crate::model::codes::Refusal;
use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{
    Conversation, ConversationKind, ConversationSummary, Draft, Message, ParticipantRole, ReadMark, SenderSession,
};
use crate::model::secret::Redacted;

/// A request of an authenticated user. STOMP and REST make the same commands: one path.
#[derive(Clone, Debug)]
pub enum Command {
    Send {
        conversation: ConversationId,
        draft: Draft,
        from: Option<SenderSession>,
    },
    /// Without a conversation the store's index is asked for it first.
    MarkRead {
        conversation: Option<ConversationId>,
        message: MessageId,
    },
    ListReadMarks {
        conversation: ConversationId,
    },
    ReadHistory {
        conversation: ConversationId,
        page: Page,
    },
    ReadMessage {
        conversation: ConversationId,
        message: MessageId,
    },
    /// 1:1 when `kind` is direct: the pair's conversation is found or made.
    CreateConversation {
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<Box<str>>,
    },
    /// Import by role admin: makes the conversation under this id, or answers what is there.
    PutConversation {
        conversation: ConversationId,
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<Box<str>>,
    },
    ReadConversation {
        conversation: ConversationId,
    },
    ListConversations {
        after: Option<ConversationId>,
        limit: u16,
    },
    AddParticipant {
        conversation: ConversationId,
        user: UserId,
        role: ParticipantRole,
    },
    SetRole {
        conversation: ConversationId,
        user: UserId,
        role: ParticipantRole,
    },
    /// Removing oneself is leaving.
    RemoveParticipant {
        conversation: ConversationId,
        user: UserId,
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
