//! The store's contract: requests and replies as values, the same for every implementation.
//!
//! Flows in: a [`Request`] with the [`Ticket`] of the shard that asks. Flows out: one [`Reply`] for each, with the
//! same ticket. Never imports a session, a shard or a socket; files and drivers only inside their adapter.
//!
//! Invariants every implementation keeps, and `contract` tests:
//! - a reply to a write is given only after the write is durable;
//! - a write takes effect whole or not at all, also over a crash. Where the store is many machines, a crash may leave the
//!   sender's read mark without its message or the message without the mark, until the next one;
//! - writes about one conversation's log, participant, pair of users, login or token take effect in the order in which
//!   they were given, and a read sees every write replied to before it;
//! - [`Reply::Failed`] with `Unknown` means that the write may or may not have happened: repeating the same request
//!   gives the result of having done it once. Only `changed` and `created` tell of the repetition itself. Of an append
//!   that is not repeated, the next [`Request::LoadConversation`] that is answered decides;
//! - what has expired at `now` is as good as absent, whether or not it has been removed yet. Messages alone are there until
//!   they are removed, at some time after their retention is over, which is a matter of the store's configuration. The end
//!   of a log outlives them: what follows is linked and counted as if they were there, and a message that is gone is
//!   neither shown nor found, nor counted as unread.

pub mod embedded;
pub mod memory;
mod one_time;
pub mod scylla;

#[cfg(test)]
mod contract;

use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary, Draft, Head, Message, Participant, ReadMark};
use crate::model::time::Wall;

/// Names a request of one shard until its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Sliding window in which [`Request::PutCode`] counts the codes of a login.
pub const SENT_WINDOW: Duration = Duration::from_secs(3_600);

/// How long after its `now` the same [`Request::Append`] is answered as the first time by what client ids decided: a store
/// keeps them for so long beyond their expiry. A shard gives up far sooner.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);

/// Hash of a secret (one-time code, refresh token): the store never sees the secret.
pub type SecretHash = [u8; 32];

/// A login's refresh tokens, all descended from one login: random, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(pub u64);

/// How far the erasure of a user has come, in terms of the store that carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasePlace(Box<[u8]>);

/// What was found of a user and erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Whatever was found, also what an earlier erasure left: zero of a user that the store knows nothing of.
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

/// One message to append, under the id its conversation's shard gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Later than every id of the conversation, and than those before it in the same request.
    pub id: MessageId,
    pub sender: UserId,
    pub draft: Draft,
}

impl NewMessage {
    /// The message as it is stored, behind the log's end.
    fn link(&self, conversation: ConversationId, head: Head) -> Message {
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

#[derive(Clone, Debug)]
pub enum Request {
    /// Appends to one conversation, in order. The store looks client message ids up, links `prev` and counts
    /// `sequence` from `head`; it answers [`Reply::Appended`] with one [`Appended`] for each message.
    /// A message with the client id of an earlier one of the same request is a repetition of that.
    /// Sending moves the sender's read mark.
    /// A repetition after an unknown outcome (the same request, `now` included) answers as the first time would have,
    /// also when keys have expired meanwhile; `head` may then be behind. A store that has the conversation at hand takes
    /// the head from it, and `head` for a hint. This holds for ever for what was stored. What a client id decided holds
    /// within [`REPEAT_WINDOW`] and until a later message has taken over that client id, which a shard that appends
    /// nothing else before it knows the outcome never sees. Whatever comes later, nothing is stored twice, and no answer
    /// is made up: an id that is not later than the conversation's last, is not stored, and has no client id that tells
    /// of an earlier message fails the request whole, with `Unavailable`.
    Append {
        conversation: ConversationId,
        head: Head,
        messages: Vec<NewMessage>,
        keys_expire: Wall,
        now: Wall,
    },
    /// Makes a conversation under a free id. A direct one of a pair that has one already, or any under an id that is
    /// taken, changes nothing and answers what is there: the pair's before that of the id.
    CreateConversation {
        conversation: Conversation,
    },
    /// Adds a participant, or changes the role of one that is there, who keeps the time of joining.
    PutParticipant {
        conversation: ConversationId,
        participant: Participant,
    },
    /// Removes a participant and the read mark with it; what was sent stays.
    RemoveParticipant {
        conversation: ConversationId,
        user: UserId,
    },
    /// Monotonic: an older mark changes nothing. Answers [`Reply::Marked`] with the mark in force.
    /// The message must be a stored one of the conversation, so that a mark never is beyond the head.
    Mark {
        conversation: ConversationId,
        mark: ReadMark,
    },
    /// Answers [`Reply::BlockSet`].
    SetBlock {
        user: UserId,
        other: UserId,
        blocked: bool,
    },
    /// A new one-time code for a login; the earlier one is void. At most `per_hour` within [`SENT_WINDOW`].
    /// The live code with the same expiry is a repetition.
    PutCode {
        login: Box<str>,
        code: SecretHash,
        now: Wall,
        expires: Wall,
        per_hour: u32,
    },
    /// Uses a code up, or counts a wrong attempt; at `attempts_max` wrong ones the code is void.
    /// The last attempt once more, at the same `now`, is a repetition.
    TakeCode {
        login: Box<str>,
        code: SecretHash,
        now: Wall,
        attempts_max: u32,
    },
    /// The user of a login, made as `candidate` when there is none (`candidate` may be taken: [`Reply::Taken`]).
    /// The user's roles are replaced by `roles`: the configuration grants them at each login.
    LoginUser {
        login: Box<str>,
        candidate: UserId,
        roles: Vec<Box<str>>,
        now: Wall,
    },
    /// The first refresh token of a family.
    PutRefresh {
        token: SecretHash,
        user: UserId,
        family: FamilyId,
        now: Wall,
        expires: Wall,
    },
    /// Replaces a refresh token by the next of its family. One used before revokes the family, unless it was for the
    /// same `next`: that is a repetition.
    RotateRefresh {
        token: SecretHash,
        next: SecretHash,
        now: Wall,
        expires: Wall,
    },
    /// Revokes the family of a refresh token.
    RevokeRefresh {
        token: SecretHash,
        now: Wall,
    },
    /// A step of erasing a user: looks at about `limit` rows, from `place` on or from the beginning, and answers
    /// [`Reply::Erased`] with the place of the next step. After the last one
    /// - messages of the user, in every conversation that the user takes part in or has left, are
    ///   [erased](Message::erased); their ids, `prev`, sequences and senders stay, and so do all positions. What client ids
    ///   decided is forgotten;
    /// - the user is in no group, has no conversation listed, no read mark, no block of anybody, no name, no role, no
    ///   login and no one-time code; a direct conversation keeps both participants, as it is one of a pair;
    /// - the user's families are revoked.
    ///
    /// To be asked while nothing else is asked about the user. Begun again after an interruption it finds what is left.
    EraseUser {
        user: UserId,
        place: Option<ErasePlace>,
        limit: u16,
        now: Wall,
    },

    ReadConversation {
        conversation: ConversationId,
    },
    /// The same for the shard that goes on from this head: of every append of unknown outcome it is decided now, and what is
    /// not in the log never will be. To be asked while no append of the conversation is under way or will be repeated.
    LoadConversation {
        conversation: ConversationId,
    },
    /// The conversations of a user with an id above `after`, ascending.
    ReadConversations {
        user: UserId,
        after: Option<ConversationId>,
        limit: u16,
    },
    /// Newest first: messages with an id below `before`.
    ReadBefore {
        conversation: ConversationId,
        before: MessageId,
        limit: u16,
    },
    /// Oldest first: messages with an id above `after`.
    ReadAfter {
        conversation: ConversationId,
        after: MessageId,
        limit: u16,
    },
    ReadMessage {
        conversation: ConversationId,
        message: MessageId,
    },
    /// Which conversation a message is in.
    FindMessage {
        message: MessageId,
    },
    ReadMarks {
        conversation: ConversationId,
    },
    ReadBlocks {
        user: UserId,
    },
    ReadUser {
        user: UserId,
    },
    /// Families revoked at or after `since`, in the order of that time: what a starting shard must not accept. One whose
    /// tokens have all expired may be missing.
    ReadRevoked {
        since: Wall,
    },
}

/// What became of one appended message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Stored(Arc<Message>),
    /// The client message id was there with the same content: nothing new stored, this is the first message.
    Replay(Arc<Message>),
    /// The client message id was there with other content.
    KeyReused,
}

/// A conversation as its shard loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationState {
    pub conversation: Conversation,
    pub head: Head,
    /// For a direct conversation: whether either participant blocks the other.
    pub blocked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub user: UserId,
    pub roles: Vec<Box<str>>,
    pub display_name: Option<Box<str>>,
}

#[derive(Clone, Debug)]
pub enum Reply {
    /// One entry for each message of the request, and the head after them.
    Appended {
        results: Vec<Appended>,
        head: Head,
    },
    Conversation {
        state: ConversationState,
        created: bool,
    },
    /// `changed`: false when it was so already, by this request's first time or otherwise.
    Done {
        changed: bool,
    },
    Marked {
        mark: ReadMark,
        changed: bool,
    },
    /// The pair's direct conversation, if there is one, and whether either of the two now blocks the other.
    BlockSet {
        direct: Option<ConversationId>,
        blocked: bool,
        changed: bool,
    },
    CodeTaken,
    CodeWrong,
    /// Too many codes for this login: seconds until the next one.
    Limited {
        retry_after: u32,
    },
    User(User),
    /// The candidate id belongs to someone else: ask again with another.
    Taken,
    Rotated {
        user: User,
        family: FamilyId,
    },
    /// `None`: the token was never there, or has expired. `Some`: it was used before (or revoked): the family is revoked.
    RefreshInvalid {
        family: Option<(UserId, FamilyId)>,
    },
    Revoked {
        family: Option<(UserId, FamilyId)>,
    },
    Conversations {
        summaries: Vec<ConversationSummary>,
        more: bool,
    },
    Messages {
        messages: Vec<Arc<Message>>,
        more: bool,
    },
    Message(Option<Arc<Message>>),
    Found(Option<ConversationId>),
    Marks(Vec<ReadMark>),
    Blocks(Vec<UserId>),
    RevokedFamilies(Vec<(UserId, FamilyId)>),
    /// What the step did, and where to go on; `None`: it was the last.
    Erased {
        erased: Erased,
        next: Option<ErasePlace>,
    },
    /// There is no such conversation or user.
    Missing,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Certain: nothing was written this time. The store is down, full or read-only.
    Unavailable,
    /// Certain: nothing was written this time. Too much is under way.
    Busy,
    /// The outcome is not known: repeat the same request.
    Unknown,
}

impl Request {
    /// Whether the request writes nothing that was not asked for before, so that an implementation may answer it beside the writer.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::CreateConversation { .. }
            | Self::PutParticipant { .. }
            | Self::RemoveParticipant { .. }
            | Self::Mark { .. }
            | Self::SetBlock { .. }
            | Self::PutCode { .. }
            | Self::TakeCode { .. }
            | Self::LoginUser { .. }
            | Self::PutRefresh { .. }
            | Self::RotateRefresh { .. }
            | Self::RevokeRefresh { .. }
            | Self::EraseUser { .. } => false,
            Self::ReadConversation { .. }
            | Self::LoadConversation { .. }
            | Self::ReadConversations { .. }
            | Self::ReadBefore { .. }
            | Self::ReadAfter { .. }
            | Self::ReadMessage { .. }
            | Self::FindMessage { .. }
            | Self::ReadMarks { .. }
            | Self::ReadBlocks { .. }
            | Self::ReadUser { .. }
            | Self::ReadRevoked { .. } => true,
        }
    }
}

/// Messages behind a read mark that are there: `first` is the sequence of the oldest one, `None` when there is none.
fn unread(head: Head, read: u64, first: impl FnOnce() -> Option<u64>) -> u64 {
    if head.sequence <= read {
        return 0;
    }
    first().map_or(0, |first| head.sequence - read.max(first.saturating_sub(1)))
}

/// A direct conversation has one key whoever began it.
#[must_use]
pub fn pair_key(conversation: &Conversation) -> Option<(UserId, UserId)> {
    match (conversation.kind, conversation.participants.as_slice()) {
        (ConversationKind::Direct, [first, second]) => Some((first.user, second.user)),
        _ => None,
    }
}
