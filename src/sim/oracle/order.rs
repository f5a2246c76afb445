//! **A conversation has one order.** A subscription gets the messages of a conversation in the order of its log and each
//! once; what one session sends to a conversation stands in the log in the order in which it was sent.

use std::collections::BTreeMap;

use crate::model::message::Message;
use crate::model::{ConversationId, MessageId};
use crate::sim::facts::SessionNo;
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a conversation has one order, and each of its messages comes once";

impl Oracle {
    /// A message has come to a subscription.
    pub(in crate::sim) fn check_order(&mut self, session: SessionNo, subscription: &str, message: &Message, what: &str) {
        let Some(sub) = self.sessions[session].subs.get_mut(subscription) else { return };
        let before = sub.last.insert(message.conversation, message.id);
        let first_time = sub.seen.insert(message.id);
        if !first_time {
            self.break_promise(Promise::Order, format!("{what}: it came before, so it comes twice"));
        } else if before.is_some_and(|before| message.id <= before) {
            self.break_promise(Promise::Order, format!("{what}: after {before:?}, so out of order"));
        }
    }

    /// What a session sent to one conversation stands there in the order in which it was sent.
    pub(in crate::sim) fn finish_order(&mut self, session: SessionNo) {
        let mut last: BTreeMap<ConversationId, MessageId> = BTreeMap::new();
        for number in &self.sessions[session].sends {
            let send = &self.sends[*number];
            // One that was tried again may stand where the second try put it.
            let (Some(id), 1) = (send.stored, send.attempts.len()) else { continue };
            if last.insert(send.conversation, id).is_some_and(|before| id <= before) {
                let what = format!("session {session}: send {number} stands before an earlier one in its conversation");
                return self.break_promise(Promise::Order, what);
            }
        }
    }
}
