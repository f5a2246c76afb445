//! Removing what has expired, a bounded step at a time.

use fjall::{PersistMode, Slice};

use crate::model::time::Wall;
use crate::store::{REPEAT_WINDOW, SENT_WINDOW};

use super::keys::{self, Table};
use super::seen::Seen;
use super::tables::{Fault, Pending, Row, Rows, Tables};
use super::values;

/// Tables that hold rows which expire.
const TABLES: [Table; 4] = [Table::ClientIds, Table::Codes, Table::Tokens, Table::Families];

/// Goes round the tables for ever. A row that has expired is as good as absent, so nobody waits for this.
#[derive(Default)]
pub(super) struct Purge {
    table: usize,
    /// The first key not yet looked at; `None`: the table's first.
    from: Option<Slice>,
}

impl Purge {
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
