//! Conversations, their participants, and blocks between users.
//!
//! Invariants:
//! - two users have at most one direct conversation, and its participants never change;
//! - the list of a user has exactly the conversations that the user takes part in;
//! - removing a participant removes the read mark too: a user who comes back begins anew.
//!
//! Order: the creation of a conversation keeps its order with the appends to it. The writes about one participant of a
//! conversation take effect in the order given, read marks included, and so do the blocks between two users.

use crate::model::ids::{ConversationId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary, Head, Participant};

use super::call::subject;
use super::{Done, OrderKey};

/// Creates a conversation.
///
/// If the two users of a direct one have a conversation already, or if the id is in use, then nothing changes and the answer
/// is the existing conversation: that of the two users, or else that of the id.
#[derive(Clone, Debug)]
pub struct CreateConversation {
    pub conversation: Conversation,
}

/// The answer to [`CreateConversation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateAnswer {
    pub state: ConversationState,
    pub created: bool,
}

/// Adds a participant, or changes the role of an existing one, who keeps the time of joining. The answer is `None` when the
/// conversation does not exist.
#[derive(Clone, Debug)]
pub struct PutParticipant {
    pub conversation: ConversationId,
    pub participant: Participant,
}

/// Removes a participant and its read mark; the messages that it sent stay. The answer is `None` when the conversation does
/// not exist.
#[derive(Clone, Debug)]
pub struct RemoveParticipant {
    pub conversation: ConversationId,
    pub user: UserId,
}

/// Sets or lifts the block of one user by another.
#[derive(Clone, Debug)]
pub struct SetBlock {
    /// The user who blocks.
    pub user: UserId,
    pub other: UserId,
    pub blocked: bool,
}

/// The answer to [`SetBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAnswer {
    /// The direct conversation of the two, if they have one.
    pub direct: Option<ConversationId>,
    /// Whether either of the two blocks the other now.
    pub blocked: bool,
    pub changed: bool,
}

/// A conversation as it is now; `None` when it does not exist. The outcome of an append may still be open, so this says
/// nothing about the end of the log in the future.
#[derive(Clone, Debug)]
pub struct ReadConversation {
    pub conversation: ConversationId,
}

/// A conversation for the shard that appends to it from the returned head on; `None` when it does not exist.
///
/// This settles every append of unknown outcome: a message that is not in the log by now will never be. The shard asks only
/// while no append of the conversation is under way and none will be repeated.
#[derive(Clone, Debug)]
pub struct LoadConversation {
    pub conversation: ConversationId,
}

/// A conversation as its shard loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationState {
    pub conversation: Conversation,
    pub head: Head,
    /// For a direct conversation: whether either participant blocks the other.
    pub blocked: bool,
}

/// The conversations of a user with an id above `after`, ascending.
#[derive(Clone, Debug)]
pub struct ListConversations {
    pub user: UserId,
    pub after: Option<ConversationId>,
    pub limit: u16,
}

/// The answer to [`ListConversations`].
#[derive(Clone, Debug)]
pub struct ConversationList {
    pub summaries: Vec<ConversationSummary>,
    /// Whether there are conversations beyond the list.
    pub more: bool,
}

/// The users whom a user blocks, ascending.
#[derive(Clone, Debug)]
pub struct ListBlocks {
    pub user: UserId,
}

subject! {
    Conversations:
    writes {
        CreateConversation => CreateAnswer,
        PutParticipant => Option<Done>,
        RemoveParticipant => Option<Done>,
        SetBlock => BlockAnswer,
    }
    reads {
        ReadConversation => Option<ConversationState>,
        LoadConversation => Option<ConversationState>,
        ListConversations => ConversationList,
        ListBlocks => Vec<UserId>,
    }
}

impl Write {
    /// The key of the writes that must keep their order with this one.
    pub(super) fn order(&self) -> OrderKey {
        match self {
            Self::CreateConversation(create) => OrderKey::Log(create.conversation.id),
            Self::PutParticipant(put) => OrderKey::Participant(put.conversation, put.participant.user),
            Self::RemoveParticipant(remove) => OrderKey::Participant(remove.conversation, remove.user),
            Self::SetBlock(set) => OrderKey::Pair(set.user.min(set.other), set.user.max(set.other)),
        }
    }
}

/// The two users of a direct conversation, the same whoever created it.
#[must_use]
pub fn pair_key(conversation: &Conversation) -> Option<(UserId, UserId)> {
    match (conversation.kind, conversation.participants.as_slice()) {
        (ConversationKind::Direct, [first, second]) => Some((first.user, second.user)),
        _ => None,
    }
}
