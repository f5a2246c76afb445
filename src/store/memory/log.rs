//! The log: appends, read marks and pages.

use std::ops::Bound;
use std::sync::Arc;

use crate::model::ids::{ConversationId, MessageId};
use crate::model::message::{Head, Message, ReadMark};
use crate::model::time::Wall;
use crate::store::log::{
    Append, AppendAnswer, Appended, Messages, NewMessage, Read, ReadAfter, ReadBefore, ReadMarkAnswer, SetReadMark, Write,
};
use crate::store::{Call, Failure, Reply};

use super::{Key, Memory};

impl Memory {
    pub(super) fn write_log(&mut self, write: &Write) -> Reply {
        match write {
            Write::Append(append) => self.append(append).map_or_else(Reply::Failed, |answer| append.reply(answer)),
            Write::SetReadMark(set) => set.reply(self.set_read_mark(set)),
        }
    }

    pub(super) fn read_log(&self, read: &Read) -> Reply {
        match read {
            Read::ReadBefore(read) => read.reply(self.read_before(read)),
            Read::ReadAfter(read) => read.reply(self.read_after(read)),
            Read::ReadMessage(read) => read.reply(self.log.get(&(read.conversation, read.message)).cloned()),
            Read::FindMessage(find) => find.reply(self.index.get(&find.message).copied()),
            Read::ListReadMarks(list) => list.reply(self.list_read_marks(list.conversation)),
        }
    }

    fn append(&mut self, append: &Append) -> Result<Option<AppendAnswer>, Failure> {
        let Append { conversation, ref messages, keys_expire, now, head: _ } = *append;
        if !self.conversations.contains_key(&conversation) {
            return Ok(None);
        }
        let before = self.clone_if_refusable(conversation, messages);
        let mut results = Vec::with_capacity(messages.len());
        for new in messages {
            let result = match self.stored_before(conversation, new, now) {
                Some(result) => result,
                None if self.head(conversation).last.is_some_and(|last| new.id <= last) => {
                    // Neither stored nor later than the last message: the shard is wrong about the conversation.
                    if let Some(before) = before {
                        *self = *before;
                    }
                    return Err(Failure::Unavailable);
                }
                None => Appended::Stored(self.store(conversation, new, keys_expire)),
            };
            results.push(result);
        }
        Ok(Some(AppendAnswer { results, head: self.head(conversation) }))
    }

    /// A copy to return to if the request fails half-way, which only an id that is not new can cause.
    fn clone_if_refusable(&self, conversation: ConversationId, messages: &[NewMessage]) -> Option<Box<Self>> {
        let mut last = self.head(conversation).last;
        let increasing = messages.iter().all(|new| {
            let later = last.is_none_or(|last| last < new.id);
            last = Some(new.id);
            later
        });
        (!increasing).then(|| Box::new(self.clone()))
    }

    /// The earlier result for this message, or for one with its client id.
    fn stored_before(&self, conversation: ConversationId, new: &NewMessage, now: Wall) -> Option<Appended> {
        if let Some(message) = self.log.get(&(conversation, new.id)) {
            return Some(Appended::Stored(Arc::clone(message)));
        }
        let client_id = new.draft.client_id.clone()?;
        let key = self.keys.get(&(conversation, new.sender, client_id)).filter(|key| now < key.expires)?;
        if new.id < key.message {
            // A later message has taken the client id over since, so the earlier decision is not known any more.
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

    pub(super) fn head(&self, conversation: ConversationId) -> Head {
        self.heads.get(&conversation).copied().unwrap_or_default()
    }

    pub(super) fn first_sequence(&self, conversation: ConversationId) -> Option<u64> {
        let range = self.log.range((conversation, MessageId::MIN)..=(conversation, MessageId::MAX));
        range.map(|(_, message)| message.sequence).next()
    }

    pub(super) fn last_message(&self, conversation: ConversationId) -> Option<&Arc<Message>> {
        let range = self.log.range((conversation, MessageId::MIN)..=(conversation, MessageId::MAX));
        range.last().map(|(_, message)| message)
    }

    fn set_read_mark(&mut self, set: &SetReadMark) -> Option<ReadMarkAnswer> {
        let SetReadMark { conversation, mark } = *set;
        if !self.conversations.contains_key(&conversation) {
            return None;
        }
        match self.marks.get(&(conversation, mark.user)) {
            Some(there) if mark.message <= there.message => Some(ReadMarkAnswer { mark: *there, changed: false }),
            Some(_) | None => {
                self.marks.insert((conversation, mark.user), mark);
                Some(ReadMarkAnswer { mark, changed: true })
            }
        }
    }

    fn read_before(&self, read: &ReadBefore) -> Option<Messages> {
        let range = self.log.range((read.conversation, MessageId::MIN)..(read.conversation, read.before));
        self.page(read.conversation, range.rev().map(|(_, message)| message), read.limit)
    }

    fn read_after(&self, read: &ReadAfter) -> Option<Messages> {
        let from = Bound::Excluded((read.conversation, read.after));
        let range = self.log.range((from, Bound::Included((read.conversation, MessageId::MAX))));
        self.page(read.conversation, range.map(|(_, message)| message), read.limit)
    }

    fn page<'a>(
        &self,
        conversation: ConversationId,
        mut found: impl Iterator<Item = &'a Arc<Message>>,
        limit: u16,
    ) -> Option<Messages> {
        if !self.conversations.contains_key(&conversation) {
            return None;
        }
        let messages = found.by_ref().take(usize::from(limit)).cloned().collect();
        Some(Messages { messages, more: found.next().is_some() })
    }

    fn list_read_marks(&self, conversation: ConversationId) -> Option<Vec<ReadMark>> {
        if !self.conversations.contains_key(&conversation) {
            return None;
        }
        Some(self.marks.iter().filter(|((of, _), _)| *of == conversation).map(|(_, mark)| *mark).collect())
    }
}
