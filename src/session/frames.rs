//! The frames that a server writes, encapsulated for their transport.
//!
//! A frame is encoded after a gap, which its WebSocket header fills afterwards, so that the frame is never copied.

use std::borrow::Cow;

use bytes::Bytes;

use crate::model::{MessageId, Refusal, SessionId, UserId};
use crate::protocol::stomp::{self, Command, Version};
use crate::protocol::{sockjs, websocket};
use crate::session::endpoints;

/// The longest header of an unmasked WebSocket frame (RFC 6455 section 5.2).
const GAP: usize = 10;

/// The encapsulation of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// One WebSocket packet each.
    WebSocket,
    /// One WebSocket packet each, holding a SockJS packet.
    SockJsWebSocket,
    /// A string of a SockJS packet, which is made when a receiver fetches it.
    SockJs,
    /// None: frames follow each other.
    Bare,
}

/// The format of a session's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFormat {
    pub encapsulation: Encapsulation,
    pub version: Version,
}

impl Encapsulation {
    /// Whether only text can pass.
    fn is_text(self) -> bool {
        matches!(self, Self::SockJsWebSocket | Self::SockJs)
    }
}

/// The `message` of the ERROR after a CONNECT without a common version.
pub const UNSUPPORTED_VERSION: &str = "unsupported version, this server speaks 1.2, 1.1 and 1.0";

/// The parts of a message that all its receivers share.
#[derive(Clone, Copy, Debug)]
pub struct MessageContent<'a> {
    pub message_id: MessageId,
    pub content_type: &'a str,
    /// Passed on from the SEND.
    pub headers: &'a [(Box<str>, Box<str>)],
    pub body: &'a [u8],
}

/// The parts that depend on the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    pub format: FrameFormat,
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

/// Encapsulates the bytes after the gap. WebSocket packets whose content is not UTF-8 are binary.
fn seal(encapsulation: Encapsulation, mut out: Vec<u8>, text: bool) -> Bytes {
    match encapsulation {
        Encapsulation::WebSocket => {
            let kind = if text { websocket::Kind::Text } else { websocket::Kind::Binary };
            let mut header = [0; GAP];
            let length = websocket::header(kind, out.len() - GAP, &mut header);
            let start = GAP - length;
            out[start..GAP].copy_from_slice(&header[..length]);
            Bytes::from(out).slice(start..)
        }
        Encapsulation::SockJsWebSocket => {
            let mut packet = Vec::with_capacity(GAP + 4 + out.len() * 9 / 8);
            packet.resize(GAP, 0);
            packet.extend_from_slice(b"a[");
            sockjs::element(&out[GAP..], &mut packet);
            packet.push(b']');
            seal(Encapsulation::WebSocket, packet, true)
        }
        Encapsulation::SockJs => {
            let mut element = Vec::new();
            sockjs::element(&out[GAP..], &mut element);
            Bytes::from(element)
        }
        Encapsulation::Bare => Bytes::from(out).slice(GAP..),
    }
}

/// A SockJS packet as a packet of its WebSocket.
fn sockjs_packet(packet: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(GAP + packet.len());
    websocket::frame(websocket::Kind::Text, packet, &mut out);
    Bytes::from(out)
}

/// The first packet of a SockJS session on a WebSocket.
#[must_use]
pub fn sockjs_open() -> Bytes {
    sockjs_packet(sockjs::OPEN)
}

/// SockJS's own heart-beat.
#[must_use]
pub fn sockjs_heart_beat() -> Bytes {
    sockjs_packet(sockjs::HEART_BEAT)
}

/// A message of an application without STOMP.
#[must_use]
pub fn plain(encapsulation: Encapsulation, content: endpoints::PlainMessage<'_>) -> Bytes {
    let mut out = Vec::with_capacity(GAP + content.bytes.len());
    out.resize(GAP, 0);
    out.extend_from_slice(content.bytes);
    seal(encapsulation, out, content.text)
}

#[must_use]
pub fn connected(format: FrameFormat, session: SessionId, user: UserId, heart_beat: (u32, u32)) -> Bytes {
    let mut out = begin(Command::Connected, 192);
    // Escaping never applies to CONNECTED (STOMP 1.2, "Value Encoding"); no value here needs it.
    stomp::header(&mut out, Version::V10, "version", format.version.text());
    stomp::header(&mut out, Version::V10, "heart-beat", &format!("{},{}", heart_beat.0, heart_beat.1));
    stomp::header(&mut out, Version::V10, "session", &session.to_string());
    stomp::header(&mut out, Version::V10, "server", concat!("tidings/", env!("CARGO_PKG_VERSION")));
    stomp::header(&mut out, Version::V10, "user-name", &user.to_string());
    stomp::finish(&mut out, None);
    seal(format.encapsulation, out, true)
}

#[must_use]
pub fn receipt(format: FrameFormat, id: &str) -> Bytes {
    let FrameFormat { encapsulation, version } = format;
    let mut out = begin(Command::Receipt, 32 + id.len());
    stomp::header(&mut out, version, "receipt-id", id);
    stomp::finish(&mut out, None);
    seal(encapsulation, out, true)
}

/// `message` is one line; details go in the body, for people who read their client's log.
#[must_use]
pub fn error(format: FrameFormat, message: &str, receipt: Option<&str>) -> Bytes {
    error_later(format, message, receipt, None)
}

/// The ERROR of a refused SEND: with `retry-after` in seconds where waiting helps.
#[must_use]
pub fn refused(format: FrameFormat, refusal: &Refusal, receipt: Option<&str>) -> Bytes {
    error_later(format, &refusal.to_string(), receipt, refusal.retry_after)
}

fn error_later(format: FrameFormat, message: &str, receipt: Option<&str>, retry_after: Option<u32>) -> Bytes {
    let FrameFormat { encapsulation, version } = format;
    let mut out = begin(Command::Error, 128 + message.len());
    stomp::header(&mut out, version, "message", message);
    if let Some(receipt) = receipt {
        stomp::header(&mut out, version, "receipt-id", receipt);
    }
    if let Some(seconds) = retry_after {
        stomp::header(&mut out, version, "retry-after", &seconds.to_string());
    }
    if message == UNSUPPORTED_VERSION {
        // STOMP 1.2, "Protocol Negotiation": the ERROR of a failed negotiation lists the supported versions.
        stomp::header(&mut out, version, "version", "1.2,1.1,1.0");
    }
    stomp::header(&mut out, version, "content-type", "text/plain");
    stomp::finish(&mut out, Some(message.as_bytes()));
    seal(encapsulation, out, true)
}

#[must_use]
pub fn message(address: Address<'_>, content: MessageContent<'_>) -> Bytes {
    let Address { format, destination, subscription, acknowledged } = address;
    let FrameFormat { encapsulation, version } = format;
    // Over SockJS only text passes, and the length must be that of the text.
    let body = if encapsulation.is_text() { text_of(content.body) } else { Cow::Borrowed(content.body) };
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
    stomp::finish(&mut out, Some(&body));
    let text = encapsulation != Encapsulation::WebSocket || std::str::from_utf8(&body).is_ok();
    seal(encapsulation, out, text)
}

fn text_of(body: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(body) {
        Cow::Borrowed(_) => Cow::Borrowed(body),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn ack_id(subscription: Option<&str>, message_id: &str) -> String {
    format!("{message_id}/{}", subscription.unwrap_or_default())
}

/// An EOL between frames: a heart-beat.
#[must_use]
pub fn heart_beat(encapsulation: Encapsulation) -> Bytes {
    Bytes::from_static(match encapsulation {
        Encapsulation::WebSocket => b"\x81\x01\n",
        Encapsulation::SockJsWebSocket => b"\x81\x07a[\"\\n\"]",
        Encapsulation::SockJs => b"\"\\n\"",
        Encapsulation::Bare => b"\n",
    })
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

/// The end of a connection: nothing if it is bare; a SockJS session also gets its own close packet.
#[must_use]
pub fn close(encapsulation: Encapsulation, code: u16, reason: &str) -> Bytes {
    let mut out = Vec::with_capacity(2 + 125);
    match encapsulation {
        Encapsulation::WebSocket => websocket::close(code, reason, &mut out),
        Encapsulation::SockJsWebSocket => {
            websocket::frame(websocket::Kind::Text, &sockjs::close(code, reason), &mut out);
            websocket::close(code, reason, &mut out);
        }
        Encapsulation::SockJs | Encapsulation::Bare => {}
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;

    const FORMAT: FrameFormat = FrameFormat { encapsulation: Encapsulation::WebSocket, version: Version::V12 };

    #[test]
    fn a_message_is_one_packet() {
        let id = MessageId::from_parts(Wall::from_unix_seconds(1), 0, 0);
        let content = MessageContent { message_id: id, content_type: "application/json", headers: &[], body: b"{}" };
        let address = Address { format: FORMAT, destination: "/topic/a", subscription: Some("s:1"), acknowledged: true };
        let frame = message(address, content);
        // RFC 6455 section 5.2: a length above 125 takes two more bytes.
        let payload = if frame[1] == 126 { &frame[4..] } else { &frame[2..] };
        let text = std::str::from_utf8(payload).unwrap();
        assert!(text.starts_with("MESSAGE\ndestination:/topic/a\nsubscription:s\\c1\nmessage-id:"), "{text:?}");
        assert!(text.contains(&format!("\nack:{id}/s\\c1\n")), "{text:?}");
        assert!(text.ends_with("content-length:2\n\n{}\0"), "{text:?}");
        assert_eq!(frame[0], 0x81);
    }

    #[test]
    fn a_body_that_is_not_utf_8_goes_in_a_binary_packet() {
        let id = MessageId::from_parts(Wall::from_unix_seconds(1), 0, 0);
        let content = MessageContent { message_id: id, content_type: "application/octet-stream", headers: &[], body: b"\xFF\0" };
        let address = Address { format: FORMAT, destination: "/topic/a", subscription: Some("0"), acknowledged: false };
        assert_eq!(message(address, content)[0], 0x82);
        // As text the body differs, and so does its length.
        let frame =
            message(Address { format: FrameFormat { encapsulation: Encapsulation::SockJs, ..FORMAT }, ..address }, content);
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.ends_with("content-length:4\\n\\n\\ufffd\\u0000\\u0000\""), "{text}");
    }

    #[test]
    fn each_encapsulation_has_its_heart_beat() {
        for encapsulation in
            [Encapsulation::WebSocket, Encapsulation::SockJsWebSocket, Encapsulation::SockJs, Encapsulation::Bare]
        {
            assert_eq!(heart_beat(encapsulation), plain(encapsulation, endpoints::PlainMessage { text: true, bytes: b"\n" }));
        }
    }
}
