//! The tests that every implementation of the contract passes, by subject, and long random sequences compared with the model.
//!
//! Each test is a function of a store. [`on_every_store`] makes a test of it for each implementation, whose name shows the
//! implementation: `store::conformance::log::embedded::marks_only_advance`. The tests on a database need a CQL server. Without
//! one they are ignored, which is the exception to the rule that no test is: the harness prints them as ignored and why, and
//! does not count them as passed. `tests/run cql` starts a server and runs them.

mod accounts;
mod conversations;
mod erasure;
mod log;
mod random;
mod retention;
pub(super) mod server;

use tempfile::TempDir;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::time::Wall;
use crate::store::embedded::{Embedded, Options};
use crate::store::memory::Memory;
use crate::store::{Call, Failure, Reply, Request};

/// An implementation under test, one request at a time.
trait Store {
    fn apply(&mut self, request: Request) -> Reply;

    /// Removes everything that may be removed at `now`.
    fn purge_all(&mut self, now: Wall);
}

/// Requests with the answers that belong to them, for every [`Store`].
trait Ask {
    fn try_ask<C: Call>(&mut self, call: C) -> Result<C::Answer, Failure>;

    fn ask<C: Call>(&mut self, call: C) -> C::Answer {
        self.try_ask(call).expect("the store works")
    }
}

impl<S: Store + ?Sized> Ask for S {
    fn try_ask<C: Call>(&mut self, call: C) -> Result<C::Answer, Failure> {
        C::answer(self.apply(call.into()))
    }
}

impl Store for Memory {
    fn apply(&mut self, request: Request) -> Reply {
        Self::apply(self, &request)
    }

    fn purge_all(&mut self, _now: Wall) {}
}

/// The embedded store in a directory of its own.
struct OnDisk {
    store: Option<Embedded>,
    options: Options,
    directory: TempDir,
}

impl OnDisk {
    fn open(options: Options) -> Self {
        let mut store = Self { store: None, options, directory: tempfile::tempdir().expect("a directory") };
        store.reopen();
        store
    }

    fn reopen(&mut self) {
        // The lock is held until the old one is gone.
        self.store = None;
        self.store = Some(Embedded::open(self.directory.path(), &self.options).expect("opens"));
    }

    fn store(&mut self) -> &mut Embedded {
        self.store.as_mut().expect("open")
    }
}

impl Store for OnDisk {
    fn apply(&mut self, request: Request) -> Reply {
        let mut replies = Vec::new();
        self.store().apply([((), request)], &mut replies);
        replies.pop().expect("one reply").1
    }

    fn purge_all(&mut self, now: Wall) {
        // One step ends with each table at the latest.
        (0..8).for_each(|_| _ = self.store().purge(now, usize::MAX));
    }
}

/// Tables are written out early and few heads are kept, so that a short test reaches the disk. Syncing is the matter of
/// another test.
fn options() -> Options {
    Options { memtable_bytes: 16 << 10, heads_max: 4, cache_bytes: 1 << 20, sync: false, ..Options::default() }
}

/// An empty store of each implementation.
mod stores {
    use super::server::{self, OnServer};
    use super::{Memory, OnDisk, options};

    pub(super) fn memory() -> Memory {
        Memory::new()
    }

    pub(super) fn embedded() -> OnDisk {
        OnDisk::open(options())
    }

    pub(super) fn cql() -> OnServer {
        server::open()
    }
}

/// Makes the tests of each implementation, of functions that take a store. `$stores` is a module like [`stores`].
macro_rules! on_every_store {
    ($stores:ident: $($test:ident,)+) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&mut super::$stores::memory()) })+
        }

        mod embedded {
            $(#[test] fn $test() { super::$test(&mut super::$stores::embedded()) })+
        }

        mod cql {
            $(
                #[test]
                #[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
                fn $test() { super::$test(&mut super::$stores::cql()) }
            )+
        }
    };
}

use on_every_store;

fn conversation_id(value: u64) -> ConversationId {
    ConversationId::new(value).expect("in range")
}

fn user(value: u64) -> UserId {
    UserId::new(value).expect("in range")
}

fn at(seconds: u64) -> Wall {
    Wall::from_unix_seconds(1_000_000 + seconds)
}

/// Ids ascend with `number`.
fn id(number: u64) -> MessageId {
    MessageId::from_parts(Wall(at(0).0 + number), 0, 0)
}
