//! Messages that go when they are old.

use std::time::Duration;

use tempfile::TempDir;

use crate::model::ids::MessageId;
use crate::model::message::{Head, ReadMark};
use crate::model::time::Wall;
use crate::store::embedded::{Embedded, Options};
use crate::store::memory::Memory;
use crate::store::{NewMessage, Reply, Request};

use super::server::{self, OnServer};
use super::{
    KEY_SECONDS, Store, after, at, before, conversation_id, create, direct, each_store, group, list, new_message, options, user,
};

const RETENTION: Duration = Duration::from_secs(100);
/// When messages are sent: the old ones are given this time as that of their sending, and have two seconds left.
const NOW: u64 = 98;

/// A store that keeps messages for [`RETENTION`].
trait Retaining: Store {
    /// Goes on to a time when the old messages are to be gone, and the new ones are not.
    fn outlive(&mut self);

    /// Forgets what need not be remembered.
    fn forget(&mut self) {}
}

fn later() -> Wall {
    at(NOW + 3)
}

impl Retaining for Memory {
    fn outlive(&mut self) {
        self.expire(later(), RETENTION);
    }
}

struct OnDisk {
    store: Option<Embedded>,
    directory: TempDir,
}

impl OnDisk {
    fn open(directory: TempDir) -> Self {
        let options = Options { retention: Some(RETENTION), ..options() };
        Self { store: Some(Embedded::open(directory.path(), &options).expect("opens")), directory }
    }
}

impl Store for OnDisk {
    fn ask(&mut self, request: Request) -> Reply {
        Store::ask(self.store.as_mut().expect("open"), request)
    }

    fn purge_all(&mut self, now: Wall) {
        self.store.as_mut().expect("open").purge_all(now);
    }
}

impl Retaining for OnDisk {
    fn outlive(&mut self) {
        // In small steps, as the server does it.
        (0..40).for_each(|_| _ = self.store.as_mut().expect("open").purge(later(), 3));
    }

    fn forget(&mut self) {
        self.store = None;
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().expect("a directory"));
        *self = Self::open(directory);
    }
}

impl Retaining for OnServer {
    fn outlive(&mut self) {
        // The database has a clock of its own.
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_secs(4)).await });
    }

    fn forget(&mut self) {
        Self::forget(self);
    }
}

fn each_retaining(test: impl Fn(&mut dyn Retaining)) {
    test(&mut Memory::new());
    test(&mut OnDisk::open(tempfile::tempdir().expect("a directory")));
    if let Some(mut store) = server::open_with(|options| options.retention = Some(RETENTION)) {
        test(&mut store);
    }
}

/// The old ones have numbers below 1,000.
fn id(number: u64) -> MessageId {
    let seconds = if number < 1_000 { 0 } else { NOW };
    MessageId::from_parts(Wall(at(seconds).0 + number), 0, 0)
}

fn send(store: &mut dyn Retaining, conversation: u64, number: u64, sender: u64) -> Head {
    let message = NewMessage { id: id(number), ..new_message(number, sender, "text", Some(&number.to_string())) };
    let (now, keys_expire) = (at(NOW), at(KEY_SECONDS));
    let (conversation, messages) = (conversation_id(conversation), vec![message]);
    match store.ask(Request::Append { conversation, head: Head::default(), messages, keys_expire, now }) {
        Reply::Appended { head, .. } => head,
        other => panic!("{other:?}"),
    }
}

fn mark(store: &mut dyn Retaining, conversation: u64, value: u64, number: u64, sequence: u64) {
    let mark = ReadMark { user: user(value), message: id(number), sequence };
    let request = Request::Mark { conversation: conversation_id(conversation), mark };
    assert!(matches!(store.ask(request), Reply::Marked { changed: true, .. }));
}

/// Id, `prev` and sequence of each message of a page.
fn page(store: &mut dyn Retaining, request: Request) -> Vec<(MessageId, Option<MessageId>, u64)> {
    match store.ask(request) {
        Reply::Messages { messages, more: false } => messages.iter().map(|m| (m.id, m.prev, m.sequence)).collect(),
        other => panic!("{other:?}"),
    }
}

fn head(store: &mut dyn Retaining, conversation: u64) -> Head {
    match store.ask(Request::ReadConversation { conversation: conversation_id(conversation) }) {
        Reply::Conversation { state, .. } => state.head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_follows_old_messages_stays_as_it_is() {
    each_retaining(|store| {
        create(store, direct(7, [1, 2]));
        create(store, group(8, &[1, 2, 3]));
        for number in 1..=6 {
            send(store, 7, number, 1);
            send(store, 8, 100 + number, 1);
        }
        mark(store, 7, 2, 4, 4);
        mark(store, 8, 2, 106, 6);
        for number in 1_001..=1_002 {
            send(store, 7, number, 1);
            send(store, 8, number + 100, 2);
        }
        store.outlive();
        let left = [(id(1_001), Some(id(6)), 7), (id(1_002), Some(id(1_001)), 8)];
        assert_eq!(page(store, after(7, MessageId::MIN, 10)), left);
        // A message that is gone is a position like any other.
        assert_eq!(page(store, after(7, id(3), 10)), left);
        assert_eq!(page(store, before(7, id(1_002), 10)), left[..1]);
        assert_eq!(page(store, before(7, id(1_001), 10)), []);
        for (number, is_there) in [(1, false), (6, false), (1_001, true)] {
            let one = Request::ReadMessage { conversation: conversation_id(7), message: id(number) };
            assert!(matches!(store.ask(one), Reply::Message(found) if found.is_some() == is_there), "{number}");
            let found = Request::FindMessage { message: id(number) };
            assert!(matches!(store.ask(found), Reply::Found(found) if found.is_some() == is_there), "{number}");
        }
        assert_eq!(head(store, 7), Head { last: Some(id(1_002)), sequence: 8 });
        // Two have been there since the mark, and two are there now; none of those that are gone counts.
        assert_eq!(list(store, 2, None, 10), (vec![(7, 2, 8), (8, 0, 8)], false));
        assert_eq!(list(store, 1, None, 10), (vec![(7, 0, 8), (8, 2, 8)], false));
        assert_eq!(list(store, 3, None, 10), (vec![(8, 2, 8)], false));
    });
}

#[test]
fn the_end_of_a_log_outlives_its_messages() {
    each_retaining(|store| {
        create(store, direct(7, [1, 2]));
        create(store, group(8, &[1, 2, 3]));
        create(store, group(9, &[1]));
        for number in 1..=40 {
            // Who sends has read, whether there is a row of it or not.
            send(store, 7, number, if number % 5 == 0 { 2 } else { 1 });
        }
        send(store, 8, 101, 1);
        send(store, 8, 102, 2);
        // The one who sent last has left since.
        store.ask(Request::RemoveParticipant { conversation: conversation_id(8), user: user(2) });
        store.outlive();
        store.forget();
        for conversation in [7, 8, 9] {
            assert_eq!(page(store, after(conversation, MessageId::MIN, 10)), []);
            assert_eq!(page(store, before(conversation, MessageId::MAX, 10)), []);
        }
        assert_eq!(list(store, 1, None, 10), (vec![(7, 0, 0), (8, 0, 0), (9, 0, 0)], false));
        assert_eq!(list(store, 3, None, 10), (vec![(8, 0, 0)], false));
        assert_eq!(head(store, 8), Head { last: Some(id(102)), sequence: 2 });
        assert_eq!(head(store, 9), Head::default());
        store.forget();
        assert_eq!(send(store, 8, 1_001, 1), Head { last: Some(id(1_001)), sequence: 3 });
        assert_eq!(page(store, after(8, MessageId::MIN, 10)), [(id(1_001), Some(id(102)), 3)]);
        assert_eq!(list(store, 3, None, 10), (vec![(8, 1, 3)], false));
        assert_eq!(send(store, 9, 1_002, 1), Head { last: Some(id(1_002)), sequence: 1 });
        // Once they are gone, too, it goes on from there.
        store.forget();
        assert_eq!(send(store, 8, 1_003, 1).sequence, 4);
        let Reply::Marks(marks) = store.ask(Request::ReadMarks { conversation: conversation_id(7) }) else { panic!() };
        let marks: Vec<_> = marks.iter().map(|mark| (mark.user.value(), mark.message)).collect();
        assert_eq!(marks, [(1, id(39)), (2, id(40))]);
    });
}

#[test]
fn without_a_retention_nothing_is_old() {
    each_store(|store| {
        create(store, direct(7, [1, 2]));
        super::fill(store, 7, 1..=3);
        store.purge_all(at(1_000_000_000));
        assert_eq!(super::page(store, after(7, MessageId::MIN, 10)), (vec![1, 2, 3], false));
    });
}
