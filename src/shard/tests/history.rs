//! Pages of history: one read for many who ask, and never an older answer than the reader may expect.

use super::harness::{Client, Net, send};
use crate::store::Failure;

const NEWEST: &str = "GET /conversations/9/messages";

/// A group of users 1 to 4 with these messages in its log, loaded.
fn net(texts: &[&str]) -> Net {
    net_with(texts, |_| ())
}

fn net_with(texts: &[&str], change: impl FnOnce(&mut crate::model::Limits)) -> Net {
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
    let mut net = net_with(&["a"], |limits| limits.store_inflight = 3);
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
