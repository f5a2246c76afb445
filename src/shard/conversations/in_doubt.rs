//! Writes we stopped retrying before learning their outcome. The caller got an error. Once the store answers again we find
//! out which were applied, and notify the users concerned.
//!
//! Messages that are stored after all are delivered before their conversation goes on: they have their place in its order,
//! and no connected client misses one. A change of the participants is repeated until it is certainly made, because a
//! change made late would leave memory behind the store; until then no other one begins.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use crate::model::{ConversationId, MessageId};
use crate::shard::conversations::{Conversations, OnReply, Timer};
use crate::shard::turn::{Turn, missing, store_refusal};
use crate::store::log::ReadAfter;
use crate::store::{Call, Reply};

/// Between two rounds of questions to the store.
const PAUSE: Duration = Duration::from_millis(250);
/// Conversations of one round: a store that has just come back has other work too.
const ROUND_MAX: usize = 64;

/// Conversations with a write in doubt; the writes themselves stay in the conversations' pipelines.
/// Owner: the conversations' part. View: shard. Bounded by the conversations in memory.
#[derive(Debug, Default)]
pub(super) struct InDoubt {
    conversations: BTreeSet<ConversationId>,
    /// The timer is set.
    scheduled: bool,
    /// The last conversation of the round before; the next round begins behind it.
    last: Option<ConversationId>,
}

impl InDoubt {
    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty()
    }

    fn next(&mut self) -> Option<ConversationId> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        self.last = self.conversations.range((from, Bound::Unbounded)).next().copied();
        self.last
    }
}

impl Conversations {
    /// A write of this conversation was given up.
    pub(super) fn doubt(&mut self, turn: &Turn, id: ConversationId) {
        self.in_doubt.conversations.insert(id);
        self.schedule_round(turn);
    }

    fn schedule_round(&mut self, turn: &Turn) {
        if !self.in_doubt.scheduled {
            self.in_doubt.scheduled = true;
            self.timers.schedule(turn.after(PAUSE), Timer::InDoubt);
        }
    }

    /// A write in doubt was settled: forgets the conversation unless it has another.
    pub(super) fn no_longer_in_doubt(&mut self, id: ConversationId) {
        let in_doubt = self.entries.find(id).is_some_and(|entry| entry.log.doubt().is_some() || entry.changes.doubt().is_some());
        if !in_doubt {
            self.in_doubt.conversations.remove(&id);
        }
    }

    /// Asks the store about writes in doubt. A shard that ends leaves them to readers of the history.
    pub(super) fn ask_about_doubts(&mut self, turn: &mut Turn) {
        self.in_doubt.scheduled = false;
        if self.in_doubt.is_empty() || turn.draining.is_some() {
            return;
        }
        self.schedule_round(turn);
        if !turn.store.reachable {
            return;
        }
        for _ in 0..ROUND_MAX {
            // Behind the last one the next round begins at the first.
            let Some(id) = self.in_doubt.next() else { return };
            let Some(entry) = self.entries.find_mut(id) else { continue };
            let append = entry.log.doubt().is_some();
            if let Some(change) = entry.changes.ask_doubt() {
                let request = change.request(id);
                self.calls.ask_once(turn, request, OnReply::ChangeRepeated(id));
            }
            if append {
                self.reload(turn, id);
            }
        }
    }

    /// A conversation was loaded: either its log ends where it ended before the append in doubt, or what follows is read.
    pub(super) fn settle_append(&mut self, turn: &mut Turn, id: ConversationId) {
        let Some(entry) = self.entries.find_mut(id) else { return };
        let Some(last) = entry.ready().map(|ready| ready.head.last) else { return };
        let Some(doubt) = entry.log.doubt() else { return };
        let after = doubt.after;
        if last <= after {
            entry.log.settle();
            return self.no_longer_in_doubt(id);
        }
        let limit = u16::try_from(doubt.messages.len()).unwrap_or(u16::MAX);
        let after = after.unwrap_or(MessageId::MIN);
        self.calls.ask_once(turn, ReadAfter { conversation: id, after, limit }, OnReply::AppendSettled(id));
    }

    /// The store returned what follows the log's end of before the doubt. The sender got an error, so its own session is
    /// notified like all others.
    pub(super) fn append_settled(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        let entry = self.entries.find_mut(id).expect("a conversation stays while a write of it is in doubt");
        let messages = match ReadAfter::answer(reply) {
            Ok(Some(page)) => page.messages,
            Ok(None) => return self.fail_appends(turn, id, None, &missing()),
            Err(failure) => return self.fail_appends(turn, id, None, &store_refusal(failure)),
        };
        let doubtful = entry.log.settle().map(|doubt| doubt.messages).unwrap_or_default();
        self.no_longer_in_doubt(id);
        for message in messages.into_iter().filter(|message| doubtful.contains(&message.id)) {
            self.recent.push(&message);
            self.deliver(turn, id, message, None);
        }
        self.append_next(turn, id);
    }

    /// The store replied to a change that was repeated.
    pub(super) fn change_repeated(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        let entry = self.entries.find_mut(id).expect("a conversation stays while a write of it is in doubt");
        let Some(change) = entry.changes.doubt().copied() else { return };
        match change.answer(reply) {
            Ok(made) => {
                entry.changes.settle();
                if made.is_some() {
                    self.follow_change(turn, id, change);
                }
            }
            Err(failure) => {
                // Those that wait cannot begin soon.
                entry.changes.keep_doubt();
                for (asker, _) in entry.changes.take_waiting() {
                    turn.refuse(asker, store_refusal(failure));
                }
                return self.doubt(turn, id);
            }
        }
        self.no_longer_in_doubt(id);
        self.change_next(turn, id);
    }
}
