//! The reference model: the contract in plain ordered maps, as obviously right as we can make it.
//!
//! Other implementations are compared with it, and the simulator runs on it: a clone is what a disk would hold.
//! View: one node. Not durable; everything is looked up in place and nothing is ever purged, as whatever has expired
//! is as good as absent.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary, Head, Message, Participant, ReadMark};
use crate::model::time::Wall;
use crate::store::{
    Appended, ConversationState, Erased, Failure, FamilyId, NewMessage, Reply, Request, SENT_WINDOW, SecretHash, User, pair_key,
    unread,
};

/// All tables of the contract.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Participants stand in a table of their own; here the list is empty.
    conversations: BTreeMap<ConversationId, Conversation>,
    participants: BTreeMap<(ConversationId, UserId), Participant>,
    conversations_of: BTreeMap<(UserId, ConversationId), ()>,
    pairs: BTreeMap<(UserId, UserId), ConversationId>,
    log: BTreeMap<(ConversationId, MessageId), Arc<Message>>,
    /// Ends of logs, which outlive their messages.
    heads: BTreeMap<ConversationId, Head>,
    index: BTreeMap<MessageId, ConversationId>,
    keys: BTreeMap<(ConversationId, UserId, Box<str>), Key>,
    marks: BTreeMap<(ConversationId, UserId), ReadMark>,
    blocks: BTreeMap<(UserId, UserId), ()>,
    logins: BTreeMap<Box<str>, UserId>,
    users: BTreeMap<UserId, User>,
    codes: BTreeMap<Box<str>, Code>,
    tokens: BTreeMap<SecretHash, Token>,
    families: BTreeMap<FamilyId, Family>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    message: MessageId,
    expires: Wall,
}

#[derive(Clone, Debug, Default)]
struct Code {
    live: Option<LiveCode>,
    /// When codes were sent within the last hour, ascending.
    sent: Vec<Wall>,
    /// The last attempt and whether it was right, so that its repetition is not another attempt.
    last_attempt: Option<(Wall, SecretHash, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct LiveCode {
    code: SecretHash,
    expires: Wall,
    wrong_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    user: UserId,
    family: FamilyId,
    expires: Wall,
    /// The token that replaced it.
    next: Option<SecretHash>,
}

#[derive(Clone, Copy, Debug)]
struct Family {
    user: UserId,
    revoked: Option<Wall>,
}

impl Memory {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries a request out and answers it.
    pub fn apply(&mut self, request: &Request) -> Reply {
        match request {
            Request::Append { conversation, head: _, messages, keys_expire, now } => {
                self.append(*conversation, messages, *keys_expire, *now)
            }
            Request::CreateConversation { conversation } => self.create(conversation),
            Request::PutParticipant { conversation, participant } => self.put_participant(*conversation, *participant),
            Request::RemoveParticipant { conversation, user } => self.remove_participant(*conversation, *user),
            Request::Mark { conversation, mark } => self.mark(*conversation, *mark),
            Request::SetBlock { user, other, blocked } => self.set_block(*user, *other, *blocked),
            Request::PutCode { login, code, now, expires, per_hour } => self.put_code(login, code, *now, *expires, *per_hour),
            Request::TakeCode { login, code, now, attempts_max } => self.take_code(login, code, *now, *attempts_max),
            Request::LoginUser { login, candidate, roles, now: _ } => self.login_user(login, *candidate, roles),
            Request::PutRefresh { token, user, family, now: _, expires } => self.put_refresh(*token, *user, *family, *expires),
            Request::RotateRefresh { token, next, now, expires } => self.rotate_refresh(token, *next, *now, *expires),
            Request::RevokeRefresh { token, now } => self.revoke_refresh(token, *now),
            Request::EraseUser { user, place: _, limit: _, now } => {
                Reply::Erased { erased: self.erase_user(*user, *now), next: None }
            }
            read => self.read(read),
        }
    }

    /// Removes the messages that are as old as `retention` at `now`.
    pub fn expire(&mut self, now: Wall, retention: Duration) {
        self.log.retain(|(_, message), _| now < message.at().after(retention));
        self.index.retain(|message, _| now < message.at().after(retention));
    }

    /// Answers a request that changes nothing.
    ///
    /// # Panics
    /// When the request is a write.
    #[must_use]
    pub fn read(&self, request: &Request) -> Reply {
        match request {
            Request::ReadConversation { conversation } | Request::LoadConversation { conversation } => {
                match self.state(*conversation) {
                    Some(state) => Reply::Conversation { state, created: false },
                    None => Reply::Missing,
                }
            }
            Request::ReadConversations { user, after, limit } => self.read_conversations(*user, *after, *limit),
            Request::ReadBefore { conversation, before, limit } => {
                let range = self.log.range((*conversation, MessageId::MIN)..(*conversation, *before));
                self.page(*conversation, range.rev().map(|(_, message)| message), *limit)
            }
            Request::ReadAfter { conversation, after, limit } => {
                let from = Bound::Excluded((*conversation, *after));
                let range = self.log.range((from, Bound::Included((*conversation, MessageId::MAX))));
                self.page(*conversation, range.map(|(_, message)| message), *limit)
            }
            Request::ReadMessage { conversation, message } => Reply::Message(self.log.get(&(*conversation, *message)).cloned()),
            Request::FindMessage { message } => Reply::Found(self.index.get(message).copied()),
            Request::ReadMarks { conversation } => self.read_marks(*conversation),
            Request::ReadBlocks { user } => {
                let blocked = self.blocks.keys().filter(|(by, _)| by == user).map(|(_, other)| *other);
                Reply::Blocks(blocked.collect())
            }
            Request::ReadUser { user } => self.users.get(user).cloned().map_or(Reply::Missing, Reply::User),
            Request::ReadRevoked { since } => self.read_revoked(*since),
            write => panic!("not a read: {write:?}"),
        }
    }

    fn append(&mut self, conversation: ConversationId, messages: &[NewMessage], keys_expire: Wall, now: Wall) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        let before = self.clone_if_refusable(conversation, messages);
        let mut results = Vec::with_capacity(messages.len());
        for new in messages {
            let result = match self.stored_before(conversation, new, now) {
                Some(result) => result,
                None if self.head(conversation).last.is_some_and(|last| new.id <= last) => {
                    // Neither stored nor later than what is: the sender of this request is wrong about the conversation.
                    if let Some(before) = before {
                        *self = *before;
                    }
                    return Reply::Failed(Failure::Unavailable);
                }
                None => Appended::Stored(self.store(conversation, new, keys_expire)),
            };
            results.push(result);
        }
        Reply::Appended { results, head: self.head(conversation) }
    }

    /// A copy to go back to, when an id that is not new may make the request fail half-way.
    fn clone_if_refusable(&self, conversation: ConversationId, messages: &[NewMessage]) -> Option<Box<Self>> {
        let mut last = self.head(conversation).last;
        let increasing = messages.iter().all(|new| {
            let later = last.is_none_or(|last| last < new.id);
            last = Some(new.id);
            later
        });
        (!increasing).then(|| Box::new(self.clone()))
    }

    /// What became of this message, or of one with its key, when it came before.
    fn stored_before(&self, conversation: ConversationId, new: &NewMessage, now: Wall) -> Option<Appended> {
        if let Some(message) = self.log.get(&(conversation, new.id)) {
            return Some(Appended::Stored(Arc::clone(message)));
        }
        let client_id = new.draft.client_id.clone()?;
        let key = self.keys.get(&(conversation, new.sender, client_id)).filter(|key| now < key.expires)?;
        if new.id < key.message {
            // Taken over by a later message since: what it said to this one is not known any more.
            return None;
        }
        let first = self.log.get(&(conversation, key.message))?;
        if first.content == new.draft.content { Some(Appended::Replay(Arc::clone(first))) } else { Some(Appended::KeyReused) }
    }

    fn store(&mut self, conversation: ConversationId, new: &NewMessage, keys_expire: Wall) -> Arc<Message> {
        let head = self.head(conversation);
        let message = Arc::new(new.link(conversation, head));
        if let Some(client_id) = &message.client_id {
            let key = Key { message: new.id, expires: keys_expire };
            self.keys.insert((conversation, new.sender, client_id.clone()), key);
        }
        let mark = ReadMark { user: new.sender, message: new.id, sequence: message.sequence };
        self.marks.insert((conversation, new.sender), mark);
        self.index.insert(new.id, conversation);
        self.log.insert((conversation, new.id), Arc::clone(&message));
        self.heads.insert(conversation, Head { last: Some(new.id), sequence: message.sequence });
        message
    }

    fn head(&self, conversation: ConversationId) -> Head {
        self.heads.get(&conversation).copied().unwrap_or_default()
    }

    fn first_sequence(&self, conversation: ConversationId) -> Option<u64> {
        let range = self.log.range((conversation, MessageId::MIN)..=(conversation, MessageId::MAX));
        range.map(|(_, message)| message.sequence).next()
    }

    fn last_message(&self, conversation: ConversationId) -> Option<&Arc<Message>> {
        let range = self.log.range((conversation, MessageId::MIN)..=(conversation, MessageId::MAX));
        range.last().map(|(_, message)| message)
    }

    fn create(&mut self, conversation: &Conversation) -> Reply {
        let there = pair_key(conversation).and_then(|pair| self.pairs.get(&pair).copied());
        let there = there.or_else(|| self.conversations.contains_key(&conversation.id).then_some(conversation.id));
        let (id, created) = (there.unwrap_or(conversation.id), there.is_none());
        if created {
            self.conversations.insert(id, Conversation { participants: Vec::new(), ..conversation.clone() });
            for participant in &conversation.participants {
                self.participants.insert((id, participant.user), *participant);
                self.conversations_of.insert((participant.user, id), ());
            }
            if let Some(pair) = pair_key(conversation) {
                self.pairs.insert(pair, id);
            }
        }
        match self.state(id) {
            Some(state) => Reply::Conversation { state, created },
            None => Reply::Missing,
        }
    }

    fn state(&self, id: ConversationId) -> Option<ConversationState> {
        let conversation = self.conversation(id)?;
        let blocked = match (conversation.kind, pair_key(&conversation)) {
            (ConversationKind::Direct, Some((first, second))) => self.blocked(first, second),
            _ => false,
        };
        Some(ConversationState { conversation, head: self.head(id), blocked })
    }

    fn conversation(&self, id: ConversationId) -> Option<Conversation> {
        let participants = self.participants.iter().filter(|((of, _), _)| *of == id).map(|(_, participant)| *participant);
        Some(Conversation { participants: participants.collect(), ..self.conversations.get(&id)?.clone() })
    }

    fn blocked(&self, first: UserId, second: UserId) -> bool {
        self.blocks.contains_key(&(first, second)) || self.blocks.contains_key(&(second, first))
    }

    fn put_participant(&mut self, conversation: ConversationId, participant: Participant) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        let changed = match self.participants.get_mut(&(conversation, participant.user)) {
            Some(there) => {
                let changed = there.role != participant.role;
                there.role = participant.role;
                if changed {
                    self.conversations_of.insert((participant.user, conversation), ());
                }
                changed
            }
            None => {
                self.participants.insert((conversation, participant.user), participant);
                self.conversations_of.insert((participant.user, conversation), ());
                true
            }
        };
        Reply::Done { changed }
    }

    fn remove_participant(&mut self, conversation: ConversationId, user: UserId) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        let changed = self.participants.remove(&(conversation, user)).is_some();
        if changed {
            self.conversations_of.remove(&(user, conversation));
            self.marks.remove(&(conversation, user));
        }
        Reply::Done { changed }
    }

    fn mark(&mut self, conversation: ConversationId, mark: ReadMark) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        match self.marks.get(&(conversation, mark.user)) {
            Some(there) if mark.message <= there.message => Reply::Marked { mark: *there, changed: false },
            _ => {
                self.marks.insert((conversation, mark.user), mark);
                Reply::Marked { mark, changed: true }
            }
        }
    }

    fn set_block(&mut self, user: UserId, other: UserId, blocked: bool) -> Reply {
        let changed = match blocked {
            true => self.blocks.insert((user, other), ()).is_none(),
            false => self.blocks.remove(&(user, other)).is_some(),
        };
        let direct = self.pairs.get(&(user.min(other), user.max(other))).copied();
        Reply::BlockSet { direct, blocked: self.blocked(user, other), changed }
    }

    fn read_conversations(&self, user: UserId, after: Option<ConversationId>, limit: u16) -> Reply {
        let mut ids = self.conversations_of.keys().filter(|(of, id)| *of == user && after.is_none_or(|after| after < *id));
        let mut summaries = Vec::new();
        for (_, id) in ids.by_ref().take(usize::from(limit)) {
            let Some(conversation) = self.conversation(*id) else { continue };
            let read = self.marks.get(&(*id, user)).map_or(0, |mark| mark.sequence);
            summaries.push(ConversationSummary {
                conversation,
                last_message: self.last_message(*id).cloned(),
                unread: unread(self.head(*id), read, || self.first_sequence(*id)),
            });
        }
        Reply::Conversations { summaries, more: ids.next().is_some() }
    }

    fn page<'a>(&self, conversation: ConversationId, mut found: impl Iterator<Item = &'a Arc<Message>>, limit: u16) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        let messages = found.by_ref().take(usize::from(limit)).cloned().collect();
        Reply::Messages { messages, more: found.next().is_some() }
    }

    fn read_marks(&self, conversation: ConversationId) -> Reply {
        if !self.conversations.contains_key(&conversation) {
            return Reply::Missing;
        }
        Reply::Marks(self.marks.iter().filter(|((of, _), _)| *of == conversation).map(|(_, mark)| *mark).collect())
    }

    fn put_code(&mut self, login: &str, code: &SecretHash, now: Wall, expires: Wall, per_hour: u32) -> Reply {
        let row = self.codes.entry(login.into()).or_default();
        if row.live.is_some_and(|live| live.code == *code && live.expires == expires) {
            return Reply::Done { changed: false };
        }
        row.sent.retain(|at| now < at.after(SENT_WINDOW));
        if row.sent.len() >= per_hour as usize {
            // With a limit of zero there is nothing to wait for; a whole window is as good an answer as any.
            let free = row.sent.first().map_or(now, |at| *at).after(SENT_WINDOW);
            let seconds = free.0.saturating_sub(now.0).div_ceil(Wall::TICKS_PER_SECOND);
            return Reply::Limited { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) };
        }
        row.sent.push(now);
        row.live = Some(LiveCode { code: *code, expires, wrong_attempts: 0 });
        row.last_attempt = None;
        Reply::Done { changed: true }
    }

    fn take_code(&mut self, login: &str, code: &SecretHash, now: Wall, attempts_max: u32) -> Reply {
        let answer = |right| if right { Reply::CodeTaken } else { Reply::CodeWrong };
        let Some(row) = self.codes.get_mut(login) else { return Reply::CodeWrong };
        if let Some((at, last, right)) = row.last_attempt
            && at == now
            && last == *code
        {
            return answer(right);
        }
        let Some(live) = &mut row.live else { return Reply::CodeWrong };
        if live.expires <= now || live.wrong_attempts >= attempts_max {
            return Reply::CodeWrong;
        }
        let right = live.code == *code;
        if right {
            row.live = None;
        } else {
            live.wrong_attempts += 1;
        }
        row.last_attempt = Some((now, *code, right));
        answer(right)
    }

    fn login_user(&mut self, login: &str, candidate: UserId, roles: &[Box<str>]) -> Reply {
        let user = match self.logins.get(login) {
            Some(user) => *user,
            None if self.users.contains_key(&candidate) => return Reply::Taken,
            None => {
                self.logins.insert(login.into(), candidate);
                self.users.insert(candidate, User { user: candidate, roles: Vec::new(), display_name: None });
                candidate
            }
        };
        if let Some(known) = self.users.get_mut(&user) {
            known.roles = roles.to_vec();
        }
        Reply::User(self.user(user))
    }

    fn user(&self, user: UserId) -> User {
        self.users.get(&user).cloned().unwrap_or(User { user, roles: Vec::new(), display_name: None })
    }

    fn put_refresh(&mut self, token: SecretHash, user: UserId, family: FamilyId, expires: Wall) -> Reply {
        if self.tokens.contains_key(&token) {
            return Reply::Done { changed: false };
        }
        self.tokens.insert(token, Token { user, family, expires, next: None });
        self.families.entry(family).or_insert(Family { user, revoked: None });
        Reply::Done { changed: true }
    }

    fn rotate_refresh(&mut self, token: &SecretHash, next: SecretHash, now: Wall, expires: Wall) -> Reply {
        let Some(row) = self.tokens.get(token).copied().filter(|row| now < row.expires) else {
            return Reply::RefreshInvalid { family: None };
        };
        let revoked = self.families.get(&row.family).is_none_or(|family| family.revoked.is_some());
        match row.next {
            // The same successor: this is the same request once more.
            Some(successor) if successor == next && !revoked => {}
            None if !revoked => {
                self.tokens.insert(*token, Token { next: Some(next), ..row });
                self.tokens.insert(next, Token { user: row.user, family: row.family, expires, next: None });
            }
            _ => {
                self.revoke(row.family, now);
                return Reply::RefreshInvalid { family: Some((row.user, row.family)) };
            }
        }
        Reply::Rotated { user: self.user(row.user), family: row.family }
    }

    fn revoke_refresh(&mut self, token: &SecretHash, now: Wall) -> Reply {
        let Some(row) = self.tokens.get(token).copied().filter(|row| now < row.expires) else {
            return Reply::Revoked { family: None };
        };
        self.revoke(row.family, now);
        Reply::Revoked { family: Some((row.user, row.family)) }
    }

    /// The first revocation counts.
    fn revoke(&mut self, family: FamilyId, now: Wall) {
        if let Some(family) = self.families.get_mut(&family) {
            family.revoked.get_or_insert(now);
        }
    }

    /// All in one step.
    fn erase_user(&mut self, user: UserId, now: Wall) -> Erased {
        let mut erased = Erased::default();
        let logins: Vec<_> = self.logins.iter().filter(|(_, of)| **of == user).map(|(login, _)| login.clone()).collect();
        for login in logins {
            self.logins.remove(&login);
            self.codes.remove(&login);
            erased.logins += 1;
        }
        let families: Vec<_> = self.families.iter().filter(|(_, family)| family.user == user).map(|(id, _)| *id).collect();
        for family in &families {
            erased.families += u64::from(self.families[family].revoked.is_none());
            self.revoke(*family, now);
        }
        let blocks: Vec<_> = self.blocks.keys().filter(|(by, _)| *by == user).copied().collect();
        for block in &blocks {
            self.blocks.remove(block);
            erased.blocks += 1;
        }
        let listed: Vec<_> = self.conversations_of.keys().filter(|(of, _)| *of == user).copied().collect();
        for (_, id) in &listed {
            if self.conversations[id].kind == ConversationKind::Group {
                self.participants.remove(&(*id, user));
            }
            self.conversations_of.remove(&(user, *id));
            self.marks.remove(&(*id, user));
            erased.conversations += 1;
        }
        self.keys.retain(|(_, sender, _), _| *sender != user);
        for message in self.log.values_mut().filter(|message| message.sender == user) {
            erased.found += 1;
            if !message.is_erased() {
                *message = Arc::new(message.erased());
                erased.messages += 1;
            }
        }
        let users = u64::from(self.users.remove(&user).is_some());
        erased.found += users + erased.logins + families.len() as u64 + erased.blocks + erased.conversations;
        erased
    }

    fn read_revoked(&self, since: Wall) -> Reply {
        let revoked = self.families.iter().filter_map(|(id, family)| Some((family.revoked?, *id, family.user)));
        let mut revoked: Vec<_> = revoked.filter(|(at, _, _)| since <= *at).collect();
        revoked.sort_unstable();
        Reply::RevokedFamilies(revoked.into_iter().map(|(_, id, user)| (user, id)).collect())
    }
}
