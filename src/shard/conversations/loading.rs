//! Conversations are loaded when they are needed, and commands wait until then.

use crate::access::permissions::not_participant;
use crate::access::{Action, Caller};
use crate::model::command::{ConversationCommand, Outcome};
use crate::model::destination::Topic;
use crate::model::{ConversationId, ShardId, UserId};
use crate::shard::conversations::entry::{Entry, State, Waiting};
use crate::shard::conversations::log::Send;
use crate::shard::conversations::{Conversations, OnReply};
use crate::shard::mail::{Asker, Subscriber, UserMail};
use crate::shard::turn::{Turn, busy, store_refusal};
use crate::store::conversations::LoadConversation;
use crate::store::log::{ListReadMarks, ReadMessage};
use crate::store::{Call, Reply};

impl Conversations {
    /// Carries a command out, once its conversation is loaded.
    pub(super) fn ask(&mut self, turn: &mut Turn, id: ConversationId, asker: Asker, command: ConversationCommand) {
        assert!(turn.placement.conversation(id) == turn.id, "a conversation belongs to one shard");
        match &self.entries.enter(id).state {
            // An import needs nothing of a conversation that may not exist yet.
            _ if matches!(command, ConversationCommand::Put { .. }) => self.carry_out(turn, id, asker, command),
            State::Ready(_) => self.carry_out(turn, id, asker, command),
            State::Loading { waiting, .. } if waiting.len() >= turn.limits().conversation_pending => turn.refuse(asker, busy()),
            State::Loading { .. } | State::Unloaded => self.wait(turn, id, Waiting::Ask(asker, Box::new(command))),
        }
    }

    fn carry_out(&mut self, turn: &mut Turn, id: ConversationId, asker: Asker, command: ConversationCommand) {
        let action = match &command {
            ConversationCommand::Send { .. } => Some(Action::Send),
            ConversationCommand::MarkRead { .. }
            | ConversationCommand::ListReadMarks
            | ConversationCommand::ReadHistory { .. }
            | ConversationCommand::ReadMessage { .. }
            | ConversationCommand::Read => Some(Action::Read),
            // Checked when they begin, against the participants of that time.
            ConversationCommand::Put { .. } | ConversationCommand::ChangeParticipants(_) => None,
        };
        if let (Some(action), Some(ready)) = (action, self.entries.ready(id))
            && let Err(refusal) = ready.check(asker.caller, action)
        {
            return turn.refuse(asker, refusal);
        }
        match command {
            ConversationCommand::Send { draft, from } => self.send(turn, id, Send { asker, from, draft }),
            ConversationCommand::MarkRead { message } => {
                let request = ReadMessage { conversation: id, message };
                self.ask_store(turn, request, OnReply::MessageToMarkRead(asker));
            }
            ConversationCommand::ListReadMarks => {
                self.ask_store(turn, ListReadMarks { conversation: id }, OnReply::MarksRead(asker));
            }
            ConversationCommand::ReadHistory { page } => self.read_history(turn, asker, id, page),
            ConversationCommand::ReadMessage { message } => {
                let request = ReadMessage { conversation: id, message };
                self.ask_store(turn, request, OnReply::MessageRead(asker));
            }
            ConversationCommand::Put { kind, participants, title } => {
                self.put(turn, asker, id, kind, participants, title.as_deref());
            }
            ConversationCommand::Read => {
                let Some(ready) = self.entries.ready(id) else { return };
                let conversation = ready.conversation.clone();
                turn.answer(asker, Outcome::Conversation { conversation, created: false });
            }
            ConversationCommand::ChangeParticipants(change) => self.change_participants(turn, id, asker, change),
        }
    }

    /// A subscription of the conversation's topic: participants only.
    pub(super) fn join(&mut self, turn: &mut Turn, from: ShardId, id: ConversationId, user: UserId, subscriber: Subscriber) {
        let entry = self.entries.enter(id);
        let State::Ready(ready) = &entry.state else {
            return self.wait(turn, id, Waiting::Join { from, user, subscriber });
        };
        let allowed = ready.check(Caller { user, admin: false }, Action::Read).is_ok();
        if allowed {
            entry.subscribers[from.index()] = true;
        }
        turn.mail(from, UserMail::Joined { topic: Some(Topic::Conversation(id)), subscriber, allowed });
    }

    fn wait(&mut self, turn: &mut Turn, id: ConversationId, waits: Waiting) {
        match &mut self.entries.enter(id).state {
            State::Loading { waiting, .. } => waiting.push(waits),
            State::Ready(_) | State::Unloaded => self.load(turn, id, vec![waits]),
        }
    }

    fn load(&mut self, turn: &mut Turn, id: ConversationId, waiting: Vec<Waiting>) {
        self.entries.enter(id).state = State::Loading { waiting, stale: false };
        self.ask_store(turn, LoadConversation { conversation: id }, OnReply::Loaded(id));
    }

    /// Loads a conversation again, unless another load is under way.
    pub(super) fn reload(&mut self, turn: &mut Turn, id: ConversationId) {
        if matches!(self.entries.enter(id).state, State::Unloaded) {
            self.load(turn, id, Vec::new());
        }
    }

    pub(super) fn loaded(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        let Some(entry) = self.entries.find_mut(id) else { return };
        let State::Loading { waiting, stale } = std::mem::replace(&mut entry.state, State::Unloaded) else { return };
        if stale {
            return self.load(turn, id, waiting);
        }
        let refusal = match LoadConversation::answer(reply) {
            Ok(Some(state)) => {
                self.overtake_block_read(id);
                self.entries.set_ready(id, state);
                self.settle_append(turn, id);
                None
            }
            Ok(None) => {
                entry.log.settle();
                self.no_longer_in_doubt(id);
                Some(not_participant())
            }
            Err(failure) => Some(store_refusal(failure)),
        };
        for waits in waiting {
            match (waits, &refusal) {
                (Waiting::Ask(asker, command), None) => self.ask(turn, id, asker, *command),
                (Waiting::Ask(asker, _), Some(refusal)) => turn.refuse(asker, refusal.clone()),
                (Waiting::Block(asker), _) => turn.answer(asker, Outcome::Done),
                (Waiting::Join { from, user, subscriber }, None) => self.join(turn, from, id, user, subscriber),
                (Waiting::Join { from, subscriber, .. }, Some(_)) => {
                    turn.mail(from, UserMail::Joined { topic: Some(Topic::Conversation(id)), subscriber, allowed: false });
                }
            }
        }
        // Subscribers must still get what is stored once the store answers again.
        let keeps = |entry: &Entry| entry.has_subscribers() || !entry.log.is_idle() || !entry.changes.is_idle();
        if refusal.is_some() && !self.entries.find(id).is_some_and(keeps) {
            self.entries.forget(id);
        }
        self.entries.trim(turn.limits().conversations_cached);
    }
}
