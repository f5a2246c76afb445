//! Conversations of this shard: who takes part and who has subscribed, and the commands that wait until that is known.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::command::{Command, Outcome};
use crate::model::destination::Topic;
use crate::model::map::{self, Map};
use crate::model::message::{Conversation, Head};
use crate::model::{ConversationId, Refusal, RefusalCode, ShardId, UserId};
use crate::shard::appends::{Appending, Send, busy};
use crate::shard::mail::{Ask, Asker, Mail, Subscriber};
use crate::shard::storing::Errand;
use crate::shard::{Shard, Turn};
use crate::store::conversations::LoadConversation;
use crate::store::log::{ListReadMarks, ReadMessage};
use crate::store::{self, Call};

/// What is known of one conversation. Lifetime: while in use. Owner: its shard. View: shard.
#[derive(Debug)]
pub(super) struct Live {
    state: State,
    /// Shards with subscribers of the topic, by index.
    subscribers: Vec<bool>,
    /// Looked at since the hand of the clock passed: not dropped yet.
    used: bool,
}

#[derive(Debug)]
enum State {
    /// The store was asked; these wait for its answer.
    /// `stale`: something changed meanwhile, the answer may be older and is asked for again.
    Loading {
        waiting: Vec<Waiting>,
        stale: bool,
    },
    Ready(Box<Ready>),
    /// A write failed: what the store holds must be read again.
    Unloaded,
}

/// What waits for a conversation to be loaded.
#[derive(Debug)]
enum Waiting {
    Ask(Box<Ask>),
    Join {
        from: ShardId,
        user: UserId,
        subscriber: Subscriber,
    },
    /// A change of a block, to be answered once the conversation goes by it.
    Block(Asker),
}

/// What a change of a block has to wait for.
#[derive(Debug)]
pub(super) enum Refresh {
    Read,
    /// A read or a load under way, which answers.
    Wait,
    Done,
}

/// A read of whether a pair's conversation is blocked, under way at the store.
#[derive(Debug)]
pub(super) struct BlockRead {
    /// Whose changes it will see, and whose it may not.
    pub(super) askers: Vec<Asker>,
    pub(super) next: Vec<Asker>,
    /// The conversation was loaded since: what it knows is newer.
    overtaken: bool,
}

#[derive(Debug)]
pub(super) struct Ready {
    conversation: Arc<Conversation>,
    pub(super) head: Head,
    /// One of the two participants of a direct conversation blocks the other.
    pub(super) blocked: bool,
    /// Participants by the shard of their sessions.
    by_shard: Vec<Arc<[UserId]>>,
    pub(super) queue: VecDeque<Send>,
    pub(super) appending: Option<Appending>,
    /// The store was asked what became of an append that was given up: nothing is appended before that is known.
    pub(super) settling: bool,
}

impl Ready {
    /// Whether the log certainly ends at `head`.
    pub(super) fn is_settled(&self) -> bool {
        self.appending.is_none() && !self.settling
    }
}

/// Conversations in memory, with a second chance before one is dropped. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct Conversations {
    map: Map<ConversationId, Live>,
    clock: VecDeque<ConversationId>,
    /// Appends that wait to be tried again.
    pub(super) retrying: usize,
    shards: u16,
    block_reads: Map<ConversationId, BlockRead>,
}

impl Conversations {
    pub(super) fn new(seed: u64, shards: u16) -> Self {
        Self { map: map::map(seed), clock: VecDeque::new(), retrying: 0, shards, block_reads: map::map(seed) }
    }

    #[cfg(test)]
    pub(super) fn have_subscribers(&self) -> bool {
        self.map.values().any(|live| live.subscribers.contains(&true))
    }

    pub(super) fn are_retrying(&self) -> bool {
        self.retrying > 0
    }

    fn enter(&mut self, id: ConversationId) -> &mut Live {
        let shards = usize::from(self.shards);
        let live = self.map.entry(id).or_insert_with(|| {
            self.clock.push_back(id);
            Live { state: State::Unloaded, subscribers: vec![false; shards], used: true }
        });
        live.used = true;
        live
    }

    pub(super) fn ready(&mut self, id: ConversationId) -> Option<&mut Ready> {
        match &mut self.map.get_mut(&id)?.state {
            State::Ready(ready) => Some(ready),
            State::Loading { .. } | State::Unloaded => None,
        }
    }

    /// A block of the pair has changed: what has to be done until the conversation goes by it.
    pub(super) fn refresh_block(&mut self, id: ConversationId, asker: Asker) -> Refresh {
        match self.map.get_mut(&id).map(|live| &mut live.state) {
            Some(State::Ready(_)) => match self.block_reads.get_mut(&id) {
                // The read under way may be older than this change.
                Some(read) => {
                    read.next.push(asker);
                    Refresh::Wait
                }
                None => {
                    self.block_reads.insert(id, BlockRead { askers: vec![asker], next: Vec::new(), overtaken: false });
                    Refresh::Read
                }
            },
            Some(State::Loading { waiting, stale }) => {
                *stale = true;
                waiting.push(Waiting::Block(asker));
                Refresh::Wait
            }
            Some(State::Unloaded) | None => Refresh::Done,
        }
    }

    /// Takes over what a read of the block has found; gives back who waited for it.
    pub(super) fn finish_block_read(&mut self, id: ConversationId, blocked: bool) -> BlockRead {
        let read = self.block_reads.remove(&id).expect("a read under way is known");
        if let (false, Some(ready)) = (read.overtaken, self.ready(id)) {
            ready.blocked = blocked;
        }
        read
    }

    pub(super) fn leave(&mut self, id: ConversationId, shard: ShardId) {
        if let Some(live) = self.map.get_mut(&id) {
            live.subscribers[shard.index()] = false;
        }
    }

    /// Follows a change of the participants that the store has made.
    pub(super) fn change(&mut self, id: ConversationId, change: impl FnOnce(&mut Conversation)) {
        let shards = self.shards;
        match self.map.get_mut(&id).map(|live| &mut live.state) {
            Some(State::Ready(ready)) => {
                change(Arc::make_mut(&mut ready.conversation));
                ready.by_shard = by_shard(&ready.conversation, shards);
            }
            Some(State::Loading { stale, .. }) => *stale = true,
            Some(State::Unloaded) | None => {}
        }
    }

    pub(super) fn loaded(&mut self, id: ConversationId) -> Option<Arc<Conversation>> {
        self.ready(id).map(|ready| ready.conversation.clone())
    }

    pub(super) fn participants_by_shard(&mut self, id: ConversationId) -> Vec<Arc<[UserId]>> {
        self.ready(id).map(|ready| ready.by_shard.clone()).unwrap_or_default()
    }

    /// Whom a message is for on a shard: the participants, and whether there are subscribers of the topic.
    pub(super) fn receivers(&self, id: ConversationId, shard: ShardId) -> Option<(Arc<[UserId]>, bool)> {
        let live = self.map.get(&id)?;
        match &live.state {
            State::Ready(ready) => Some((ready.by_shard[shard.index()].clone(), live.subscribers[shard.index()])),
            State::Loading { .. } | State::Unloaded => None,
        }
    }

    /// What the store holds must be read again before anything else.
    pub(super) fn unload(&mut self, id: ConversationId) {
        self.enter(id).state = State::Unloaded;
    }

    /// There is nothing to keep. It was looked up a moment ago, so its place is near the end.
    fn forget(&mut self, id: ConversationId) {
        self.map.remove(&id);
        if let Some(at) = self.clock.iter().rposition(|known| *known == id) {
            self.clock.remove(at);
        }
    }

    /// Drops conversations out of use until at most `max` are left or one turn of the clock is over.
    fn trim(&mut self, max: usize) {
        let mut steps = self.clock.len();
        while self.map.len() > max && steps > 0 {
            steps -= 1;
            let Some(id) = self.clock.pop_front() else { break };
            let Some(live) = self.map.get_mut(&id) else { continue };
            let busy = live.subscribers.contains(&true)
                || match &live.state {
                    State::Loading { .. } => true,
                    State::Ready(ready) => !ready.is_settled() || !ready.queue.is_empty(),
                    State::Unloaded => false,
                };
            if std::mem::take(&mut live.used) || busy {
                self.clock.push_back(id);
            } else {
                self.map.remove(&id);
            }
        }
    }
}

fn by_shard(conversation: &Conversation, shards: u16) -> Vec<Arc<[UserId]>> {
    let mut lists = vec![Vec::new(); usize::from(shards)];
    for participant in &conversation.participants {
        lists[ShardId::of(participant.user.value(), shards).index()].push(participant.user);
    }
    lists.into_iter().map(Into::into).collect()
}

/// An unknown conversation answers like a foreign one, so that ids tell nothing.
pub(super) fn not_participant() -> Outcome {
    Outcome::Refused(Refusal::new(RefusalCode::NotParticipant, "you are not a participant of this conversation"))
}

impl Shard {
    /// As the conversation's shard: carries a command out, once the conversation is loaded.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>, ask: Ask) {
        let id = match &ask.command {
            Command::PutConversation { .. } => return self.put_conversation(turn, ask),
            Command::Send { conversation, .. }
            | Command::ListReadMarks { conversation }
            | Command::ReadHistory { conversation, .. }
            | Command::ReadMessage { conversation, .. }
            | Command::ReadConversation { conversation }
            | Command::AddParticipant { conversation, .. }
            | Command::SetRole { conversation, .. }
            | Command::RemoveParticipant { conversation, .. }
            | Command::MarkRead { conversation: Some(conversation), .. } => *conversation,
            Command::MarkRead { conversation: None, .. }
            | Command::CreateConversation { .. }
            | Command::ListConversations { .. }
            | Command::SetBlock { .. }
            | Command::ListBlocks
            | Command::ReadMe => unreachable!("routed by conversation"),
        };
        assert!(ShardId::of(id.value(), self.shards) == self.id, "a conversation belongs to one shard");
        match &self.conversations.enter(id).state {
            State::Ready(_) => self.ask_loaded(turn, id, ask),
            State::Loading { waiting, .. } if waiting.len() >= self.policy.limits.conversation_pending => {
                self.answer(turn, ask.asker, Outcome::Refused(busy()));
            }
            State::Loading { .. } | State::Unloaded => self.wait(turn, id, Waiting::Ask(Box::new(ask))),
        }
    }

    /// A subscription of the conversation's topic: participants only.
    pub(super) fn join_conversation(
        &mut self,
        turn: &mut Turn<'_>,
        from: ShardId,
        id: ConversationId,
        user: UserId,
        subscriber: Subscriber,
    ) {
        let live = self.conversations.enter(id);
        let State::Ready(ready) = &live.state else {
            return self.wait(turn, id, Waiting::Join { from, user, subscriber });
        };
        let allowed = ready.conversation.participant(user).is_some();
        if allowed {
            live.subscribers[from.index()] = true;
        }
        self.mail(turn, from, Mail::Joined { topic: Some(Topic::Conversation(id)), subscriber, allowed });
    }

    fn wait(&mut self, turn: &mut Turn<'_>, id: ConversationId, what: Waiting) {
        match &mut self.conversations.enter(id).state {
            State::Loading { waiting, .. } => waiting.push(what),
            State::Ready(_) | State::Unloaded => self.load(turn, id, vec![what]),
        }
    }

    fn load(&mut self, turn: &mut Turn<'_>, id: ConversationId, waiting: Vec<Waiting>) {
        self.conversations.enter(id).state = State::Loading { waiting, stale: false };
        self.ask_store(turn, LoadConversation { conversation: id }, Errand::Load(id));
    }

    /// Reads a conversation again, unless somebody else has asked for that.
    pub(super) fn reload(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        if matches!(self.conversations.enter(id).state, State::Unloaded) {
            self.load(turn, id, Vec::new());
        }
    }

    /// The store has answered for a conversation.
    pub(super) fn conversation_loaded(&mut self, turn: &mut Turn<'_>, id: ConversationId, reply: store::Reply) {
        let shards = self.shards;
        let Some(live) = self.conversations.map.get_mut(&id) else { return };
        let subscribed = live.subscribers.contains(&true);
        let State::Loading { waiting, stale } = std::mem::replace(&mut live.state, State::Unloaded) else { return };
        if stale {
            live.state = State::Loading { waiting, stale: false };
            return self.ask_store(turn, LoadConversation { conversation: id }, Errand::Load(id));
        }
        let refusal = match LoadConversation::answer(reply) {
            Ok(Some(state)) => {
                if let Some(read) = self.conversations.block_reads.get_mut(&id) {
                    read.overtaken = true;
                }
                live.state = State::Ready(Box::new(Ready {
                    by_shard: by_shard(&state.conversation, shards),
                    conversation: Arc::new(state.conversation),
                    head: state.head,
                    blocked: state.blocked,
                    queue: VecDeque::new(),
                    appending: None,
                    settling: false,
                }));
                self.settle_append(turn, id);
                None
            }
            Ok(None) => {
                self.doubts.forget_append(id);
                Some(not_participant())
            }
            Err(failure) => Some(Outcome::Refused(Self::failed(failure))),
        };
        for what in waiting {
            match (what, &refusal) {
                (Waiting::Ask(ask), None) => self.ask(turn, *ask),
                (Waiting::Ask(ask), Some(refusal)) => self.answer(turn, ask.asker, refusal.clone()),
                (Waiting::Block(asker), _) => self.answer(turn, asker, Outcome::Done),
                (Waiting::Join { from, user, subscriber }, None) => self.join_conversation(turn, from, id, user, subscriber),
                (Waiting::Join { from, subscriber, .. }, Some(_)) => {
                    let topic = Some(Topic::Conversation(id));
                    self.mail(turn, from, Mail::Joined { topic, subscriber, allowed: false });
                }
            }
        }
        // Who has subscribed still has to hear of what is stored once the store answers again.
        if refusal.is_some() && !subscribed {
            self.conversations.forget(id);
        }
        self.conversations.trim(self.policy.limits.conversations_cached);
    }

    fn ask_loaded(&mut self, turn: &mut Turn<'_>, id: ConversationId, ask: Ask) {
        let Some(ready) = self.conversations.ready(id) else { return };
        let Ask { asker, command } = ask;
        // Role admin sets up groups that it takes no part in: imported ones, and those whose last admin has left.
        let sets_up = asker.admin
            && matches!(command, Command::AddParticipant { .. } | Command::SetRole { .. } | Command::RemoveParticipant { .. });
        if !sets_up && ready.conversation.participant(asker.user).is_none() {
            return self.answer(turn, asker, not_participant());
        }
        match command {
            Command::AddParticipant { .. } | Command::SetRole { .. } | Command::RemoveParticipant { .. } => {
                self.change_participants(turn, id, Ask { asker, command });
            }
            Command::Send { draft, from, .. } => self.take_in(turn, id, Send { asker, from, draft }),
            Command::ReadConversation { .. } => {
                let conversation = ready.conversation.clone();
                self.answer(turn, asker, Outcome::Conversation { conversation, created: false });
            }
            Command::ReadHistory { page, .. } => self.read_history(turn, asker, id, page),
            Command::ReadMessage { message, .. } => {
                let request = ReadMessage { conversation: id, message };
                self.ask_store(turn, request, Errand::Message(asker));
            }
            Command::MarkRead { message, .. } => {
                let request = ReadMessage { conversation: id, message };
                self.ask_store(turn, request, Errand::MarkMessage(asker));
            }
            Command::ListReadMarks { .. } => {
                self.ask_store(turn, ListReadMarks { conversation: id }, Errand::Marks(asker));
            }
            _ => unreachable!("commands without a conversation are not asked of one"),
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
        let mut conversations = Conversations::new(1, 1);
        for value in 1..=3 {
            conversations.enter(id(value));
        }
        conversations.map.get_mut(&id(2)).unwrap().subscribers[0] = true;
        conversations.trim(3);
        assert_eq!(conversations.map.len(), 3);
        conversations.trim(2);
        conversations.enter(id(1));
        conversations.trim(2);
        assert!(conversations.map.contains_key(&id(2)), "a conversation with subscribers stays");
        assert_eq!(conversations.map.len(), 2);
    }
}
