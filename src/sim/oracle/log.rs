//! **A send stands in its conversation's log once, as it was sent.** The store holds nothing that nobody sent; each message
//! is linked to the one before it and counted; a client message id stands there once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::message::Message;
use crate::model::{ConversationId, Mono, UserId};
use crate::sim::facts::{Entry, SendNo};
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a send stands in its conversation's log once, as it was sent";

/// Client message ids that are stored.
pub(super) type Keys = BTreeSet<(ConversationId, UserId, String)>;

/// When and how a message was stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct StoredAt {
    pub(in crate::sim) mono: Mono,
    /// How often a wall clock had jumped.
    pub(in crate::sim) jumps: u32,
    /// The node that had asked for it was gone.
    pub(in crate::sim) orphaned: bool,
}

impl Oracle {
    /// Puts a message at the end of its log. Returns its send, unless the message stood there before.
    pub(in crate::sim) fn enter_into_log(&mut self, stored_at: StoredAt, message: &Arc<Message>) -> Option<SendNo> {
        let Some(&number) = self.by_content.get(&*message.content) else {
            self.break_promise(Promise::Log, format!("the store holds {message:?}, which nobody sent"));
            return None;
        };
        let log = self.log.entry(message.conversation).or_default();
        if log.iter().any(|entry| entry.message.id == message.id) {
            return None;
        }
        let last = log.last().map(|entry| &entry.message);
        let linked = message.prev == last.map(|last| last.id)
            && message.sequence == last.map_or(1, |last| last.sequence + 1)
            && last.is_none_or(|last| last.id < message.id);
        self.index.insert(message.id, (message.conversation, log.len()));
        let StoredAt { mono: at, jumps, orphaned } = stored_at;
        let (answered, delivered) = (false, false);
        log.push(Entry { message: message.clone(), send: number, at, jumps, orphaned, answered, delivered });
        if !linked {
            self.break_promise(Promise::Log, format!("{message:?} is not linked to the end of its conversation"));
        }
        Some(number)
    }

    pub(in crate::sim) fn check_stored_once(&mut self, number: SendNo, message: &Message) {
        let send = &mut self.sends[number];
        if send.stored.replace(message.id).is_some() {
            return self.break_promise(Promise::Log, format!("send {number} is stored twice, now as {message:?}"));
        }
        if (send.user, send.conversation, send.key.as_deref())
            != (message.sender, message.conversation, message.client_id.as_deref())
        {
            return self.break_promise(Promise::Log, format!("{message:?} is not what send {number} asked for"));
        }
        let (user, conversation, key) = (send.user, send.conversation, send.key.clone());
        if key.is_some_and(|key| !self.keys.insert((conversation, user, key))) {
            self.break_promise(Promise::Log, format!("the client message id of {message:?} is stored twice"));
        }
    }
}
