//! The embedded store: the contract on one directory of one machine, on the LSM engine fjall.
//!
//! Flows in: batches of requests, from the one writer; reads, from any thread. Flows out: their replies; a batch of writes is
//! replied to after one sync. Never imports a session or a shard. Starts no thread of its own; the engine
//! has one that writes tables out and merges them.
//!
//! Invariants:
//! - a batch is one batch of the engine: journalled, synced, then visible, then answered;
//! - after a commit that failed nothing is acknowledged until the directory is opened again, as a disk that failed to
//!   sync once may have dropped what it was given and report success the next time;
//! - a row is read back as it was written or not at all: blocks, lists of tables and journal have checksums, and the last
//!   two are checked before the engine may delete tables (`manifest.rs`) or cut the journal (`journal.rs`).
//!
//! `docs/decisions/0002-embedded-store.md` gives the reasons for this engine.

mod accounts;
mod commit;
mod erase;
mod heads;
pub mod journal;
mod keys;
mod lock;
mod manifest;
mod open;
mod open_error;
mod purge;
mod read;
mod seen;
mod tables;
mod values;
mod write;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use fjall::PersistMode;

use crate::model::time::Wall;
use crate::store::{Failure, Read, Reply, Request};

use commit::Commit;
use heads::Heads;
use purge::Purge;
use seen::Seen;
use tables::{Fault, Pending, Tables};

pub use open_error::OpenError;

/// How to run the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a write is on disk before it is acknowledged. Without it a power failure loses the last seconds; a
    /// crash of the process alone still loses nothing.
    pub sync: bool,
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: u64,
    /// Recent rows kept in memory before they are written out as a table, in bytes.
    pub memtable_bytes: u64,
    /// Conversations whose heads are kept in memory, so that an append to them reads nothing.
    pub heads_max: usize,
    /// Memory for telling new client message ids from stored ones without asking the engine, in bytes, taken twice:
    /// about one byte for each message of `limits.idempotency_ttl` keeps it sharp.
    pub seen_bytes: usize,
    /// Messages of this age are removed, at some time after. `None`: never.
    pub retention: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: true,
            cache_bytes: 64 << 20,
            memtable_bytes: 32 << 20,
            heads_max: 100_000,
            seen_bytes: 4 << 20,
            retention: None,
        }
    }
}

/// A step of a batch, for tests that look at the order of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// The batch is durable, as far as [`Options::sync`] asks.
    Committed,
    /// The batch failed; its writes are answered with a failure.
    CommitFailed,
    /// The replies of the batch are handed out.
    Replied,
}

/// A journal is full at this length: a constant of the engine, and more than it.
const JOURNAL_BYTES: usize = 64 << 20;
const PADDING_BYTES: usize = 1 << 20;

/// The writer. One for a directory, on a thread that may wait for the disk.
pub struct Embedded {
    tables: Tables,
    epoch: u64,
    mode: PersistMode,
    heads: Heads,
    seen: Seen,
    purge: Purge,
    scratch: Vec<u8>,
    /// A commit failed: no more writes.
    failed: bool,
    trace: Option<Box<dyn FnMut(Trace) + Send>>,
}

/// Reads beside the writer; cheap to clone, for any thread. Keeps the directory locked as long as it lives.
#[derive(Clone)]
pub struct Reader {
    tables: Tables,
}

impl Embedded {
    /// Opens the store in `directory`, made if it is not there.
    ///
    /// # Errors
    /// [`OpenError`]. The stored data is unchanged, except that a tail of the journal which a crash tore may be cut off.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, OpenError> {
        let (tables, epoch) = open::open(directory, options)?;
        let seed = getrandom::u64().map_err(|error| OpenError::Io { path: directory.into(), error: error.into() })?;
        Ok(Self {
            tables,
            epoch,
            mode: if options.sync { PersistMode::SyncData } else { PersistMode::Buffer },
            heads: Heads::new(seed, options.heads_max),
            // The first start finds nothing stored.
            seen: Seen::new(options.seen_bytes, epoch == 1),
            purge: Purge::new(options.retention),
            scratch: Vec::new(),
            failed: false,
            trace: None,
        })
    }

    /// Grows by one at every open of the directory, from 1; durable before `open` returned.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { tables: self.tables.clone() }
    }

    /// Calls `trace` at each step of each batch from here on.
    pub fn set_trace(&mut self, trace: Box<dyn FnMut(Trace) + Send>) {
        self.trace = Some(trace);
    }

    /// Carries the requests out in their order and appends their replies, each with the tag of its request.
    ///
    /// All writes become durable with one sync, and no reply is given before it. If the sync fails, the reply to each of them and
    /// to every later write is [`Reply::Failed`]. Reads are answered after the writes of the batch.
    pub fn apply<T>(&mut self, batch: impl IntoIterator<Item = (T, Request)>, replies: &mut Vec<(T, Reply)>) {
        let mut answers: Vec<(T, Result<Reply, Read>)> = Vec::new();
        let mut commit = Commit {
            rows: Pending::new(&self.tables),
            heads: &mut self.heads,
            seen: &mut self.seen,
            scratch: &mut self.scratch,
            stored: Vec::new(),
        };
        for (tag, request) in batch {
            let answer = match request {
                Request::Read(read) => Err(read),
                Request::Write(_) if self.failed => Ok(Reply::Failed(Failure::Unavailable)),
                Request::Write(write) => Ok(commit.write(&write).unwrap_or_else(|fault| unavailable(&fault))),
            };
            answers.push((tag, answer));
        }
        let rows = commit.into_rows();
        let outcome = (!rows.is_empty()).then(|| rows.commit(self.mode));
        let failure = outcome.and_then(|outcome| self.settle(outcome));
        let view = self.tables.view();
        replies.extend(answers.into_iter().map(|(tag, answer)| {
            let reply = match (answer, failure) {
                (Ok(_), Some(failure)) => Reply::Failed(failure),
                (Ok(reply), None) => reply,
                (Err(read), _) => read::read(&view, &read).unwrap_or_else(|fault| unavailable(&fault)),
            };
            (tag, reply)
        }));
        self.trace(Trace::Replied);
    }

    /// Removes rows that have expired at `now`: client message ids, codes, refresh tokens and their families, and messages
    /// with [`Options::retention`].
    ///
    /// Looks at no more than `rows_max` rows and goes on where it ended the last time, round and round: to keep up, look
    /// at more rows than are written. Answers how many were removed. The first round after a start also learns which
    /// client message ids are stored; until it is over, appends with one cost a look into the engine.
    pub fn purge(&mut self, now: Wall, rows_max: usize) -> usize {
        if self.failed {
            return 0;
        }
        self.purge.step(&self.tables, &mut self.seen, self.mode, now, rows_max).unwrap_or_else(|fault| {
            tracing::error!(%fault, "expired rows cannot be removed");
            // The journal may end in half a batch now: nothing more may be written behind it.
            self.failed = true;
            0
        })
    }

    /// Makes sure that no file has rows any more that were removed or replaced: writes all tables anew, and fills the
    /// journal up, as the engine begins another one, and removes those whose rows are in tables, only when one is full.
    /// Takes as long as reading and writing everything that is stored.
    ///
    /// # Errors
    /// The error of the engine or the disk; no data is lost.
    pub fn compact(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        // Random, or the engine would compress it.
        let mut padding = vec![0; PADDING_BYTES];
        getrandom::fill(&mut padding)?;
        // The second round finds the journal full that the first one has filled; the third one removes it.
        for count in [JOURNAL_BYTES / PADDING_BYTES + 1, 1, 1] {
            for _ in 0..count {
                let mut rows = Pending::new(&self.tables);
                rows.put(keys::meta("padding"), &padding);
                rows.keep();
                rows.commit(self.mode)?;
            }
            self.tables.rows.rotate_memtable_and_wait()?;
        }
        let mut rows = Pending::new(&self.tables);
        rows.remove(keys::meta("padding"));
        rows.keep();
        rows.commit(self.mode)?;
        self.tables.rows.rotate_memtable_and_wait()?;
        self.tables.rows.major_compact()?;
        Ok(())
    }

    /// Why the commit failed, if it did. From then on nothing is written.
    fn settle(&mut self, outcome: Result<(), fjall::Error>) -> Option<Failure> {
        let Err(error) = outcome else {
            self.trace(Trace::Committed);
            return None;
        };
        tracing::error!(%error, "the store cannot write: it refuses all writes until it is opened again");
        self.failed = true;
        self.heads.clear();
        self.trace(Trace::CommitFailed);
        match error {
            // Refused before anything was written: the engine's own thread had failed.
            fjall::Error::Poisoned => Some(Failure::Unavailable),
            _ => Some(Failure::Unknown),
        }
    }

    fn trace(&mut self, step: Trace) {
        if let Some(trace) = &mut self.trace {
            trace(step);
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if self.mode == PersistMode::Buffer && self.tables.database.persist(PersistMode::SyncAll).is_ok() {
            self.tables.lock.forget_unsynced();
        }
    }
}

impl Reader {
    /// Answers a read from one moment, which includes every write that was replied to before.
    #[must_use]
    pub fn read(&self, read: &Read) -> Reply {
        read::read(&self.tables.view(), read).unwrap_or_else(|fault| unavailable(&fault))
    }
}

fn unavailable(fault: &Fault) -> Reply {
    tracing::error!(%fault, "a request to the store failed");
    Reply::Failed(Failure::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;
    use crate::model::ids::{ConversationId, MessageId, UserId};
    use crate::model::message::{Conversation, ConversationKind, Draft, Head};
    use crate::store::Call;
    use crate::store::conversations::CreateConversation;
    use crate::store::log::{Append, NewMessage, REPEAT_WINDOW, ReadAfter};

    fn conversation() -> ConversationId {
        ConversationId::new(7).unwrap()
    }

    fn options() -> Options {
        Options { memtable_bytes: 8 << 10, cache_bytes: 1 << 20, sync: false, ..Options::default() }
    }

    fn ask<C: Call>(store: &mut Embedded, call: C) -> C::Answer {
        let mut replies = Vec::new();
        store.apply([((), call.into())], &mut replies);
        C::answer(replies.pop().unwrap().1).unwrap()
    }

    fn create(store: &mut Embedded) {
        let created_by = UserId::new(1).unwrap();
        let conversation = Conversation {
            id: conversation(),
            kind: ConversationKind::Group,
            title: None,
            created_by,
            created_at: Wall(0),
            participants: Vec::new(),
        };
        ask(store, CreateConversation { conversation });
    }

    fn append(number: u64, keys_expire: Wall) -> Append {
        let draft = Draft {
            content: format!("message {number} ").repeat(20).into(),
            client_id: Some(number.to_string().into()),
            headers: Vec::new(),
        };
        let id = MessageId::from_parts(Wall(number), 0, 0);
        let messages = vec![NewMessage { id, sender: UserId::new(1).unwrap(), draft }];
        Append { conversation: conversation(), head: Head::default(), messages, keys_expire, now: Wall(0) }
    }

    fn everything() -> Read {
        ReadAfter { conversation: conversation(), after: MessageId::MIN, limit: u16::MAX }.into()
    }

    fn count(reader: &Reader) -> usize {
        ReadAfter::answer(reader.read(&everything())).unwrap().unwrap().messages.len()
    }

    #[test]
    fn expired_rows_go_in_bounded_steps() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(directory.path(), &options()).unwrap();
        create(&mut store);
        for number in 1..=10 {
            ask(&mut store, append(number, Wall(number)));
        }
        let keys = || keys::table(keys::Table::ClientIds);
        let left = |store: &Embedded| store.tables.rows.range(keys().0..keys().1).count();
        let mut removed = Vec::new();
        for _ in 0..8 {
            removed.push(store.purge(Wall(6).after(REPEAT_WINDOW), 4));
        }
        assert!(removed.iter().all(|removed| *removed <= 4), "{removed:?}");
        assert_eq!((removed.iter().sum::<usize>(), left(&store)), (6, 4));
        // Another round finds the rest.
        for _ in 0..8 {
            store.purge(Wall(10).after(REPEAT_WINDOW), 4);
        }
        assert_eq!(left(&store), 0);
        assert_eq!(count(&store.reader()), 10);
    }

    #[test]
    fn readers_on_other_threads_see_every_reply_and_no_half_of_a_batch() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(directory.path(), &options()).unwrap();
        create(&mut store);
        let (replied, done) = (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicBool::new(false));
        let reader = store.reader();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let least = replied.load(std::sync::atomic::Ordering::SeqCst);
                    let count = count(&reader) as u64;
                    assert!(least <= count && count.is_multiple_of(4), "{least} replied, {count} there");
                }
            });
            for batch in 0..50 {
                let requests = (1..=4).map(|number| ((), append(batch * 4 + number, Wall(0)).into()));
                store.apply(requests, &mut Vec::new());
                replied.store(batch * 4 + 4, std::sync::atomic::Ordering::SeqCst);
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }

    /// Copies what is in use of each file; the journal is mostly hole.
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            match entry.metadata().unwrap().is_dir() {
                true => copy(&path, &to),
                false if path.extension().is_some_and(|extension| extension == "jnl") => {
                    let data = std::fs::read(path).unwrap();
                    let written = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                    std::fs::write(to, &data[..written]).unwrap();
                }
                false => _ = std::fs::copy(path, to).unwrap(),
            }
        }
    }

    fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match entry.metadata().unwrap() {
                metadata if metadata.is_dir() => files(&entry.path(), found),
                metadata if metadata.len() > 0 => found.push(entry.path()),
                _ => {}
            }
        }
    }

    /// One bit of each file a round.
    #[test]
    fn a_flipped_bit_anywhere_is_never_silently_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Embedded::open(&directory.path().join("live"), &options()).unwrap();
        create(&mut store);
        for number in 1..=120 {
            ask(&mut store, append(number, Wall(0)));
        }
        let expect = format!("{:?}", store.reader().read(&everything()));
        // The engine writes tables when it gets to it: here it must have, so that there is something to flip in them.
        store.tables.rows.rotate_memtable_and_wait().unwrap();
        drop(store);
        copy(&directory.path().join("live"), &directory.path().join("still"));
        let mut all = Vec::new();
        files(&directory.path().join("still"), &mut all);
        all.sort();
        assert!(all.iter().any(|file| file.parent().is_some_and(|parent| parent.ends_with("tables"))), "tables: {all:?}");

        let flips = fuzz::seeds(1).flat_map(|seed| (0..all.len()).map(move |file| (seed, file)));
        for (seed, file) in flips {
            let flip = (seed as usize).wrapping_mul(all.len()).wrapping_add(file);
            let flipped = directory.path().join("flipped");
            copy(&directory.path().join("still"), &flipped);
            let name = all[file].strip_prefix(directory.path().join("still")).unwrap().to_path_buf();
            let mut data = std::fs::read(flipped.join(&name)).unwrap();
            let at = flip.wrapping_mul(0x9E37_79B9_7F4A_7C15) % data.len();
            data[at] ^= 1 << (flip % 8);
            std::fs::write(flipped.join(&name), data).unwrap();

            let opened = Embedded::open(&flipped, &options());
            let reply = opened.map(|store| format!("{:?}", store.reader().read(&everything())));
            let refused = format!("{:?}", Reply::Failed(Failure::Unavailable));
            let is_right = reply.is_err() || reply.as_ref().is_ok_and(|reply| *reply == expect || *reply == refused);
            assert!(is_right, "byte {at} of {}: {reply:?}", name.display());
            std::fs::remove_dir_all(&flipped).unwrap();
        }
    }
}
