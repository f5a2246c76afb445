//! HTTP on a connection: order, limits, patience, CORS.

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
