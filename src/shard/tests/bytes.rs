//! The bytes that clients write, and a line for each frame that they read.

use crate::client::{Client, Options, Output, write_upgrade};
use crate::model::{Placement, ShardId};
use crate::protocol::stomp::{Command, Frame};
use crate::protocol::websocket::Kind;

pub(super) const CONNECT: &str = "CONNECT\naccept-version:1.0,1.1,1.2\nhost:x\n\n";

/// The first user id above `after` that belongs to a shard.
pub(super) fn user_on(shard: u16, shards: u16, after: u64) -> u64 {
    (after + 1..).find(|user| Placement::new(shards).key(*user) == ShardId(shard)).unwrap()
}

/// Masked, in one text packet.
pub(super) fn packet(frames: &[&str]) -> Vec<u8> {
    let payload: String = frames.iter().map(|frame| format!("{frame}\0")).collect();
    binary_packet(Kind::Text, payload.as_bytes())
}

pub(super) fn binary_packet(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut client = Client::upgraded(&Options::default());
    client.send_packet(kind, payload);
    match client.next_output() {
        Some(Output::Write(_, bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn upgrade(query: &str, headers: &str) -> String {
    let mut out = Vec::new();
    write_upgrade(&format!("/ws{query}"), "x", "dGhlIHNhbXBsZSBub25jZQ==", headers, &mut out);
    String::from_utf8(out).unwrap()
}

/// `request` is method and target, `headers` are whole lines.
pub(super) fn http(request: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{request} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n{body}")
}

/// A SEND to `/app/send` with a receipt that is its content.
pub(super) fn send(conversation: u64, content: &str) -> String {
    format!("SEND\ndestination:/app/send\nreceipt:{content}\n\n{{\"conversationId\":{conversation},\"content\":\"{content}\"}}")
}

/// The value of a header in the head of a response.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A text member of a JSON object, wherever it stands.
pub(super) fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// The part of a body that stands for it: a message's content, an error's code, or all of it.
pub(super) fn brief(body: &str) -> &str {
    if body.contains("\"messages\":[") {
        return body;
    }
    member(body, "content").or_else(|| member(body, "code")).unwrap_or(body)
}

/// One frame in a line.
pub(super) fn line(frame: &Frame<'_>) -> String {
    let value = |name| frame.header(name).unwrap_or("-");
    let body = String::from_utf8_lossy(frame.body);
    match frame.command {
        Command::Connected => format!("CONNECTED {}", value("version")),
        Command::Receipt => format!("RECEIPT {}", value("receipt-id")),
        Command::Message => format!("MESSAGE {} {}", value("subscription"), brief(&body)),
        Command::Error => match frame.header("receipt-id") {
            Some(receipt) => format!("ERROR {} ({receipt})", value("message")),
            None => format!("ERROR {}", value("message")),
        },
        other => other.name().to_owned(),
    }
}
