//! Writes to conversations: each changes the rows of a pending commit, whole or not at all.

use std::sync::Arc;

use crate::model::ids::ConversationId;
use crate::model::message::{Conversation, Head, Message, Participant};
use crate::store::conversations::{self, BlockAnswer, CreateAnswer, PutParticipant, RemoveParticipant, SetBlock, pair_key};
use crate::store::log::{self, Append, AppendAnswer, Appended, NewMessage, ReadMarkAnswer, SetReadMark};
use crate::store::{Call, Done, Reply, Write};

use super::commit::Commit;
use super::heads::Known;
use super::tables::{Fault, Pending, Rows};
use super::values::{self, ClientIdRow, MarkRow};
use super::{accounts, erase, keys, read};

impl<'a> Commit<'a> {
    /// Carries a write out. After a fault it has not happened.
    pub(super) fn write(&mut self, write: &Write) -> Result<Reply, Fault> {
        let stored = self.stored.len();
        let reply = self.dispatch(write);
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

    fn dispatch(&mut self, write: &Write) -> Result<Reply, Fault> {
        match write {
            Write::Log(write) => self.write_log(write),
            Write::Conversations(write) => self.write_conversations(write),
            Write::Accounts(write) => accounts::write(&mut self.rows, self.scratch, write),
            Write::Erasure(write) => erase::write(self, write),
        }
    }

    fn write_log(&mut self, write: &log::Write) -> Result<Reply, Fault> {
        Ok(match write {
            log::Write::Append(append) => append.reply(self.append(append)?),
            log::Write::SetReadMark(set) => set.reply(self.set_read_mark(set)?),
        })
    }

    fn write_conversations(&mut self, write: &conversations::Write) -> Result<Reply, Fault> {
        Ok(match write {
            conversations::Write::CreateConversation(create) => create.reply(self.create(&create.conversation)?),
            conversations::Write::PutParticipant(put) => put.reply(self.put_participant(put)?),
            conversations::Write::RemoveParticipant(remove) => remove.reply(self.remove_participant(remove)?),
            conversations::Write::SetBlock(set) => set.reply(self.set_block(set)?),
        })
    }

    fn append(&mut self, append: &Append) -> Result<Option<AppendAnswer>, Fault> {
        let Some(mut known) = self.known(append.conversation)? else { return Ok(None) };
        let mut results = Vec::with_capacity(append.messages.len());
        for new in &append.messages {
            let is_new = known.head.last.is_none_or(|last| last < new.id);
            let result = match self.stored_before(append, new, is_new)? {
                Some(result) => result,
                None if !is_new => return Err(Fault::Refused),
                None => Appended::Stored(self.store(append, &mut known, new)),
            };
            results.push(result);
        }
        // Last, so that a request that fails half-way leaves the known head as it was.
        self.heads.put(append.conversation, known);
        Ok(Some(AppendAnswer { results, head: known.head }))
    }

    /// `None` when the conversation does not exist.
    fn known(&mut self, conversation: ConversationId) -> Result<Option<Known>, Fault> {
        if let Some(known) = self.heads.find(conversation) {
            return Ok(Some(known));
        }
        let Some(kind) = read::find_kind(&self.rows, conversation)? else { return Ok(None) };
        Ok(Some(Known::new(kind, read::head(&self.rows, conversation)?)))
    }

    /// The earlier result for this message, or for one with its client id.
    fn stored_before(&self, append: &Append, new: &NewMessage, is_new: bool) -> Result<Option<Appended>, Fault> {
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
        // A client id that a later message has taken over says nothing of an earlier one.
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

    fn store(&mut self, append: &Append, known: &mut Known, new: &NewMessage) -> Arc<Message> {
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

    fn create(&mut self, conversation: &Conversation) -> Result<CreateAnswer, Fault> {
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
        Ok(CreateAnswer { state, created: there.is_none() })
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

    fn put_participant(&mut self, put: &PutParticipant) -> Result<Option<Done>, Fault> {
        let PutParticipant { conversation, participant } = *put;
        if !self.exists(conversation)? {
            return Ok(None);
        }
        let there = self.rows.find(&keys::participant(conversation, participant.user))?;
        let there = there.map(|value| values::participant(participant.user, &value)).transpose()?;
        let changed = there.is_none_or(|there| there.role != participant.role);
        if changed {
            let joined_at = there.map_or(participant.joined_at, |there| there.joined_at);
            self.put_participant_row(conversation, &Participant { joined_at, ..participant });
        }
        Ok(Some(Done { changed }))
    }

    fn remove_participant(&mut self, remove: &RemoveParticipant) -> Result<Option<Done>, Fault> {
        let RemoveParticipant { conversation, user } = *remove;
        if !self.exists(conversation)? {
            return Ok(None);
        }
        let key = keys::participant(conversation, user);
        let changed = self.rows.find(&key)?.is_some();
        if changed {
            self.rows.remove(key);
            self.rows.remove(keys::conversation_of(user, conversation));
            self.rows.remove(keys::mark(conversation, user));
            self.heads.forget_lead(conversation, user);
        }
        Ok(Some(Done { changed }))
    }

    fn set_read_mark(&mut self, set: &SetReadMark) -> Result<Option<ReadMarkAnswer>, Fault> {
        let SetReadMark { conversation, mark } = *set;
        if !self.exists(conversation)? {
            return Ok(None);
        }
        match read::find_mark(&self.rows, conversation, mark.user)? {
            Some(there) if mark.message <= there.message => Ok(Some(ReadMarkAnswer { mark: there, changed: false })),
            Some(_) | None => {
                let row = MarkRow { message: mark.message, sequence: mark.sequence, leads: false };
                values::put_mark(self.scratch, row);
                self.rows.put(keys::mark(conversation, mark.user), self.scratch);
                self.heads.forget_lead(conversation, mark.user);
                Ok(Some(ReadMarkAnswer { mark, changed: true }))
            }
        }
    }

    fn exists(&mut self, conversation: ConversationId) -> Result<bool, Fault> {
        Ok(self.heads.find(conversation).is_some() || read::exists(&self.rows, conversation)?)
    }

    fn set_block(&mut self, set: &SetBlock) -> Result<BlockAnswer, Fault> {
        let SetBlock { user, other, blocked } = *set;
        let key = keys::block(user, other);
        let changed = self.rows.find(&key)?.is_some() != blocked;
        match (changed, blocked) {
            (true, true) => self.rows.put(key, &[]),
            (true, false) => self.rows.remove(key),
            (false, _) => {}
        }
        let direct = self.rows.find(&keys::pair(user, other))?.map(|value| read::find_id(&value)).transpose()?;
        Ok(BlockAnswer { direct, blocked: read::is_blocked(&self.rows, user, other)?, changed })
    }
}
