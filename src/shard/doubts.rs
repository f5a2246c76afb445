//! Writes that were given up before the store had told what became of them. Who asked was refused; what was done all the
//! same is found out once the store answers again, and whoever it concerns is told.
//!
//! Messages that are stored are delivered before their conversation goes on: they have their place in its order, and who is
//! connected misses none. A change of the participants is repeated until it is certainly made, as one that is made late
//! would leave memory behind; until then no other one begins.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::time::Duration;

use crate::model::{ConversationId, MessageId};
use crate::shard::membership::Change;
use crate::shard::storing::{Errand, missing};
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::log::{Append, Messages, ReadAfter};
use crate::store::{Call, Reply};

/// Between two looks at what is in doubt.
const PAUSE: Duration = Duration::from_millis(250);
/// Conversations that are looked at in one go: a store that has just come back has other work too.
const LOOKS_MAX: usize = 64;

/// Owner: the shard. View: shard. Bounded by the conversations in memory: nothing is written to what is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    appends: BTreeMap<ConversationId, DoubtfulAppend>,
    /// But for those under way.
    changes: BTreeMap<ConversationId, Change>,
    /// The timer is set.
    timed: bool,
    /// The last conversation that was looked at; the next look begins behind it.
    last: Option<ConversationId>,
}

#[derive(Debug)]
struct DoubtfulAppend {
    /// The end of the log before it.
    after: Option<MessageId>,
    messages: Vec<MessageId>,
}

impl Doubts {
    pub(super) fn are_none(&self) -> bool {
        self.appends.is_empty() && self.changes.is_empty()
    }

    /// There is no such conversation any more.
    pub(super) fn forget_append(&mut self, id: ConversationId) {
        self.appends.remove(&id);
    }

    fn next(&mut self) -> Option<ConversationId> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let append = self.appends.range((from, Bound::Unbounded)).next().map(|(id, _)| *id);
        let change = self.changes.range((from, Bound::Unbounded)).next().map(|(id, _)| *id);
        self.last = append.into_iter().chain(change).min();
        self.last
    }
}

impl Shard {
    pub(super) fn doubt_append(&mut self, turn: &mut Turn<'_>, id: ConversationId, append: Append) {
        let Append { head, messages, .. } = append;
        let messages = messages.into_iter().map(|message| message.id).collect();
        let before = self.doubts.appends.insert(id, DoubtfulAppend { after: head.last, messages });
        assert!(before.is_none(), "nothing is appended before the last doubt is settled");
        self.watch_doubts(turn);
    }

    pub(super) fn doubt_change(&mut self, turn: &mut Turn<'_>, id: ConversationId, change: Change) {
        let before = self.doubts.changes.insert(id, change);
        assert!(before.is_none(), "no change is begun before the last one is settled");
        self.watch_doubts(turn);
    }

    fn watch_doubts(&mut self, turn: &mut Turn<'_>) {
        if !self.doubts.timed {
            self.doubts.timed = true;
            self.timers.schedule(turn.now.mono.after(PAUSE), Timer::Doubts);
        }
    }

    /// Asks the store about what is in doubt. A shard that ends leaves it to whoever reads the history.
    pub(super) fn look_into_doubts(&mut self, turn: &mut Turn<'_>) {
        self.doubts.timed = false;
        if self.doubts.are_none() || self.draining.is_some() {
            return;
        }
        self.watch_doubts(turn);
        if !self.store_reachable {
            return;
        }
        for _ in 0..LOOKS_MAX {
            // Behind the last one the next look begins at the first.
            let Some(id) = self.doubts.next() else { return };
            if let Some(change) = self.doubts.changes.remove(&id) {
                self.insist(turn, change.request(id), Errand::RepeatChange(id, change));
            }
            if self.doubts.appends.contains_key(&id) {
                self.reload(turn, id);
            }
        }
    }

    /// A conversation was loaded: whether the end of its log is that of before the doubt, or what was stored is read.
    pub(super) fn settle_append(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Entry::Occupied(entry) = self.doubts.appends.entry(id) else { return };
        let Some(ready) = self.conversations.ready(id) else { return };
        let DoubtfulAppend { after, messages } = entry.get();
        if ready.head.last <= *after {
            entry.remove();
            return;
        }
        ready.settling = true;
        let limit = u16::try_from(messages.len()).unwrap_or(u16::MAX);
        let after = after.unwrap_or(MessageId::MIN);
        self.insist(turn, ReadAfter { conversation: id, after, limit }, Errand::Settle(id));
    }

    /// The store has told what follows the log's end of before the doubt. The sender was told that its message may not be
    /// stored, so the session that sent it hears of it like all others.
    pub(super) fn append_settled(&mut self, turn: &mut Turn<'_>, id: ConversationId, reply: Reply) {
        let ready = self.conversations.ready(id).expect("a conversation stays while a doubt about it is settled");
        ready.settling = false;
        let messages = match ReadAfter::answer(reply) {
            Ok(Some(Messages { messages, .. })) => messages,
            Ok(None) => return self.fail_appends(turn, id, Vec::new(), missing()),
            Err(failure) => return self.fail_appends(turn, id, Vec::new(), Self::failed(failure)),
        };
        let doubtful = self.doubts.appends.remove(&id).map(|append| append.messages).unwrap_or_default();
        for message in messages.into_iter().filter(|message| doubtful.contains(&message.id)) {
            self.recents.push(&message);
            self.send_out(turn, id, message, None);
        }
        self.append_next(turn, id);
    }

    /// The store has answered to a change that was repeated.
    pub(super) fn change_repeated(&mut self, turn: &mut Turn<'_>, id: ConversationId, change: Change, reply: Reply) {
        match change.answer(reply) {
            Ok(Some(_)) => self.follow_change(turn, id, change),
            Ok(None) => {}
            Err(failure) => {
                self.refuse_changes(turn, id, failure);
                return self.doubt_change(turn, id, change);
            }
        }
        self.end_change(turn, id);
    }
}
