//! Answers to reads, from any rows.

use std::sync::Arc;

use fjall::Slice;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary, Head, Message, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::{self, FamilyId, User};
use crate::store::conversations::{self, ConversationList, ConversationState, ListConversations, pair_key};
use crate::store::log::{self, Messages, ReadAfter, ReadBefore, unread};
use crate::store::{Call, Read, Reply};

use super::keys::{self, Table};
use super::tables::{Fault, Row, RowIter, Rows};
use super::values;

/// Messages of a conversation, behind the one in the row of a mark that leads, that may move the mark without a row.
/// Part of the format on disk: it may grow, not shrink.
pub(super) const LED_MAX: u64 = 31;

pub(super) fn read(rows: &impl Rows, read: &Read) -> Result<Reply, Fault> {
    match read {
        Read::Log(read) => read_log(rows, read),
        Read::Conversations(read) => read_conversations(rows, read),
        Read::Accounts(read) => read_accounts(rows, read),
    }
}

fn read_log(rows: &impl Rows, read: &log::Read) -> Result<Reply, Fault> {
    Ok(match read {
        log::Read::ReadBefore(read) => read.reply(read_before(rows, read)?),
        log::Read::ReadAfter(read) => read.reply(read_after(rows, read)?),
        log::Read::ReadMessage(read) => read.reply(find_message(rows, read.conversation, read.message)?),
        log::Read::FindMessage(find) => find.reply(find_conversation_of(rows, find.message)?),
        log::Read::ListReadMarks(list) => list.reply(read_marks(rows, list.conversation)?),
    })
}

fn read_conversations(rows: &impl Rows, read: &conversations::Read) -> Result<Reply, Fault> {
    Ok(match read {
        conversations::Read::ReadConversation(read) => read.reply(state(rows, read.conversation)?),
        conversations::Read::LoadConversation(load) => load.reply(state(rows, load.conversation)?),
        conversations::Read::ListConversations(list) => list.reply(list_conversations(rows, list)?),
        conversations::Read::ListBlocks(list) => {
            let blocked = rows.ascend(keys::rows_of(Table::Blocks, list.user.value())).map(|row| second_user(&row?.0));
            list.reply(blocked.collect::<Result<_, _>>()?)
        }
    })
}

fn read_accounts(rows: &impl Rows, read: &accounts::Read) -> Result<Reply, Fault> {
    Ok(match read {
        accounts::Read::ReadUser(read) => read.reply(find_user(rows, read.user)?),
        accounts::Read::ListRevoked(list) => list.reply(list_revoked(rows, list.since)?),
    })
}

fn read_before(rows: &impl Rows, read: &ReadBefore) -> Result<Option<Messages>, Fault> {
    let from = keys::log(read.conversation, MessageId::MIN);
    page(rows, read.conversation, rows.descend((from, keys::log(read.conversation, read.before))), read.limit)
}

fn read_after(rows: &impl Rows, read: &ReadAfter) -> Result<Option<Messages>, Fault> {
    let from = following(&keys::log(read.conversation, read.after));
    let (_, to) = keys::rows_of(Table::Log, read.conversation.value());
    page(rows, read.conversation, rows.ascend((from, to)), read.limit)
}

/// The least key above `key`.
fn following(key: &Slice) -> Slice {
    Slice::from([key, &[0][..]].concat())
}

fn second_user(key: &[u8]) -> Result<UserId, Fault> {
    keys::second_id(key).and_then(|id| UserId::new(id).ok()).ok_or(Fault::Corrupt)
}

pub(super) fn exists(rows: &impl Rows, id: ConversationId) -> Result<bool, Fault> {
    Ok(rows.find(&keys::conversation(id))?.is_some())
}

/// `None` when the conversation does not exist.
pub(super) fn find_kind(rows: &impl Rows, id: ConversationId) -> Result<Option<ConversationKind>, Fault> {
    let Some(value) = rows.find(&keys::conversation(id))? else { return Ok(None) };
    Ok(Some(values::conversation(id, &value)?.kind))
}

pub(super) fn state(rows: &impl Rows, id: ConversationId) -> Result<Option<ConversationState>, Fault> {
    let Some(conversation) = find_conversation(rows, id)? else { return Ok(None) };
    let blocked = match (conversation.kind, pair_key(&conversation)) {
        (ConversationKind::Direct, Some((first, second))) => is_blocked(rows, first, second)?,
        _ => false,
    };
    Ok(Some(ConversationState { conversation, head: head(rows, id)?, blocked }))
}

fn find_conversation(rows: &impl Rows, id: ConversationId) -> Result<Option<Conversation>, Fault> {
    let Some(value) = rows.find(&keys::conversation(id))? else { return Ok(None) };
    let mut conversation = values::conversation(id, &value)?;
    for row in rows.ascend(keys::rows_of(Table::Participants, id.value())) {
        let (key, value) = row?;
        conversation.participants.push(values::participant(second_user(&key)?, &value)?);
    }
    Ok(Some(conversation))
}

/// Whether either of the two blocks the other.
pub(super) fn is_blocked(rows: &impl Rows, first: UserId, second: UserId) -> Result<bool, Fault> {
    Ok(rows.find(&keys::block(first, second))?.is_some() || rows.find(&keys::block(second, first))?.is_some())
}

/// The head is the last row of the conversation's log: a row of its own would be one more write for each message,
/// and one more thing to agree.
pub(super) fn head(rows: &impl Rows, id: ConversationId) -> Result<Head, Fault> {
    match last_row(rows, id)? {
        Some((key, value)) => {
            let last = keys::log_message(&key).ok_or(Fault::Corrupt)?;
            Ok(Head { last: Some(last), sequence: values::message_sender(&value)?.1 })
        }
        // The messages are gone, or there were none.
        None => match rows.find(&keys::head(id))? {
            Some(value) => {
                let row = values::mark(&value)?;
                Ok(Head { last: Some(row.message), sequence: row.sequence })
            }
            None => Ok(Head::default()),
        },
    }
}

pub(super) fn last_row(rows: &impl Rows, id: ConversationId) -> Result<Option<Row>, Fault> {
    rows.descend(keys::rows_of(Table::Log, id.value())).next().transpose()
}

fn list_conversations(rows: &impl Rows, list: &ListConversations) -> Result<ConversationList, Fault> {
    let ListConversations { user, after, limit } = *list;
    let (mut from, to) = keys::rows_of(Table::ConversationsOf, user.value());
    if let Some(after) = after {
        from = following(&keys::conversation_of(user, after));
    }
    let mut found = rows.ascend((from, to));
    let mut summaries = Vec::new();
    for row in found.by_ref().take(usize::from(limit)) {
        let id = keys::second_id(&row?.0).and_then(|id| ConversationId::new(id).ok()).ok_or(Fault::Corrupt)?;
        summaries.push(summary(rows, user, id)?);
    }
    Ok(ConversationList { summaries, more: found.next().transpose()?.is_some() })
}

fn summary(rows: &impl Rows, user: UserId, id: ConversationId) -> Result<ConversationSummary, Fault> {
    let conversation = find_conversation(rows, id)?.ok_or(Fault::Corrupt)?;
    let last_message = last_row(rows, id)?.map(|row| message(id, &row)).transpose()?;
    let head = last_message.as_ref().map_or_else(Head::default, |last| Head { last: Some(last.id), sequence: last.sequence });
    let read = find_mark(rows, id, user)?.map_or(0, |mark| mark.sequence);
    let first = match read < head.sequence {
        true => rows.ascend(keys::rows_of(Table::Log, id.value())).next().transpose()?,
        false => None,
    };
    let first = first.map(|(_, value)| values::message_sender(&value)).transpose()?.map(|(_, sequence)| sequence);
    Ok(ConversationSummary { conversation, last_message, unread: unread(head, read, || first) })
}

fn message(conversation: ConversationId, (key, value): &Row) -> Result<Arc<Message>, Fault> {
    let id = keys::log_message(key).ok_or(Fault::Corrupt)?;
    Ok(Arc::new(values::message(conversation, id, value)?))
}

fn page(rows: &impl Rows, conversation: ConversationId, mut found: RowIter<'_>, limit: u16) -> Result<Option<Messages>, Fault> {
    let mut messages = Vec::new();
    for row in found.by_ref().take(usize::from(limit)) {
        messages.push(message(conversation, &row?)?);
    }
    let more = found.next().transpose()?.is_some();
    if messages.is_empty() && !exists(rows, conversation)? {
        return Ok(None);
    }
    Ok(Some(Messages { messages, more }))
}

pub(super) fn find_message(rows: &impl Rows, conversation: ConversationId, id: MessageId) -> Result<Option<Arc<Message>>, Fault> {
    let value = rows.find(&keys::log(conversation, id))?;
    Ok(value.map(|value| values::message(conversation, id, &value)).transpose()?.map(Arc::new))
}

fn find_conversation_of(rows: &impl Rows, message: MessageId) -> Result<Option<ConversationId>, Fault> {
    // Each commit has its own group in a period, and a group's first message is its least: nearest first.
    for row in rows.descend(keys::groups_of(message)) {
        let (key, value) = row?;
        let first = keys::index_message(&key).ok_or(Fault::Corrupt)?;
        if let Some(conversation) = values::find_in_group(first, &value, message)? {
            return Ok(Some(conversation));
        }
    }
    Ok(None)
}

/// A value that is the id of a conversation.
pub(super) fn find_id(value: &[u8]) -> Result<ConversationId, Fault> {
    ConversationId::new(values::number(value)?).map_err(|_| Fault::Corrupt)
}

pub(super) fn find_mark(rows: &impl Rows, id: ConversationId, user: UserId) -> Result<Option<ReadMark>, Fault> {
    rows.find(&keys::mark(id, user))?.map(|value| mark(rows, id, user, &value)).transpose()
}

/// The mark of a row, or of the user's last own message that the row leads.
fn mark(rows: &impl Rows, id: ConversationId, user: UserId, value: &[u8]) -> Result<ReadMark, Fault> {
    let row = values::mark(value)?;
    let mut mark = ReadMark { user, message: row.message, sequence: row.sequence };
    if row.leads {
        let from = following(&keys::log(id, row.message));
        let (_, to) = keys::rows_of(Table::Log, id.value());
        for row in rows.ascend((from, to)).take(LED_MAX as usize) {
            let (key, value) = row?;
            let (sender, sequence) = values::message_sender(&value)?;
            if sender == user {
                mark = ReadMark { user, message: keys::log_message(&key).ok_or(Fault::Corrupt)?, sequence };
            }
        }
    }
    Ok(mark)
}

fn read_marks(rows: &impl Rows, id: ConversationId) -> Result<Option<Vec<ReadMark>>, Fault> {
    if !exists(rows, id)? {
        return Ok(None);
    }
    let mut marks = Vec::new();
    for row in rows.ascend(keys::rows_of(Table::Marks, id.value())) {
        let (key, value) = row?;
        marks.push(mark(rows, id, second_user(&key)?, &value)?);
    }
    Ok(Some(marks))
}

pub(super) fn find_user(rows: &impl Rows, user: UserId) -> Result<Option<User>, Fault> {
    Ok(rows.find(&keys::user(user))?.map(|value| values::user(user, &value)).transpose()?)
}

fn list_revoked(rows: &impl Rows, since: Wall) -> Result<Vec<(UserId, FamilyId)>, Fault> {
    let (_, to) = keys::table(Table::Revoked);
    let mut families = Vec::new();
    for row in rows.ascend((keys::revoked(since, FamilyId(0)), to)) {
        let (key, value) = row?;
        let user = UserId::new(values::number(&value)?).map_err(|_| Fault::Corrupt)?;
        families.push((user, keys::revoked_family(&key).ok_or(Fault::Corrupt)?));
    }
    Ok(families)
}
