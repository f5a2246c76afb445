//! **Acknowledged means durable.** Whatever a client was sent (a RECEIPT, an ack, a 2xx, a MESSAGE) is in the store at that
//! moment, and no crash takes it away.

use crate::model::{ConversationId, MessageId};
use crate::sim::facts::{Dto, SendNo, SessionNo};
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "what was acknowledged or delivered is in the store, also after a crash";

impl Oracle {
    /// A RECEIPT, an ack or a 2xx has come.
    pub(in crate::sim) fn acknowledged(&mut self, number: SendNo) {
        let send = &mut self.sends[number];
        send.acknowledged = true;
        self.acknowledged += 1;
        if send.stored.is_none() {
            let what = format!("send {number} ({:?}) was acknowledged and is not durable", send.content);
            self.break_promise(Promise::Durable, what);
        }
    }

    /// Finds the stored message that a MESSAGE shows, word for word: its conversation, and its place in the log.
    pub(in crate::sim) fn check_delivered_is_durable(
        &mut self,
        session: SessionNo,
        id: &str,
        dto: &Dto,
    ) -> Option<(ConversationId, usize)> {
        let found: Option<MessageId> = dto.id.parse().ok().filter(|_| dto.id == id);
        let found = found.and_then(|id| self.index.get(&id).copied());
        let entry = found.and_then(|(conversation, at)| self.log.get_mut(&conversation)?.get_mut(at));
        let Some(entry) = entry.filter(|entry| dto.is_of(&entry.message)) else {
            let user = self.sessions[session].user;
            let what = format!("session {session} of user {user} was sent {dto:?}, which is not durable");
            self.break_promise(Promise::Durable, what);
            return None;
        };
        entry.delivered = true;
        found
    }

    /// A crash has left what `left` says: everything that was acknowledged or delivered must be there.
    pub(in crate::sim) fn survived(&mut self, left: impl Fn(MessageId, ConversationId) -> bool) {
        let mut lost = Vec::new();
        for (conversation, log) in &mut self.log {
            log.retain(|entry| {
                let there = left(entry.message.id, *conversation);
                if !there {
                    lost.push((entry.send, entry.delivered));
                }
                there
            });
        }
        for (number, delivered) in lost {
            let send = &mut self.sends[number];
            send.stored = None;
            let (conversation, user, acknowledged) = (send.conversation, send.user, send.acknowledged);
            if let Some(key) = send.key.clone() {
                self.keys.remove(&(conversation, user, key));
            }
            if acknowledged || delivered {
                let what = format!("send {number} was acknowledged or delivered, and a crash took it away");
                self.break_promise(Promise::Durable, what);
            }
        }
    }
}
