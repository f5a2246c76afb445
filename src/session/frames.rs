//! The frames a server writes, wrapped for the way they go out.
//!
//! A frame is encoded behind a gap in which the WebSocket header finds its place afterwards, so that it is never copied.

use bytes::Bytes;

use crate::model::{Close, MessageId, SessionId, UserId};
use crate::protocol::stomp::{self, Command, Version};
use crate::protocol::websocket;

/// The longest header of an unmasked WebSocket frame (RFC 6455 section 5.2).
const GAP: usize = 10;

/// The `message` of the ERROR that answers a CONNECT without a common version.
pub const UNSUPPORTED_VERSION: &str = "unsupported version, this server speaks 1.2, 1.1 and 1.0";

/// What every receiver of one message gets alike.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    pub message_id: MessageId,
    pub content_type: &'a str,
    /// Passed on from the SEND.
    pub headers: &'a [(Box<str>, Box<str>)],
    pub body: &'a [u8],
}

/// What depends on the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub version: Version,
    pub destination: &'a str,
    /// STOMP 1.0 subscriptions need no id.
    pub subscription: Option<&'a str>,
    /// The mode is `client` or `client-individual`: the frame carries `ack`.
    pub acknowledged: bool,
}

fn begin(command: Command, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(GAP + capacity);
    out.resize(GAP, 0);
    stomp::begin(&mut out, command);
    out
}

/// Puts the WebSocket header into the gap. A frame whose body is not UTF-8 goes in a binary packet.
fn seal(mut out: Vec<u8>, text: bool) -> Bytes {
    let kind = if text { websocket::Kind::Text } else { websocket::Kind::Binary };
    let mut header = [0; GAP];
    let length = websocket::header(kind, out.len() - GAP, &mut header);
    let start = GAP - length;
    out[start..GAP].copy_from_slice(&header[..length]);
    Bytes::from(out).slice(start..)
}

#[must_use]
pub fn connected(version: Version, session: SessionId, user: UserId, heart_beat: (u32, u32)) -> Bytes {
    let mut out = begin(Command::Connected, 192);
    // Escaping never applies to CONNECTED (STOMP 1.2, "Value Encoding"); no value here needs it.
    stomp::header(&mut out, Version::V10, "version", version.text());
    stomp::header(&mut out, Version::V10, "heart-beat", &format!("{},{}", heart_beat.0, heart_beat.1));
    stomp::header(&mut out, Version::V10, "session", &session.to_string());
    stomp::header(&mut out, Version::V10, "server", concat!("tidings/", env!("CARGO_PKG_VERSION")));
    stomp::header(&mut out, Version::V10, "user-name", &user.to_string());
    stomp::finish(&mut out, None);
    seal(out, true)
}

#[must_use]
pub fn receipt(version: Version, id: &str) -> Bytes {
    let mut out = begin(Command::Receipt, 32 + id.len());
    stomp::header(&mut out, version, "receipt-id", id);
    stomp::finish(&mut out, None);
    seal(out, true)
}

/// `message` is one line; more words go in the body, for people who read their client's log.
#[must_use]
pub fn error(version: Version, message: &str, receipt: Option<&str>) -> Bytes {
    let mut out = begin(Command::Error, 128 + message.len());
    stomp::header(&mut out, version, "message", message);
    if let Some(receipt) = receipt {
        stomp::header(&mut out, version, "receipt-id", receipt);
    }
    if message == UNSUPPORTED_VERSION {
        // STOMP 1.2, "Protocol Negotiation": the ERROR of a failed negotiation lists the supported versions.
        stomp::header(&mut out, version, "version", "1.2,1.1,1.0");
    }
    stomp::header(&mut out, version, "content-type", "text/plain");
    stomp::finish(&mut out, Some(message.as_bytes()));
    seal(out, true)
}

#[must_use]
pub fn message(address: Address<'_>, content: Content<'_>) -> Bytes {
    let Address { version, destination, subscription, acknowledged } = address;
    let mut out = begin(Command::Message, 192 + destination.len() + content.body.len());
    stomp::header(&mut out, version, "destination", destination);
    if let Some(subscription) = subscription {
        stomp::header(&mut out, version, "subscription", subscription);
    }
    let id = content.message_id.to_text();
    let id = std::str::from_utf8(&id).unwrap_or_default();
    stomp::header(&mut out, version, "message-id", id);
    if acknowledged {
        // The same on redelivery, and different for each subscription of a session.
        stomp::header(&mut out, version, "ack", &ack_id(subscription, id));
    }
    stomp::header(&mut out, version, "content-type", content.content_type);
    for (name, value) in content.headers {
        stomp::header(&mut out, version, name, value);
    }
    stomp::finish(&mut out, Some(content.body));
    let text = std::str::from_utf8(content.body).is_ok();
    seal(out, text)
}

fn ack_id(subscription: Option<&str>, message_id: &str) -> String {
    format!("{message_id}/{}", subscription.unwrap_or_default())
}

/// An EOL between frames: a heart-beat.
#[must_use]
pub fn heart_beat() -> Bytes {
    Bytes::from_static(b"\x81\x01\n")
}

/// RFC 6455 section 5.5.2: a ping without application data.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(b"\x89\x00")
}

#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(2 + payload.len());
    websocket::frame(websocket::Kind::Pong, payload, &mut out);
    Bytes::from(out)
}

#[must_use]
pub fn close(close: Close) -> Bytes {
    let mut out = Vec::with_capacity(2 + 125);
    websocket::close(close.code(), close.reason(), &mut out);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;

    #[test]
    fn a_message_is_one_packet() {
        let id = MessageId::from_parts(Wall::from_unix_seconds(1), 0, 0);
        let content = Content { message_id: id, content_type: "application/json", headers: &[], body: b"{}" };
        let address = Address { version: Version::V12, destination: "/topic/a", subscription: Some("s:1"), acknowledged: true };
        let frame = message(address, content);
        // RFC 6455 section 5.2: a length above 125 stands in two bytes more.
        let payload = if frame[1] == 126 { &frame[4..] } else { &frame[2..] };
        let text = std::str::from_utf8(payload).unwrap();
        assert!(text.starts_with("MESSAGE\ndestination:/topic/a\nsubscription:s\\c1\nmessage-id:"), "{text:?}");
        assert!(text.contains(&format!("\nack:{id}/s\\c1\n")), "{text:?}");
        assert!(text.ends_with("content-length:2\n\n{}\0"), "{text:?}");
        assert_eq!(frame[0], 0x81);
    }

    #[test]
    fn a_body_that_is_not_text_goes_in_a_binary_packet() {
        let id = MessageId::from_parts(Wall::from_unix_seconds(1), 0, 0);
        let content = Content { message_id: id, content_type: "application/octet-stream", headers: &[], body: b"\xFF\0" };
        let address = Address { version: Version::V12, destination: "/topic/a", subscription: Some("0"), acknowledged: false };
        assert_eq!(message(address, content)[0], 0x82);
    }
}
