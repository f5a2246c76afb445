//! The way in: tokens, versions, the move to the user's shard, and what may not come first.

use std::time::Duration;

use super::harness::{CONNECT, Net, http, packet, upgrade, user_on};

const NEEDED: &str = "ERROR a token is needed, in the header Authorization or in the query of the URL";

/// Upgrades with `query` and sends a CONNECT with `token`; what is heard all in all.
fn check(net: &mut Net, query: &str, token: Option<&str>, expect: &[&str]) {
    let client = net.upgrade(0, query);
    let connect = match token {
        Some(token) => CONNECT.replace("\n\n", &format!("\nAuthorization:{token}\n\n")),
        None => CONNECT.to_owned(),
    };
    net.stomp(client, &[&connect]);
    assert_eq!(net.heard(client), expect, "{query:?} and {token:?}");
}

#[test]
fn a_token_in_the_query_or_in_connect() {
    for shards in [1, 2] {
        let mut net = Net::new(shards);
        let (one, other) = (net.token(1), net.token(2));
        let expired = net.token_with(1, Duration::ZERO, &[], None);
        let connected = ["101", "CONNECTED 1.2"];
        let refused = ["401 unauthorized", "end"];
        check(&mut net, &format!("?token={one}"), None, &connected);
        check(&mut net, "", Some(&format!("Bearer {one}")), &connected);
        check(&mut net, "", Some(&format!("bEARER {one}")), &connected);
        check(&mut net, &format!("?token={one}"), Some(&format!("Bearer {one}")), &connected);
        check(&mut net, &format!("?token={one}&token={other}x"), None, &connected);
        check(&mut net, &format!("?token={other}x&token={one}"), None, &refused);
        check(&mut net, "?token=", None, &refused);
        check(&mut net, "?token=x", None, &refused);
        check(&mut net, &format!("?token={expired}"), None, &refused);
        check(&mut net, "", None, &["101", NEEDED, "close 1008", "end"]);
        let malformed = "ERROR malformed header Authorization, Bearer and a token are expected";
        check(&mut net, "", Some(&one), &["101", malformed, "close 1008", "end"]);
        check(&mut net, "", Some(&format!("Bearer {expired}")), &["101", "ERROR the token has expired", "close 1008", "end"]);
        let two = "ERROR the tokens of handshake and CONNECT name different users";
        let both = Some(format!("Bearer {other}"));
        check(&mut net, &format!("?token={one}"), both.as_deref(), &["101", two, "close 1008", "end"]);
    }
}

#[test]
fn a_handshake_token_that_expires_before_connect_is_not_believed() {
    let mut net = Net::new(1);
    let token = net.token_with(1, Duration::from_secs(2), &[], None);
    let client = net.upgrade(0, &format!("?token={token}"));
    net.pass(Duration::from_secs(2));
    net.stomp(client, &[CONNECT]);
    net.check(client, &["101", "ERROR the token has expired", "close 1008", "end"]);
}

#[test]
fn handshakes_that_are_refused_end_the_connection() {
    let mut net = Net::new(1);
    let mut check = |request: String, expect: &[&str]| {
        let client = net.open(0);
        net.write(client, &request);
        assert_eq!(net.heard(client), expect, "{request}");
    };
    check(upgrade("", "Origin: https://app.example.com\r\n"), &["101"]);
    check(upgrade("", "Origin: http://x\r\n"), &["101"]);
    for origin in ["https://evil.example.com", "null", "https://app.example.com.evil.org", ""] {
        check(upgrade("", &format!("Origin: {origin}\r\n")), &["403 forbidden", "end"]);
    }
    check(upgrade("", "").replace("Version: 13", "Version: 8"), &["426 upgrade_required", "end"]);
    check(upgrade("", "").replace("dGhl", ""), &["400 bad_request", "end"]);
    check(upgrade("", "").replace("GET /ws", "GET /auth/login"), &["405 method_not_allowed", "end"]);
    check(upgrade("", "").replace("GET /ws", "GET /users/me"), &["401 unauthorized", "end"]);
    check(http("GET /ws/websocket", "", ""), &["426 upgrade_required"]);
    check(http("GET /ws", "", ""), &["200 Welcome to SockJS!\n"]);
}

#[test]
fn one_subprotocol_is_echoed() {
    let mut net = Net::new(1);
    let client = net.open(0);
    net.write(client, upgrade("", "Sec-WebSocket-Protocol: v10.stomp, v12.stomp, v11.stomp\r\n"));
    assert!(net.raw(client).contains("Sec-WebSocket-Protocol: v12.stomp\r\n"));
}

#[test]
fn the_highest_common_version_is_spoken() {
    let mut net = Net::new(1);
    let token = net.token(1);
    let unsupported = "ERROR unsupported version, this server speaks 1.2, 1.1 and 1.0";
    for (header, expect) in [
        ("accept-version:1.0,1.1,1.2\n", &["101", "CONNECTED 1.2"][..]),
        ("accept-version:1.1,1.0\n", &["101", "CONNECTED 1.1"]),
        ("accept-version:2.0,1.1\n", &["101", "CONNECTED 1.1"]),
        ("", &["101", "CONNECTED 1.0"]),
        ("accept-version:2.0\n", &["101", unsupported, "close 1002", "end"]),
    ] {
        let client = net.upgrade(0, &format!("?token={token}"));
        net.stomp(client, &[&format!("CONNECT\n{header}\n")]);
        assert_eq!(net.heard(client), expect, "{header:?}");
    }
}

#[test]
fn connected_tells_what_was_agreed() {
    let mut net = Net::new(1);
    let token = net.token(7);
    let client = net.upgrade(0, &format!("?token={token}"));
    net.raw(client);
    net.stomp(client, &["STOMP\naccept-version:1.2\nheart-beat:0,0\nreceipt:r\n\n"]);
    let text = net.raw(client);
    for header in ["version:1.2\n", "heart-beat:10000,10000\n", "session:", "server:tidings/", "user-name:7\n", "receipt-id:r\n"]
    {
        assert!(text.contains(header), "{header:?} in {text:?}");
    }
}

/// Whatever the pieces in which the bytes come, a client that says everything at once is heard, on its user's shard.
#[test]
fn what_is_pipelined_goes_with_the_connection() {
    let user = user_on(1, 2, 0);
    let mut net = Net::new(2);
    let token = net.token(user);
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/user/queue/messages\nreceipt:a\n\n";
    let beat = "SEND\ndestination:/app/heartbeat\nreceipt:b\n\n";
    let connect = CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\n\n"));
    for (query, connect) in [(format!("?token={token}"), CONNECT), (String::new(), &connect)] {
        let mut bytes = upgrade(&query, "").into_bytes();
        bytes.extend(packet(&[connect, subscribe]));
        bytes.extend(packet(&[beat]));
        for cut in 0..bytes.len() {
            let client = net.open(0);
            let (first, second) = bytes.split_at(cut);
            if !first.is_empty() {
                net.write(client, first);
            }
            net.write(client, second);
            assert_eq!(net.heard(client), ["101", "CONNECTED 1.2", "RECEIPT a", "RECEIPT b"], "cut at {cut}");
            assert_eq!(net.shard_of(client), 1);
            net.lose(client);
        }
    }
}

/// The 101 is not out when CONNECT asks to move: nothing may be queued on a connection that moves.
#[test]
fn a_connection_moves_when_its_outbox_is_empty() {
    let user = user_on(1, 2, 0);
    let mut net = Net::new(2);
    let token = net.token(user);
    let client = net.open(0);
    net.take(client, 10);
    let connect = CONNECT.replace("\n\n", &format!("\nAuthorization:Bearer {token}\n\n"));
    let mut bytes = upgrade("", "").into_bytes();
    bytes.extend(packet(&[&connect]));
    net.write(client, bytes);
    assert!(net.is_paused(client) && net.shard_of(client) == 0);
    net.write(client, packet(&["SEND\ndestination:/app/heartbeat\nreceipt:b\n\n"]));
    net.take(client, usize::MAX);
    assert!(!net.is_paused(client) && net.shard_of(client) == 1);
    net.check(client, &["101", "CONNECTED 1.2", "RECEIPT b"]);
}

#[test]
fn the_first_frame_must_come_in_time() {
    let mut net = Net::new(1);
    let client = net.upgrade(0, "");
    net.pass(Duration::from_secs(29));
    net.write(client, super::harness::binary_packet(crate::protocol::websocket::Kind::Text, b"\n"));
    net.check(client, &["101"]);
    assert_eq!(net.shards[0].counters().without_first_frame, 0);
    net.pass(Duration::from_secs(1));
    net.check(client, &["close 4409", "end"]);
    assert_eq!(net.shards[0].counters().without_first_frame, 1);
}

#[test]
fn connect_comes_first_and_once() {
    let mut net = Net::new(1);
    let token = net.token(1);
    let client = net.upgrade(0, &format!("?token={token}"));
    net.stomp(client, &["SEND\ndestination:/app/heartbeat\nreceipt:a\n\n"]);
    net.check(client, &["101", "ERROR the first frame must be CONNECT or STOMP (a)", "close 1002", "end"]);
    let client = net.client(1);
    net.say(client, CONNECT, &["ERROR the session is connected already", "close 1002", "end"]);
    let client = net.client(1);
    net.say(client, "NONSENSE\n\n", &["ERROR unknown command", "close 1002", "end"]);
}

#[test]
fn sessions_of_a_user_are_bounded() {
    let mut net = Net::with(1, |limits| limits.sessions_per_user = 2);
    let (first, _) = (net.client(1), net.client(1));
    let token = format!("?token={}", net.token(1));
    check(&mut net, &token, None, &["101", "ERROR more than 2 sessions of one user", "close 1008", "end"]);
    net.lose(first);
    net.client(1);
}

/// A fault that the decoder finds tells the receipt that the faulty frame asked for.
#[test]
fn faults_of_the_framing_carry_the_receipt() {
    let mut net = Net::new(1);
    for (frame, message) in [
        ("SEND\ndestination:/app/send\nreceipt:r\nbad\n\n", "header line without a colon"),
        ("SEND\ndestination:/app/send\nreceipt:r\nx:\\t\n\n", "undefined escape in a header"),
    ] {
        let client = net.client(1);
        net.stomp(client, &[frame]);
        let heard = net.heard(client);
        assert!(heard[0].starts_with("ERROR") && heard[0].ends_with("(r)"), "{message}: {heard:?}");
        assert_eq!(heard[1..], ["close 1002", "end"]);
    }
}
