//! Erasing a user.

use std::sync::Arc;

use crate::model::ids::{MessageId, UserId};
use crate::model::message::{Message, Participant, ParticipantRole};
use crate::model::time::Wall;
use crate::store::embedded::Embedded;
use crate::store::{Appended, Erased, Reply, Request};

use super::{
    Store, after, append, append_at, at, check_append, conversation_id, create, direct, each_store, embedded, group, id, list,
    login, mark, new_message, options, participants, rotate, user,
};

/// Takes steps until the last, or so many, and sums up what they did.
fn erase_steps(store: &mut dyn Store, user: UserId, limit: u16, now: Wall, steps_max: usize) -> Erased {
    let (mut sum, mut place) = (Erased::default(), None);
    for _ in 0..steps_max {
        match store.ask(Request::EraseUser { user, place: place.take(), limit, now }) {
            Reply::Erased { erased, next } => {
                sum += erased;
                place = next;
            }
            other => panic!("{other:?}"),
        }
        if place.is_none() {
            break;
        }
    }
    sum
}

pub(super) fn erase(store: &mut dyn Store, user: UserId, limit: u16, now: Wall) -> Erased {
    erase_steps(store, user, limit, now, usize::MAX)
}

fn log_in(store: &mut dyn Store, login: &str, candidate: u64) -> Reply {
    let (login, roles) = (login.into(), vec!["admin".into()]);
    store.ask(Request::LoginUser { login, candidate: user(candidate), roles, now: at(0) })
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
    store.ask(Request::RemoveParticipant { conversation: conversation_id(9), user: user(1) });
    for (by, other) in [(1, 2), (1, 3), (2, 1)] {
        store.ask(Request::SetBlock { user: user(by), other: user(other), blocked: true });
    }
    assert!(matches!(log_in(store, "one", 1), Reply::User(_)) && matches!(log_in(store, "two", 2), Reply::User(_)));
    let code = |login: &str| {
        let login = login.into();
        Request::PutCode { login, code: [1; 32], now: at(0), expires: at(300), per_hour: 5 }
    };
    store.ask(code("one"));
    store.ask(code("two"));
    // Both of user 1.
    login(store, 1);
    login(store, 2);
}

fn messages(store: &mut dyn Store, conversation: u64) -> Vec<Arc<Message>> {
    match store.ask(after(conversation, MessageId::MIN, 100)) {
        Reply::Messages { messages, more: false } => messages,
        other => panic!("{other:?}"),
    }
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
            let one = Request::ReadMessage { conversation: conversation_id(conversation), message: message.id };
            assert!(matches!(store.ask(one), Reply::Message(Some(found)) if found == *message));
            assert!(matches!(store.ask(Request::FindMessage { message: message.id }), Reply::Found(Some(_))));
        }
    }
    assert_eq!(list(store, 1, None, 10), (vec![], false));
    assert_eq!(list(store, 2, None, 10), (vec![(5, 1, 3), (7, 0, 3), (9, 1, 3)], false));
    let mut there = |conversation| {
        let conversation = conversation_id(conversation);
        let Reply::Marks(marks) = store.ask(Request::ReadMarks { conversation }) else { panic!() };
        match store.ask(Request::ReadConversation { conversation }) {
            Reply::Conversation { state, .. } => {
                let participants = state.conversation.participants.iter().map(|participant| participant.user.value());
                (participants.collect::<Vec<_>>(), marks.iter().map(|mark| mark.user.value()).collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([there(5), there(7), there(9)], [(vec![1, 2], vec![2]), (vec![2, 3], vec![2]), (vec![2], vec![2])]);
    let mut blocks = |by| match store.ask(Request::ReadBlocks { user: user(by) }) {
        Reply::Blocks(users) => users.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((blocks(1), blocks(2)), (0, 1));
    assert!(matches!(store.ask(Request::ReadUser { user: user(1) }), Reply::Missing));
    assert!(matches!(store.ask(Request::ReadUser { user: user(2) }), Reply::User(_)));
    let mut take = |login: &str| {
        let login = login.into();
        store.ask(Request::TakeCode { login, code: [1; 32], now: at(1), attempts_max: 3 })
    };
    assert!(matches!((take("one"), take("two")), (Reply::CodeWrong, Reply::CodeTaken)));
    let Reply::RevokedFamilies(families) = store.ask(Request::ReadRevoked { since: at(0) }) else { panic!() };
    assert_eq!(families.iter().map(|(user, family)| (user.value(), family.0)).collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    assert!(matches!(store.ask(rotate(1, 11, 60)), Reply::RefreshInvalid { family: Some(_) }));
}

#[test]
fn an_erased_user_leaves_places_only() {
    each_store(|store| {
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
        assert!(matches!(log_in(store, "one", 21), Reply::User(found) if found.user == user(21)));
    });
}

#[test]
fn an_erasure_that_was_interrupted_is_begun_again() {
    for steps in [1, 4, 7] {
        each_store(|store| {
            world(store);
            let begun = erase_steps(store, user(1), 1, at(50), steps);
            let rest = erase(store, user(1), 3, at(50));
            let whole = |count: fn(&Erased) -> u64| count(&begun) + count(&rest);
            assert_eq!((whole(|e| e.messages), whole(|e| e.conversations), whole(|e| e.blocks)), (5, 2, 2));
            assert_eq!((whole(|e| e.logins), whole(|e| e.families)), (1, 2));
            check_erased(store);
        });
    }
}

#[test]
fn nothing_is_found_of_a_user_nobody_knows() {
    each_store(|store| {
        world(store);
        assert_eq!(erase(store, user(99), 2, at(50)), Erased::default());
        assert_eq!(messages(store, 5)[0].content, "private".into());
    });
}

#[test]
fn conversations_go_on_after_an_erasure() {
    each_store(|store| {
        world(store);
        erase(store, user(1), 100, at(50));
        // A repetition finds what is left; what a client id decided is forgotten.
        let again = append_at(7, 0, vec![new_message(5, 1, "private", Some("key 5"))]);
        match store.ask(again) {
            Reply::Appended { results, .. } => assert!(matches!(&results[..], [Appended::Stored(there)] if there.is_erased())),
            other => panic!("{other:?}"),
        }
        check_append(store, append_at(7, 1, vec![new_message(20, 1, "other", Some("key 5"))]), &["s20"], 4);
        check_append(store, append_at(7, 1, vec![new_message(21, 2, "private", Some("key 6"))]), &["r6"], 4);
        assert_eq!(messages(store, 7).last().map(|message| (message.prev, message.sequence)), Some((Some(id(6)), 4)));
        // Should the user come back, with a token from elsewhere, it is as anybody who comes anew.
        let participant = Participant { role: ParticipantRole::Member, joined_at: at(9), ..participants(&[1])[0] };
        store.ask(Request::PutParticipant { conversation: conversation_id(9), participant });
        assert_eq!(list(store, 1, None, 10), (vec![(9, 3, 3)], false));
        for (conversation, number) in [(5, 3), (9, 7)] {
            let Request::Mark { mark, .. } = mark(1, number) else { panic!() };
            let mark = crate::model::message::ReadMark { message: id(number), sequence: 1, ..mark };
            let request = Request::Mark { conversation: conversation_id(conversation), mark };
            assert!(matches!(store.ask(request), Reply::Marked { changed: true, .. }));
            let Reply::Marks(marks) = store.ask(Request::ReadMarks { conversation: conversation_id(conversation) }) else {
                panic!()
            };
            assert!(marks.contains(&mark), "{marks:?}");
        }
    });
}

/// The engine keeps rows that were replaced until it merges its tables.
#[test]
fn no_file_has_what_was_erased_once_it_is_compacted() {
    let (mut store, directory) = embedded();
    world(&mut store);
    let files = |what: &[u8]| {
        let (mut folders, mut found) = (vec![directory.path().to_path_buf()], 0);
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
    store.compact().unwrap();
    assert_eq!(files(b"never to be seen again"), 0);
    drop(store);
    let mut store = Embedded::open(directory.path(), &options()).unwrap();
    assert_eq!(files(b"never to be seen again"), 0);
    assert_eq!(messages(&mut store, 5).len(), 4);
}
