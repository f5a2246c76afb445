//! Pages of history: one read for many who ask, and never an older answer than the reader may expect.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{Client, Net, member, send};
use crate::model::Limits;
use crate::shard::Input;
use crate::store::Failure;

const NEWEST: &str = "GET /conversations/9/messages";

/// A group of users 1 to 4 with these messages in its log, loaded; no messages are kept in memory.
fn net(texts: &[&str]) -> Net {
    net_with(texts, |limits| limits.recent_messages = 0)
}

fn net_with(texts: &[&str], change: impl FnOnce(&mut Limits)) -> Net {
    let mut net = Net::with(1, change);
    net.conversation(9, &[1, 2, 3, 4]);
    net.request(1, "GET /conversations/9", "");
    for text in texts {
        post(&mut net, text);
    }
    net
}

fn post(net: &mut Net, text: &str) {
    let answer = net.request(1, "POST /conversations/9/messages", &format!(r#"{{"content":"{text}"}}"#));
    assert_eq!(answer, format!("201 {text}"));
}

/// The contents of a page in a line, with `+` behind them when there is more.
fn brief(answer: &str) -> String {
    let Some(page) = answer.strip_prefix("200 ") else { return answer.to_owned() };
    let contents = page.split("\"content\":\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
    let more = if page.contains("\"hasMore\":true") { "+" } else { "" };
    contents.collect::<Vec<_>>().join(" ") + more
}

fn page(net: &mut Net, user: u64, query: &str) -> String {
    brief(&net.request(user, &format!("{NEWEST}{query}"), ""))
}

fn heard(net: &mut Net, clients: &[Client]) -> Vec<String> {
    clients.iter().flat_map(|client| net.heard(*client)).map(|answer| brief(&answer)).collect()
}

#[test]
fn equal_pages_are_read_once_and_others_for_themselves() {
    let mut net = net(&["a", "b", "c"]);
    net.hold_store();
    let alike = [1, 2, 3].map(|user| net.ask(user, NEWEST, ""));
    let other = net.ask(2, &format!("{NEWEST}?limit=2"), "");
    // Permission is each one's own.
    assert_eq!(net.request(7, NEWEST, ""), "403 not_participant");
    net.release_store();
    assert_eq!(heard(&mut net, &alike), ["c b a"; 3]);
    assert_eq!(heard(&mut net, &[other]), ["c b+"]);
    assert_eq!(net.pages, 2);
    page(&mut net, 1, "");
    assert_eq!(net.pages, 3, "what was read is not kept");
}

/// The read had been carried out before the message was stored: who was told of the message, or may have been, must not
/// be answered by it.
#[test]
fn a_read_answers_nobody_who_may_know_of_a_later_message() {
    let mut net = net(&["a"]);
    net.hold_replies();
    let early = [net.ask(2, NEWEST, ""), net.ask(3, NEWEST, "")];
    let sender = net.client(1);
    net.stomp(sender, &[&send(9, "b")]);
    // The message is stored and nobody was told yet.
    let between = [net.ask(2, NEWEST, ""), net.ask(4, NEWEST, "")];
    net.release_replies(false);
    net.check(sender, &["RECEIPT b"]);
    let late = [net.ask(1, NEWEST, ""), net.ask(3, NEWEST, "")];
    assert_eq!(net.pages, 1);
    net.release_replies(true);
    assert_eq!(heard(&mut net, &early), ["a"; 2]);
    assert_eq!(heard(&mut net, &between), [""; 0]);
    assert_eq!(net.pages, 2);
    // Nothing was stored since the second one began.
    let last = net.ask(4, NEWEST, "");
    net.release_replies(true);
    assert_eq!(heard(&mut net, &[&between[..], &late, &[last]].concat()), ["b a"; 5]);
    assert_eq!(net.pages, 2);
}

#[test]
fn who_waits_for_the_next_read_and_leaves_is_told_nothing() {
    let mut net = net(&["a"]);
    net.hold_store();
    let early = net.ask(2, NEWEST, "");
    let sender = net.client(1);
    net.stomp(sender, &[&send(9, "b")]);
    let waiting = [net.ask(3, NEWEST, ""), net.ask(4, NEWEST, "")];
    // Removing 3 is carried out before the first read comes back.
    net.hold_replies();
    net.release_store();
    let removal = net.ask(1, "DELETE /conversations/9/participants/3", "");
    net.release_replies(false);
    net.check(removal, &["204"]);
    net.release_replies(true);
    net.release_replies(true);
    assert_eq!(heard(&mut net, &[early]).len(), 1);
    assert_eq!(heard(&mut net, &waiting), ["403 not_participant", "b a"]);
}

#[test]
fn all_who_wait_hear_of_a_failure_at_once() {
    let mut net = net(&["a"]);
    net.hold_store();
    let early = net.ask(2, NEWEST, "");
    net.ask(1, "POST /conversations/9/messages", r#"{"content":"b"}"#);
    let waiting = net.ask(3, NEWEST, "");
    net.failing = Some(Failure::Unavailable);
    net.release_store();
    assert_eq!(heard(&mut net, &[early, waiting]), ["503 store_unavailable"; 2]);
    assert_eq!(net.pages, 1);
    net.failing = None;
    assert_eq!(page(&mut net, 3, ""), "a");
}

/// The append fails for good while readers wait behind it: the conversation is loaded again first.
#[test]
fn readers_behind_a_failed_append_read_once_the_conversation_is_known_again() {
    let mut net = net(&["a"]);
    net.hold_replies();
    let early = net.ask(2, NEWEST, "");
    net.failing = Some(Failure::Busy);
    let failed = net.ask(1, "POST /conversations/9/messages", r#"{"content":"b"}"#);
    net.failing = None;
    let waiting = [net.ask(3, NEWEST, ""), net.ask(4, NEWEST, "")];
    net.release_replies(false);
    net.check(failed, &["503 store_busy"]);
    for _ in 0..3 {
        net.release_replies(true);
    }
    assert_eq!(heard(&mut net, &[early, waiting[0], waiting[1]]), ["a"; 3]);
    assert_eq!(net.pages, 2);
}

#[test]
fn who_waits_for_pages_is_bounded() {
    let mut net = net_with(&["a"], |limits| (limits.recent_messages, limits.store_inflight) = (0, 3));
    net.hold_store();
    let first = [1, 2, 3].map(|user| net.ask(user, NEWEST, ""));
    assert_eq!(page(&mut net, 4, ""), "503 store_busy");
    net.release_store();
    assert_eq!(heard(&mut net, &first), ["a"; 3]);
    // All places are free again.
    net.hold_store();
    let again = [1, 2, 3].map(|user| net.ask(user, NEWEST, ""));
    net.release_store();
    assert_eq!(heard(&mut net, &again), ["a"; 3]);
    assert_eq!(net.pages, 2);
}

#[test]
fn the_newest_page_comes_from_memory_and_older_ones_from_the_store() {
    let mut net = net_with(&["a", "b", "c", "d", "e"], |limits| limits.recent_messages = 3);
    let whole = net.request(2, NEWEST, "");
    assert_eq!((brief(&whole), net.pages), ("e d c b a".to_owned(), 1), "two of them are only in the store");
    assert_eq!(page(&mut net, 3, "?limit=3"), "e d c+");
    assert_eq!(page(&mut net, 3, "?limit=1"), "e+");
    assert_eq!(net.request(7, &format!("{NEWEST}?limit=1"), ""), "403 not_participant");
    let ids: Vec<&str> = whole.split("\"id\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let [e, d, c, b, _] = ids[..] else { panic!("{ids:?}") };
    assert_eq!(page(&mut net, 3, &format!("?cursor={e}&limit=2")), "d c+");
    assert_eq!(page(&mut net, 3, &format!("?after={c}")), "d e");
    assert_eq!(page(&mut net, 3, &format!("?after={c}&limit=1")), "d+");
    assert_eq!(page(&mut net, 3, &format!("?after={e}")), "");
    assert_eq!(net.pages, 1, "all of these are in memory");
    assert_eq!(page(&mut net, 3, &format!("?cursor={d}&limit=2")), "c b+");
    assert_eq!(page(&mut net, 3, &format!("?after={b}")), "c d e");
    assert_eq!(net.pages, 3);
}

#[test]
fn a_page_from_memory_is_word_for_word_the_stores() {
    let texts = ["a", "b", "c"];
    let (mut with, mut without) = (net_with(&texts, |_| ()), net(&texts));
    for query in ["", "?limit=2", "?limit=3", "?limit=4"] {
        let [from_memory, from_store] = [&mut with, &mut without].map(|net| net.request(2, &format!("{NEWEST}{query}"), ""));
        assert_eq!(from_memory, from_store);
    }
    assert_eq!((with.pages, without.pages), (0, 4));
}

/// After a start, or where nothing was sent for long, the first reader fetches the page for all.
#[test]
fn what_one_has_read_is_there_for_the_next() {
    let mut net = net_with(&["a", "b", "c"], |limits| limits.recent_messages = 2);
    assert_eq!(page(&mut net, 2, ""), "c b a");
    net.shards[0].conversations.forget_recent(50, usize::MAX);
    assert_eq!((page(&mut net, 2, "?limit=2"), net.pages), ("c b+".to_owned(), 2));
    assert_eq!((page(&mut net, 3, "?limit=2"), net.pages), ("c b+".to_owned(), 2));
    assert_eq!((page(&mut net, 3, ""), net.pages), ("c b a".to_owned(), 3));
    post(&mut net, "d");
    assert_eq!((page(&mut net, 4, ""), net.pages), ("d c b a".to_owned(), 3));
}

/// A message that is stored, or may be, before anybody was told: what the store has said since must not be taken back.
#[test]
fn memory_is_silent_while_an_append_is_under_way() {
    let mut net = net_with(&["a"], |_| ());
    let sender = net.client(1);
    net.failing = Some(Failure::Unknown);
    net.say(sender, &send(9, "b"), &[]);
    net.failing = None;
    assert_eq!((page(&mut net, 2, ""), net.pages), ("b a".to_owned(), 1));
    assert_eq!((page(&mut net, 3, ""), net.pages), ("b a".to_owned(), 2));
    net.pass(Duration::from_millis(100));
    net.check(sender, &["RECEIPT b"]);
    assert_eq!((page(&mut net, 3, ""), net.pages), ("b a".to_owned(), 2));
}

/// The message was stored and its sender told that this is not known.
#[test]
fn an_append_that_was_given_up_is_found_all_the_same() {
    let mut net = net_with(&["a", "b"], |_| ());
    net.failing = Some(Failure::Unknown);
    let failed = net.ask(1, "POST /conversations/9/messages", r#"{"content":"c"}"#);
    net.pass(Duration::from_secs(2));
    net.check(failed, &["503 store_unavailable"]);
    net.failing = None;
    // What became of it is read, and the page, which does not wait for that.
    assert_eq!((page(&mut net, 2, ""), net.pages), ("c b a".to_owned(), 2));
    post(&mut net, "d");
    assert_eq!((page(&mut net, 2, ""), net.pages), ("d c b a".to_owned(), 2));
}

/// Whether they are still there, the store knows.
#[test]
fn old_messages_are_not_told_from_memory() {
    let mut net = net_with(&["a", "b"], |_| ());
    Arc::get_mut(&mut net.shards[0].turn.policy).unwrap().retention = Some(Duration::from_secs(60));
    assert_eq!((page(&mut net, 2, ""), net.pages), ("b a".to_owned(), 0));
    net.pass(Duration::from_secs(60));
    post(&mut net, "c");
    assert_eq!((page(&mut net, 2, "?limit=1"), net.pages), ("c+".to_owned(), 0));
    assert_eq!((page(&mut net, 2, ""), net.pages), ("c b a".to_owned(), 1));
}

/// What is certainly not stored leaves no trace, and what is in memory stays right.
#[test]
fn an_append_that_failed_changes_no_page() {
    let mut net = net_with(&["a", "b"], |_| ());
    net.failing = Some(Failure::Busy);
    assert_eq!(net.request(1, "POST /conversations/9/messages", r#"{"content":"c"}"#), "503 store_busy");
    net.failing = None;
    assert_eq!((page(&mut net, 2, ""), net.pages), ("b a".to_owned(), 0));
}

#[test]
fn a_repeated_send_is_one_message_in_memory() {
    let mut net = net_with(&["a"], |_| ());
    for status in ["201", "200"] {
        let body = r#"{"content":"b","clientMessageId":"k"}"#;
        assert_eq!(net.request(1, "POST /conversations/9/messages", body), format!("{status} b"));
    }
    let answer = net.request(2, NEWEST, "");
    assert_eq!((brief(&answer), net.pages), ("b a".to_owned(), 0));
    assert_eq!(member(&answer, "clientMessageId"), Some("k"));
}

/// As reads of anything else: who cannot be told what is new is told so.
#[test]
fn a_failing_store_is_not_hidden_by_memory() {
    let mut net = net_with(&["a"], |_| ());
    net.input(0, Input::StoreReachable { up: false });
    net.failing = Some(Failure::Unavailable);
    assert_eq!(page(&mut net, 2, ""), "503 store_unavailable");
    net.failing = None;
    assert_eq!((page(&mut net, 2, ""), net.pages), ("a".to_owned(), 2));
    assert_eq!((page(&mut net, 2, ""), net.pages), ("a".to_owned(), 2));
}

/// The conversation itself was pushed out of memory and loaded again: its messages still end where its log does.
#[test]
fn messages_in_memory_outlive_their_conversation_there() {
    let mut net = net_with(&["a", "b"], |limits| limits.conversations_cached = 1);
    for id in 10..14 {
        net.conversation(id, &[1, 2]);
        net.request(1, &format!("GET /conversations/{id}"), "");
    }
    assert_eq!((page(&mut net, 2, ""), net.pages), ("b a".to_owned(), 0));
}

#[test]
fn who_waits_behind_an_append_is_answered_from_memory_afterwards() {
    let mut net = net_with(&["a"], |_| ());
    net.hold_replies();
    net.ask(1, "POST /conversations/9/messages", r#"{"content":"b"}"#);
    let waiting = [2, 3, 4].map(|user| net.ask(user, NEWEST, ""));
    net.release_replies(false);
    net.release_replies(true);
    assert_eq!(heard(&mut net, &waiting), ["b a"; 3]);
    assert_eq!(net.pages, 1);
}
