//! A connection that is no longer HTTP, or never was: its bytes to packets, and packets to what its protocol reads.

use crate::model::Close;
use crate::protocol::sockjs;
use crate::protocol::websocket::{self, Packet};
use crate::session::endpoints::Plain;
use crate::session::frames::{self, Encapsulation};
use crate::shard::clients::framing::{Framing, WebSocket};
use crate::shard::clients::io::ConnectionIo;
use crate::shard::clients::payload::Payload;
use crate::shard::clients::stomp::StompStream;
use crate::shard::mail::SessionKey;
use crate::shard::turn::Turn;

/// Lifetime: from the upgrade, or from accept on TCP, to the connection's end.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) framing: Framing,
    pub(super) protocol: Protocol,
}

/// What a client speaks, whatever its messages travel in.
#[derive(Debug)]
pub(super) enum Protocol {
    Stomp(StompStream),
    Plain(Encapsulation, Plain),
}

impl Protocol {
    pub(super) fn session(&self) -> Option<SessionKey> {
        match self {
            Self::Stomp(stomp) => stomp.session(),
            Self::Plain(..) => None,
        }
    }
}

/// What the next packet of a connection came to.
pub(super) enum Read<'i> {
    Payload(Payload<'i>),
    /// All bytes were taken.
    Nothing,
    /// Close the connection with this.
    Close(Close),
    /// The peer closed, and was answered.
    Closed,
}

impl Socket {
    /// Takes the next payload off the front of `bytes`. Control packets are answered on the way.
    pub(super) fn next_payload<'i>(&mut self, turn: &mut Turn, io: &mut ConnectionIo, bytes: &mut &'i mut [u8]) -> Read<'i> {
        match &mut self.framing {
            Framing::Bare if bytes.is_empty() => Read::Nothing,
            Framing::Bare => {
                let bytes: &'i mut [u8] = std::mem::take(bytes);
                Read::Payload(Payload::Borrowed { text: false, bytes })
            }
            Framing::WebSocket(websocket) => {
                // STOMP does not care where messages begin and end; all other protocols do.
                let whole = websocket.sockjs || matches!(self.protocol, Protocol::Plain(..));
                websocket.next_payload(turn, io, whole, bytes)
            }
        }
    }
}

impl WebSocket {
    fn next_payload<'i>(&mut self, turn: &mut Turn, io: &mut ConnectionIo, whole: bool, bytes: &mut &'i mut [u8]) -> Read<'i> {
        let limits = turn.limits();
        let limits = websocket::MessageLimits { message_bytes: limits.message_bytes, fragments: limits.message_fragments };
        loop {
            match self.decoder.next(bytes, limits) {
                Ok(None) => return Read::Nothing,
                Ok(Some(Packet::Data { text, bytes, end_of_message })) => {
                    let payload = if !whole || (end_of_message && self.message.is_empty()) {
                        Payload::Borrowed { text, bytes }
                    } else {
                        self.message.extend_from_slice(bytes);
                        if !end_of_message {
                            continue;
                        }
                        Payload::Owned { text, bytes: std::mem::take(&mut self.message), read: 0 }
                    };
                    if !self.sockjs {
                        return Read::Payload(payload);
                    }
                    match sockjs::messages(payload.rest()) {
                        _ if payload.rest().is_empty() => {}
                        Ok(messages) => return Read::Payload(Payload::messages(messages)),
                        Err(sockjs::BrokenJson) => return Read::Close(Close::Protocol),
                    }
                }
                Ok(Some(Packet::Ping(payload))) => {
                    let pong = frames::pong(payload);
                    if io.outbox.bytes() + pong.len() > turn.limits().outbox_bytes {
                        return Read::Close(Close::SendLimit);
                    }
                    io.write(turn, pong);
                }
                Ok(Some(Packet::Pong(_))) => {}
                Ok(Some(Packet::Close { code, .. })) => {
                    // RFC 6455 section 5.5.1: a close frame is answered with its own code.
                    let mut out = Vec::with_capacity(8);
                    match code {
                        Some(code) => websocket::close(code, "", &mut out),
                        None => websocket::frame(websocket::Kind::Close, &[], &mut out),
                    }
                    io.write(turn, out.into());
                    return Read::Closed;
                }
                Err(violation) => {
                    tracing::debug!(shard = turn.id.0, what = violation.what, "WebSocket violation");
                    return Read::Close(violation.close);
                }
            }
        }
    }
}
