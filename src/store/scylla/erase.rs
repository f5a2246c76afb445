//! Erasing a user, a bounded step at a time.
//!
//! First the rows that could begin a session: login and families. Then one conversation after the other, in the order of their
//! ids, of those that the user takes part in and those that the user has left, which `conversations_left` lists for this:
//! the messages, then the membership. A conversation stays listed there after its step, so that a second run finds the
//! messages that a session has sent meanwhile.
//!
//! What is removed is removed at the time of its own write, so that no late repetition of that write brings it back; of
//! two writes with one time, the removal counts.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{ConversationKind, Message};
use crate::model::time::Wall;
use crate::store::erasure::{EraseAnswer, EraseCursor, EraseUser, Erased};
use crate::store::log::{Messages, ReadAfter};

use super::values::{self, MarkValue, bigint, message_id, timeuuid, write_time};
use super::{Fault, Work};

/// Messages erased at once.
const WINDOW: usize = 16;

/// Behind this message of this conversation; no conversation has the number 0.
#[derive(Clone, Copy)]
struct Cursor {
    conversation: u64,
    message: MessageId,
}

impl Cursor {
    const FIRST: Self = Self { conversation: 0, message: MessageId::MIN };

    fn read(cursor: &EraseCursor) -> Option<Self> {
        let (conversation, message) = cursor.0.split_first_chunk::<8>()?;
        let message = MessageId::from_key(message.try_into().ok()?).ok()?;
        Some(Self { conversation: u64::from_be_bytes(*conversation), message })
    }

    fn write(self) -> EraseCursor {
        EraseCursor([&self.conversation.to_be_bytes()[..], &self.message.to_key()].concat().into())
    }
}

impl Work<'_> {
    pub(super) async fn erase_user(&self, erase: &EraseUser) -> Result<EraseAnswer, Fault> {
        let EraseUser { user, ref cursor, limit, now } = *erase;
        let mut erased = Erased::default();
        let Some(cursor) = cursor else {
            self.erase_account(user, now, &mut erased).await?;
            return Ok(EraseAnswer { erased, next: Some(Cursor::FIRST.write()) });
        };
        let Cursor { conversation, message } = Cursor::read(cursor).ok_or(Fault::Corrupt)?;
        if let Ok(id) = ConversationId::new(conversation) {
            if let Some(message) = self.erase_messages(user, id, message, limit.max(1), &mut erased).await? {
                let next = Cursor { conversation, message };
                return Ok(EraseAnswer { erased, next: Some(next.write()) });
            }
            self.erase_membership(user, id, &mut erased).await?;
        }
        let next = self.next_conversation(user, conversation).await?;
        let next = next.map(|conversation| Cursor { conversation: conversation.value(), message: MessageId::MIN }.write());
        Ok(EraseAnswer { erased, next })
    }

    async fn erase_account(&self, user: UserId, now: Wall, erased: &mut Erased) -> Result<(), Fault> {
        let statements = &self.connected.statements;
        let user_id = bigint(user.value());
        let there = self.user(user).await?;
        if let Some((Some(login), _)) = &there {
            self.note(self.decide(&statements.remove_code, (login,)).await)?;
            erased.logins += u64::from(self.note(self.decide(&statements.release_login, (login, user_id)).await)?);
        }
        let families: Vec<(i64, i64)> = self.rows(&statements.list_families, (user_id,)).await?;
        for (family, expires) in &families {
            let revoked = self.revoke_family(values::family_id(*family), user, values::wall(*expires)?, now).await?;
            erased.families += u64::from(revoked);
        }
        let blocks: Vec<(i64,)> = self.rows(&statements.read_blocks, (user_id,)).await?;
        if !blocks.is_empty() {
            self.write(&statements.remove_blocks, (user_id,)).await?;
            erased.blocks += blocks.len() as u64;
        }
        // Last, as it is what leads to the login.
        if there.is_some() {
            self.note(self.decide(&statements.remove_user, (user_id,)).await)?;
        }
        erased.found += u64::from(there.is_some()) + erased.logins + families.len() as u64 + erased.blocks;
        Ok(())
    }

    /// The first conversation behind this one that the user is in or was in.
    async fn next_conversation(&self, user: UserId, conversation: u64) -> Result<Option<ConversationId>, Fault> {
        let statements = &self.connected.statements;
        let behind = (bigint(user.value()), bigint(conversation), 1);
        let (listed, left): (Option<(i64,)>, Option<(i64,)>) =
            tokio::try_join!(self.first(&statements.list_conversations, behind), self.first(&statements.list_left, behind))?;
        let next = listed.into_iter().chain(left).map(|(id,)| id).min();
        next.map(values::conversation_id).transpose()
    }

    /// Looks at a page of the conversation's messages. Returns the last of them if there are more.
    async fn erase_messages(
        &self,
        user: UserId,
        id: ConversationId,
        after: MessageId,
        limit: u16,
        erased: &mut Erased,
    ) -> Result<Option<MessageId>, Fault> {
        // A conversation whose creation was interrupted does not exist, and has no messages either.
        let Some(page) = self.read_after(&ReadAfter { conversation: id, after, limit }).await? else { return Ok(None) };
        let Messages { messages, more } = page;
        let own: Vec<_> = messages.iter().filter(|message| message.sender == user).collect();
        erased.found += own.len() as u64;
        let left: Vec<_> = own.into_iter().filter(|message| !message.is_erased()).collect();
        for window in left.chunks(WINDOW) {
            try_join_all(window.iter().map(|message| self.erase_message(message))).await?;
            erased.messages += window.len() as u64;
        }
        Ok(messages.last().filter(|_| more).map(|message| message.id))
    }

    /// The key first: only the message leads to it.
    async fn erase_message(&self, message: &Message) -> Result<(), Fault> {
        let statements = &self.connected.statements;
        let conversation = bigint(message.conversation.value());
        if let Some(client_id) = &message.client_id {
            let key = (conversation, bigint(message.sender.value()), &**client_id, timeuuid(message.id));
            self.note(self.decide(&statements.release_key, key).await)?;
        }
        let buckets = self.buckets(message.conversation).await?.ok_or(Fault::Corrupt)?;
        let row = (write_time(message.id), conversation, buckets.of(message.id), timeuuid(message.id));
        self.write(&statements.erase_message, row).await
    }

    /// Ends the membership in a group, as by leaving it, and in a direct conversation removes the read mark only. A mark of an
    /// earlier stay counts no more once another stay has begun, and is removed too.
    async fn erase_membership(&self, user: UserId, id: ConversationId, erased: &mut Erased) -> Result<(), Fault> {
        let statements = &self.connected.statements;
        let (conversation, user_id) = (bigint(id.value()), bigint(user.value()));
        let listed = (user_id, conversation - 1, 1);
        let (there, member, listed) = tokio::try_join!(
            self.conversation(id),
            self.member(id, user),
            self.first::<(i64,)>(&statements.list_conversations, listed)
        )?;
        let is_listed = listed == Some((conversation,));
        let is_direct = there.is_some_and(|(there, _, _)| there.kind == ConversationKind::Direct);
        self.prepare(&statements.note_left, (user_id, conversation)).await?;
        let departures = member.departures.saturating_add(1);
        let parted = match (member.participant.is_some(), is_direct) {
            (true, false) => {
                self.write(&statements.remove_participant, (departures, conversation, user_id)).await?;
                true
            }
            (true, true) if member.mark.is_some() => {
                self.write(&statements.end_stay, (departures, conversation, user_id)).await?;
                true
            }
            _ => false,
        };
        if parted && let Some(log) = self.store.conversations.borrow_mut().log(id) {
            log.departures.insert(user, departures);
        }
        type Marks = (Option<BTreeMap<i32, MarkValue>>,);
        let marks: Option<Marks> = self.first(&statements.read_stays, (conversation, user_id)).await?;
        for (stay, (_, message)) in marks.and_then(|(marks,)| marks).unwrap_or_default() {
            let mark = (stay, write_time(message_id(message)?), conversation, user_id);
            self.write(&statements.remove_mark, mark).await?;
        }
        self.write(&statements.unlist_conversation, (user_id, conversation)).await?;
        erased.conversations += u64::from(is_listed);
        erased.found += 1;
        Ok(())
    }
}
