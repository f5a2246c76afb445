//! HTTP on a connection: order, limits, patience, CORS.

use std::time::Duration;

use super::harness::{CONNECT, Net, header, http, packet, upgrade};

fn authorized(net: &Net) -> String {
    format!("Authorization: Bearer {}\r\n", net.token(1))
}

#[test]
fn answers_leave_in_the_order_of_their_requests() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2]);
    let slow = http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"a"}"#);
    let client = net.open(0);
    net.hold_store();
    net.write(client, [slow, http("GET /healthz", "", ""), http("GET /nothing", "", "")].concat());
    net.check(client, &[]);
    net.release_store();
    net.check(client, &["201 a", "200 {\"status\":\"up\"}", "401 unauthorized"]);
}

/// More than may wait at once, and all answers but the first are ready when the first one comes: what was held back must
/// not be forgotten.
#[test]
fn pipelined_requests_beyond_the_limit_are_held_and_not_lost() {
    let mut net = Net::with(1, |limits| limits.http_pipelined = 2);
    net.conversation(9, &[1, 2]);
    let client = net.open(0);
    let slow = http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"a"}"#);
    net.hold_store();
    net.write(client, [slow, http("GET /healthz", "", "").repeat(4)].concat());
    assert!(net.is_paused(client));
    net.release_store();
    assert_eq!(net.heard(client).len(), 5);
    assert!(!net.is_paused(client));
}

#[test]
fn after_the_last_request_nothing_is_carried_out() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let post = http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"a"}"#);
    for last in [http("GET /healthz", "Connection: close\r\n", ""), upgrade("", "").replace("/ws", "/healthz")] {
        let client = net.open(0);
        net.write(client, [last, post.clone()].concat());
        let heard = net.heard(client);
        assert!(heard.len() == 2 && heard[1] == "end", "{heard:?}");
        assert!(net.appends.is_empty());
    }
}

#[test]
fn head_is_get_without_its_body() {
    let mut net = Net::new(1);
    let client = net.open(0);
    net.write(client, http("HEAD /healthz", "", ""));
    let head = net.raw(client);
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(header(&head, "Content-Length"), Some("15"));
    net.write(client, http("GET /healthz", "", ""));
    net.check(client, &["200 {\"status\":\"up\"}"]);
}

#[test]
fn expectations_are_answered_in_turn() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let request =
        http("POST /conversations/9/messages", &format!("{}Expect: 100-continue\r\n", authorized(&net)), r#"{"content":"a"}"#);
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let client = net.open(0);
    net.write(client, head);
    assert_eq!(net.raw(client), "HTTP/1.1 100 Continue\r\n\r\n");
    net.write(client, body);
    net.check(client, &["201 a"]);
    // Behind a request that is not answered yet, it waits for its turn.
    let slow = http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"b"}"#);
    net.hold_store();
    net.write(client, format!("{slow}{head}"));
    net.check(client, &[]);
    net.release_store();
    let text = net.raw(client);
    assert!(text.starts_with("HTTP/1.1 201 ") && text.ends_with("HTTP/1.1 100 Continue\r\n\r\n"), "{text}");
    net.write(client, body);
    net.check(client, &["201 a"]);
}

#[test]
fn an_upgrade_waits_for_the_answers_before_it() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2]);
    let token = net.token(1);
    let client = net.open(0);
    let slow = http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"a"}"#);
    let mut bytes = format!("{slow}{}", upgrade(&format!("?token={token}"), "")).into_bytes();
    bytes.extend(packet(&[CONNECT]));
    net.hold_store();
    net.write(client, bytes);
    net.check(client, &[]);
    net.release_store();
    net.check(client, &["201 a", "101", "CONNECTED 1.2"]);
}

#[test]
fn a_request_that_does_not_end_is_given_up() {
    let mut net = Net::new(1);
    let idle = net.open(0);
    let begun = net.open(0);
    net.write(begun, "GET /healthz HT");
    let dripping = net.open(0);
    let answered = net.open(0);
    for (second, byte) in
        "GET /healthz HTTP/1.1\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".bytes().take(59).enumerate()
    {
        net.write(dripping, [byte]);
        if second == 50 {
            net.write(answered, http("GET /healthz", "", ""));
        }
        net.pass(Duration::from_secs(1));
    }
    net.pass(Duration::from_secs(2));
    net.check(idle, &["end"]);
    net.check(begun, &["408 timeout", "end"]);
    net.check(dripping, &["408 timeout", "end"]);
    net.check(answered, &["200 {\"status\":\"up\"}"]);
    net.pass(Duration::from_secs(60));
    net.check(answered, &["end"]);
}

#[test]
fn a_slow_answer_is_not_the_clients_fault() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    let client = net.open(0);
    net.hold_store();
    net.write(client, http("POST /conversations/9/messages", &authorized(&net), r#"{"content":"a"}"#));
    net.pass(Duration::from_secs(61));
    net.release_store();
    net.check(client, &["201 a"]);
    net.pass(Duration::from_secs(59));
    net.write(client, http("GET /healthz", "", ""));
    net.check(client, &["200 {\"status\":\"up\"}"]);
}

#[test]
fn malformed_requests_end_the_connection() {
    let mut net = Net::with(1, |limits| limits.http_body_bytes = 10);
    for (request, expect) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", "400 bad_request"),
        ("GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", "505 version_not_supported"),
        ("POST /auth/otp HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", "413 too_large"),
        ("POST /auth/otp HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 bad_request"),
    ] {
        let client = net.open(0);
        net.write(client, format!("{request}{}", http("GET /healthz", "", "")));
        net.check(client, &[expect, "end"]);
    }
}

#[test]
fn allowed_origins_may_read_answers() {
    let mut net = Net::new(1);
    let client = net.open(0);
    for (origin, allowed) in [("https://app.example.com", true), ("https://evil.example.com", false), ("null", false)] {
        for target in ["GET /healthz", "GET /users/me", "GET /nothing"] {
            net.write(client, http(target, &format!("Origin: {origin}\r\n{}", authorized(&net)), ""));
            let head = net.raw(client);
            assert_eq!(header(&head, "Vary"), Some("Origin"));
            assert_eq!(header(&head, "Access-Control-Allow-Origin"), allowed.then_some(origin), "{head}");
            assert_eq!(header(&head, "Access-Control-Allow-Credentials").is_some(), allowed);
        }
    }
}

/// Who asks and does not read is asked to stop before the answers fill the memory.
#[test]
fn answers_that_are_not_read_stop_the_reading() {
    let mut net = Net::with(1, |limits| limits.outbox_bytes = 1_000);
    let client = net.open(0);
    net.take(client, 0);
    net.write(client, http("GET /healthz", "", "").repeat(100));
    assert!(net.is_paused(client));
    assert!(net.queued(client) < 10_000, "{} bytes", net.queued(client));
    net.take(client, usize::MAX);
    assert_eq!(net.heard(client).len(), 100);
    assert!(!net.is_paused(client));
}
