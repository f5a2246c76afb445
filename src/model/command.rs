//! Commands of users, over STOMP or REST, and their outcomes.

use std::sync::Arc;

use crate::model::codes::Refusal;
use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{
    Conversation, ConversationKind, ConversationSummary, Draft, Message, ParticipantRole, ReadMark, SenderSession,
};
use crate::model::secret::Redacted;

/// A request of an authenticated user. The shard that owns its subject carries it out. STOMP and REST make the same commands.
#[derive(Clone, Debug)]
pub enum Command {
    Conversation(ConversationId, ConversationCommand),
    User(UserCommand),
}

/// Carried out by the conversation's shard.
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
    /// Import by role admin: creates the conversation under this id, or returns the existing one.
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
    /// Users who remove themselves leave.
    Remove {
        user: UserId,
    },
}

/// Carried out by the calling user's shard.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// The request names no conversation: ask the store's index for it first.
    MarkRead {
        message: MessageId,
    },
    /// 1:1 when `kind` is direct: finds or creates the pair's conversation.
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

/// The part of a conversation's log to read.
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

/// The outcome of a command.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// `replay`: the same client message id was stored before; this is that first message.
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
    /// Done, without a body: 204.
    Done,
    /// The code was handed to its sender: 202.
    CodeSent {
        expires_in_seconds: u32,
    },
    LoggedIn(LoggedIn),
    Refused(Refusal),
}

/// Messages of one page, in the order that the position asks for.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    pub messages: Vec<Arc<Message>>,
    pub has_more: bool,
    /// Start of the page: the `nextCursor` of an empty forward page is the `after` of its request.
    pub from: Position,
}

#[derive(Clone, Debug)]
pub struct LoggedIn {
    pub user: UserId,
    pub access_token: Redacted<String>,
    pub refresh_token: Redacted<String>,
    pub expires_in_seconds: u32,
}
