//! What the shards of a node send each other: owned values, in order for each pair of shards, by the part that takes
//! them in.
//!
//! Mail to the clients' part is bound to connections of this node. All other mail is plain data that can be encoded.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::access::Caller;
use crate::access::token::Claims;
use crate::model::command::{AuthCommand, Command, ConversationCommand, Outcome};
use crate::model::destination::{Topic, TopicPattern, UserQueue};
use crate::model::message::{Event, Message, SenderSession};
use crate::model::{ConnectionId, ConversationId, MessageId, Redacted, Refusal, ShardId, UserId};
use crate::session::endpoints::EndpointId;
use crate::session::intent::ConnectRequest;
use crate::session::sockjs::{Channel, RequestAddress};
use crate::store::accounts::FamilyId;

/// A session on its shard. The generation distinguishes the later tenants of a slot from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub index: u32,
    pub generation: u32,
}

/// One subscription of one session, for as long as both last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber {
    pub session: SessionKey,
    pub serial: u32,
}

/// Where an answer goes on the asking shard. `number` names the command in its session, or the request on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    Session { session: SessionKey, number: usize },
    Request { connection: ConnectionId, number: u32 },
}

/// The caller of a command, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub shard: ShardId,
    pub reply_to: ReplyTo,
    pub caller: Caller,
}

/// A stored message on its way to the sessions of one shard: the one crossing.
#[derive(Debug)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// The message as clients get it, encoded once.
    pub body: Bytes,
    pub from: Option<SenderSession>,
    /// Participants whose sessions live on the receiving shard.
    pub users: Arc<[UserId]>,
    /// The receiving shard has subscribers of the conversation's topic.
    pub topic: bool,
    /// Subscribers by pattern there, each checked against what its user may read.
    pub patterns: Vec<Subscriber>,
}

/// An event that is not stored, on its way to private queues.
#[derive(Debug)]
pub struct Notice {
    pub queue: UserQueue,
    pub id: MessageId,
    pub body: Bytes,
    pub users: Arc<[UserId]>,
    /// This user gets none: the event is its own doing.
    pub except: Option<UserId>,
}

/// A SockJS session over HTTP. One that was opened with a token in its URL belongs to that user: the same name with another
/// user's token is another session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SockJsId {
    pub endpoint: EndpointId,
    pub user: Option<UserId>,
    pub name: Box<str>,
}

/// A request of a SockJS session on its way to the session's home.
#[derive(Debug)]
pub struct SockJsRequest {
    pub session: SockJsId,
    pub from: RequestAddress,
    pub want: SockJsWant,
    /// The home that passed it on, as the session had moved, and which of its moves that was.
    pub passed_on: Option<(ShardId, u32)>,
}

#[derive(Debug)]
pub enum SockJsWant {
    /// Receive messages: one packet, or a stream of them. Opens the session if there is none, for the user that the token
    /// names, or without a user for now.
    Receive { stream: bool, claims: Result<Option<Box<Claims>>, Refusal> },
    /// Send messages.
    Send { body: Bytes },
}

/// The answer of the session's home to a request.
#[derive(Debug)]
pub enum SockJsAnswer {
    Packets {
        packets: SmallVec<[Bytes; 2]>,
        last: bool,
    },
    /// The messages were taken in.
    Taken,
    NoSession,
    /// The body is not what SockJS clients send.
    Broken(&'static str),
    Refused(Refusal),
}

/// A SockJS session that goes on at the shard of its user.
#[derive(Debug)]
pub struct SockJsMove {
    pub session: SockJsId,
    pub channel: Channel,
    /// Which of its old home's moves this is.
    pub serial: u32,
    pub connect: ConnectRequest,
    pub claims: Claims,
    /// The bytes that followed CONNECT.
    pub payload: Vec<u8>,
}

/// Mail, by the part that takes it in.
#[derive(Debug)]
pub enum Mail {
    Clients(ClientMail),
    Users(UserMail),
    Conversations(ConversationMail),
    Topics(TopicMail),
    Logins(LoginMail),
}

/// To the shard of a connection, or the home of a SockJS session.
#[derive(Debug)]
pub enum ClientMail {
    /// The outcome of a request's command.
    Answer {
        connection: ConnectionId,
        number: u32,
        outcome: Box<Outcome>,
    },
    /// To the home of a SockJS session.
    SockJs(Box<SockJsRequest>),
    /// Back to the shard of the asking connection.
    SockJsAnswer {
        connection: ConnectionId,
        number: u32,
        answer: Box<SockJsAnswer>,
    },
    /// The packets given to a receiver have gone out.
    SockJsWritten {
        session: SockJsId,
        receiver: RequestAddress,
    },
    /// A receiver was lost, and perhaps the packets it was given.
    SockJsLost {
        session: SockJsId,
        receiver: RequestAddress,
    },
    SockJsMove(Box<SockJsMove>),
    /// A session that had moved is over: its old home can forget it.
    SockJsGone {
        session: SockJsId,
        serial: u32,
    },
}

/// To the shard of a user, or of a session.
#[derive(Debug)]
pub enum UserMail {
    /// A command from another shard's connection; the user's shard keeps the budget.
    Submit {
        asker: Asker,
        command: Box<Command>,
    },
    /// The outcome of a session's command.
    Answer {
        session: SessionKey,
        number: usize,
        outcome: Box<Outcome>,
    },
    /// To the shards of participants and subscribers.
    Deliver(Box<Delivery>),
    Notify(Box<Notice>),
    /// An event of a named topic.
    Broadcast {
        name: Box<str>,
        event: Arc<Event>,
        topic: bool,
        patterns: Vec<Subscriber>,
    },
    /// The answer of a topic's shard to a subscription; `topic` is `None` for a pattern.
    Joined {
        topic: Option<Topic>,
        subscriber: Subscriber,
        allowed: bool,
    },
    /// The user is no longer a participant.
    Expel {
        conversation: ConversationId,
        user: UserId,
    },
    /// A login was revoked: its sessions end.
    Revoked {
        user: UserId,
        family: FamilyId,
    },
}

/// To the shard of a conversation.
#[derive(Debug)]
pub enum ConversationMail {
    Ask {
        asker: Asker,
        conversation: ConversationId,
        command: Box<ConversationCommand>,
    },
    /// A block of the pair has changed. The conversation answers once it goes by what the store holds.
    BlockChanged {
        conversation: ConversationId,
        asker: Asker,
    },
    /// A subscription of the conversation's topic asks for what is sent from now on.
    Join {
        conversation: ConversationId,
        user: UserId,
        subscriber: Subscriber,
    },
    /// The sending shard has no subscriber of the conversation's topic left.
    Leave {
        conversation: ConversationId,
    },
}

/// To the shard of a named topic. Patterns go to every shard: they may match topics anywhere.
#[derive(Debug)]
pub enum TopicMail {
    /// A subscription asks for what is published from now on.
    Join {
        name: Box<str>,
        subscriber: Subscriber,
    },
    /// The sending shard has no subscriber of the topic left.
    Leave {
        name: Box<str>,
    },
    JoinPattern {
        pattern: TopicPattern,
        user: UserId,
        subscriber: Subscriber,
    },
    LeavePattern {
        subscriber: Subscriber,
    },
    /// Goes out from here as [`UserMail::Broadcast`].
    Publish {
        name: Box<str>,
        event: Arc<Event>,
    },
}

#[derive(Debug)]
pub enum LoginMail {
    /// To the shard of a network address, which keeps that address's budget.
    Authenticate { shard: ShardId, reply_to: ReplyTo, peer: Redacted<IpAddr>, command: Box<AuthCommand> },
    /// To every shard: the tokens of a login no longer count.
    Revoked { user: UserId, family: FamilyId },
}

impl From<ClientMail> for Mail {
    fn from(mail: ClientMail) -> Self {
        Self::Clients(mail)
    }
}

impl From<UserMail> for Mail {
    fn from(mail: UserMail) -> Self {
        Self::Users(mail)
    }
}

impl From<ConversationMail> for Mail {
    fn from(mail: ConversationMail) -> Self {
        Self::Conversations(mail)
    }
}

impl From<TopicMail> for Mail {
    fn from(mail: TopicMail) -> Self {
        Self::Topics(mail)
    }
}

impl From<LoginMail> for Mail {
    fn from(mail: LoginMail) -> Self {
        Self::Logins(mail)
    }
}
