//! A connection's bytes to events.
//!
//! Bytes are read in two steps. First the framing around STOMP is taken off, up to the next event of its own: messages of a
//! WebSocket are moved together within the input, packets of SockJS are decoded into the client's buffer. Then STOMP is read from
//! there, frame by frame. The event of the framing comes last.

use std::ops::Range;
use std::sync::LazyLock;

use super::sockjs::{Packet, Session};
use super::websocket::WebSocket;
use super::{Client, Error, Event, Framing, KEPT_BYTES_MAX, Random, Role, Transport, Wire};
use crate::model::Limits;
use crate::protocol::stomp::{Command, Item, Version};
use crate::protocol::websocket::{self, Kind, MessageLimits, masked_frame};

/// A client reads what its server sends, within reason: frames of 16 MiB.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    frame_bytes: 16 * 1024 * 1024,
    frame_header_bytes: 64 * 1024,
    // The server never cuts a message into fragments.
    message_fragments: 1,
    ..Limits::default()
});

/// An event of the framing, behind all STOMP that came before it.
#[derive(Debug)]
enum Pending {
    Open,
    Ping,
    /// Its payload is the client's `text`.
    Pong,
    /// Its reason is the client's `text`.
    Closed(Option<u16>),
    Error(Error),
}

/// The bytes of one read, while their events are taken out. Lifetime: one read.
pub struct Received<'c> {
    client: &'c mut Client,
    role: Role,
    input: &'c mut [u8],
    /// How much of the input was read by the framing.
    at: usize,
    /// STOMP within the input.
    stream: Range<usize>,
    pending: Option<Pending>,
    /// The framing has read all of the input.
    unframed: bool,
}

impl<'c> Received<'c> {
    pub(super) fn new(client: &'c mut Client, role: Role, input: &'c mut [u8]) -> Self {
        Self { client, role, input, at: 0, stream: 0..0, pending: None, unframed: false }
    }

    /// The client, to send something in answer to an event.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// The next event; `None` when there is no further whole one.
    ///
    /// # Errors
    /// The client cannot go on. All later calls return `None`.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        while !self.unframed && self.pending.is_none() && self.has_read_stream() && !self.client.ended {
            self.unframe();
        }
        let Self { client, input, stream, pending, .. } = self;
        let Client { stomp, agreed, version, stream: packets, stream_at, text, ended, .. } = &mut **client;
        if *ended {
            return Ok(None);
        }
        if let Some(agreed) = agreed.take() {
            *version = agreed;
            stomp.set_version(agreed);
        }
        let from_packets = stream.start == stream.end;
        let source = if from_packets { packets.get(*stream_at..) } else { input.get(stream.clone()) };
        let mut rest = source.unwrap_or_default();
        let item = stomp.next(&mut rest, &LIMITS);
        if from_packets {
            *stream_at = packets.len() - rest.len();
        } else {
            stream.start = stream.end - rest.len();
        }
        match item {
            Ok(Some(Item::Frame(frame))) => {
                if frame.command == Command::Connected {
                    *agreed = Some(frame.header("version").and_then(Version::parse).unwrap_or(Version::V10));
                }
                return Ok(Some(Event::Frame(frame)));
            }
            Ok(Some(Item::HeartBeat)) => return Ok(Some(Event::HeartBeat)),
            Ok(None) => {}
            Err(fault) => {
                *ended = true;
                return Err(Error::Broken(fault.message));
            }
        }
        Ok(Some(match pending.take() {
            None => return Ok(None),
            Some(Pending::Open) => Event::Open,
            Some(Pending::Ping) => Event::Ping,
            Some(Pending::Pong) => Event::Pong(text),
            Some(Pending::Closed(code)) => {
                *ended = true;
                Event::Closed { code, reason: std::str::from_utf8(text).unwrap_or_default() }
            }
            Some(Pending::Error(error)) => {
                *ended = true;
                return Err(error);
            }
        }))
    }

    fn has_read_stream(&self) -> bool {
        self.stream.is_empty() && self.client.stream_at == self.client.stream.len()
    }

    /// Reads the input up to the next event of the framing, or to its end, and leaves the STOMP before it in `stream` or in the
    /// client's buffer.
    fn unframe(&mut self) {
        let Self { client, role, input, at, stream, pending, unframed } = self;
        let Client { framing, transport, stream: packets, stream_at, text, binary, receiver, sender, random, .. } = &mut **client;
        (*stream, *stream_at) = (*at..*at, 0);
        packets.clear();
        if packets.capacity() > KEPT_BYTES_MAX {
            *packets = Vec::new();
        }
        let result = match framing {
            Framing::Tcp => {
                *stream = *at..input.len();
                *at = input.len();
                Ok(None)
            }
            Framing::WebSocket(websocket) if websocket.is_opening() => open(websocket, *transport, input, at),
            Framing::WebSocket(websocket) => {
                let mut controls = Controls { text, receiver, random };
                if *transport == Transport::SockJsWebSocket {
                    receive_packets(websocket, input, at, packets, &mut controls)
                } else {
                    receive_messages(websocket, input, at, stream, binary, &mut controls)
                }
            }
            Framing::Http(session) => {
                let mut rest = input.get(*at..).unwrap_or_default();
                let result = match role {
                    Role::Receiver => receive_lines(session, &mut rest, packets, text, receiver),
                    Role::Sender => session.receive_sent(std::mem::take(&mut rest), sender).map(|()| None),
                };
                *at = input.len() - rest.len();
                result
            }
        };
        *pending = result.unwrap_or_else(|error| Some(Pending::Error(error)));
        *unframed = pending.is_none() && *at == input.len();
    }
}

/// Reads the response to the handshake.
fn open(websocket: &mut WebSocket, transport: Transport, input: &[u8], at: &mut usize) -> Result<Option<Pending>, Error> {
    let mut rest = input.get(*at..).unwrap_or_default();
    let opened = websocket.take_handshake(&mut rest)?;
    *at = input.len() - rest.len();
    Ok((opened && transport == Transport::WebSocket).then_some(Pending::Open))
}

/// The parts of a client that control frames of a WebSocket change.
struct Controls<'c> {
    text: &'c mut Vec<u8>,
    receiver: &'c mut Wire,
    random: &'c mut Random,
}

impl Controls<'_> {
    fn receive(&mut self, packet: websocket::Packet<'_, '_>) -> Option<Pending> {
        match packet {
            websocket::Packet::Data { .. } => None,
            websocket::Packet::Ping(payload) => {
                masked_frame(Kind::Pong, self.random.mask(), payload, self.receiver.buffer());
                Some(Pending::Ping)
            }
            websocket::Packet::Pong(payload) => {
                replace(self.text, payload);
                Some(Pending::Pong)
            }
            websocket::Packet::Close { code, reason } => {
                replace(self.text, reason.as_bytes());
                Some(Pending::Closed(code))
            }
        }
    }
}

fn replace(text: &mut Vec<u8>, with: &[u8]) {
    text.clear();
    text.extend_from_slice(with);
}

/// Moves the messages of a WebSocket together: they stand behind each other in `stream`, without the headers between them.
fn receive_messages(
    websocket: &mut WebSocket,
    input: &mut [u8],
    at: &mut usize,
    stream: &mut Range<usize>,
    binary: &mut bool,
    controls: &mut Controls<'_>,
) -> Result<Option<Pending>, Error> {
    while *at < input.len() {
        let mut rest = input.get_mut(*at..).unwrap_or_default();
        let packet = websocket.decoder.next(&mut rest, MessageLimits::from(&*LIMITS)).map_err(broken)?;
        let (length, pending) = match packet {
            None => (0, None),
            Some(websocket::Packet::Data { text, bytes, .. }) => {
                *binary = !text;
                (bytes.len(), None)
            }
            Some(packet) => (0, controls.receive(packet)),
        };
        let left = rest.len();
        *at = input.len() - left;
        if pending.is_some() {
            return Ok(pending);
        }
        let message = *at - length..*at;
        if stream.start == stream.end {
            *stream = message;
        } else {
            input.copy_within(message, stream.end);
            stream.end += length;
        }
    }
    Ok(None)
}

/// Reads packets of SockJS in a WebSocket.
fn receive_packets(
    websocket: &mut WebSocket,
    input: &mut [u8],
    at: &mut usize,
    packets: &mut Vec<u8>,
    controls: &mut Controls<'_>,
) -> Result<Option<Pending>, Error> {
    let WebSocket { decoder, packet: held, is_open, .. } = websocket;
    while *at < input.len() {
        let mut rest = input.get_mut(*at..).unwrap_or_default();
        let packet = decoder.next(&mut rest, MessageLimits::from(&*LIMITS)).map_err(broken)?;
        let (is_whole, mut pending) = match packet {
            None => (false, None),
            Some(websocket::Packet::Data { bytes, end_of_message, .. }) => {
                held.extend_from_slice(bytes);
                (end_of_message, None)
            }
            Some(packet) => (false, controls.receive(packet)),
        };
        let left = rest.len();
        *at = input.len() - left;
        if is_whole {
            let packet = Packet::parse(held)?;
            held.clear();
            if held.capacity() > KEPT_BYTES_MAX {
                *held = Vec::new();
            }
            pending = unpack(packet, is_open, packets, controls.text)?;
        }
        if pending.is_some() {
            return Ok(pending);
        }
    }
    Ok(None)
}

/// Reads packets of SockJS in responses of HTTP.
fn receive_lines(
    session: &mut Session,
    input: &mut &[u8],
    packets: &mut Vec<u8>,
    text: &mut Vec<u8>,
    wire: &mut Wire,
) -> Result<Option<Pending>, Error> {
    while let Some(packet) = session.next_packet(input, wire)? {
        let pending = unpack(packet, &mut session.open, packets, text)?;
        if pending.is_some() {
            return Ok(pending);
        }
    }
    Ok(None)
}

fn unpack(packet: Packet, is_open: &mut bool, packets: &mut Vec<u8>, text: &mut Vec<u8>) -> Result<Option<Pending>, Error> {
    match packet {
        Packet::Open if *is_open => Err(Error::SessionLost),
        Packet::Open => {
            *is_open = true;
            Ok(Some(Pending::Open))
        }
        Packet::HeartBeat => Ok(None),
        Packet::Messages(messages) => {
            packets.extend_from_slice(messages.bytes());
            Ok(None)
        }
        Packet::Close { code, reason } => {
            replace(text, reason.as_bytes());
            Ok(Some(Pending::Closed(Some(code))))
        }
    }
}

fn broken(violation: websocket::Violation) -> Error {
    Error::broken(violation.what)
}
