//! What the oracle knows for certain, and since when.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::model::message::Message;
use crate::model::{ConversationId, MessageId, Mono, UserId, Wall};

/// Names a send of some device, in the order in which the devices began them.
pub(super) type SendNo = usize;
/// A session that some device tried to begin.
pub(super) type SessionNo = usize;
/// A login that gave tokens, to be revoked by a logout.
pub(super) type LoginNo = usize;

/// A message as clients get it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dto {
    pub(super) id: String,
    pub(super) conversation_id: u64,
    pub(super) sender_id: u64,
    pub(super) content: String,
    pub(super) client_message_id: Option<String>,
    pub(super) prev: Option<String>,
}

impl Dto {
    pub(super) fn is_of(&self, message: &Message) -> bool {
        self.id == message.id.to_string()
            && self.conversation_id == message.conversation.value()
            && self.sender_id == message.sender.value()
            && *self.content == *message.content
            && self.client_message_id.as_deref() == message.client_id.as_deref()
            && self.prev == message.prev.map(|prev| prev.to_string())
    }
}

/// One message to send, and every attempt to send it.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) user: UserId,
    pub(super) device: usize,
    pub(super) conversation: ConversationId,
    /// Different for every send, so that a stored message shows which send it is of.
    pub(super) content: String,
    pub(super) key: Option<String>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) stored: Option<MessageId>,
    pub(super) acknowledged: bool,
    /// Attempts that were refused for certain: they cannot be carried out any more.
    pub(super) refused: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// `None`: the attempt went over REST.
    pub(super) session: Option<SessionNo>,
    pub(super) echo: bool,
    pub(super) at: Mono,
}

/// A stored message.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: std::sync::Arc<Message>,
    pub(super) send: SendNo,
    pub(super) at: Mono,
    /// How often a wall clock had jumped.
    pub(super) jumps: u32,
    /// It took effect after the node was gone that had asked for it.
    pub(super) orphaned: bool,
    /// The store has answered that it is stored.
    pub(super) answered: bool,
    pub(super) delivered: bool,
}

/// A user and a group.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Whether the user is a participant in the store.
    pub(super) stored: bool,
    /// The user is a participant without interruption since then, and an answer of the server has confirmed it.
    pub(super) inside_since: Option<Mono>,
    /// The user is no participant since then: a removal was answered, and nothing has changed since.
    pub(super) outside_since: Option<Mono>,
    pub(super) requests: Requests,
}

/// One user's block of another.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) stored: bool,
    /// In force since an answer said so.
    pub(super) since: Option<Mono>,
    pub(super) requests: Requests,
}

/// Requests under way that change one thing, and a count of their beginnings and ends: a request that saw no other knows
/// what it has done.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// By the node that was asked.
    under_way: BTreeMap<usize, u32>,
    version: u64,
}

impl Requests {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn begin(&mut self, node: usize) {
        *self.under_way.entry(node).or_default() += 1;
        self.version += 1;
    }

    /// A request is answered that began at `version`. Returns whether it saw no other.
    pub(super) fn end(&mut self, node: usize, version: u64) -> bool {
        let alone = self.under_way.values().sum::<u32>() == 1 && self.version == version;
        if let Some(count) = self.under_way.get_mut(&node) {
            *count = count.saturating_sub(1);
        }
        self.version += 1;
        alone
    }

    /// The node is gone, and what it was asked with it.
    pub(super) fn forget(&mut self, node: usize) {
        self.under_way.remove(&node);
        self.version += 1;
    }
}

/// The kinds of destinations that devices subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Messages,
    Errors,
    Acks,
    Topic(ConversationId),
    /// `/topic/**`
    All,
    /// `/topic/conversation/*`
    Conversations,
}

impl Kind {
    pub(super) fn destination(self, user: UserId, long: bool) -> String {
        match self {
            Self::Messages if long => format!("/user/{user}/queue/messages"),
            Self::Messages => "/user/queue/messages".into(),
            Self::Errors => "/user/queue/errors".into(),
            Self::Acks => "/user/queue/acks".into(),
            Self::Topic(conversation) => format!("/topic/conversation/{conversation}"),
            Self::All => "/topic/**".into(),
            Self::Conversations => "/topic/conversation/*".into(),
        }
    }
}

/// One subscription of one session, as the client sees it.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) kind: Kind,
    pub(super) destination: String,
    pub(super) asked_at: Mono,
    /// Its RECEIPT came.
    pub(super) active_since: Option<Mono>,
    /// The RECEIPT of its UNSUBSCRIBE came.
    pub(super) ended: bool,
    /// The messages that it was sent. A new subscription under the same id to the same destination keeps them.
    pub(super) seen: BTreeSet<MessageId>,
    pub(super) last: BTreeMap<ConversationId, MessageId>,
}

#[derive(Debug)]
pub(super) struct SessionFact {
    pub(super) user: UserId,
    pub(super) login: Option<LoginNo>,
    pub(super) expires: Wall,
    pub(super) jumps: u32,
    pub(super) live: bool,
    pub(super) subs: BTreeMap<String, Sub>,
    /// First attempts of this session, in their order.
    pub(super) sends: Vec<SendNo>,
}
