//! **Nobody sees what is not theirs.** A message reaches sessions of participants only, and none whose login was revoked or
//! whose token has expired a second before; a page of history is answered to participants only.

use crate::model::{ConversationId, Mono};
use crate::sim::facts::SessionNo;
use crate::sim::oracle::{Asked, Moment, Oracle, Promise};

pub(super) const PROMISE: &str = "nobody sees what is not theirs";

/// From the answer to a logout, or the end of a token, to the last message its sessions may get.
const CUT_WITHIN_NS: u64 = 1_000_000_000;

impl Oracle {
    /// Why the session may not be sent this message at all.
    pub(in crate::sim) fn privacy_fault(
        &self,
        moment: Moment,
        session: SessionNo,
        (conversation, at): (ConversationId, usize),
    ) -> Option<&'static str> {
        let entry = &self.log[&conversation][at];
        let fact = &self.sessions[session];
        let sent_at = self.sends[entry.send].attempts.first().map_or(Mono(0), |attempt| attempt.at);
        let outside = self.outside_since(conversation, fact.user);
        let foreign = self.pairs.get(&conversation).is_some_and(|pair| pair.0 != fact.user && pair.1 != fact.user);
        if foreign || outside.is_some_and(|since| since < sent_at) {
            return Some("not a participant at any time between its sending and now");
        }
        let revoked = fact.login.and_then(|login| self.logins[login]);
        if revoked.is_some_and(|at| at.0 + CUT_WITHIN_NS < entry.at.0) {
            return Some("the session's login was revoked more than a second before");
        }
        let steady = fact.jumps == entry.jumps && moment.jumps == entry.jumps;
        // By the clock of the session's node, when the message was stored.
        let stored_at = moment.wall.0.saturating_sub(moment.mono.since(entry.at).as_nanos() as u64 / 100);
        if steady && fact.expires.0 + CUT_WITHIN_NS / 100 < stored_at {
            return Some("the session's token had expired more than a second before");
        }
        None
    }

    pub(in crate::sim) fn check_page_is_theirs(&mut self, asked: Asked) {
        if self.outside_since(asked.conversation, asked.user).is_some_and(|since| since < asked.at) {
            self.break_promise(Promise::Privacy, format!("{asked:?} was answered after the user's removal"));
        }
    }
}
