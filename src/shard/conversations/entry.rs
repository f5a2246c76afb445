//! The table of conversations in memory, and what is known of each.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::access::{Action, Caller, Membership, may};
use crate::model::command::ConversationCommand;
use crate::model::map::{self, Map};
use crate::model::message::{Conversation, Head};
use crate::model::{ConversationId, Placement, Refusal, ShardId, UserId};
use crate::shard::conversations::log::Log;
use crate::shard::conversations::membership::Changes;
use crate::shard::mail::{Asker, Subscriber};
use crate::store::conversations::ConversationState;

/// One conversation. Lifetime: while in use. Owner: its shard. View: shard.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    /// Messages on their way into the log.
    pub(super) log: Log,
    /// Changes of the participants on their way into the store.
    pub(super) changes: Changes,
    /// Shards with subscribers of the topic, by index.
    pub(super) subscribers: Vec<bool>,
    /// Looked at since the hand of the clock passed: not dropped yet.
    used: bool,
}

#[derive(Debug)]
pub(super) enum State {
    /// The store must be asked before anything else: nothing is known, or a write failed.
    Unloaded,
    /// The store was asked; these wait for its answer.
    /// `stale`: something changed meanwhile, the answer may be older and the store is asked again.
    Loading {
        waiting: Vec<Waiting>,
        stale: bool,
    },
    Ready(Box<Ready>),
}

/// What waits for a conversation to be loaded.
#[derive(Debug)]
pub(super) enum Waiting {
    Ask(Asker, Box<ConversationCommand>),
    Join {
        from: ShardId,
        user: UserId,
        subscriber: Subscriber,
    },
    /// A change of a block, to be answered once the conversation goes by it.
    Block(Asker),
}

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) conversation: Arc<Conversation>,
    pub(super) head: Head,
    /// One of the two participants of a direct conversation blocks the other.
    pub(super) blocked: bool,
    /// Participants by the shard of their sessions.
    by_shard: Vec<Arc<[UserId]>>,
}

impl Ready {
    fn new(state: ConversationState, placement: Placement) -> Self {
        let ConversationState { conversation, head, blocked } = state;
        Self { by_shard: by_shard(&conversation, placement), conversation: Arc::new(conversation), head, blocked }
    }

    /// # Errors
    /// The refusal for the caller.
    pub(super) fn check(&self, caller: Caller, action: Action) -> Result<(), Refusal> {
        may(caller, action, Some(Membership::of(caller.user, &self.conversation, self.blocked)))
    }
}

fn by_shard(conversation: &Conversation, placement: Placement) -> Vec<Arc<[UserId]>> {
    let mut lists = vec![Vec::new(); usize::from(placement.shards())];
    for participant in &conversation.participants {
        lists[placement.user(participant.user).index()].push(participant.user);
    }
    lists.into_iter().map(Into::into).collect()
}

impl Entry {
    pub(super) fn ready(&mut self) -> Option<&mut Ready> {
        match &mut self.state {
            State::Ready(ready) => Some(ready),
            State::Loading { .. } | State::Unloaded => None,
        }
    }

    pub(super) fn has_subscribers(&self) -> bool {
        self.subscribers.contains(&true)
    }

    fn is_busy(&self) -> bool {
        self.has_subscribers() || matches!(self.state, State::Loading { .. }) || !self.log.is_idle() || !self.changes.is_idle()
    }
}

/// Conversations in memory, with a second chance before one is dropped. Owner: the conversations' part. View: shard.
#[derive(Debug)]
pub(super) struct Entries {
    map: Map<ConversationId, Entry>,
    clock: VecDeque<ConversationId>,
    placement: Placement,
}

impl Entries {
    pub(super) fn new(seed: u64, placement: Placement) -> Self {
        Self { map: map::map(seed), clock: VecDeque::new(), placement }
    }

    #[cfg(test)]
    pub(super) fn have_subscribers(&self) -> bool {
        self.map.values().any(Entry::has_subscribers)
    }

    pub(super) fn find(&self, id: ConversationId) -> Option<&Entry> {
        self.map.get(&id)
    }

    pub(super) fn find_mut(&mut self, id: ConversationId) -> Option<&mut Entry> {
        self.map.get_mut(&id)
    }

    /// The entry of a conversation that is in use.
    pub(super) fn enter(&mut self, id: ConversationId) -> &mut Entry {
        let shards = usize::from(self.placement.shards());
        let entry = self.map.entry(id).or_insert_with(|| {
            self.clock.push_back(id);
            let subscribers = vec![false; shards];
            Entry { state: State::Unloaded, log: Log::default(), changes: Changes::default(), subscribers, used: true }
        });
        entry.used = true;
        entry
    }

    pub(super) fn ready(&mut self, id: ConversationId) -> Option<&mut Ready> {
        self.map.get_mut(&id)?.ready()
    }

    /// What the store answered to a load.
    pub(super) fn set_ready(&mut self, id: ConversationId, state: ConversationState) {
        let ready = Ready::new(state, self.placement);
        self.enter(id).state = State::Ready(Box::new(ready));
    }

    /// The subscribers of a shard have left the topic.
    pub(super) fn leave(&mut self, id: ConversationId, shard: ShardId) {
        if let Some(entry) = self.map.get_mut(&id) {
            entry.subscribers[shard.index()] = false;
        }
    }

    /// Follows a change of the participants that the store has made.
    pub(super) fn change(&mut self, id: ConversationId, change: impl FnOnce(&mut Conversation)) {
        let placement = self.placement;
        match self.map.get_mut(&id).map(|entry| &mut entry.state) {
            Some(State::Ready(ready)) => {
                change(Arc::make_mut(&mut ready.conversation));
                ready.by_shard = by_shard(&ready.conversation, placement);
            }
            Some(State::Loading { stale, .. }) => *stale = true,
            Some(State::Unloaded) | None => {}
        }
    }

    pub(super) fn participants_by_shard(&mut self, id: ConversationId) -> Vec<Arc<[UserId]>> {
        self.ready(id).map(|ready| ready.by_shard.clone()).unwrap_or_default()
    }

    /// The receivers of a message on a shard: the participants there, and whether there are subscribers of the topic.
    pub(super) fn receivers(&self, id: ConversationId, shard: ShardId) -> Option<(Arc<[UserId]>, bool)> {
        let entry = self.map.get(&id)?;
        match &entry.state {
            State::Ready(ready) => Some((ready.by_shard[shard.index()].clone(), entry.subscribers[shard.index()])),
            State::Loading { .. } | State::Unloaded => None,
        }
    }

    /// Removes an entry that has nothing to keep. It was entered a moment ago, so its place in the clock is near the end.
    pub(super) fn forget(&mut self, id: ConversationId) {
        self.map.remove(&id);
        if let Some(at) = self.clock.iter().rposition(|known| *known == id) {
            self.clock.remove(at);
        }
    }

    /// Drops conversations out of use until at most `max` are left or one turn of the clock is over.
    pub(super) fn trim(&mut self, max: usize) {
        let mut steps = self.clock.len();
        while self.map.len() > max && steps > 0 {
            steps -= 1;
            let Some(id) = self.clock.pop_front() else { break };
            let Some(entry) = self.map.get_mut(&id) else { continue };
            if std::mem::take(&mut entry.used) || entry.is_busy() {
                self.clock.push_back(id);
            } else {
                self.map.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u64) -> ConversationId {
        ConversationId::new(value).unwrap()
    }

    #[test]
    fn conversations_out_of_use_are_dropped_first() {
        let mut entries = Entries::new(1, Placement::new(1));
        for value in 1..=3 {
            entries.enter(id(value));
        }
        entries.map.get_mut(&id(2)).unwrap().subscribers[0] = true;
        entries.trim(3);
        assert_eq!(entries.map.len(), 3);
        entries.trim(2);
        entries.enter(id(1));
        entries.trim(2);
        assert!(entries.map.contains_key(&id(2)), "a conversation with subscribers stays");
        assert_eq!(entries.map.len(), 2);
    }
}
