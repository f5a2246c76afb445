//! **A session's own message does not come back to its queue unless it asked for that.**
//!
//! One case is meant to be otherwise: the store has not answered the append, so the sender was refused with
//! `store_unavailable`, and the shard has found out later that the message is stored. The sender is the one who must hear of
//! it then.

use crate::model::ConversationId;
use crate::model::message::Message;
use crate::sim::facts::{Kind, SessionNo};
use crate::sim::oracle::Oracle;

pub(super) const PROMISE: &str = "a session's own message does not come back to its queue unless it asked for that";

impl Oracle {
    /// The store answers that it has stored a message: from now on its shard knows which session sent it.
    pub(in crate::sim) fn store_answered(&mut self, message: &Message) {
        let found = self.index.get(&message.id).copied();
        if let Some(entry) = found.and_then(|(conversation, at)| self.log.get_mut(&conversation)?.get_mut(at)) {
            entry.answered = true;
        }
    }

    /// Why the message may not come to this subscription of the session that sent it.
    pub(in crate::sim) fn echo_fault(
        &self,
        session: SessionNo,
        subscription: &str,
        (conversation, at): (ConversationId, usize),
    ) -> Option<&'static str> {
        let entry = &self.log[&conversation][at];
        let own = self.sends[entry.send].attempts.iter().all(|attempt| attempt.session == Some(session) && !attempt.echo);
        let to_queue = self.sessions[session].subs.get(subscription).is_some_and(|sub| sub.kind == Kind::Messages);
        (own && to_queue && entry.answered)
            .then_some("the session's own message came back to its queue, and it had not asked for it")
    }
}
