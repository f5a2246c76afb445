//! Imports of conversations, and changes of a group's participants.
//!
//! The store may answer in any order, so memory can follow it only when the changes of one conversation are made one after
//! another.

use std::sync::Arc;

use crate::access::{Action, Membership, may};
use crate::model::command::{ConversationCommand, Outcome, ParticipantChange};
use crate::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use crate::model::{ConversationId, Refusal, RefusalCode, UserId};
use crate::shard::conversations::{Conversations, OnReply, Timer};
use crate::shard::mail::{Asker, UserMail};
use crate::shard::turn::pipeline::{self, Pipeline};
use crate::shard::turn::store_calls::RETRY_PAUSE;
use crate::shard::turn::{Turn, missing, store_refusal};
use crate::store::conversations::{CreateAnswer, CreateConversation, PutParticipant, RemoveParticipant};
use crate::store::{Call, Done, Failure, Reply, Request};

/// Changes of one conversation's participants on their way into the store.
pub(super) type Changes = Pipeline<(Asker, ParticipantChange), (Asker, Change), Change>;

/// A change of the participants as the store makes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Put(Participant),
    Remove(UserId),
}

impl Change {
    pub(super) fn request(self, conversation: ConversationId) -> Request {
        match self {
            Self::Put(participant) => PutParticipant { conversation, participant }.into(),
            Self::Remove(user) => RemoveParticipant { conversation, user }.into(),
        }
    }

    /// The answer to the request; `None` when the conversation does not exist.
    pub(super) fn answer(self, reply: Reply) -> Result<Option<Done>, Failure> {
        match self {
            Self::Put(_) => PutParticipant::answer(reply),
            Self::Remove(_) => RemoveParticipant::answer(reply),
        }
    }
}

/// What a requested change comes to, given the participants of now.
enum Decision {
    Make(Change),
    /// Nothing is to be done.
    Answer(Outcome),
}

impl Conversations {
    /// An import under a given id.
    pub(super) fn put(
        &mut self,
        turn: &mut Turn,
        asker: Asker,
        id: ConversationId,
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<&str>,
    ) {
        let conversation = may(asker.caller, Action::Import, None)
            .and_then(|()| Conversation::new(turn.limits(), turn.now.wall, id, kind, participants, title, asker.caller.user));
        match conversation {
            Ok(conversation) => self.ask_store(turn, CreateConversation { conversation }, OnReply::Put(asker, id)),
            Err(refusal) => turn.refuse(asker, refusal),
        }
    }

    pub(super) fn was_put(&mut self, turn: &mut Turn, asker: Asker, id: ConversationId, reply: Reply) {
        match CreateConversation::answer(reply) {
            Ok(CreateAnswer { state, .. }) if state.conversation.id != id => {
                let message = format!("the pair has the direct conversation {} already", state.conversation.id);
                turn.refuse(asker, Refusal::new(RefusalCode::Conflict, message));
            }
            Ok(CreateAnswer { state, created }) => {
                turn.answer(asker, Outcome::Conversation { conversation: Arc::new(state.conversation), created });
            }
            Err(failure) => turn.refuse(asker, store_refusal(failure)),
        }
    }

    /// Begins a change, or lets it wait for the one under way.
    pub(super) fn change_participants(&mut self, turn: &mut Turn, id: ConversationId, asker: Asker, change: ParticipantChange) {
        let changes = &mut self.entries.enter(id).changes;
        if changes.waiting() >= turn.limits().conversation_pending {
            let refusal = Refusal::new(RefusalCode::StoreBusy, "too many changes wait for the store").retry_after(1);
            return turn.refuse(asker, refusal);
        }
        changes.push((asker, change));
        self.change_next(turn, id);
    }

    /// Begins the next change that comes to anything.
    pub(super) fn change_next(&mut self, turn: &mut Turn, id: ConversationId) {
        loop {
            let Some(entry) = self.entries.find_mut(id) else { return };
            let Some((asker, change)) = entry.changes.take(1).next() else { return };
            let Some(ready) = entry.ready() else {
                // Whatever waits is decided by the participants that are loaded now.
                let waiting = entry.changes.take_waiting();
                for (asker, change) in [(asker, change)].into_iter().chain(waiting) {
                    self.ask(turn, id, asker, ConversationCommand::ChangeParticipants(change));
                }
                return;
            };
            let (blocked, conversation) = (ready.blocked, ready.conversation.clone());
            match decide(turn, asker, change, conversation, blocked) {
                Decision::Answer(outcome) => turn.answer(asker, outcome),
                Decision::Make(_) if turn.store_is_full() => turn.refuse(asker, store_refusal(Failure::Busy)),
                Decision::Make(change) => {
                    entry.changes.begin((asker, change), turn.now.mono);
                    return self.calls.ask_once(turn, change.request(id), OnReply::Changed(id));
                }
            }
        }
    }

    /// The store replied to the change under way.
    pub(super) fn changed(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        let entry = self.entries.find_mut(id).expect("a conversation stays while a change is under way");
        match entry.changes.replied(&reply, turn.now.mono, |(_, change)| *change) {
            pipeline::Outcome::Certain((asker, change)) => {
                match change.answer(reply) {
                    Ok(Some(Done { .. })) => {
                        self.follow_change(turn, id, change);
                        turn.answer(asker, Outcome::Done);
                    }
                    Ok(None) => turn.refuse(asker, missing()),
                    Err(failure) => turn.refuse(asker, store_refusal(failure)),
                }
                self.change_next(turn, id);
            }
            pipeline::Outcome::Retry => {
                self.retrying += 1;
                self.timers.schedule(turn.after(RETRY_PAUSE), Timer::RetryChange(id));
            }
            pipeline::Outcome::InDoubt((asker, _)) => {
                turn.refuse(asker, store_refusal(Failure::Unknown));
                self.doubt(turn, id);
            }
        }
    }

    pub(super) fn retry_change(&mut self, turn: &mut Turn, id: ConversationId) {
        self.retrying -= 1;
        let Some((_, change)) = self.entries.find(id).and_then(|entry| entry.changes.under_way()) else { return };
        let request = change.request(id);
        self.calls.ask_once(turn, request, OnReply::Changed(id));
    }

    /// The store has changed the participants: memory follows, and the sessions of a removed one leave the topic.
    pub(super) fn follow_change(&mut self, turn: &mut Turn, id: ConversationId, change: Change) {
        match change {
            Change::Put(participant) => self.entries.change(id, |conversation| {
                match conversation.participants.binary_search_by_key(&participant.user, |known| known.user) {
                    Ok(at) => conversation.participants[at] = participant,
                    Err(at) => conversation.participants.insert(at, participant),
                }
            }),
            Change::Remove(user) => {
                self.entries.change(id, |conversation| conversation.participants.retain(|known| known.user != user));
                turn.mail(turn.placement.user(user), UserMail::Expel { conversation: id, user });
            }
        }
    }
}

fn decide(turn: &Turn, asker: Asker, change: ParticipantChange, conversation: Arc<Conversation>, blocked: bool) -> Decision {
    let refuse = |code, message: &'static str| Decision::Answer(Outcome::Refused(Refusal::new(code, message)));
    let (ParticipantChange::Add { user, .. } | ParticipantChange::SetRole { user, .. } | ParticipantChange::Remove { user }) =
        change;
    let action = match change {
        ParticipantChange::Add { .. } | ParticipantChange::SetRole { .. } => Action::PutParticipant(user),
        ParticipantChange::Remove { .. } => Action::RemoveParticipant(user),
    };
    let membership = Membership::of(asker.caller.user, &conversation, blocked);
    if let Err(refusal) = may(asker.caller, action, Some(membership)) {
        return Decision::Answer(Outcome::Refused(refusal));
    }
    let put = |role, joined_at| Decision::Make(Change::Put(Participant { user, role, joined_at }));
    match (change, conversation.participant(user).copied()) {
        (ParticipantChange::Add { .. }, Some(_)) => Decision::Answer(Outcome::Conversation { conversation, created: false }),
        (ParticipantChange::Add { .. }, None) if conversation.participants.len() >= turn.limits().participants => {
            refuse(RefusalCode::Conflict, "the group is full")
        }
        (ParticipantChange::Add { role, .. }, None) => put(role, turn.now.wall),
        (ParticipantChange::SetRole { .. } | ParticipantChange::Remove { .. }, None) => {
            refuse(RefusalCode::NotFound, "the user is not a participant")
        }
        (ParticipantChange::SetRole { role, .. }, Some(known)) => {
            let steps_down = known.role == ParticipantRole::Admin && role == ParticipantRole::Member;
            if steps_down && is_last_admin(&conversation, user) {
                refuse(RefusalCode::Conflict, "the group needs an admin")
            } else {
                put(role, known.joined_at)
            }
        }
        (ParticipantChange::Remove { .. }, Some(_)) => Decision::Make(Change::Remove(user)),
    }
}

fn is_last_admin(conversation: &Conversation, user: UserId) -> bool {
    !conversation.participants.iter().any(|known| known.user != user && known.role == ParticipantRole::Admin)
}
