//! The rows of the engine, and two ways to read them: a snapshot, and the rows as a commit will leave them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use fjall::{Database, Keyspace, PersistMode, Readable, Slice, Snapshot};

use super::lock::Lock;
use super::values::Corrupt;

/// Why a request could not be carried out.
#[derive(Debug)]
pub(super) enum Fault {
    Engine(fjall::Error),
    /// A row that the store cannot have written, or rows that contradict each other.
    Corrupt,
    /// The request contradicts the stored log: an id is neither new nor stored.
    Refused,
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Corrupt> for Fault {
    fn from(Corrupt: Corrupt) -> Self {
        Self::Corrupt
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Corrupt => f.write_str("a row is corrupt"),
            Self::Refused => f.write_str("a message id is neither new nor stored"),
        }
    }
}

/// Handles of the engine. All rows are in one keyspace, so that they are flushed together and the journal never waits
/// for a table that is seldom written. Shared by the writer and the readers; the directory stays locked until the
/// last of them is gone.
#[derive(Clone)]
pub(super) struct Tables {
    // Dropped in this order: the engine first, then the lock.
    pub(super) rows: Keyspace,
    pub(super) database: Database,
    pub(super) lock: Arc<Lock>,
}

pub(super) type Row = (Slice, Slice);
pub(super) type RowIter<'a> = Box<dyn Iterator<Item = Result<Row, Fault>> + 'a>;

/// Rows to read. Ranges are half open.
pub(super) trait Rows {
    fn find(&self, key: &Slice) -> Result<Option<Slice>, Fault>;
    fn ascend(&self, range: (Slice, Slice)) -> RowIter<'_>;
    fn descend(&self, range: (Slice, Slice)) -> RowIter<'_>;
}

/// The rows at one moment, between two commits.
pub(super) struct View<'a> {
    snapshot: Snapshot,
    rows: &'a Keyspace,
}

impl Tables {
    pub(super) fn view(&self) -> View<'_> {
        View { snapshot: self.database.snapshot(), rows: &self.rows }
    }
}

impl Rows for View<'_> {
    fn find(&self, key: &Slice) -> Result<Option<Slice>, Fault> {
        Ok(self.snapshot.get(self.rows, key)?)
    }

    fn ascend(&self, (from, to): (Slice, Slice)) -> RowIter<'_> {
        Box::new(self.snapshot.range(self.rows, from..to).map(|row| Ok(row.into_inner()?)))
    }

    fn descend(&self, (from, to): (Slice, Slice)) -> RowIter<'_> {
        Box::new(self.snapshot.range(self.rows, from..to).rev().map(|row| Ok(row.into_inner()?)))
    }
}

/// The changes of a commit, over the stored rows. Lives for one commit; the writer is the only one that changes rows,
/// so nothing underneath moves meanwhile.
pub(super) struct Pending<'a> {
    tables: &'a Tables,
    /// `None`: the row will be removed. In the order of keys, which is the order the engine likes to take them in.
    changed: BTreeMap<Slice, Option<Slice>>,
    /// What `changed` held before the request under way touched it.
    undo: Vec<(Slice, Option<Option<Slice>>)>,
}

impl<'a> Pending<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, changed: BTreeMap::new(), undo: Vec::new() }
    }

    pub(super) fn put(&mut self, key: Slice, value: &[u8]) {
        self.change(key, Some(Slice::from(value)));
    }

    pub(super) fn remove(&mut self, key: Slice) {
        self.change(key, None);
    }

    fn change(&mut self, key: Slice, value: Option<Slice>) {
        let before = self.changed.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// The request under way is done: its changes stay.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }

    /// The request under way failed: as if it had not been.
    pub(super) fn revert(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(before) => self.changed.insert(key, before),
                None => self.changed.remove(&key),
            };
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Hands all changes to the engine as one batch: journalled, made durable as `mode` says, then visible.
    pub(super) fn commit(self, mode: PersistMode) -> Result<(), fjall::Error> {
        assert!(self.undo.is_empty(), "a request was neither kept nor reverted");
        let mut batch = self.tables.database.batch().durability(Some(mode));
        for (key, value) in self.changed {
            match value {
                Some(value) => batch.insert(&self.tables.rows, key, value),
                None => batch.remove(&self.tables.rows, key),
            }
        }
        batch.commit()
    }

    fn changed_in(&self, (from, to): &(Slice, Slice)) -> std::collections::btree_map::Range<'_, Slice, Option<Slice>> {
        self.changed.range::<Slice, _>((Bound::Included(from), Bound::Excluded(to)))
    }
}

impl Rows for Pending<'_> {
    fn find(&self, key: &Slice) -> Result<Option<Slice>, Fault> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.tables.rows.get(key)?),
        }
    }

    fn ascend(&self, range: (Slice, Slice)) -> RowIter<'_> {
        let changed = self.changed_in(&range);
        let stored = self.tables.rows.range(range.0..range.1).map(|row| Ok(row.into_inner()?));
        Box::new(merge(changed, stored, Ord::cmp))
    }

    fn descend(&self, range: (Slice, Slice)) -> RowIter<'_> {
        let changed = self.changed_in(&range);
        let stored = self.tables.rows.range(range.0..range.1).rev().map(|row| Ok(row.into_inner()?));
        Box::new(merge(changed.rev(), stored, |one, other| other.cmp(one)))
    }
}

/// Two orderly sequences of rows as one; of two rows under one key the changed one counts.
fn merge<'a>(
    changed: impl Iterator<Item = (&'a Slice, &'a Option<Slice>)> + 'a,
    stored: impl Iterator<Item = Result<Row, Fault>> + 'a,
    order: impl Fn(&Slice, &Slice) -> Ordering + 'a,
) -> impl Iterator<Item = Result<Row, Fault>> + 'a {
    let (mut changed, mut stored) = (changed.peekable(), stored.peekable());
    std::iter::from_fn(move || {
        loop {
            let next = match (changed.peek(), stored.peek()) {
                (_, Some(Err(_))) | (None, _) => return stored.next(),
                (Some(_), None) => Ordering::Less,
                (Some((key, _)), Some(Ok((there, _)))) => order(key, there),
            };
            if next == Ordering::Greater {
                return stored.next();
            }
            if next == Ordering::Equal {
                stored.next();
            }
            if let (key, Some(value)) = changed.next()? {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_prefers_what_was_changed() {
        let slice = |text: &str| Slice::from(text.as_bytes());
        let changed: BTreeMap<Slice, Option<Slice>> =
            [("b", Some("B2")), ("c", None), ("e", Some("E")), ("f", None)].map(|(k, v)| (slice(k), v.map(slice))).into();
        let stored = [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")].map(|(k, v)| (slice(k), slice(v)));
        let expect = [("a", "A"), ("b", "B2"), ("d", "D"), ("e", "E")].map(|(k, v)| (slice(k), slice(v)));
        let up = merge(changed.iter(), stored.iter().cloned().map(Ok), Ord::cmp);
        assert_eq!(up.map(Result::unwrap).collect::<Vec<_>>(), expect);
        let down = merge(changed.iter().rev(), stored.iter().rev().cloned().map(Ok), |one, other| other.cmp(one));
        assert_eq!(down.map(Result::unwrap).collect::<Vec<_>>(), expect.iter().rev().cloned().collect::<Vec<_>>());
    }
}
