//! Writes to conversations: each changes the rows of a pending commit, whole or not at all.

use std::sync::Arc;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, Head, Message, Participant, ReadMark};
use crate::model::time::Wall;
use crate::store::{Appended, NewMessage, Reply, Request, pair_key};

use super::heads::{Heads, Known};
use super::seen::Seen;
use super::tables::{Fault, Pending, Rows};
use super::values::{self, ClientIdRow, MarkRow};
use super::{erase, keys, login, read};

/// One commit in the making. The scratch buffer is the writer's, used again and again.
pub(super) struct Commit<'a> {
    pub(super) rows: Pending<'a>,
    pub(super) heads: &'a mut Heads,
    pub(super) seen: &'a mut Seen,
    pub(super) scratch: &'a mut Vec<u8>,
    /// New messages, for the index.
    pub(super) stored: Vec<(MessageId, ConversationId)>,
}

/// The part of an append that is the same for all its messages.
#[derive(Clone, Copy)]
struct Append {
    conversation: ConversationId,
    keys_expire: Wall,
    now: Wall,
}

impl<'a> Commit<'a> {
    /// Carries a write out. On a fault it has not happened.
    pub(super) fn write(&mut self, request: &Request) -> Result<Reply, Fault> {
        let stored = self.stored.len();
        let reply = self.dispatch(request);
        match reply {
            Ok(_) => self.rows.keep(),
            Err(_) => {
                self.rows.revert();
                self.stored.truncate(stored);
            }
        }
        reply
    }

    /// The rows, complete. The index is written here, a row for all messages of a period: one for each message would cost
    /// nearly as much as the message.
    pub(super) fn into_rows(mut self) -> Pending<'a> {
        self.stored.sort_unstable();
        for group in self.stored.chunk_by(|(one, _), (other, _)| keys::period(*one) == keys::period(*other)) {
            values::put_group(self.scratch, group);
            self.rows.put(keys::index(group[0].0), self.scratch);
        }
        self.rows.keep();
        self.rows
    }

    fn dispatch(&mut self, request: &Request) -> Result<Reply, Fault> {
        let Self { rows, scratch, .. } = self;
        match request {
            Request::Append { conversation, head: _, messages, keys_expire, now } => {
                let append = Append { conversation: *conversation, keys_expire: *keys_expire, now: *now };
                self.append(append, messages)
            }
            Request::CreateConversation { conversation } => self.create(conversation),
            Request::PutParticipant { conversation, participant } => self.put_participant(*conversation, *participant),
            Request::RemoveParticipant { conversation, user } => self.remove_participant(*conversation, *user),
            Request::Mark { conversation, mark } => self.mark(*conversation, *mark),
            Request::SetBlock { user, other, blocked } => self.set_block(*user, *other, *blocked),
            Request::EraseUser { user, place, limit, now } => erase::step(self, *user, place.as_ref(), *limit, *now),
            login => login::write(rows, scratch, login),
        }
    }

    fn append(&mut self, append: Append, messages: &[NewMessage]) -> Result<Reply, Fault> {
        let Some(mut known) = self.known(append.conversation)? else { return Ok(Reply::Missing) };
        let mut results = Vec::with_capacity(messages.len());
        for new in messages {
            let is_new = known.head.last.is_none_or(|last| last < new.id);
            let result = match self.stored_before(append, new, is_new)? {
                Some(result) => result,
                None if !is_new => return Err(Fault::Refused),
                None => Appended::Stored(self.store(append, &mut known, new)),
            };
            results.push(result);
        }
        // Last, so that a request that fails half-way leaves what is known of the conversation as it was.
        self.heads.put(append.conversation, known);
        Ok(Reply::Appended { results, head: known.head })
    }

    /// `None` when there is no such conversation.
    fn known(&mut self, conversation: ConversationId) -> Result<Option<Known>, Fault> {
        if let Some(known) = self.heads.find(conversation) {
            return Ok(Some(known));
        }
        let Some(kind) = read::find_kind(&self.rows, conversation)? else { return Ok(None) };
        Ok(Some(Known::new(kind, read::head(&self.rows, conversation)?)))
    }

    /// What became of this message, or of one with its client id, when it came before.
    fn stored_before(&self, append: Append, new: &NewMessage, is_new: bool) -> Result<Option<Appended>, Fault> {
        if !is_new && let Some(message) = read::find_message(&self.rows, append.conversation, new.id)? {
            return Ok(Some(Appended::Stored(message)));
        }
        let Some(client_id) = &new.draft.client_id else { return Ok(None) };
        let key = keys::client_id(append.conversation, new.sender, client_id);
        if !self.seen.may_have(&key) {
            return Ok(None);
        }
        let Some(value) = self.rows.find(&key)? else { return Ok(None) };
        let row = values::client_id(&value)?;
        // What a later message has taken over says nothing of an earlier one.
        if row.expires <= append.now || new.id < row.message {
            return Ok(None);
        }
        // Gone, if a client id was to be remembered for longer than messages are.
        let Some(first) = read::find_message(&self.rows, append.conversation, row.message)? else { return Ok(None) };
        if first.sender != new.sender || first.client_id != new.draft.client_id {
            // Another client id with the same hash: the later one is stored without protection from repetition.
            return Ok(None);
        }
        let replay = first.content == new.draft.content;
        Ok(Some(if replay { Appended::Replay(first) } else { Appended::KeyReused }))
    }

    fn store(&mut self, append: Append, known: &mut Known, new: &NewMessage) -> Arc<Message> {
        let conversation = append.conversation;
        let message = Arc::new(new.link(conversation, known.head));
        assert!(message.prev.is_none_or(|prev| prev < message.id), "a log grows at its end");
        known.head = Head { last: Some(message.id), sequence: message.sequence };

        let Self { rows, seen, scratch, stored, .. } = self;
        values::put_message(scratch, &message);
        rows.put(keys::log(conversation, message.id), scratch);
        stored.push((message.id, conversation));
        if !known.is_led(message.sender, message.sequence) {
            // Later than anything its sender can have read: no need to look at the mark that is there.
            let leads = known.lead(message.sender, message.sequence);
            values::put_mark(scratch, MarkRow { message: message.id, sequence: message.sequence, leads });
            rows.put(keys::mark(conversation, message.sender), scratch);
        }
        if let Some(client_id) = &message.client_id {
            values::put_client_id(scratch, ClientIdRow { message: message.id, expires: append.keys_expire });
            let key = keys::client_id(conversation, message.sender, client_id);
            seen.put(&key);
            rows.put(key, scratch);
        }
        message
    }

    fn create(&mut self, conversation: &Conversation) -> Result<Reply, Fault> {
        let pair = pair_key(conversation).map(|(first, second)| keys::pair(first, second));
        let mut there = None;
        if let Some(pair) = &pair
            && let Some(value) = self.rows.find(pair)?
        {
            there = Some(read::find_id(&value)?);
        }
        if there.is_none() && read::exists(&self.rows, conversation.id)? {
            there = Some(conversation.id);
        }
        if there.is_none() {
            self.put_conversation(conversation);
            if let Some(pair) = pair {
                values::put_number(self.scratch, conversation.id.value());
                self.rows.put(pair, self.scratch);
            }
        }
        let state = read::state(&self.rows, there.unwrap_or(conversation.id))?.ok_or(Fault::Corrupt)?;
        Ok(Reply::Conversation { state, created: there.is_none() })
    }

    fn put_conversation(&mut self, conversation: &Conversation) {
        values::put_conversation(self.scratch, conversation);
        self.rows.put(keys::conversation(conversation.id), self.scratch);
        for participant in &conversation.participants {
            self.put_participant_row(conversation.id, participant);
        }
    }

    fn put_participant_row(&mut self, conversation: ConversationId, participant: &Participant) {
        values::put_participant(self.scratch, participant);
        self.rows.put(keys::participant(conversation, participant.user), self.scratch);
        self.rows.put(keys::conversation_of(participant.user, conversation), &[]);
    }

    fn put_participant(&mut self, conversation: ConversationId, participant: Participant) -> Result<Reply, Fault> {
        if !self.is_there(conversation)? {
            return Ok(Reply::Missing);
        }
        let there = self.rows.find(&keys::participant(conversation, participant.user))?;
        let there = there.map(|value| values::participant(participant.user, &value)).transpose()?;
        let changed = there.is_none_or(|there| there.role != participant.role);
        if changed {
            let joined_at = there.map_or(participant.joined_at, |there| there.joined_at);
            self.put_participant_row(conversation, &Participant { joined_at, ..participant });
        }
        Ok(Reply::Done { changed })
    }

    fn remove_participant(&mut self, conversation: ConversationId, user: UserId) -> Result<Reply, Fault> {
        if !self.is_there(conversation)? {
            return Ok(Reply::Missing);
        }
        let key = keys::participant(conversation, user);
        let changed = self.rows.find(&key)?.is_some();
        if changed {
            self.rows.remove(key);
            self.rows.remove(keys::conversation_of(user, conversation));
            self.rows.remove(keys::mark(conversation, user));
            self.heads.forget_lead(conversation, user);
        }
        Ok(Reply::Done { changed })
    }

    fn mark(&mut self, conversation: ConversationId, mark: ReadMark) -> Result<Reply, Fault> {
        if !self.is_there(conversation)? {
            return Ok(Reply::Missing);
        }
        match read::find_mark(&self.rows, conversation, mark.user)? {
            Some(there) if mark.message <= there.message => Ok(Reply::Marked { mark: there, changed: false }),
            _ => {
                let row = MarkRow { message: mark.message, sequence: mark.sequence, leads: false };
                values::put_mark(self.scratch, row);
                self.rows.put(keys::mark(conversation, mark.user), self.scratch);
                self.heads.forget_lead(conversation, mark.user);
                Ok(Reply::Marked { mark, changed: true })
            }
        }
    }

    fn is_there(&mut self, conversation: ConversationId) -> Result<bool, Fault> {
        Ok(self.heads.find(conversation).is_some() || read::exists(&self.rows, conversation)?)
    }

    fn set_block(&mut self, user: UserId, other: UserId, blocked: bool) -> Result<Reply, Fault> {
        let key = keys::block(user, other);
        let changed = self.rows.find(&key)?.is_some() != blocked;
        match (changed, blocked) {
            (true, true) => self.rows.put(key, &[]),
            (true, false) => self.rows.remove(key),
            (false, _) => {}
        }
        let direct = self.rows.find(&keys::pair(user, other))?.map(|value| read::find_id(&value)).transpose()?;
        Ok(Reply::BlockSet { direct, blocked: read::is_blocked(&self.rows, user, other)?, changed })
    }
}
