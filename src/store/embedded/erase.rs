//! Erasing a user, a bounded step at a time.
//!
//! Where the keys of a table do not lead to the rows of a user, the step looks at all rows: a message names its sender in its
//! value. So an erasure misses nothing, whatever conversations the user has left, and no index has to be kept for it.

use fjall::Slice;

use crate::model::ids::{ConversationId, UserId};
use crate::model::message::ConversationKind;
use crate::model::time::Wall;
use crate::store::erasure::{EraseAnswer, EraseCursor, EraseUser, Erased, Write};
use crate::store::{Call, Reply};

use super::commit::Commit;
use super::keys::{self, Table};
use super::tables::{Fault, Row, Rows};
use super::values;
use super::{accounts, read};

/// In this order: the rows that could begin a session come first.
const TABLES: [Table; 5] = [Table::Logins, Table::Families, Table::Blocks, Table::ConversationsOf, Table::Log];

/// The range of keys that contains all rows of the user in a table.
fn range(table: Table, user: UserId) -> (Slice, Slice) {
    match table {
        Table::Blocks | Table::ConversationsOf => keys::rows_of(table, user.value()),
        _ => keys::table(table),
    }
}

pub(super) fn write(commit: &mut Commit<'_>, write: &Write) -> Result<Reply, Fault> {
    Ok(match write {
        Write::EraseUser(erase) => erase.reply(step(commit, erase)?),
    })
}

/// A cursor is the key of the first row that the step did not look at.
fn step(commit: &mut Commit<'_>, erase: &EraseUser) -> Result<EraseAnswer, Fault> {
    let EraseUser { user, ref cursor, limit, now } = *erase;
    let mut erased = Erased::default();
    let from = match cursor {
        Some(EraseCursor(key)) => Slice::from(&**key),
        None => {
            if commit.rows.find(&keys::user(user))?.is_some() {
                commit.rows.remove(keys::user(user));
                erased.found += 1;
            }
            range(TABLES[0], user).0
        }
    };
    let at = TABLES.iter().position(|table| from.first() == Some(&(*table as u8))).ok_or(Fault::Refused)?;
    let limit = usize::from(limit).max(1);
    let rows = commit.rows.ascend((from, range(TABLES[at], user).1)).take(limit + 1).collect::<Result<Vec<_>, _>>()?;
    for row in rows.iter().take(limit) {
        erase_row(commit, user, TABLES[at], row, now, &mut erased)?;
    }
    let next = match rows.get(limit) {
        Some((key, _)) => Some(key.clone()),
        None => TABLES.get(at + 1).map(|table| range(*table, user).0),
    };
    Ok(EraseAnswer { erased, next: next.map(|key| EraseCursor(key[..].into())) })
}

fn erase_row(
    commit: &mut Commit<'_>,
    user: UserId,
    table: Table,
    (key, value): &Row,
    now: Wall,
    erased: &mut Erased,
) -> Result<(), Fault> {
    let is_own = match table {
        Table::Logins => values::number(value)? == user.value(),
        Table::Families => values::family(value)?.user == user,
        Table::Log => values::message_sender(value)?.0 == user,
        _ => true,
    };
    if !is_own {
        return Ok(());
    }
    erased.found += 1;
    match table {
        Table::Logins => {
            commit.rows.remove(key.clone());
            commit.rows.remove(keys::code_of(key));
            erased.logins += 1;
        }
        Table::Families => {
            erased.families += u64::from(values::family(value)?.revoked.is_none());
            let family = keys::family_of(key).ok_or(Fault::Corrupt)?;
            accounts::revoke(&mut commit.rows, commit.scratch, family, now)?;
        }
        Table::Blocks => {
            commit.rows.remove(key.clone());
            erased.blocks += 1;
        }
        Table::ConversationsOf => {
            leave(commit, user, conversation(keys::second_id(key))?)?;
            erased.conversations += 1;
        }
        _ => erased.messages += u64::from(erase_message(commit, key, value)?),
    }
    Ok(())
}

fn conversation(id: Option<u64>) -> Result<ConversationId, Fault> {
    id.and_then(|id| ConversationId::new(id).ok()).ok_or(Fault::Corrupt)
}

fn leave(commit: &mut Commit<'_>, user: UserId, id: ConversationId) -> Result<(), Fault> {
    if read::find_kind(&commit.rows, id)? != Some(ConversationKind::Direct) {
        commit.rows.remove(keys::participant(id, user));
    }
    commit.rows.remove(keys::conversation_of(user, id));
    commit.rows.remove(keys::mark(id, user));
    commit.heads.forget_lead(id, user);
    Ok(())
}

/// Returns whether the message had anything left to erase.
fn erase_message(commit: &mut Commit<'_>, key: &Slice, value: &Slice) -> Result<bool, Fault> {
    let id = keys::log_message(key).ok_or(Fault::Corrupt)?;
    let message = values::message(conversation(keys::first_id(key))?, id, value)?;
    if message.is_erased() {
        return Ok(false);
    }
    if let Some(client_id) = &message.client_id {
        commit.rows.remove(keys::client_id(message.conversation, message.sender, client_id));
    }
    values::put_message(commit.scratch, &message.erased());
    commit.rows.put(key.clone(), commit.scratch);
    Ok(true)
}
