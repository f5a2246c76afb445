//! Who hears of a message: topics, groups, blocks, read marks, announcements, and how much one may send.

use std::time::Duration;

use super::harness::{Net, binary_packet, http, member, send, user_on};
use crate::protocol::websocket::Kind;

const MESSAGES: &str = "/user/queue/messages";

#[test]
fn every_session_of_every_participant_hears_on_any_number_of_shards() {
    for shards in [1, 2, 5] {
        let mut net = Net::new(shards);
        net.conversation(9, &[1, 2, 3, 4]);
        let sender = net.client(1);
        let receivers: Vec<_> = [1, 2, 2, 3, 4].map(|user| net.subscriber(user, &[MESSAGES])).into();
        let outsider = net.subscriber(5, &[MESSAGES]);
        net.say(sender, &send(9, "a"), &["RECEIPT a"]);
        for receiver in receivers {
            net.check(receiver, &["MESSAGE messages a"]);
        }
        net.check(outsider, &[]);
    }
}

#[test]
fn a_topic_includes_the_sender_and_excludes_who_was_removed() {
    let mut net = Net::new(3);
    net.conversation(9, &[1, 2, 3]);
    let topic = "/topic/conversation/9";
    let (one, two) = (net.subscriber(1, &[topic]), net.subscriber(2, &[topic, MESSAGES]));
    let three = net.subscriber(3, &[topic, "/topic/conversation/*"]);
    net.stomp(one, &[&send(9, "a")]);
    let mut heard = net.heard(one);
    heard.sort();
    assert_eq!(heard, ["MESSAGE 9 a", "RECEIPT a"]);
    net.check(two, &["MESSAGE 9 a", "MESSAGE messages a"]);
    net.check(three, &["MESSAGE 9 a", "MESSAGE * a"]);
    assert_eq!(net.request(1, "DELETE /conversations/9/participants/2", ""), "204");
    assert_eq!(net.request(3, "POST /conversations/9/leave", ""), "204");
    net.stomp(one, &[&send(9, "b")]);
    assert!(net.heard(one).contains(&"MESSAGE 9 b".to_owned()));
    net.check(two, &[]);
    net.check(three, &[]);
}

#[test]
fn groups_are_changed_by_their_admins() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2, 3]);
    net.conversation(10, &[1, 2]);
    let add = r#"{"userId":4}"#;
    assert_eq!(net.request(2, "POST /conversations/9/participants", add), "403 forbidden");
    assert_eq!(net.request(4, "POST /conversations/9/participants", add), "403 not_participant");
    assert_eq!(net.request(1, "POST /conversations/10/participants", add), "409 conflict");
    let four = net.subscriber(4, &[MESSAGES]);
    assert_eq!(net.request(1, "POST /conversations/9/participants", add), "204");
    net.request(2, "POST /conversations/9/messages", r#"{"content":"a"}"#);
    net.check(four, &["MESSAGE messages a"]);
    assert_eq!(net.request(2, "DELETE /conversations/9/participants/4", ""), "403 forbidden");
    assert_eq!(net.request(1, "PUT /conversations/9/participants/me", r#"{"role":"member"}"#), "409 conflict");
    assert_eq!(net.request(1, "PUT /conversations/9/participants/2", r#"{"role":"admin"}"#), "204");
    assert_eq!(net.request(2, "DELETE /conversations/9/participants/4", ""), "204");
    net.request(2, "POST /conversations/9/messages", r#"{"content":"b"}"#);
    net.check(four, &[]);
    assert_eq!(net.request(4, "GET /conversations/9/messages", ""), "403 not_participant");
    assert_eq!(net.request(4, "GET /conversations/77/messages", ""), "403 not_participant");
}

#[test]
fn a_pair_has_one_conversation() {
    let mut net = Net::new(2);
    let first = net.request(1, "POST /conversations", r#"{"participants":[2]}"#);
    assert!(first.starts_with("201 "), "{first}");
    let again = net.request(2, "POST /conversations", r#"{"participants":[1]}"#);
    assert_eq!(again, first.replacen("201", "200", 1));
}

#[test]
fn a_block_stops_both_ways_and_both_doors() {
    let mut net = Net::new(3);
    net.conversation(10, &[1, 2]);
    let (one, two) = (net.subscriber(1, &["/user/queue/errors"]), net.subscriber(2, &["/user/queue/errors"]));
    net.say(one, &send(10, "a"), &["RECEIPT a"]);
    assert_eq!(net.request(2, "PUT /users/1/block", ""), "204");
    net.say(one, &send(10, "b"), &["MESSAGE errors blocked"]);
    net.say(two, &send(10, "b"), &["MESSAGE errors blocked"]);
    assert_eq!(net.request(1, "POST /conversations/10/messages", r#"{"content":"b"}"#), "403 blocked");
    assert_eq!(net.request(2, "DELETE /users/1/block", ""), "204");
    net.say(one, &send(10, "c"), &["RECEIPT c"]);
}

#[test]
fn read_marks_are_told_to_the_others_once() {
    for shards in [1, 3] {
        let mut net = Net::new(shards);
        net.conversation(9, &[1, 2]);
        let one = net.subscriber(1, &["/user/queue/receipts"]);
        let two = net.subscriber(2, &["/user/queue/receipts"]);
        let token = net.token(1);
        let client = net.open(0);
        net.write(
            client,
            http("POST /conversations/9/messages", &format!("Authorization: Bearer {token}\r\n"), r#"{"content":"a"}"#),
        );
        let id = member(&net.raw(client), "id").unwrap().to_owned();
        for header in ["conversation-id:9\n", ""] {
            net.say(two, &format!("SEND\ndestination:/app/messages/{id}/read\n{header}receipt:r\n\n"), &["RECEIPT r"]);
        }
        let told = format!("MESSAGE receipts {{\"type\":\"read\",\"conversationId\":9,\"messageId\":\"{id}\",\"userId\":2}}");
        net.check(one, &[&told]);
        assert!(net.request(2, &format!("POST /conversations/9/messages/{id}/read"), "").starts_with("200 "));
        assert_eq!(net.request(3, &format!("POST /messages/{id}/read"), ""), "403 not_participant");
        net.check(one, &[]);
        net.check(two, &[]);
    }
}

#[test]
fn announcements_are_an_admins_and_keep_their_bytes() {
    let mut net = Net::new(2);
    let (one, two) =
        (net.subscriber(user_on(0, 2, 0), &["/topic/announcements"]), net.subscriber(user_on(1, 2, 0), &["/topic/*"]));
    let admin = net.token_with(5, Duration::from_secs(60), &["admin"], None);
    let admin = net.client_with(&admin);
    net.say(admin, "SEND\ndestination:/topic/announcements\nreceipt:r\n\nhello", &["RECEIPT r"]);
    net.check(one, &["MESSAGE announcements hello"]);
    net.check(two, &["MESSAGE * hello"]);
    let binary = b"SEND\ndestination:/app/announcements\ncontent-length:3\n\n\xff\0\x01\0";
    net.write(admin, binary_packet(Kind::Binary, binary));
    net.check(one, &["MESSAGE announcements \u{fffd}\0\u{1} in binary"]);
}

#[test]
fn one_budget_for_all_sessions_and_both_doors() {
    let mut net = Net::with(2, |limits| (limits.messages_per_minute, limits.messages_burst) = (60, 3));
    net.conversation(9, &[1, 2]);
    let (first, second) = (net.client(1), net.subscriber(1, &["/user/queue/errors"]));
    net.say(first, &send(9, "a"), &["RECEIPT a"]);
    net.say(second, &send(9, "b"), &["RECEIPT b"]);
    assert_eq!(net.request(1, "POST /conversations/9/messages", r#"{"content":"c"}"#), "201 c");
    net.stomp(second, &[&send(9, "d")]);
    let refused = net.raw(second);
    assert!(refused.contains("rate_limited") && refused.contains("\nretry-after:1\n"), "{refused}");
    let client = net.open(0);
    let token = net.token(1);
    net.write(
        client,
        http("POST /conversations/9/messages", &format!("Authorization: Bearer {token}\r\n"), r#"{"content":"c"}"#),
    );
    let refused = net.raw(client);
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("Retry-After: 1\r\n"), "{refused}");
    // One that does not listen for errors is told by ERROR.
    net.stomp(first, &[&send(9, "d")]);
    let refused = net.raw(first);
    assert!(refused.contains("ERROR\nmessage:rate_limited") && refused.contains("\nretry-after:1\n"), "{refused}");
    let first = net.client(1);
    net.pass(Duration::from_secs(1));
    net.say(first, &send(9, "e"), &["RECEIPT e"]);
}

#[test]
fn users_are_forgotten_when_their_budget_is_full_again() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    for gap in [0, 500] {
        net.request(1, "POST /conversations/9/messages", r#"{"content":"c"}"#);
        net.pass(Duration::from_millis(gap));
    }
    let client = net.client(2);
    net.say(client, &send(9, "a"), &["RECEIPT a"]);
    net.lose(client);
    assert!(!net.shards[0].leaves_none(&["users"]));
    net.pass(Duration::from_secs(10));
    assert!(net.shards[0].leaves_none(&["users"]));
}
