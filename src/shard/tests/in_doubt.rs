//! Writes that were given up, whose outcome comes out later.

use std::time::Duration;

use super::harness::*;
use crate::shard::Input;
use crate::store::Failure;

const QUEUE: &str = "/user/queue/messages";
const GIVEN_UP: Duration = Duration::from_millis(900);
const FOUND_OUT: Duration = Duration::from_millis(250);

/// Users 1, 2 and 3 in group 9, with a first message in it.
fn net(shards: u16) -> Net {
    let mut net = Net::new(shards);
    net.conversation(9, &[1, 2, 3]);
    assert_eq!(post(&mut net, "a"), "201 a");
    net
}

fn post(net: &mut Net, content: &str) -> String {
    net.request(1, "POST /conversations/9/messages", &format!(r#"{{"content":"{content}"}}"#))
}

/// The store carries a request out and does not say so, until the server has given it up.
fn give_up(net: &mut Net, user: u64, request: &str, body: &str) {
    net.failing = Some(Failure::Unknown);
    let asked = net.ask(user, request, body);
    net.pass(GIVEN_UP);
    net.check(asked, &["503 store_unavailable"]);
}

fn give_up_message(net: &mut Net) {
    give_up(net, 1, "POST /conversations/9/messages", r#"{"content":"b"}"#);
}

/// Nothing is looked into any more.
fn check_settled(net: &mut Net) {
    net.pass(FOUND_OUT);
    assert!(net.shards.iter().all(|shard| shard.leaves_none(&["writes in doubt"])));
}

#[test]
fn a_message_that_is_stored_after_all_is_delivered() {
    for shards in 1..=3 {
        let mut net = net(shards);
        let topic = net.subscriber(2, &["/topic/conversation/9"]);
        let (queue, other) = (net.subscriber(3, &[QUEUE]), net.subscriber(1, &[QUEUE]));
        give_up_message(&mut net);
        net.pass(Duration::from_secs(5));
        net.check(queue, &[]);
        net.failing = None;
        net.pass(FOUND_OUT);
        net.check(topic, &["MESSAGE 9 b"]);
        net.check(queue, &["MESSAGE messages b"]);
        net.check(other, &["MESSAGE messages b"]);
        check_settled(&mut net);
        assert_eq!(post(&mut net, "c"), "201 c");
        net.check(queue, &["MESSAGE messages c"]);
        let page = net.request(2, "GET /conversations/9/messages", "");
        let contents: Vec<_> = page.split("\"content\":\"").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!((contents, net.pages), (vec!["c", "b", "a"], 1), "what was found is in memory too");
    }
}

/// Nobody gets the later one first, whoever asks first.
#[test]
fn a_message_in_doubt_comes_before_all_that_are_sent_later() {
    let mut net = net(2);
    let (receiver, sender) = (net.subscriber(3, &[QUEUE]), net.subscriber(1, &["/user/queue/errors"]));
    net.failing = Some(Failure::Unknown);
    net.stomp(sender, &[&send(9, "b"), &send(9, "c")]);
    net.pass(GIVEN_UP);
    net.failing = None;
    net.hold_replies();
    net.stomp(sender, &[&send(9, "d")]);
    // The conversation, then what follows the end of its log that was known.
    for _ in 0..2 {
        net.check(receiver, &[]);
        net.release_replies(true);
    }
    net.check(receiver, &["MESSAGE messages b"]);
    net.release_replies(false);
    net.check(receiver, &["MESSAGE messages d"]);
    check_settled(&mut net);
}

/// It was told that the message may not be stored.
#[test]
fn the_session_that_sent_it_hears_of_it_too() {
    let mut net = net(2);
    let sender = net.subscriber(1, &[QUEUE, "/user/queue/errors"]);
    net.failing = Some(Failure::Unknown);
    net.stomp(sender, &[&send(9, "b")]);
    net.pass(GIVEN_UP);
    net.check(sender, &["MESSAGE errors store_unavailable"]);
    net.failing = None;
    net.pass(FOUND_OUT);
    net.check(sender, &["MESSAGE messages b"]);
}

/// Who reads the history at the next node finds it.
#[test]
fn a_shard_that_ends_waits_for_no_doubt() {
    let mut net = net(1);
    give_up_message(&mut net);
    net.drain();
    net.pass(Duration::from_secs(30));
    assert_eq!(net.drained, [0]);
    net.failing = None;
    net.pass(Duration::from_secs(2));
    assert!(!net.shards[0].leaves_none(&["writes in doubt"]));
}

#[test]
fn nothing_is_asked_of_a_store_that_is_known_to_be_away() {
    let mut net = net(1);
    let receiver = net.subscriber(3, &[QUEUE]);
    give_up_message(&mut net);
    net.failing = None;
    net.input(0, Input::StoreReachable { up: false });
    net.pass(Duration::from_secs(2));
    net.check(receiver, &[]);
    net.input(0, Input::StoreReachable { up: true });
    net.pass(FOUND_OUT);
    net.check(receiver, &["MESSAGE messages b"]);
}

#[test]
fn many_doubts_are_looked_into_in_turn() {
    let mut net = Net::with(1, |limits| limits.messages_burst = 150);
    let receiver = net.subscriber(3, &[QUEUE]);
    for id in 100..250 {
        net.failing = None;
        net.conversation(id, &[1, 2, 3]);
        net.request(1, &format!("GET /conversations/{id}"), "");
        net.failing = Some(Failure::Unknown);
        net.ask(1, &format!("POST /conversations/{id}/messages"), r#"{"content":"b"}"#);
    }
    net.pass(GIVEN_UP);
    net.failing = None;
    let mut counts = Vec::new();
    for _ in 0..3 {
        net.pass(FOUND_OUT);
        counts.push(net.heard(receiver).len());
    }
    assert_eq!(counts, [64, 64, 22]);
    check_settled(&mut net);
}

/// The sender repeats it, as it was told: it is one message, which nobody has missed.
#[test]
fn a_repetition_of_a_message_in_doubt_is_a_replay() {
    let mut net = net(1);
    let receiver = net.subscriber(3, &[QUEUE]);
    let body = r#"{"content":"b","clientMessageId":"k"}"#;
    give_up(&mut net, 1, "POST /conversations/9/messages", body);
    net.failing = None;
    assert_eq!(net.request(1, "POST /conversations/9/messages", body), "200 b");
    net.check(receiver, &["MESSAGE messages b"]);
}

#[test]
fn a_store_that_fails_again_settles_nothing() {
    let mut net = net(1);
    let receiver = net.subscriber(3, &[QUEUE]);
    give_up_message(&mut net);
    net.failing = None;
    net.hold_replies();
    let refused = net.ask(1, "POST /conversations/9/messages", r#"{"content":"c"}"#);
    net.failing = Some(Failure::Unavailable);
    // The conversation comes, what follows the end of its log does not.
    net.release_replies(true);
    net.release_replies(true);
    net.check(refused, &["503 store_unavailable"]);
    net.check(receiver, &[]);
    net.failing = None;
    for _ in 0..3 {
        net.pass(FOUND_OUT);
        net.release_replies(true);
        net.release_replies(true);
    }
    net.check(receiver, &["MESSAGE messages b"]);
    check_settled(&mut net);
}

#[test]
fn who_was_added_after_all_gets_what_is_sent() {
    let mut net = net(2);
    let added = net.subscriber(4, &[QUEUE]);
    give_up(&mut net, 1, "POST /conversations/9/participants", r#"{"userId":4}"#);
    // No other change until that is known; nobody waits for long.
    let next = net.ask(1, "POST /conversations/9/participants", r#"{"userId":5}"#);
    net.pass(FOUND_OUT);
    net.check(next, &["503 store_unavailable"]);
    net.failing = None;
    net.pass(FOUND_OUT);
    assert_eq!(post(&mut net, "b"), "201 b");
    net.check(added, &["MESSAGE messages b"]);
    check_settled(&mut net);
    assert_eq!(net.request(1, "POST /conversations/9/participants", r#"{"userId":5}"#), "204");
}

#[test]
fn who_was_removed_after_all_gets_nothing_more() {
    let mut net = net(2);
    let removed = net.subscriber(3, &[QUEUE, "/topic/conversation/9"]);
    give_up(&mut net, 1, "DELETE /conversations/9/participants/3", "");
    net.failing = None;
    net.pass(FOUND_OUT);
    assert_eq!(post(&mut net, "b"), "201 b");
    net.check(removed, &[]);
    check_settled(&mut net);
}
