//! The end of the server: nothing new, everything begun is finished, everybody is told to come back.

use std::time::Duration;

use super::harness::{CONNECT, Net, http, send, upgrade, user_on};
use crate::store::Failure;

#[test]
fn idle_connections_end_at_once_and_busy_ones_after_their_answers() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2]);
    let (idle, waiting) = (net.client(2), net.upgrade(0, ""));
    net.check(waiting, &["101"]);
    let busy = net.client(1);
    let token = net.token(1);
    let authorized = format!("Authorization: Bearer {token}\r\n");
    let kept = net.open(0);
    net.write(kept, http("GET /healthz", "", ""));
    net.check(kept, &["200 {\"status\":\"up\"}"]);
    let asking = net.open(0);
    net.hold_store();
    net.stomp(busy, &[&send(9, "a")]);
    net.write(asking, http("POST /conversations/9/messages", &authorized, r#"{"content":"b"}"#));
    net.drain();
    net.check(idle, &["close 1012", "end"]);
    net.check(waiting, &["close 1012", "end"]);
    net.check(kept, &["end"]);
    net.check(busy, &[]);
    net.stomp(busy, &[&send(9, "late")]);
    net.release_store();
    net.check(busy, &["RECEIPT a", "close 1012", "end"]);
    let answer = net.raw(asking);
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("Connection: close\r\n"), "{answer}");
    net.check(asking, &["end"]);
    assert!(net.drained.is_empty(), "connections linger for their peers");
    for client in [idle, waiting, busy, kept] {
        net.lose(client);
    }
    net.pass(Duration::from_secs(5));
    assert_eq!(net.drained.len(), 2);
    net.drain();
    net.pass(Duration::from_secs(20));
    assert_eq!(net.drained.len(), 2);
}

/// Who connected before is answered, and told that it is over.
#[test]
fn what_waited_to_be_accepted_is_answered() {
    let mut net = Net::new(1);
    let clients = [net.open(0), net.open(0), net.open(0), net.open(0)];
    let token = net.token(1);
    net.drain();
    net.write(clients[0], http("GET /readyz", "", ""));
    net.check(clients[0], &["503 draining", "end"]);
    net.write(clients[1], http("GET /users/me", &format!("Authorization: Bearer {token}\r\n"), ""));
    net.check(clients[1], &["503 draining", "end"]);
    net.write(clients[2], upgrade("", ""));
    net.check(clients[2], &["503 draining", "end"]);
    net.pass(Duration::from_secs(5));
    net.check(clients[3], &["end"]);
    net.pass(Duration::from_secs(5));
    assert_eq!(net.drained, [0]);
}

#[test]
fn a_connection_on_its_way_to_a_draining_shard_is_told() {
    for query in [true, false] {
        let user = user_on(1, 2, 0);
        let mut net = Net::new(2);
        let token = net.token(user);
        let client = net.open(0);
        net.take(client, 0);
        let health = http("GET /healthz", "", "");
        if query {
            net.write(client, format!("{health}{}", upgrade(&format!("?token={token}"), "")));
        } else {
            net.write(client, upgrade("", ""));
            net.stomp(client, &[&CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\n\n"))]);
        }
        net.input(1, crate::shard::Input::Drain);
        net.settle();
        net.take(client, usize::MAX);
        let heard = net.heard(client);
        assert_eq!(heard[heard.len() - 2..], ["close 1012", "end"], "{heard:?}");
    }
}

/// A write of unknown outcome is under way until it is known.
#[test]
fn an_append_that_is_tried_again_is_waited_for() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let client = net.client(1);
    net.say(client, &send(9, "a"), &["RECEIPT a"]);
    net.failing = Some(Failure::Unknown);
    net.say(client, &send(9, "b"), &[]);
    net.lose(client);
    net.drain();
    assert!(net.drained.is_empty());
    net.failing = None;
    net.pass(Duration::from_millis(100));
    assert_eq!(net.drained, [0]);
}

#[test]
fn patience_ends() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let client = net.client(1);
    net.hold_store();
    net.say(client, &send(9, "a"), &[]);
    net.drain();
    net.pass(Duration::from_secs(9));
    net.check(client, &[]);
    net.pass(Duration::from_secs(1));
    net.check(client, &["end"]);
    assert!(net.drained.is_empty(), "a write is under way");
    net.release_store();
    assert_eq!(net.drained, [0]);
}
