//! Messages that go when they are old.

use std::time::Duration;

use crate::model::ids::MessageId;
use crate::model::message::{Head, ReadMark};
use crate::model::time::Wall;
use crate::store::Call;
use crate::store::conversations::{ReadConversation, RemoveParticipant};
use crate::store::embedded::Options;
use crate::store::log::{Append, FindMessage, ListReadMarks, Messages, NewMessage, ReadMessage, SetReadMark};
use crate::store::memory::Memory;

use super::conversations::{create, direct, group, list};
use super::log::{KEY_SECONDS, after, before, new_message};
use super::server::{self, OnServer};
use super::{Ask, OnDisk, Store, at, conversation_id, log, on_every_store, options, stores, user};

on_every_store! {
    retaining:
    what_follows_old_messages_stays_as_it_is,
    the_end_of_a_log_outlives_its_messages,
}

/// The same on stores that keep messages for ever.
mod for_ever {
    use super::{on_every_store, stores, without_a_retention_nothing_is_old};

    on_every_store! {
        stores:
        without_a_retention_nothing_is_old,
    }
}

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

impl Retaining for OnDisk {
    fn outlive(&mut self) {
        // In small steps, as the server does it.
        (0..40).for_each(|_| _ = self.store().purge(later(), 3));
    }

    fn forget(&mut self) {
        self.reopen();
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

mod retaining {
    use super::{Memory, OnDisk, OnServer, Options, RETENTION, options, server};

    pub(super) fn memory() -> Memory {
        Memory::new()
    }

    pub(super) fn embedded() -> OnDisk {
        OnDisk::open(Options { retention: Some(RETENTION), ..options() })
    }

    pub(super) fn cql() -> OnServer {
        server::open_with(|options| options.retention = Some(RETENTION))
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
    store.ask(Append { conversation, head: Head::default(), messages, keys_expire, now }).unwrap().head
}

fn mark(store: &mut dyn Retaining, conversation: u64, value: u64, number: u64, sequence: u64) {
    let mark = ReadMark { user: user(value), message: id(number), sequence };
    assert!(store.ask(SetReadMark { conversation: conversation_id(conversation), mark }).unwrap().changed);
}

/// Id, `prev` and sequence of each message of a page.
fn page(store: &mut dyn Retaining, read: impl Call<Answer = Option<Messages>>) -> Vec<(MessageId, Option<MessageId>, u64)> {
    let Some(Messages { messages, more: false }) = store.ask(read) else { panic!("more messages than expected") };
    messages.iter().map(|m| (m.id, m.prev, m.sequence)).collect()
}

fn head(store: &mut dyn Retaining, conversation: u64) -> Head {
    store.ask(ReadConversation { conversation: conversation_id(conversation) }).unwrap().head
}

fn what_follows_old_messages_stays_as_it_is(store: &mut dyn Retaining) {
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
        let one = ReadMessage { conversation: conversation_id(7), message: id(number) };
        assert_eq!(store.ask(one).is_some(), is_there, "{number}");
        assert_eq!(store.ask(FindMessage { message: id(number) }).is_some(), is_there, "{number}");
    }
    assert_eq!(head(store, 7), Head { last: Some(id(1_002)), sequence: 8 });
    // Two have been there since the mark, and two are there now; none of those that are gone counts.
    assert_eq!(list(store, 2, None, 10), (vec![(7, 2, 8), (8, 0, 8)], false));
    assert_eq!(list(store, 1, None, 10), (vec![(7, 0, 8), (8, 2, 8)], false));
    assert_eq!(list(store, 3, None, 10), (vec![(8, 2, 8)], false));
}

fn the_end_of_a_log_outlives_its_messages(store: &mut dyn Retaining) {
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
    store.ask(RemoveParticipant { conversation: conversation_id(8), user: user(2) });
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
    let marks = store.ask(ListReadMarks { conversation: conversation_id(7) }).unwrap();
    let marks: Vec<_> = marks.iter().map(|mark| (mark.user.value(), mark.message)).collect();
    assert_eq!(marks, [(1, id(39)), (2, id(40))]);
}

fn without_a_retention_nothing_is_old(store: &mut dyn Store) {
    create(store, direct(7, [1, 2]));
    log::fill(store, 7, 1..=3);
    store.purge_all(at(1_000_000_000));
    assert_eq!(log::page(store, after(7, MessageId::MIN, 10)), (vec![1, 2, 3], false));
}
