//! Clients that do not read.

use std::time::Duration;

use super::harness::{Net, binary_packet, http, send};
use crate::protocol::websocket::Kind;

const MESSAGES: &str = "/user/queue/messages";

#[test]
fn a_slow_reader_is_closed_and_nobody_else_notices() {
    let mut net = Net::with(1, |limits| {
        limits.outbox_bytes = 4_000;
        limits.messages_burst = 100;
    });
    net.conversation(9, &[1, 2, 3]);
    let (slow, fast) = (net.subscriber(2, &[MESSAGES]), net.subscriber(3, &[MESSAGES]));
    let sender = net.client(1);
    net.take(slow, 100);
    for number in 0..30 {
        let text = format!("a{number}");
        net.say(sender, &send(9, &text), &[&format!("RECEIPT {text}")]);
        net.check(fast, &[&format!("MESSAGE messages {text}")]);
        assert!(net.queued(slow) <= 4_000);
    }
    // The frame that had begun to go out is whole, then comes the close.
    net.take(slow, usize::MAX);
    net.check(slow, &["MESSAGE messages a0", "close 4500", "end"]);
}

#[test]
fn a_blocked_write_is_given_up() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let (stuck, sender) = (net.subscriber(2, &[MESSAGES]), net.client(1));
    net.take(stuck, 10);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.pass(Duration::from_secs(19));
    // A byte is progress.
    net.take(stuck, 1);
    net.pass(Duration::from_secs(19));
    net.take(stuck, 1);
    net.pass(Duration::from_secs(19));
    net.request(1, "POST /conversations/9/messages", r#"{"content":"b"}"#);
    net.pass(Duration::from_secs(1));
    net.take(stuck, usize::MAX);
    net.check(stuck, &["MESSAGE messages a", "close 4500", "end"]);
}

/// The write had been blocked for longer than it may be while the connection still lingered: its timer came up for that
/// again and again, at the same time.
#[test]
fn a_blocked_connection_that_ends_is_looked_at_once() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let stuck = net.subscriber(2, &[MESSAGES]);
    net.take(stuck, 10);
    net.request(1, "POST /conversations/9/messages", r#"{"content":"a"}"#);
    net.pass(Duration::from_secs(18));
    net.stomp(stuck, &["DISCONNECT\n\n"]);
    net.pass(Duration::from_secs(5));
    assert!(net.shards[0].outbox(net.connection(stuck)).is_none());
}

#[test]
fn a_flood_of_pings_is_bounded() {
    let mut net = Net::with(1, |limits| limits.outbox_bytes = 1_000);
    let client = net.client(1);
    net.take(client, 0);
    let flood = binary_packet(Kind::Ping, &[b'x'; 125]).repeat(100);
    net.write(client, flood);
    assert!(net.queued(client) <= 1_000, "{} bytes", net.queued(client));
    net.take(client, usize::MAX);
    assert!(net.heard(client).contains(&"close 4500".to_owned()));
}

/// The end of a connection waits for a slow reader as long as it reads at all.
#[test]
fn a_long_last_answer_is_not_cut() {
    let mut net = Net::with(1, |limits| limits.messages_burst = 100);
    net.conversation(9, &[1, 2]);
    let text = "x".repeat(4_000);
    for _ in 0..20 {
        net.request(1, "POST /conversations/9/messages", &format!(r#"{{"content":"{text}"}}"#));
    }
    let token = net.token(1);
    let client = net.open(0);
    net.take(client, 0);
    net.write(
        client,
        http("GET /conversations/9/messages", &format!("Connection: close\r\nAuthorization: Bearer {token}\r\n"), ""),
    );
    for _ in 0..10 {
        net.pass(Duration::from_secs(4));
        net.take(client, 5_000);
    }
    net.take(client, usize::MAX);
    let heard = net.heard(client);
    assert!(heard.len() == 2 && heard[0].starts_with("200 ") && heard[1] == "end");
}
