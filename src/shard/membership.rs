//! Conversations are made, and people come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::rand_core::Rng;

use crate::model::command::{Command, Outcome};
use crate::model::destination::UserQueue;
use crate::model::ids::ID_MAX;
use crate::model::map::{self, Map};
use crate::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use crate::model::{ConversationId, Refusal, RefusalCode, ShardId, UserId, Wall};
use crate::protocol::json;
use crate::shard::conversations::Refresh;
use crate::shard::mail::{Ask, Asker, Mail, Notice};
use crate::shard::storing::{Errand, missing};
use crate::shard::{Shard, Turn};
use crate::store::conversations::{
    CreateAnswer, CreateConversation, PutParticipant, ReadConversation, RemoveParticipant, SetBlock,
};
use crate::store::log::{ReadMarkAnswer, SetReadMark};
use crate::store::{Call, Done, Failure, Reply, Request};

/// A change of the participants, on its way through the store.
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

    pub(super) fn answer(self, reply: Reply) -> Result<Option<Done>, Failure> {
        match self {
            Self::Put(_) => PutParticipant::answer(reply),
            Self::Remove(_) => RemoveParticipant::answer(reply),
        }
    }
}

/// Conversations with a change under way, and the changes that wait for its end: the store may answer in any order, so
/// memory follows it only when they are made one after another. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct Changes {
    waiting: Map<ConversationId, VecDeque<Ask>>,
}

impl Changes {
    pub(super) fn new(seed: u64) -> Self {
        Self { waiting: map::map(seed) }
    }

    /// Keeps a change for later when another is under way; gives it back when it can begin.
    fn defer(&mut self, id: ConversationId, ask: Ask) -> Option<Ask> {
        match self.waiting.get_mut(&id) {
            Some(waiting) => {
                waiting.push_back(ask);
                None
            }
            None => Some(ask),
        }
    }

    fn count(&self, id: ConversationId) -> usize {
        self.waiting.get(&id).map_or(0, VecDeque::len)
    }

    fn begin(&mut self, id: ConversationId) {
        let before = self.waiting.insert(id, VecDeque::new());
        assert!(before.is_none(), "one change of a conversation is under way at a time");
    }

    /// Takes out those that wait for a change under way.
    fn take_waiting(&mut self, id: ConversationId) -> VecDeque<Ask> {
        self.waiting.get_mut(&id).map(std::mem::take).unwrap_or_default()
    }

    fn end(&mut self, id: ConversationId) -> VecDeque<Ask> {
        self.waiting.remove(&id).expect("the change that ends has begun")
    }
}

fn refused(code: RefusalCode, message: &'static str) -> Outcome {
    Outcome::Refused(Refusal::new(code, message))
}

impl Shard {
    /// A conversation of the caller and others, under an id from the shard's source of randomness.
    pub(super) fn create_conversation(&mut self, turn: &mut Turn<'_>, ask: Ask) {
        let Command::CreateConversation { kind, participants, title } = &ask.command else { return };
        let caller = ask.asker.user;
        let mut users = participants.clone();
        users.push(caller);
        let candidate = self.random_id();
        match self.conversation(turn.now.wall, candidate, *kind, users, title.as_deref(), caller) {
            Ok(conversation) => {
                let errand = Errand::Create(Box::new(ask), candidate);
                self.ask_store(turn, CreateConversation { conversation }, errand);
            }
            Err(refusal) => self.answer(turn, ask.asker, Outcome::Refused(refusal)),
        }
    }

    /// 52 random bits, never zero: ids tell nothing about each other.
    fn random_id(&mut self) -> ConversationId {
        loop {
            if let Ok(id) = ConversationId::new(self.random.next_u64() & (ID_MAX >> 1)) {
                return id;
            }
        }
    }

    fn conversation(
        &self,
        now: Wall,
        id: ConversationId,
        kind: ConversationKind,
        mut users: Vec<UserId>,
        title: Option<&str>,
        created_by: UserId,
    ) -> Result<Conversation, Refusal> {
        let limits = &self.policy.limits;
        users.sort_unstable();
        users.dedup();
        if kind == ConversationKind::Direct && users.len() != 2 {
            return Err(Refusal::new(RefusalCode::BadRequest, "a direct conversation has two participants"));
        }
        if users.is_empty() || users.len() > limits.participants {
            let message = format!("a conversation has 1 to {} participants", limits.participants);
            return Err(Refusal::new(RefusalCode::BadRequest, message));
        }
        if title.is_some_and(|title| title.chars().count() > limits.title_chars) {
            let message = format!("a title has at most {} characters", limits.title_chars);
            return Err(Refusal::new(RefusalCode::BadRequest, message));
        }
        let role = |user| match kind {
            ConversationKind::Group if user == created_by => ParticipantRole::Admin,
            ConversationKind::Group | ConversationKind::Direct => ParticipantRole::Member,
        };
        let participants = users.into_iter().map(|user| Participant { user, role: role(user), joined_at: now }).collect();
        Ok(Conversation { id, kind, title: title.map(Into::into), created_by, created_at: now, participants })
    }

    pub(super) fn created(&mut self, turn: &mut Turn<'_>, ask: Ask, candidate: ConversationId, reply: Reply) {
        let outcome = match CreateConversation::answer(reply) {
            Ok(CreateAnswer { state, created }) => {
                let conversation = state.conversation;
                let is_groups = matches!(ask.command, Command::CreateConversation { kind: ConversationKind::Group, .. });
                // The id was somebody else's: one in 2^52, and answering with it would tell of a foreign conversation.
                if !created && (is_groups || conversation.id == candidate) {
                    return self.create_conversation(turn, ask);
                }
                Outcome::Conversation { conversation: Arc::new(conversation), created }
            }
            Err(failure) => Outcome::Refused(Self::failed(failure)),
        };
        self.answer(turn, ask.asker, outcome);
    }

    /// As the conversation's shard: an import under a given id.
    pub(super) fn put_conversation(&mut self, turn: &mut Turn<'_>, ask: Ask) {
        let Ask { asker, command } = ask;
        let Command::PutConversation { conversation: id, kind, participants, title } = command else { return };
        if !asker.admin {
            return self.answer(turn, asker, refused(RefusalCode::Forbidden, "imports need role admin"));
        }
        match self.conversation(turn.now.wall, id, kind, participants, title.as_deref(), asker.user) {
            Ok(conversation) => self.ask_store(turn, CreateConversation { conversation }, Errand::Put(asker, id)),
            Err(refusal) => self.answer(turn, asker, Outcome::Refused(refusal)),
        }
    }

    pub(super) fn put(&mut self, turn: &mut Turn<'_>, asker: Asker, id: ConversationId, reply: Reply) {
        let outcome = match CreateConversation::answer(reply) {
            Ok(CreateAnswer { state, .. }) if state.conversation.id != id => {
                let message = format!("the pair has the direct conversation {} already", state.conversation.id);
                Outcome::Refused(Refusal::new(RefusalCode::Conflict, message))
            }
            Ok(CreateAnswer { state, created }) => Outcome::Conversation { conversation: Arc::new(state.conversation), created },
            Err(failure) => Outcome::Refused(Self::failed(failure)),
        };
        self.answer(turn, asker, outcome);
    }

    /// As the conversation's shard, for one of its participants: begins a change, or lets it wait for the one under way.
    pub(super) fn change_participants(&mut self, turn: &mut Turn<'_>, id: ConversationId, ask: Ask) {
        if self.changes.count(id) >= self.policy.limits.conversation_pending {
            let refusal = Refusal::new(RefusalCode::StoreBusy, "too many changes wait for the store").retry_after(1);
            return self.answer(turn, ask.asker, Outcome::Refused(refusal));
        }
        let Some(Ask { asker, command }) = self.changes.defer(id, ask) else { return };
        match command {
            Command::AddParticipant { user, role, .. } => self.put_participant(turn, asker, id, user, role, true),
            Command::SetRole { user, role, .. } => self.put_participant(turn, asker, id, user, role, false),
            Command::RemoveParticipant { user, .. } => self.remove_participant(turn, asker, id, user),
            _ => unreachable!("not a change of participants"),
        }
    }

    fn begin_change(&mut self, turn: &mut Turn<'_>, asker: Asker, id: ConversationId, change: Change) {
        self.changes.begin(id);
        self.ask_store(turn, change.request(id), Errand::Change(asker, id, change));
    }

    fn put_participant(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        id: ConversationId,
        user: UserId,
        role: ParticipantRole,
        adding: bool,
    ) {
        let Some(conversation) = self.conversations.loaded(id) else { return };
        let known = conversation.participant(user);
        let outcome = match known {
            _ if conversation.kind == ConversationKind::Direct => {
                refused(RefusalCode::Conflict, "the participants of a direct conversation do not change")
            }
            _ if !may_change(&conversation, asker) => {
                refused(RefusalCode::Forbidden, "only an admin of the group may change its participants")
            }
            Some(_) if adding => Outcome::Conversation { conversation, created: false },
            None if !adding => refused(RefusalCode::NotFound, "the user is not a participant"),
            None if conversation.participants.len() >= self.policy.limits.participants => {
                refused(RefusalCode::Conflict, "the group is full")
            }
            Some(&Participant { role: ParticipantRole::Admin, .. })
                if role == ParticipantRole::Member && is_last_admin(&conversation, user) =>
            {
                refused(RefusalCode::Conflict, "the group needs an admin")
            }
            _ => {
                let joined_at = known.map_or(turn.now.wall, |known| known.joined_at);
                let participant = Participant { user, role, joined_at };
                return self.begin_change(turn, asker, id, Change::Put(participant));
            }
        };
        self.answer(turn, asker, outcome);
    }

    fn remove_participant(&mut self, turn: &mut Turn<'_>, asker: Asker, id: ConversationId, user: UserId) {
        let Some(conversation) = self.conversations.loaded(id) else { return };
        let outcome = if conversation.kind == ConversationKind::Direct {
            refused(RefusalCode::Conflict, "the participants of a direct conversation do not change")
        } else if user != asker.user && !may_change(&conversation, asker) {
            refused(RefusalCode::Forbidden, "only an admin of the group may remove others")
        } else if conversation.participant(user).is_none() {
            refused(RefusalCode::NotFound, "the user is not a participant")
        } else {
            return self.begin_change(turn, asker, id, Change::Remove(user));
        };
        self.answer(turn, asker, outcome);
    }

    /// The store has answered to a change.
    pub(super) fn changed(&mut self, turn: &mut Turn<'_>, asker: Asker, id: ConversationId, change: Change, reply: Reply) {
        match change.answer(reply) {
            Ok(Some(_)) => {
                self.follow_change(turn, id, change);
                self.answer(turn, asker, Outcome::Done);
            }
            Ok(None) => self.answer(turn, asker, Outcome::Refused(missing())),
            Err(failure) => {
                self.answer(turn, asker, Outcome::Refused(Self::failed(failure)));
                if failure == Failure::Unknown {
                    return self.doubt_change(turn, id, change);
                }
            }
        }
        self.end_change(turn, id);
    }

    /// The next may begin.
    pub(super) fn end_change(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        for ask in self.changes.end(id) {
            self.ask(turn, ask);
        }
    }

    /// Those that wait cannot begin soon.
    pub(super) fn refuse_changes(&mut self, turn: &mut Turn<'_>, id: ConversationId, failure: Failure) {
        for ask in self.changes.take_waiting(id) {
            self.answer(turn, ask.asker, Outcome::Refused(Self::failed(failure)));
        }
    }

    /// The store has changed the participants: memory follows, and a removed one hears nothing more.
    pub(super) fn follow_change(&mut self, turn: &mut Turn<'_>, id: ConversationId, change: Change) {
        match change {
            Change::Put(participant) => self.conversations.change(id, |conversation| {
                match conversation.participants.binary_search_by_key(&participant.user, |known| known.user) {
                    Ok(at) => conversation.participants[at] = participant,
                    Err(at) => conversation.participants.insert(at, participant),
                }
            }),
            Change::Remove(user) => {
                self.conversations.change(id, |conversation| conversation.participants.retain(|known| known.user != user));
                let to = ShardId::of(user.value(), self.shards);
                self.mail(turn, to, Mail::Expel { conversation: id, user });
            }
        }
    }

    /// A read mark is stored; the other participants hear of it if it moved.
    pub(super) fn marked(&mut self, turn: &mut Turn<'_>, asker: Asker, conversation: ConversationId, reply: Reply) {
        let marked = SetReadMark::answer(reply).map_err(Self::failed).and_then(|marked| marked.ok_or_else(missing));
        let ReadMarkAnswer { mark, changed } = match marked {
            Ok(marked) => marked,
            Err(refusal) => return self.answer(turn, asker, Outcome::Refused(refusal)),
        };
        self.answer(turn, asker, Outcome::Marked(mark));
        if !changed {
            return;
        }
        let mut body = Vec::new();
        json::read_mark_event(conversation, &mark, &mut body);
        let body = Bytes::from(body);
        let id = self.message_ids.next_id(turn.now.wall, None);
        let lists = self.conversations.participants_by_shard(conversation);
        for (shard, users) in self.all_shards().zip(lists) {
            if !users.is_empty() {
                let (body, except) = (body.clone(), Some(asker.user));
                let notice = Notice { queue: UserQueue::Receipts, id, body, users, except };
                self.mail(turn, shard, Mail::Notify(Box::new(notice)));
            }
        }
    }

    /// A block is stored: the pair's conversation must know before anyone is told.
    pub(super) fn block_set(&mut self, turn: &mut Turn<'_>, asker: Asker, reply: Reply) {
        match SetBlock::answer(reply).map(|set| set.direct) {
            Ok(Some(conversation)) => {
                let to = ShardId::of(conversation.value(), self.shards);
                self.mail(turn, to, Mail::BlockChanged { conversation, asker });
            }
            Ok(None) => self.answer(turn, asker, Outcome::Done),
            Err(failure) => self.answer(turn, asker, Outcome::Refused(Self::failed(failure))),
        }
    }

    /// As the conversation's shard. Both of a pair may change their blocks at once, from two shards, whose mail comes in any
    /// order: so what is in force is read again, after every change.
    pub(super) fn refresh_block(&mut self, turn: &mut Turn<'_>, id: ConversationId, asker: Asker) {
        match self.conversations.refresh_block(id, asker) {
            Refresh::Read => self.insist(turn, ReadConversation { conversation: id }, Errand::BlockRead(id)),
            Refresh::Wait => {}
            Refresh::Done => self.answer(turn, asker, Outcome::Done),
        }
    }

    pub(super) fn block_read(&mut self, turn: &mut Turn<'_>, id: ConversationId, reply: Reply) {
        let read = ReadConversation::answer(reply).map_err(Self::failed).and_then(|state| state.ok_or_else(missing));
        let (blocked, outcome) = match read {
            Ok(state) => (state.blocked, Outcome::Done),
            // Too strict until the conversation is read again, never too lax.
            Err(refusal) => (true, Outcome::Refused(refusal)),
        };
        let read = self.conversations.finish_block_read(id, blocked);
        for asker in read.askers {
            self.answer(turn, asker, outcome.clone());
        }
        for asker in read.next {
            self.refresh_block(turn, id, asker);
        }
    }
}

fn may_change(conversation: &Conversation, asker: Asker) -> bool {
    asker.admin || conversation.participant(asker.user).is_some_and(|participant| participant.role == ParticipantRole::Admin)
}

fn is_last_admin(conversation: &Conversation, user: UserId) -> bool {
    !conversation.participants.iter().any(|known| known.user != user && known.role == ParticipantRole::Admin)
}
