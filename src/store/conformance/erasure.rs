//! Erasing a user.

use std::sync::Arc;

use crate::model::ids::{MessageId, UserId};
use crate::model::message::{Message, Participant, ParticipantRole, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::{ListRevoked, LoginAnswer, LoginUser, PutCode, ReadUser, RotateAnswer, TakeCode, TakeCodeAnswer};
use crate::store::conversations::{ListBlocks, PutParticipant, ReadConversation, RemoveParticipant, SetBlock};
use crate::store::erasure::{EraseAnswer, EraseUser, Erased};
use crate::store::log::{Appended, FindMessage, ListReadMarks, Messages, ReadMessage, SetReadMark};

use super::accounts::{login, rotate};
use super::conversations::{create, direct, group, list, participants};
use super::log::{after, append, append_at, check_append, new_message};
use super::{Ask, OnDisk, Store, at, conversation_id, id, on_every_store, options, stores, user};

on_every_store! {
    stores:
    an_erased_user_leaves_places_only,
    an_erasure_interrupted_at_once_is_begun_again,
    an_erasure_interrupted_among_accounts_is_begun_again,
    an_erasure_interrupted_among_conversations_is_begun_again,
    an_unknown_user_has_nothing_to_erase,
    conversations_go_on_after_an_erasure,
}

/// Takes steps until the last, or so many, and sums up what they did.
fn erase_steps(store: &mut dyn Store, user: UserId, limit: u16, now: Wall, steps_max: usize) -> Erased {
    let (mut sum, mut cursor) = (Erased::default(), None);
    for _ in 0..steps_max {
        let EraseAnswer { erased, next } = store.ask(EraseUser { user, cursor, limit, now });
        sum += erased;
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    sum
}

pub(super) fn erase(store: &mut dyn Store, user: UserId, limit: u16, now: Wall) -> Erased {
    erase_steps(store, user, limit, now, usize::MAX)
}

fn log_in(store: &mut dyn Store, login: &str, candidate: u64) -> LoginAnswer {
    let (login, roles) = (login.into(), vec!["admin".into()]);
    store.ask(LoginUser { login, candidate: user(candidate), roles, now: at(0) })
}

/// User 1 in a direct conversation, in a group and, before, in another, with all that a user may leave behind. Messages 1
/// to 9 are users 1 and 2 in turn, beginning with 1.
fn world(store: &mut dyn Store) {
    create(store, direct(5, [1, 2]));
    create(store, group(7, &[1, 2, 3]));
    create(store, group(9, &[1, 2]));
    for (conversation, numbers) in [(5, 1..=3), (7, 4..=6), (9, 7..=9)] {
        let messages = numbers.map(|number| {
            let mut message = new_message(number, 2 - number % 2, "private", Some(&format!("key {number}")));
            message.draft.headers = vec![("mood".into(), "private".into())];
            message
        });
        append(store, append_at(conversation, 0, messages.collect()));
    }
    store.ask(RemoveParticipant { conversation: conversation_id(9), user: user(1) });
    for (by, other) in [(1, 2), (1, 3), (2, 1)] {
        store.ask(SetBlock { user: user(by), other: user(other), blocked: true });
    }
    for (login, candidate) in [("one", 1), ("two", 2)] {
        assert!(matches!(log_in(store, login, candidate), LoginAnswer::User(_)));
    }
    let code = |login: &str| {
        let login = login.into();
        PutCode { login, code: [1; 32], now: at(0), expires: at(300), per_hour: 5 }
    };
    store.ask(code("one"));
    store.ask(code("two"));
    // Both of user 1.
    login(store, 1);
    login(store, 2);
}

fn messages(store: &mut dyn Store, conversation: u64) -> Vec<Arc<Message>> {
    let Some(Messages { messages, more: false }) = store.ask(after(conversation, MessageId::MIN, 100)) else { panic!() };
    messages
}

/// Whatever is left of user 1 after an erasure, and that nothing is missing of the others.
fn check_erased(store: &mut dyn Store) {
    for (conversation, numbers) in [(5, 1..=3), (7, 4..=6), (9, 7..=9)] {
        let mut prev = None;
        for (place, (message, number)) in (1..).zip(messages(store, conversation).iter().zip(numbers)) {
            assert_eq!((message.id, message.prev, message.sequence), (id(number), prev, place));
            let left = (&*message.content, message.client_id.as_deref(), message.headers.len());
            let (own, key) = (number % 2 == 1, format!("key {number}"));
            assert_eq!(left, if own { ("", None, 0) } else { ("private", Some(&*key), 1) }, "message {number}");
            assert_eq!(message.sender, user(2 - number % 2));
            prev = Some(message.id);
            let one = ReadMessage { conversation: conversation_id(conversation), message: message.id };
            assert_eq!(store.ask(one).as_ref(), Some(message));
            assert!(store.ask(FindMessage { message: message.id }).is_some());
        }
    }
    assert_eq!(list(store, 1, None, 10), (vec![], false));
    assert_eq!(list(store, 2, None, 10), (vec![(5, 1, 3), (7, 0, 3), (9, 1, 3)], false));
    let mut there = |conversation| {
        let conversation = conversation_id(conversation);
        let marks = store.ask(ListReadMarks { conversation }).unwrap();
        let state = store.ask(ReadConversation { conversation }).unwrap();
        let participants = state.conversation.participants.iter().map(|participant| participant.user.value());
        (participants.collect::<Vec<_>>(), marks.iter().map(|mark| mark.user.value()).collect::<Vec<_>>())
    };
    assert_eq!([there(5), there(7), there(9)], [(vec![1, 2], vec![2]), (vec![2, 3], vec![2]), (vec![2], vec![2])]);
    let mut blocks = |by| store.ask(ListBlocks { user: user(by) }).len();
    assert_eq!((blocks(1), blocks(2)), (0, 1));
    assert!(store.ask(ReadUser { user: user(1) }).is_none());
    assert!(store.ask(ReadUser { user: user(2) }).is_some());
    let mut take = |login: &str| {
        let login = login.into();
        store.ask(TakeCode { login, code: [1; 32], now: at(1), attempts_max: 3 })
    };
    assert_eq!((take("one"), take("two")), (TakeCodeAnswer::Reject, TakeCodeAnswer::Accept));
    let families = store.ask(ListRevoked { since: at(0) });
    assert_eq!(families.iter().map(|(user, family)| (user.value(), family.0)).collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    assert!(matches!(store.ask(rotate(1, 11, 60)), RotateAnswer::Reject { family: Some(_) }));
}

fn an_erased_user_leaves_places_only(store: &mut dyn Store) {
    world(store);
    let erased = erase(store, user(1), 2, at(50));
    assert!(erased.found >= 5, "{erased:?}");
    let expect = Erased { found: erased.found, messages: 5, conversations: 2, blocks: 2, logins: 1, families: 2 };
    assert_eq!(erased, expect);
    check_erased(store);
    // Once more: known, and nothing left.
    let again = erase(store, user(1), 100, at(51));
    assert_eq!(again, Erased { found: again.found, ..Erased::default() });
    assert!(again.found >= 5, "{again:?}");
    check_erased(store);
    // The login is free, and makes another user.
    assert!(matches!(log_in(store, "one", 21), LoginAnswer::User(found) if found.user == user(21)));
}

fn an_erasure_interrupted_at_once_is_begun_again(store: &mut dyn Store) {
    check_interrupted(store, 1);
}

fn an_erasure_interrupted_among_accounts_is_begun_again(store: &mut dyn Store) {
    check_interrupted(store, 4);
}

fn an_erasure_interrupted_among_conversations_is_begun_again(store: &mut dyn Store) {
    check_interrupted(store, 7);
}

fn check_interrupted(store: &mut dyn Store, steps: usize) {
    world(store);
    let begun = erase_steps(store, user(1), 1, at(50), steps);
    let rest = erase(store, user(1), 3, at(50));
    let whole = |count: fn(&Erased) -> u64| count(&begun) + count(&rest);
    assert_eq!((whole(|e| e.messages), whole(|e| e.conversations), whole(|e| e.blocks)), (5, 2, 2));
    assert_eq!((whole(|e| e.logins), whole(|e| e.families)), (1, 2));
    check_erased(store);
}

fn an_unknown_user_has_nothing_to_erase(store: &mut dyn Store) {
    world(store);
    assert_eq!(erase(store, user(99), 2, at(50)), Erased::default());
    assert_eq!(messages(store, 5)[0].content, "private".into());
}

fn conversations_go_on_after_an_erasure(store: &mut dyn Store) {
    world(store);
    erase(store, user(1), 100, at(50));
    // A repetition finds what is left; what a client id decided is forgotten.
    let again = append_at(7, 0, vec![new_message(5, 1, "private", Some("key 5"))]);
    let results = store.ask(again).unwrap().results;
    assert!(matches!(&results[..], [Appended::Stored(there)] if there.is_erased()), "{results:?}");
    check_append(store, append_at(7, 1, vec![new_message(20, 1, "other", Some("key 5"))]), &["s20"], 4);
    check_append(store, append_at(7, 1, vec![new_message(21, 2, "private", Some("key 6"))]), &["r6"], 4);
    assert_eq!(messages(store, 7).last().map(|message| (message.prev, message.sequence)), Some((Some(id(6)), 4)));
    // A user who comes back, with a token from elsewhere, begins anew.
    let participant = Participant { role: ParticipantRole::Member, joined_at: at(9), ..participants(&[1])[0] };
    store.ask(PutParticipant { conversation: conversation_id(9), participant });
    assert_eq!(list(store, 1, None, 10), (vec![(9, 3, 3)], false));
    for (conversation, number) in [(5, 3), (9, 7)] {
        let (conversation, mark) = (conversation_id(conversation), ReadMark { user: user(1), message: id(number), sequence: 1 });
        assert!(store.ask(SetReadMark { conversation, mark }).unwrap().changed);
        let marks = store.ask(ListReadMarks { conversation }).unwrap();
        assert!(marks.contains(&mark), "{marks:?}");
    }
}

/// The engine keeps rows that were replaced until it merges its tables.
#[test]
fn no_file_of_the_embedded_store_has_erased_content_after_compaction() {
    let mut store = OnDisk::open(options());
    world(&mut store);
    let directory = store.directory.path().to_path_buf();
    let files = |what: &[u8]| {
        let (mut folders, mut found) = (vec![directory.clone()], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => found += usize::from(std::fs::read(entry.path()).unwrap().windows(what.len()).any(|w| w == what)),
                }
            }
        }
        found
    };
    append(&mut store, append_at(5, 0, vec![new_message(30, 1, "never to be seen again", None)]));
    assert!(0 < files(b"never to be seen again"));
    erase(&mut store, user(1), 100, at(50));
    store.store().compact().unwrap();
    assert_eq!(files(b"never to be seen again"), 0);
    store.reopen();
    assert_eq!(files(b"never to be seen again"), 0);
    assert_eq!(messages(&mut store, 5).len(), 4);
}
