//! SockJS over HTTP through the boundary: transports, one receiver at a time, homes on other shards, and ends.

use std::time::Duration;

use super::harness::{Client, Net, binary_packet, http, upgrade, user_on};
use crate::protocol::websocket::Kind;
use crate::shard::ListenerKind;

const CLOSED: &str = "c[1008,\"Policy violation\"]\n";

/// A request of a session named `abc`, from a connection of its own.
fn ask(net: &mut Net, shard: usize, transport: &str, query: &str, body: &str) -> Client {
    let client = net.open(shard);
    net.write(client, http(&format!("POST /ws/000/abc/{transport}{query}"), "", body));
    client
}

/// The status and the body of what a request got, without its chunks.
fn got(net: &mut Net, client: Client) -> (u16, String) {
    let raw = net.raw(client);
    let Some((head, body)) = raw.split_once("\r\n\r\n") else { return (0, raw) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, if head.contains("chunked") { chunks(body) } else { body.to_owned() })
}

/// Pieces of a chunked body, `|` behind each.
fn chunks(mut body: &str) -> String {
    let mut pieces = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        pieces.push_str(if rest[..length].len() > 2_000 { "(prelude)" } else { &rest[..length] });
        pieces.push('|');
        body = &rest[length + 2..];
    }
    pieces
}

fn poll(net: &mut Net, query: &str) -> String {
    let client = ask(net, 0, "xhr", query, "");
    got(net, client).1
}

fn frame(text: &str) -> String {
    format!("[\"{}\\u0000\"]", text.replace('\n', "\\n"))
}

fn say(net: &mut Net, query: &str, text: &str) -> u16 {
    let client = ask(net, 0, "xhr_send", query, &frame(text));
    got(net, client).0
}

fn connect_with(net: &Net, user: u64) -> String {
    format!("CONNECT\naccept-version:1.2\nAuthorization:Bearer {}\n\n", net.token(user))
}

#[test]
fn a_session_lives_from_poll_to_poll() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2]);
    let query = format!("?token={}", net.token(1));
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 404);
    assert_eq!(poll(&mut net, &query), "o\n");
    assert_eq!(say(&mut net, &query, "CONNECT\naccept-version:1.2\n\n"), 204);
    assert!(poll(&mut net, &query).starts_with("a[\"CONNECTED\\nversion:1.2\\n"));
    assert_eq!(say(&mut net, &query, "SUBSCRIBE\nid:0\ndestination:/user/queue/messages\nreceipt:s\n\n"), 204);
    assert_eq!(poll(&mut net, &query), "a[\"RECEIPT\\nreceipt-id:s\\n\\n\\u0000\"]\n");
    let waiting = ask(&mut net, 1, "xhr", &query, "");
    assert_eq!(got(&mut net, waiting), (0, String::new()));
    for content in ["first", "second"] {
        net.request(2, "POST /conversations/9/messages", &format!("{{\"content\":\"{content}\"}}"));
    }
    let (_, first) = got(&mut net, waiting);
    let second = poll(&mut net, &query);
    for (packet, content) in [(first, "first"), (second, "second")] {
        assert!(packet.starts_with("a[\"MESSAGE\\n") && packet.contains(content), "{packet}");
    }
}

#[test]
fn a_token_in_connect_takes_the_session_to_its_users_shard() {
    for shard in 0..4 {
        let mut net = Net::new(4);
        let user = user_on(shard, 4, 100);
        net.conversation(9, &[user, 2]);
        let stream = ask(&mut net, 3, "xhr_streaming", "", "");
        assert_eq!(got(&mut net, stream), (200, "(prelude)|o\n|".into()));
        let connect = connect_with(&net, user);
        let both = format!("{connect}\0SUBSCRIBE\nid:0\ndestination:/user/queue/messages\n\n").replace('\0', "\\u0000");
        assert_eq!(say(&mut net, "", &both), 204);
        assert!(chunks(&net.raw(stream)).starts_with("a[\"CONNECTED"));
        // Later requests do not say whose they are, and still find it.
        assert_eq!(
            say(&mut net, "", "SEND\ndestination:/app/conversations/9/send\nreceipt:r\n\n{\\\"content\\\":\\\"x\\\"}"),
            204
        );
        assert!(chunks(&net.raw(stream)).contains("receipt-id:r"));
        net.request(2, "POST /conversations/9/messages", "{\"content\":\"for you\"}");
        assert!(chunks(&net.raw(stream)).contains("for you"));
        net.lose(stream);
        assert!(net.shards.iter().all(|shard| shard.leaves_none(&["sessions", "SockJS sessions"])), "shard {shard}");
    }
}

#[test]
fn one_receiver_at_a_time_and_its_loss_is_the_end() {
    let mut net = Net::new(2);
    let query = format!("?token={}", net.token(1));
    let stream = ask(&mut net, 0, "xhr_streaming", &query, "");
    assert_eq!(got(&mut net, stream), (200, "(prelude)|o\n|".into()));
    let second = ask(&mut net, 1, "xhr_streaming", &query, "");
    assert_eq!(got(&mut net, second), (200, "(prelude)|c[2010,\"Another connection still open\"]\n||".into()));
    assert_eq!(poll(&mut net, &query), "c[2010,\"Another connection still open\"]\n");
    net.lose(stream);
    assert_eq!(poll(&mut net, &query), "o\n");
    let waiting = ask(&mut net, 1, "xhr", &query, "");
    net.lose(waiting);
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 404);
}

/// Also where the connection ends with the answer: a new session is the client's only way to hear that packets were lost.
#[test]
fn what_a_receiver_did_not_take_ends_its_session() {
    for (header, version) in [("", "1.1"), ("Connection: close\r\n", "1.1"), ("", "1.0")] {
        let mut net = Net::new(1);
        let query = format!("?token={}", net.token(1));
        assert_eq!(poll(&mut net, &query), "o\n");
        assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 204);
        let client = net.open(0);
        net.take(client, 0);
        let request = http(&format!("POST /ws/000/abc/xhr{query}"), header, "");
        net.write(client, request.replace("HTTP/1.1", &format!("HTTP/{version}")));
        assert!(net.queued(client) > 0, "CONNECTED is on its way");
        net.lose(client);
        assert_eq!(poll(&mut net, &query), "o\n", "HTTP/{version}");
    }
}

#[test]
fn requests_behind_a_stream_that_ends_its_connection_are_not_begun() {
    let mut net = Net::with(1, |limits| limits.first_frame = Duration::from_secs(3));
    let client = net.open(0);
    let stream = |name: &str| {
        let request = http(&format!("POST /ws/000/{name}/xhr_streaming"), "Connection: keep-alive\r\n", "");
        request.replace("HTTP/1.1", "HTTP/1.0")
    };
    net.write(client, [stream("abc"), stream("def")].concat());
    net.pass(Duration::from_secs(60));
    assert!(net.raw(client).contains("c[4409,"));
    assert!(net.shards[0].leaves_none(&["SockJS sessions"]));
}

#[test]
fn a_receiver_that_waits_is_told_when_one_before_it_is_lost() {
    let mut net = Net::new(1);
    let query = format!("?token={}", net.token(1));
    assert_eq!(poll(&mut net, &query), "o\n");
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 204);
    let first = net.open(0);
    net.take(first, 0);
    net.write(first, http(&format!("POST /ws/000/abc/xhr{query}"), "", ""));
    let second = ask(&mut net, 0, "xhr", &query, "");
    assert_eq!(got(&mut net, second).0, 0);
    net.lose(first);
    assert_eq!(got(&mut net, second), (200, "c[1002,\"Connection interrupted\"]\n".into()));
    assert!(net.shards[0].leaves_none(&["SockJS sessions"]));
}

/// The end of a session that had moved, and a request for it, cross on their way between the two homes.
#[test]
fn a_name_is_its_old_homes_again_when_the_session_has_ended() {
    for shard in 0..4 {
        let mut net = Net::new(4);
        let user = user_on(shard, 4, 100);
        let stream = ask(&mut net, 0, "xhr_streaming", "", "");
        let connect = connect_with(&net, user);
        assert_eq!(say(&mut net, "", &connect), 204);
        assert!(net.raw(stream).contains("CONNECTED"));
        net.hold_mail();
        net.lose(stream);
        let next = ask(&mut net, 0, "xhr_streaming", "", "");
        net.release_mail();
        assert_eq!(got(&mut net, next), (200, "(prelude)|o\n|".into()), "shard {shard}");
        assert_eq!(say(&mut net, "", &connect), 204, "the session is where its requests go");
        assert!(net.raw(next).contains("CONNECTED"));
        net.lose(next);
        assert!(net.shards.iter().all(|shard| shard.leaves_none(&["SockJS sessions"])), "shard {shard}");
    }
}

#[test]
fn nobody_waiting_for_five_seconds_is_the_end() {
    let mut net = Net::new(2);
    let query = format!("?token={}", net.token(1));
    assert_eq!(poll(&mut net, &query), "o\n");
    net.pass(Duration::from_millis(4_900));
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 204);
    net.pass(Duration::from_millis(200));
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 404);
    assert!(net.shards.iter().all(|shard| shard.leaves_none(&["sessions", "SockJS sessions"])));
}

#[test]
fn a_fault_is_told_and_then_the_close_to_whoever_asks() {
    let mut net = Net::new(2);
    assert_eq!(poll(&mut net, ""), "o\n");
    assert_eq!(say(&mut net, "", "CONNECT\naccept-version:1.2\n\n"), 204);
    assert!(poll(&mut net, "").starts_with("a[\"ERROR\\nmessage:a token is needed"));
    for _ in 0..2 {
        assert_eq!(poll(&mut net, ""), CLOSED);
    }
    assert_eq!(say(&mut net, "", "SEND\n\n"), 204);
    net.pass(Duration::from_secs(6));
    assert_eq!(poll(&mut net, ""), "o\n");
}

#[test]
fn tokens_open_and_name_sessions() {
    let mut net = Net::new(2);
    for query in ["?token=", "?token=a.b.c"] {
        let client = ask(&mut net, 0, "xhr", query, "");
        assert_eq!(got(&mut net, client).0, 401, "{query}");
    }
    let short = format!("?token={}", net.token_with(1, Duration::from_secs(2), &[], None));
    assert_eq!(poll(&mut net, &short), "o\n");
    // Of the same name, and not the same session.
    let other = format!("?token={}", net.token(2));
    assert_eq!(say(&mut net, &other, "CONNECT\n\n"), 404);
    assert_eq!(poll(&mut net, &other), "o\n");
    assert_eq!(say(&mut net, &short, "CONNECT\n\n"), 204);
    assert!(poll(&mut net, &short).starts_with("a[\"CONNECTED"));
    net.pass(Duration::from_secs(3));
    // The end of the token is the end of the session, which the same token can still be told, but it begins no other.
    assert!(poll(&mut net, &short).contains("the token has expired"));
    assert_eq!(poll(&mut net, &short), CLOSED);
    net.pass(Duration::from_secs(6));
    let late = ask(&mut net, 0, "xhr", &short, "");
    assert_eq!(got(&mut net, late).0, 401);
}

#[test]
fn a_stream_ends_at_its_limit_and_nothing_is_lost() {
    let mut net = Net::with(1, |limits| limits.sockjs_stream_bytes = 600);
    net.conversation(9, &[1, 2]);
    let query = format!("?token={}", net.token(1));
    let stream = ask(&mut net, 0, "xhr_streaming", &query, "");
    let subscribe = "CONNECT\n\n\\u0000SUBSCRIBE\nid:0\ndestination:/user/queue/messages\n\n";
    assert_eq!(say(&mut net, &query, subscribe), 204);
    net.take(stream, 0);
    let mut sent = 0;
    let mut more = |net: &mut Net, count| {
        for _ in 0..count {
            sent += 1;
            net.request(2, "POST /conversations/9/messages", &format!("{{\"content\":\"number {sent},\"}}"));
        }
    };
    more(&mut net, 3);
    net.take(stream, usize::MAX);
    let mut heard = chunks(net.raw(stream).split_once("\r\n\r\n").unwrap().1);
    assert!(heard.ends_with("||"), "over the limit the response ends: {heard}");
    more(&mut net, 2);
    let next = ask(&mut net, 0, "xhr_streaming", &query, "");
    heard += &got(&mut net, next).1;
    for number in 1..=5 {
        assert_eq!(heard.matches(&format!("number {number},")).count(), 1, "{heard}");
    }
}

#[test]
fn a_client_that_never_comes_back_is_bounded() {
    let mut net = Net::with(1, |limits| limits.outbox_bytes = 2_000);
    net.conversation(9, &[1, 2]);
    let query = format!("?token={}", net.token(1));
    assert_eq!(poll(&mut net, &query), "o\n");
    assert_eq!(say(&mut net, &query, "CONNECT\n\n\\u0000SUBSCRIBE\nid:0\ndestination:/user/queue/messages\n\n"), 204);
    for _ in 0..10 {
        net.request(2, "POST /conversations/9/messages", "{\"content\":\"more\"}");
    }
    assert!(poll(&mut net, &query).starts_with("c[4500,"));
}

#[test]
fn a_sender_waits_while_too_much_is_under_way() {
    let mut net = Net::with(1, |limits| limits.session_inflight = 1);
    net.conversation(9, &[1, 2]);
    let query = format!("?token={}", net.token(1));
    assert_eq!(poll(&mut net, &query), "o\n");
    assert_eq!(say(&mut net, &query, "CONNECT\n\n"), 204);
    net.hold_store();
    let send = frame("SEND\ndestination:/app/conversations/9/send\n\n{\\\"content\\\":\\\"x\\\"}");
    let first = ask(&mut net, 0, "xhr_send", &query, &send);
    assert_eq!(got(&mut net, first).0, 0);
    let second = ask(&mut net, 0, "xhr_send", &query, &send);
    assert_eq!(got(&mut net, second).0, 503);
    net.release_store();
    assert_eq!(got(&mut net, first).0, 204);
    assert_eq!(net.appends, ["x"]);
}

#[test]
fn a_draining_server_tells_its_receivers() {
    let mut net = Net::new(2);
    let query = format!("?token={}", net.token(1));
    let stream = ask(&mut net, 0, "xhr_streaming", &query, "");
    assert_eq!(got(&mut net, stream).1, "(prelude)|o\n|");
    net.drain();
    assert_eq!(chunks(&net.raw(stream)), "c[1012,\"Service restart\"]\n||");
    net.pass(Duration::from_secs(10));
    assert_eq!(net.drained.len(), 2);
}

#[test]
fn sockjs_in_a_websocket() {
    for header in [false, true] {
        let mut net = Net::new(4);
        let user = user_on(2, 4, 100);
        let query = if header { String::new() } else { format!("?token={}", net.token(user)) };
        let client = net.open(0);
        net.write(client, upgrade(&query, "").replace("/ws", "/ws/000/abc/websocket"));
        assert!(net.raw(client).ends_with("\u{fffd}\u{1}o"));
        for ignored in ["", "[]"] {
            net.write(client, binary_packet(Kind::Text, ignored.as_bytes()));
        }
        let connect = if header { connect_with(&net, user) } else { "CONNECT\naccept-version:1.2\n\n".to_owned() };
        let connect = frame(&connect).into_bytes();
        // One SockJS packet in two frames of the WebSocket, cut anywhere.
        let (first, second) = connect.split_at(10);
        let (mut fragments, mut last) = (binary_packet(Kind::Text, first), binary_packet(Kind::Text, second));
        (fragments[0], last[0]) = (0x01, 0x80);
        fragments.extend(last);
        net.write(client, &fragments);
        let raw = net.raw(client);
        assert!(raw.contains("a[\"CONNECTED\\n"), "{raw:?}");
        net.write(client, binary_packet(Kind::Text, b"[\"broken"));
        assert!(net.raw(client).contains("c[1002,\"Protocol error\"]"));
        assert!(net.shards.iter().all(|shard| shard.leaves_none(&["sessions"])));
    }
}

#[test]
fn stomp_on_tcp() {
    let mut net = Net::new(4);
    let user = user_on(3, 4, 100);
    net.conversation(9, &[user, 2]);
    let client = net.open_at(0, ListenerKind::Stomp);
    let connect = connect_with(&net, user);
    for byte in format!("\n{connect}\0").bytes() {
        net.write(client, [byte]);
    }
    let raw = net.raw(client);
    assert!(raw.starts_with("CONNECTED\nversion:1.2\n") && raw.ends_with("\n\n\0"), "{raw:?}");
    assert_eq!(net.shard_of(client), 3);
    net.write(client, "SUBSCRIBE\nid:0\ndestination:/user/queue/messages\nreceipt:s\n\n\0\n\n");
    assert_eq!(net.raw(client), "RECEIPT\nreceipt-id:s\n\n\0");
    net.request(2, "POST /conversations/9/messages", "{\"content\":\"hello\"}");
    let raw = net.raw(client);
    assert!(raw.starts_with("MESSAGE\n") && raw.contains("\"content\":\"hello\""), "{raw:?}");
    // Without heart-beats there is nothing that a client could answer.
    net.pass(Duration::from_secs(600));
    net.write(client, "NONSENSE\n\n\0");
    let raw = net.raw(client);
    assert!(raw.starts_with("ERROR\n") && raw.ends_with('\0'), "nothing behind the ERROR: {raw:?}");
    assert_eq!(net.heard(client), ["end"]);
}

#[test]
fn foreign_pages_are_refused() {
    let mut net = Net::new(1);
    for (origin, status) in [("https://app.example.com", 200), ("https://app.example.com.evil.org", 403), ("null", 403)] {
        let client = net.open(0);
        net.write(client, http("POST /ws/000/abc/xhr", &format!("Origin: {origin}\r\n"), ""));
        assert_eq!(got(&mut net, client).0, status, "{origin}");
        net.lose(client);
    }
}
