//! What happens when nothing happens: heart-beats, silence, and tokens that end.

use std::time::Duration;

use super::harness::{CONNECT, Client, Net, binary_packet};
use crate::protocol::websocket::Kind;

const SECOND: Duration = Duration::from_secs(1);

fn beating(net: &mut Net, heart_beat: &str) -> Client {
    let token = net.token(1);
    let client = net.upgrade(0, &format!("?token={token}"));
    net.stomp(client, &[&CONNECT.replace("host", &format!("heart-beat:{heart_beat}\nhost"))]);
    net.check(client, &["101", "CONNECTED 1.2"]);
    client
}

#[test]
fn the_server_beats_and_pings() {
    let mut net = Net::new(1);
    let client = beating(&mut net, "0,10000");
    net.pass(9 * SECOND);
    net.check(client, &["beat"]);
    net.pass(16 * SECOND);
    // With the ping goes a beat.
    net.check(client, &["beat", "beat", "ping"]);
    // A frame is as good as a beat.
    net.pass(SECOND);
    net.say(client, "SEND\ndestination:/app/heartbeat\nreceipt:r\n\n", &["RECEIPT r"]);
    net.pass(8 * SECOND);
    net.check(client, &[]);
    net.pass(SECOND);
    net.check(client, &["beat"]);
}

#[test]
fn a_client_that_promised_beats_is_closed_after_three() {
    let mut net = Net::new(1);
    let client = beating(&mut net, "10000,0");
    for _ in 0..3 {
        net.pass(20 * SECOND);
        net.write(client, binary_packet(Kind::Text, b"\n"));
    }
    net.pass(29 * SECOND);
    let before = net.heard(client);
    assert!(before.iter().all(|line| line == "ping"), "{before:?}");
    net.pass(SECOND);
    net.check(client, &["close 4408", "end"]);
}

#[test]
fn a_client_that_promised_nothing_answers_pings() {
    let mut net = Net::new(1);
    let client = beating(&mut net, "0,0");
    for _ in 0..5 {
        net.pass(25 * SECOND);
        net.write(client, binary_packet(Kind::Pong, b""));
    }
    net.check(client, &["ping"; 5]);
    net.pass(75 * SECOND);
    net.check(client, &["ping", "ping", "close 4408", "end"]);
}

#[test]
fn pings_are_answered() {
    let mut net = Net::new(1);
    let client = net.client(1);
    net.write(client, binary_packet(Kind::Ping, b"hello"));
    net.check(client, &["pong hello"]);
}

#[test]
fn the_clients_close_is_echoed() {
    let mut net = Net::new(1);
    let client = net.client(1);
    net.write(client, binary_packet(Kind::Close, &1000_u16.to_be_bytes()));
    net.check(client, &["close 1000", "end"]);
    net.write(client, binary_packet(Kind::Ping, b"late"));
    net.check(client, &[]);
}

#[test]
fn an_idle_session_ends_with_its_token() {
    let mut net = Net::new(1);
    let token = net.token_with(1, 20 * SECOND, &[], None);
    let client = net.client_with(&token);
    net.pass(Duration::from_millis(19_900));
    net.check(client, &[]);
    net.pass(Duration::from_millis(200));
    net.check(client, &["ERROR the token has expired", "close 1008", "end"]);
}

#[test]
fn a_new_token_carries_a_session_on() {
    let mut net = Net::new(1);
    let token = net.token_with(1, 20 * SECOND, &[], None);
    let client = net.client_with(&token);
    net.subscribe(client, "/user/queue/errors");
    let longer = net.token_with(1, 24 * SECOND, &[], None);
    let foreign = net.token(2);
    let refresh = |token: &str| format!("SEND\ndestination:/app/auth/refresh\nreceipt:r\n\n{{\"token\":\"{token}\"}}");
    net.say(client, &refresh(&foreign), &["MESSAGE errors forbidden"]);
    net.say(client, &refresh(&longer), &["RECEIPT r"]);
    net.pass(23 * SECOND);
    net.check(client, &[]);
    net.pass(SECOND);
    net.check(client, &["ERROR the token has expired", "close 1008", "end"]);
}

/// After the close what a peer sends is thrown away, and it has `limits.linger` to close its half.
#[test]
fn a_closed_connection_is_dropped_after_a_while() {
    let mut net = Net::new(1);
    let client = net.client(1);
    net.say(client, "DISCONNECT\n\n", &["close 1000", "end"]);
    let connection = net.connection(client);
    assert!(net.shards[0].outbox(connection).is_some());
    net.pass(5 * SECOND);
    assert!(net.shards[0].outbox(connection).is_none());
}
