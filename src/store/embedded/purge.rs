//! Removes expired rows, a bounded step at a time.

use std::time::Duration;

use fjall::{PersistMode, Slice};

use crate::model::ids::{ConversationId, MessageId};
use crate::model::time::Wall;
use crate::store::accounts::SENT_WINDOW;
use crate::store::log::REPEAT_WINDOW;

use super::keys::{self, Table};
use super::read::{self, LED_MAX};
use super::seen::Seen;
use super::tables::{Fault, Pending, Row, Rows, Tables};
use super::values::{self, MarkRow};

/// Tables that hold rows which expire.
const TABLES: [Table; 5] = [Table::ClientIds, Table::Codes, Table::Tokens, Table::Families, Table::Index];

/// Goes round the tables for ever. An expired row counts as absent, so no request waits for this.
pub(super) struct Purge {
    retention: Option<Duration>,
    table: usize,
    /// The first key not yet looked at; `None`: the table's first.
    from: Option<Slice>,
}

impl Purge {
    /// `retention`: how old messages get.
    pub(super) fn new(retention: Option<Duration>) -> Self {
        Self { retention, table: 0, from: None }
    }

    /// Looks at no more than `rows_max` rows and removes those that have expired at `now`; answers how many.
    /// What of the client message ids stays is noted in `seen`.
    pub(super) fn step(
        &mut self,
        tables: &Tables,
        seen: &mut Seen,
        mode: PersistMode,
        now: Wall,
        rows_max: usize,
    ) -> Result<usize, Fault> {
        let table = TABLES[self.table];
        if table == Table::Index {
            return self.step_messages(tables, mode, now, rows_max);
        }
        let (first, beyond) = keys::table(table);
        let mut pending = Pending::new(tables);
        let (mut removed, mut count, mut next) = (0, 0, None);
        for row in tables.view().ascend((self.from.take().unwrap_or(first), beyond)) {
            let row = row?;
            if count == rows_max {
                next = Some(row.0);
                break;
            }
            count += 1;
            let key = row.0.clone();
            match remove_expired(&mut pending, table, row, now)? {
                true => removed += 1,
                false if table == Table::ClientIds => seen.put(&key),
                false => {}
            }
        }
        pending.keep();
        if next.is_none() {
            if table == Table::ClientIds {
                seen.end_round();
            }
            self.table = (self.table + 1) % TABLES.len();
        }
        self.from = next;
        if !pending.is_empty() {
            // Synced like any other: of the batches in the journal only the last may ever be torn.
            pending.commit(mode)?;
        }
        Ok(removed)
    }

    /// The index has the oldest messages first, of whichever conversation: only those that are removed are looked at. A
    /// message goes together with its place in the index.
    fn step_messages(&mut self, tables: &Tables, mode: PersistMode, now: Wall, rows_max: usize) -> Result<usize, Fault> {
        let (mut removed, mut is_over) = (0, true);
        let mut pending = Pending::new(tables);
        if let Some(retention) = self.retention {
            for row in tables.view().ascend(keys::table(Table::Index)) {
                let (key, value) = row?;
                let group = values::group(keys::index_message(&key).ok_or(Fault::Corrupt)?, &value)?;
                if group.last().is_none_or(|(last, _)| now < last.at().after(retention)) {
                    break;
                }
                if rows_max < removed + group.len() && 0 < removed {
                    is_over = false;
                    break;
                }
                removed += group.len();
                for (message, conversation) in group {
                    remove_message(&mut pending, conversation, message)?;
                }
                pending.remove(key);
            }
        }
        pending.keep();
        if is_over {
            self.table = (self.table + 1) % TABLES.len();
        }
        if !pending.is_empty() {
            pending.commit(mode)?;
        }
        Ok(removed)
    }
}

/// The end of the log and the sender's read mark stay as they are.
fn remove_message(pending: &mut Pending<'_>, conversation: ConversationId, message: MessageId) -> Result<(), Fault> {
    let key = keys::log(conversation, message);
    let Some(value) = pending.find(&key)? else { return Ok(()) };
    let (sender, sequence) = values::message_sender(&value)?;
    let mut scratch = Vec::new();
    let mark = keys::mark(conversation, sender);
    let row = pending.find(&mark)?.map(|value| values::mark(&value)).transpose()?;
    if row.is_some_and(|row| row.leads && row.message < message && sequence - row.sequence <= LED_MAX) {
        // It is this message that has moved the mark so far.
        values::put_mark(&mut scratch, MarkRow { message, sequence, leads: true });
        pending.put(mark, &scratch);
    }
    if read::last_row(pending, conversation)?.is_some_and(|(last, _)| last == key) {
        values::put_mark(&mut scratch, MarkRow { message, sequence, leads: false });
        pending.put(keys::head(conversation), &scratch);
    }
    pending.remove(key);
    Ok(())
}

fn remove_expired(pending: &mut Pending<'_>, table: Table, (key, value): Row, now: Wall) -> Result<bool, Fault> {
    let expired = match table {
        // An append may still be repeated that was decided while the client id was in force.
        Table::ClientIds => values::client_id(&value)?.expires.after(REPEAT_WINDOW) <= now,
        Table::Codes => {
            let row = values::code(&value)?;
            let live = row.live.is_some_and(|live| now < live.expires);
            !live && row.sent.iter().all(|at| at.after(SENT_WINDOW) <= now)
        }
        Table::Tokens => values::token(&value)?.expires <= now,
        Table::Families => {
            let row = values::family(&value)?;
            let expired = row.expires <= now;
            if expired && let (Some(at), Some(family)) = (row.revoked, keys::family_of(&key)) {
                pending.remove(keys::revoked(at, family));
            }
            expired
        }
        _ => return Err(Fault::Corrupt),
    };
    if expired {
        pending.remove(key);
    }
    Ok(expired)
}
