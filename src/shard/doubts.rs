//! Writes that were given up before the store had told what became of them. Who asked was refused; what was done all the
//! same is found out once the store answers again, and everybody else is told.
//!
//! Messages that are stored are delivered before their conversation goes on: they have their place in its order, and who is
//! connected misses none. A change of the participants that was made is followed; until that is known no other one begins.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::message::SenderSession;
use crate::model::{ConversationId, MessageId};
use crate::shard::membership::Change;
use crate::shard::storing::Errand;
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::{ConversationState, Reply, Request};

/// Between two questions to the store about one conversation.
const PAUSE: Duration = Duration::from_millis(250);

/// Owner: the shard. View: shard. Bounded by the writes that were under way together: nothing is written to what is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    appends: BTreeMap<ConversationId, DoubtfulAppend>,
    /// Until the store is asked about them.
    changes: BTreeMap<ConversationId, Change>,
    /// With a timer.
    watched: BTreeSet<ConversationId>,
}

#[derive(Debug)]
struct DoubtfulAppend {
    /// The end of the log before it.
    after: Option<MessageId>,
    messages: Vec<(MessageId, Option<SenderSession>)>,
}

impl Doubts {
    #[cfg(test)]
    pub(super) fn are_none(&self) -> bool {
        self.appends.is_empty() && self.changes.is_empty() && self.watched.is_empty()
    }
}

impl Shard {
    /// `from`: who sent each message.
    pub(super) fn doubt_append(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        request: Request,
        from: Vec<Option<SenderSession>>,
    ) {
        let Request::Append { head, messages, .. } = request else { unreachable!("an append was given up") };
        let messages = messages.into_iter().map(|message| message.id).zip(from).collect();
        let before = self.doubts.appends.insert(id, DoubtfulAppend { after: head.last, messages });
        assert!(before.is_none(), "nothing is appended before the last doubt is settled");
        self.watch_doubt(turn, id);
    }

    pub(super) fn doubt_change(&mut self, turn: &mut Turn<'_>, id: ConversationId, change: Change) {
        let before = self.doubts.changes.insert(id, change);
        assert!(before.is_none(), "no change is begun before the last one is settled");
        self.watch_doubt(turn, id);
    }

    fn watch_doubt(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        if self.doubts.watched.insert(id) {
            self.timers.schedule(turn.now.mono.after(PAUSE), Timer::Doubt(id));
        }
    }

    /// Asks the store about what is in doubt.
    pub(super) fn look_into(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        self.doubts.watched.remove(&id);
        if let Some(change) = self.doubts.changes.remove(&id) {
            self.insist(turn, Request::ReadConversation { conversation: id }, Errand::SettleChange(id, change));
        }
        if self.doubts.appends.contains_key(&id) {
            self.watch_doubt(turn, id);
            self.reload(turn, id);
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
        self.insist(turn, Request::ReadAfter { conversation: id, after, limit }, Errand::Settle(id));
    }

    /// The store has told what follows the log's end of before the doubt.
    pub(super) fn append_settled(&mut self, turn: &mut Turn<'_>, id: ConversationId, reply: Reply) {
        let ready = self.conversations.ready(id).expect("a conversation stays while a doubt about it is settled");
        ready.settling = false;
        let Reply::Messages { messages, .. } = reply else {
            return self.fail_appends(turn, id, Vec::new(), &reply);
        };
        let doubtful = self.doubts.appends.remove(&id).map(|append| append.messages).unwrap_or_default();
        for message in messages {
            if let Some((_, from)) = doubtful.iter().find(|(doubtful, _)| *doubtful == message.id) {
                self.recents.push(&message);
                self.send_out(turn, id, message, *from);
            }
        }
        self.append_next(turn, id);
    }

    /// The store has told who takes part, or not.
    pub(super) fn change_settled(&mut self, turn: &mut Turn<'_>, id: ConversationId, change: Change, reply: &Reply) {
        match reply {
            Reply::Conversation { state, .. } => {
                if let Some(made) = as_made(change, state) {
                    self.follow_change(turn, id, made);
                }
            }
            Reply::Missing => {}
            other => {
                self.refuse_changes(turn, id, other);
                return self.doubt_change(turn, id, change);
            }
        }
        self.end_change(turn, id);
    }
}

/// A change, if the store has made it.
fn as_made(change: Change, state: &ConversationState) -> Option<Change> {
    match change {
        Change::Put(participant) => state.conversation.participant(participant.user).copied().map(Change::Put),
        Change::Remove(user) => state.conversation.participant(user).is_none().then_some(Change::Remove(user)),
    }
}
