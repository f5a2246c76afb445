//! What the shards of a node say to each other: owned values, in order for each pair of shards.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::command::{AuthCommand, Command, Outcome};
use crate::model::destination::{Topic, TopicPattern, UserQueue};
use crate::model::message::{Event, Message, SenderSession};
use crate::model::{ConnectionId, ConversationId, MessageId, Redacted, Refusal, ShardId, UserId};
use crate::session::endpoints::EndpointId;
use crate::session::intent::ConnectRequest;
use crate::session::sockjs::{Channel, RequestAddress};
use crate::session::token::Claims;
use crate::store::accounts::FamilyId;

/// A session on its shard. The generation tells a slot's later tenants from its earlier ones.
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

/// Where an answer goes. `number` names the command in its session, or the request on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Session { session: SessionKey, number: usize },
    Request { connection: ConnectionId, number: u32 },
}

/// Who asks, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub shard: ShardId,
    pub asked: Asked,
    pub user: UserId,
    pub admin: bool,
}

/// A command on its way to the shard that carries it out.
#[derive(Debug)]
pub struct Ask {
    pub asker: Asker,
    pub command: Command,
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

/// Something that is told and not stored, on its way to private queues.
#[derive(Debug)]
pub struct Notice {
    pub queue: UserQueue,
    pub id: MessageId,
    pub body: Bytes,
    pub users: Arc<[UserId]>,
    /// Not told to this user: what happened is its own doing.
    pub except: Option<UserId>,
}

/// A SockJS session over HTTP. One that was opened with a token in its URL is its user's alone: the same name with another
/// user's token is another session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SockJsId {
    pub endpoint: EndpointId,
    pub user: Option<UserId>,
    pub name: Box<str>,
}

/// A request of a SockJS session on its way to the session's home.
#[derive(Debug)]
pub struct SockJsAsk {
    pub session: SockJsId,
    pub from: RequestAddress,
    pub want: SockJsWant,
    /// The home that passed it on, as the session had moved, and which of its moves that was.
    pub passed_on: Option<(ShardId, u32)>,
}

#[derive(Debug)]
pub enum SockJsWant {
    /// Messages: one packet, or a stream of them. Opens the session if there is none, for whom the token names, or not.
    Receive { stream: bool, claims: Result<Option<Box<Claims>>, Refusal> },
    /// Brings messages.
    Send { body: Bytes },
}

/// What the session's home has to say to a request.
#[derive(Debug)]
pub enum SockJsAnswer {
    Packets {
        packets: SmallVec<[Bytes; 2]>,
        last: bool,
    },
    /// What was sent was taken in.
    Taken,
    NoSession,
    /// What was sent is not what SockJS sends.
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
    /// What came behind CONNECT.
    pub payload: Vec<u8>,
}

#[derive(Debug)]
pub enum Mail {
    /// To the shard of the asking user, which keeps its budget.
    Submit(Box<Ask>),
    /// To the shard of the command's conversation.
    Ask(Box<Ask>),
    /// Back to the shard of the asking session or connection.
    Answer {
        asked: Asked,
        outcome: Box<Outcome>,
    },
    /// To the shard of the peer's address, which keeps that address's budget.
    Authenticate {
        shard: ShardId,
        asked: Asked,
        peer: Redacted<IpAddr>,
        command: Box<AuthCommand>,
    },
    /// To the shards of participants and subscribers.
    Deliver(Box<Delivery>),
    Notify(Box<Notice>),
    /// To a named topic's shard, from which it goes out as `Broadcast`.
    Publish {
        name: Box<str>,
        event: Arc<Event>,
    },
    Broadcast {
        name: Box<str>,
        event: Arc<Event>,
        topic: bool,
        patterns: Vec<Subscriber>,
    },
    /// A subscription asks the topic's shard to send what is published from now on.
    Join {
        topic: Topic,
        user: UserId,
        subscriber: Subscriber,
    },
    /// The answer; `topic` is `None` for a pattern.
    Joined {
        topic: Option<Topic>,
        subscriber: Subscriber,
        allowed: bool,
    },
    /// The sending shard has no subscriber of the topic left.
    Leave {
        topic: Topic,
    },
    /// To every shard: a pattern may match topics anywhere.
    JoinPattern {
        pattern: TopicPattern,
        user: UserId,
        subscriber: Subscriber,
    },
    LeavePattern {
        subscriber: Subscriber,
    },
    /// To the shard of a user who is no longer a participant.
    Expel {
        conversation: ConversationId,
        user: UserId,
    },
    /// To the shard of the pair's conversation, which answers once it goes by what the store holds.
    BlockChanged {
        conversation: ConversationId,
        asker: Asker,
    },
    /// To the home of a SockJS session.
    SockJs(Box<SockJsAsk>),
    /// Back to the shard of the asking connection.
    SockJsAnswer {
        connection: ConnectionId,
        number: u32,
        answer: Box<SockJsAnswer>,
    },
    /// What a receiver was given has gone out.
    SockJsWritten {
        session: SockJsId,
        place: RequestAddress,
    },
    /// A receiver was lost, and what it was given perhaps with it.
    SockJsLost {
        session: SockJsId,
        place: RequestAddress,
    },
    SockJsMove(Box<SockJsMove>),
    /// A session that had moved is over: its old home need not know of it any more.
    SockJsGone {
        session: SockJsId,
        serial: u32,
    },
    /// To every shard: a login's tokens count no longer.
    Revoked {
        user: UserId,
        family: FamilyId,
    },
}
