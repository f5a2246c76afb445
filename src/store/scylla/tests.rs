//! What only a real server can show. Like the conformance tests on a server, these are ignored unless they are asked for, and
//! need `TIDINGS_CQL`.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use scylla::statement::batch::{Batch, BatchType};

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, Draft, Head, Message, Participant, ParticipantRole, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::{FamilyId, PutCode, PutRefresh};
use crate::store::conformance::server::{self, OnServer};
use crate::store::conversations::{CreateConversation, LoadConversation, PutParticipant, ReadConversation, RemoveParticipant};
use crate::store::log::{
    Append, AppendAnswer, Appended, FindMessage, ListReadMarks, Messages, NewMessage, ReadAfter, ReadBefore, SetReadMark,
};
use crate::store::{Call, Failure};

use super::values::{bigint, message_id, timeuuid};
use super::{Connected, Scylla};

/// 2026-01-01, in seconds.
const START: u64 = 1_767_225_600;

fn conversation() -> ConversationId {
    ConversationId::new(7).unwrap()
}

fn user(value: u64) -> UserId {
    UserId::new(value).unwrap()
}

/// Seconds after the start.
fn at(seconds: u64) -> Wall {
    Wall::from_unix_seconds(START + seconds)
}

fn id(seconds: u64) -> MessageId {
    MessageId::from_parts(at(seconds), 0, 0)
}

fn new(id: MessageId, content: &str, client_id: Option<&str>) -> NewMessage {
    let draft = Draft { content: content.into(), client_id: client_id.map(Box::from), headers: Vec::new() };
    NewMessage { id, sender: user(1), draft }
}

fn append(messages: Vec<NewMessage>, now: Wall) -> Append {
    let keys_expire = now.after(Duration::from_secs(86_400));
    Append { conversation: conversation(), head: Head::default(), messages, keys_expire, now }
}

async fn try_ask<C: Call>(store: &Rc<Scylla>, call: C) -> Result<C::Answer, Failure> {
    C::answer(store.ask(call.into(), pending()).await)
}

async fn ask<C: Call>(store: &Rc<Scylla>, call: C) -> C::Answer {
    try_ask(store, call).await.expect("the store works")
}

/// A group of users 1 and 2.
async fn create(store: &Rc<Scylla>) {
    let participant = |value| Participant { user: user(value), role: ParticipantRole::Member, joined_at: at(0) };
    let conversation = Conversation {
        id: conversation(),
        kind: ConversationKind::Group,
        title: None,
        created_by: user(1),
        created_at: at(0),
        participants: vec![participant(1), participant(2)],
    };
    assert!(ask(store, CreateConversation { conversation }).await.created);
}

async fn history(store: &Rc<Scylla>) -> Vec<std::sync::Arc<Message>> {
    let request = ReadAfter { conversation: conversation(), after: MessageId::MIN, limit: u16::MAX };
    let Some(Messages { messages, more: false }) = ask(store, request).await else { panic!() };
    messages
}

fn with_server(test: impl AsyncFnOnce(&OnServer)) {
    let server = server::open();
    server.runtime.block_on(test(&server));
}

/// Another node's view of the same keyspace.
async fn second(server: &OnServer) -> Rc<Scylla> {
    Rc::new(Scylla::new(server.options.clone(), Connected::open(&server.options).await.unwrap()))
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn a_million_random_ids_are_ordered_as_the_database_orders_them() {
    const PARTITIONS: i32 = 100;
    const IDS: usize = 10_000;
    with_server(async |server| {
        let work = server.store.work();
        let (session, statements) = (&work.connected.session, &work.connected.statements);
        let mut numbers = Numbers(1);
        for bucket in 0..PARTITIONS {
            let mut ids: Vec<MessageId> = (0..IDS)
                .map(|_| {
                    // Few times, so that the low halves decide as often as the times do.
                    let time = (numbers.next() & 0xFF) << (numbers.next() % 52);
                    let uuid = u128::from(time & 0xFFFF_FFFF) << 96
                        | u128::from(time >> 32 & 0xFFFF) << 80
                        | u128::from(time >> 48 & 0x0FFF | 0x1000) << 64
                        | u128::from(numbers.next() >> 2 | 0x8000_0000_0000_0000);
                    MessageId::from_uuid(uuid).unwrap()
                })
                .collect();
            let parts = ids.chunks(200).map(async |part| {
                let rows = part.iter().map(|id| (1_i64, bucket, timeuuid(*id), 1_i64, 1_i64, 1_i64));
                let insert = "INSERT INTO messages (conversation_id, bucket, id, sender_id, sequence) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?";
                let prepared = session.prepare(insert).await.unwrap();
                let batch = Batch::new_with_statements(BatchType::Unlogged, vec![prepared.into(); part.len()]);
                session.batch(&batch, rows.collect::<Vec<_>>()).await.unwrap();
            });
            join_all(parts).await;
            let select = "SELECT id FROM messages WHERE conversation_id = 1 AND bucket = ?";
            let found = session.query_unpaged(select, (bucket,)).await.unwrap().into_rows_result().unwrap();
            let found: Vec<_> =
                found.rows::<(scylla::value::CqlTimeuuid,)>().unwrap().map(|row| message_id(row.unwrap().0).unwrap()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.reverse();
            assert!(found == ids, "bucket {bucket}");
        }
        assert!(statements.put_message.prepared.is_token_aware());
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn pages_over_buckets_while_others_write_have_no_gap_and_no_duplicate() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        // Buckets of five seconds: one to three messages in each, and an empty stretch.
        let times: Vec<u64> = (0..60).map(|number| number * 3 + if number > 30 { 400 } else { 0 }).collect();
        for time in &times {
            assert!(ask(store, append(vec![new(id(*time), "text", None)], at(*time))).await.is_some());
        }
        // A reader that remembers nothing, and a writer that goes on meanwhile.
        let reader = second(server).await;
        let last = *times.last().unwrap();
        let writer = async {
            for number in 1..=60 {
                ask(store, append(vec![new(id(last + number), "text", None)], at(last + number))).await;
            }
        };
        let read = async {
            let (mut after, mut seen) = (MessageId::MIN, Vec::new());
            while seen.len() < 120 {
                let request = ReadAfter { conversation: conversation(), after, limit: 7 };
                let Messages { messages, .. } = ask(&reader, request).await.unwrap();
                after = messages.last().map_or(after, |message| message.id);
                seen.extend(messages);
            }
            seen
        };
        let (forward, ()) = tokio::join!(read, writer);
        for (number, (message, before)) in forward.iter().skip(1).zip(&forward).enumerate() {
            assert_eq!((message.prev, message.sequence), (Some(before.id), number as u64 + 2));
        }
        for limit in [1, 7, 50, 200] {
            let (mut before, mut seen) = (MessageId::MAX, Vec::new());
            loop {
                let request = ReadBefore { conversation: conversation(), before, limit };
                let Messages { messages, more } = ask(&reader, request).await.unwrap();
                before = messages.last().map_or(before, |message| message.id);
                seen.extend(messages.iter().map(|message| message.id));
                if !more {
                    break;
                }
            }
            assert!(seen.iter().eq(forward.iter().rev().map(|message| &message.id)), "limit {limit}");
        }
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn an_append_over_buckets_is_stored_from_its_beginning() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        let messages: Vec<_> = (0..40).map(|number| new(id(number), "text", None)).collect();
        let answer = ask(store, append(messages, at(40))).await.unwrap();
        assert_eq!(answer.head.sequence, 40);
        assert_eq!(history(store).await.len(), 40);
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn one_client_id_from_two_nodes_at_once_stores_one_message() {
    with_server(async |server| {
        let (first, other) = (&server.store, second(server).await);
        create(first).await;
        for round in 0..20 {
            let key = format!("key {round}");
            let send = async |store: &Rc<Scylla>, number: u64| {
                let message = new(id(round * 10 + number), "text", Some(&key));
                loop {
                    match try_ask(store, append(vec![message.clone()], at(round * 10 + number))).await {
                        Ok(answer) => return answer.unwrap().results.into_iter().next().unwrap(),
                        // The other one has the key and is about to store its message; or is ahead, as nothing but a lease
                        // keeps two nodes from writing to one conversation: as a shard does, ask anew.
                        Err(Failure::Unknown) => {}
                        Err(Failure::Unavailable) => {
                            ask(store, ReadConversation { conversation: conversation() }).await;
                            let message = new(id(round * 10 + number + 5), "text", Some(&key));
                            let again = append(vec![message], at(round * 10 + number));
                            if let Ok(Some(answer)) = try_ask(store, again).await {
                                return answer.results.into_iter().next().unwrap();
                            }
                        }
                        Err(Failure::Busy) => panic!("too many requests are under way"),
                    }
                }
            };
            let results = tokio::join!(send(first, 1), send(&other, 2));
            let stored = |result: &Appended| match result {
                Appended::Stored(message) | Appended::Replay(message) => message.id,
                Appended::KeyReused => panic!("the content is the same"),
            };
            assert_eq!(stored(&results.0), stored(&results.1), "round {round}");
            let count = history(first).await.iter().filter(|message| message.client_id.as_deref() == Some(&*key)).count();
            assert_eq!(count, 1, "round {round}");
        }
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn a_key_without_its_message_is_taken_over_in_time() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        let work = store.work();
        // As a crash between the two steps of an append leaves it.
        let claim = (bigint(7), bigint(1), "k", timeuuid(id(100)), bigint(at(1_000_000).0), 3_600_i32);
        assert!(work.decide(&work.connected.statements.claim_key, claim).await.unwrap());
        work.prepare(&work.connected.statements.put_index, (timeuuid(id(100)), bigint(7), 0_i32)).await.unwrap();
        assert_eq!(ask(store, FindMessage { message: id(100) }).await, None);
        let again = |seconds| append(vec![new(id(seconds), "text", Some("k"))], at(seconds));
        assert_eq!(try_ask(store, again(101)).await, Err(Failure::Unknown));
        assert!(ask(store, again(104)).await.is_some());
        // What the crash left on its way arrives at last: too late.
        let bucket = super::known::Buckets::new(5).unwrap().of(id(100));
        let late = (7_i64, bucket, timeuuid(id(100)), 1_i64, 1_i64, super::values::write_time(id(100)));
        let insert = "INSERT INTO messages (conversation_id, bucket, id, sender_id, sequence, content) \
                      VALUES (?, ?, ?, ?, ?, 'late') USING TIMESTAMP ?";
        work.connected.session.query_unpaged(insert, late).await.unwrap();
        let stored: Vec<_> = history(store).await.iter().map(|message| message.id).collect();
        assert_eq!(stored, [id(104)]);
        assert!(ask(store, FindMessage { message: id(104) }).await.is_some());
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn what_was_given_up_is_settled_before_the_conversation_goes_on() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        ask(store, append(vec![new(id(1), "one", None)], at(1))).await;
        // Given up at once, at every stage that an append can have come to.
        for round in 0..12 {
            let (base, key) = (100 * (round + 1), format!("key {round}"));
            let count =
                async || history(store).await.iter().filter(|message| message.client_id.as_deref() == Some(&*key)).count();
            let request = append(vec![new(id(base), "lost?", Some(&key))], at(base));
            let given_up = tokio::time::sleep(Duration::from_micros(300) * round as u32);
            let is_known = match Append::answer(store.ask(request.into(), given_up).await) {
                Ok(answer) => answer.is_some(),
                Err(failure) => {
                    assert_eq!(failure, Failure::Unknown);
                    false
                }
            };
            let load = LoadConversation { conversation: conversation() };
            let state = ask(store, load).await.unwrap();
            assert!(!is_known || state.head.last == Some(id(base)));
            // Time for what is on its way to arrive.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let messages = history(store).await;
            assert_eq!(messages.last().map(|message| message.id), state.head.last, "round {round}");
            for (number, message) in messages.iter().enumerate() {
                assert_eq!(message.sequence, number as u64 + 1);
                assert_eq!(message.prev, number.checked_sub(1).map(|before| messages[before].id));
            }
            // The client sends it once more, under a new id: there is one in the end.
            let again = append(vec![new(id(base + 10), "lost?", Some(&key))], at(base + 10));
            assert!(ask(store, again).await.is_some(), "round {round}");
            assert_eq!(count().await, 1, "round {round}");
        }
    });
}

/// A removal that nobody heard of may yet be carried out: what it was for counts no more, whenever it comes up.
#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn what_is_being_removed_does_not_come_back() {
    with_server(async |server| {
        let (store, late) = (&server.store, second(server).await);
        create(store).await;
        let messages = || vec![new(id(100), "one", None), new(id(101), "two", Some("key"))];
        store.conversations.borrow_mut().doubt(conversation(), &messages());
        store.conversations.borrow_mut().condemn(conversation(), id(100));
        assert!(ask(&late, append(messages(), at(100))).await.is_some());
        let load = LoadConversation { conversation: conversation() };
        let state = ask(store, load).await.unwrap();
        assert_eq!(state.head, Head::default(), "nor does the sender's mark tell of them");
        store.forget();
        let results = ask(store, append(vec![new(id(110), "two", Some("key"))], at(110))).await.unwrap().results;
        let [Appended::Stored(message)] = &results[..] else { panic!("{results:?}") };
        assert_eq!((message.prev, message.sequence), (None, 1));
        assert_eq!(history(store).await.iter().map(|message| message.id).collect::<Vec<_>>(), [id(110)]);
    });
}

/// Somebody asks who takes part, and the shard has yet to repeat its append.
#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn a_look_at_a_conversation_decides_nothing() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        for round in 0..12 {
            let base = 100 * (round + 1);
            let request = append(vec![new(id(base), "text", Some(&format!("key {round}")))], at(base));
            let given_up = tokio::time::sleep(Duration::from_micros(300) * round as u32);
            store.ask(request.clone().into(), given_up).await;
            ask(store, ReadConversation { conversation: conversation() }).await;
            let AppendAnswer { results, head } = ask(store, request).await.unwrap();
            assert!(matches!(&results[..], [Appended::Stored(message)] if message.id == id(base)), "round {round}: {results:?}");
            let messages = history(store).await;
            assert_eq!(messages.last().map(|message| message.id), head.last, "round {round}");
            assert_eq!(messages.len() as u64, round + 1);
        }
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn the_greatest_mark_stays_in_whatever_order_marks_arrive() {
    with_server(async |server| {
        let (store, other) = (&server.store, second(server).await);
        create(store).await;
        for number in 1..=30 {
            // Three within one microsecond, where the time of the write does not tell them apart.
            let message = new(MessageId::from_parts(Wall(at(1).0 + number), 0, 0), "text", None);
            ask(store, append(vec![message], at(1))).await;
        }
        let messages = history(store).await;
        let mark = |number: usize| ReadMark { user: user(2), message: messages[number].id, sequence: messages[number].sequence };
        let work = [store.work(), other.work()];
        let orders = (0..30).map(|number| work[number % 2].put_mark(conversation(), 0, mark(number * 7 % 30)));
        join_all(orders).await.into_iter().collect::<Result<(), _>>().unwrap();
        let marks = ask(store, ListReadMarks { conversation: conversation() }).await.unwrap();
        assert_eq!(marks.last(), Some(&mark(29)));
        // Who leaves and comes back begins anew, and no mark of the earlier stay is in the way.
        let participant = Participant { user: user(2), role: ParticipantRole::Member, joined_at: at(100) };
        ask(store, RemoveParticipant { conversation: conversation(), user: user(2) }).await;
        ask(store, PutParticipant { conversation: conversation(), participant }).await;
        assert!(ask(store, SetReadMark { conversation: conversation(), mark: mark(3) }).await.unwrap().changed);
        let marks = ask(store, ListReadMarks { conversation: conversation() }).await.unwrap();
        assert_eq!(marks.last(), Some(&mark(3)));
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn rows_with_an_end_are_removed_by_the_database() {
    with_server(async |server| {
        let store = &server.store;
        create(store).await;
        ask(store, append(vec![new(id(1), "text", Some("k"))], at(1))).await;
        ask(store, PutCode { login: "a".into(), code: [1; 32], now: at(1), expires: at(301), per_hour: 5 }).await;
        let family = FamilyId(1);
        let (token, expires) = ([2; 32], at(1_000));
        ask(store, PutRefresh { token, user: user(1), family, now: at(0), expires }).await;
        let session = &store.work().connected.session;
        for (query, expect) in [
            ("SELECT TTL(expires) FROM message_keys", 86_400 + 3_600),
            ("SELECT TTL(version) FROM one_time_codes", 3_600 + 3_600),
            ("SELECT TTL(expires) FROM refresh_tokens", 1_000 + 3_600),
            ("SELECT TTL(user_id) FROM refresh_families", 1_000 + 3_600),
        ] {
            let result = session.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap();
            let (seconds,) = result.single_row::<(i32,)>().unwrap();
            assert!((expect - 120..=expect).contains(&seconds), "{query}: {seconds}");
        }
    });
}

#[test]
#[ignore = "needs a CQL server in TIDINGS_CQL: tests/run cql"]
fn a_migration_that_was_done_does_nothing_and_epochs_are_given_once() {
    with_server(async |server| {
        let needed = super::schema::VERSION;
        assert_eq!(super::migrate(&server.options).await.unwrap(), (needed, needed));
        let other = second(server).await;
        let epochs = tokio::join!(server.store.next_epoch(3), other.next_epoch(3));
        let mut epochs = [epochs.0.unwrap(), epochs.1.unwrap(), server.store.next_epoch(3).await.unwrap()];
        epochs.sort_unstable();
        assert_eq!(epochs, [1, 2, 3]);
    });
}
