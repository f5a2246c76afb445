//! The server's own protocol rooms, turned round: what a client reads and writes of STOMP 1.2 over WebSocket
//! and SockJS.

use std::collections::VecDeque;
use std::sync::LazyLock;

use tidings::model::Limits;
use tidings::protocol::sockjs::element;
use tidings::protocol::stomp::{self, Command, Frame, Item, Side, Version};
use tidings::protocol::websocket::{self, Kind, MessageLimits, Packet};

use crate::random::Random;
use crate::sockjs::{self, Transport};

/// A client reads what its server sends, within reason: 16 MiB.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    frame_bytes: FRAME_BYTES_MAX,
    frame_header_bytes: 64 * 1024,
    message_fragments: usize::MAX,
    ..Limits::default()
});

/// What came in.
#[expect(clippy::large_enum_variant, reason = "it lives for one call, and nearly always is the large variant")]
pub enum Event<'a> {
    /// A session of SockJS begins.
    Open,
    Frame(Frame<'a>),
    HeartBeat,
    Ping(&'a [u8]),
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// The incoming direction of one connection.
pub struct Codec {
    transport: Transport,
    websocket: websocket::Decoder,
    stomp: stomp::Decoder,
    /// What came of the packet that is not whole.
    packet: Vec<u8>,
}

impl Codec {
    pub fn new(transport: Transport) -> Self {
        let mut stomp = stomp::Decoder::new(Side::Client);
        // Only 1.2 is offered; CONNECTED, the one frame before it counts, is read alike.
        stomp.set_version(Version::V12);
        Self { transport, websocket: websocket::Decoder::client(), stomp, packet: Vec::new() }
    }

    /// Decodes what a WebSocket brought, unmasking in place.
    ///
    /// # Errors
    /// A fault of the server's framing, or what `on_event` returned.
    pub fn feed(
        &mut self,
        mut bytes: &mut [u8],
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), Box<str>>,
    ) -> Result<(), Box<str>> {
        let limits = &*LIMITS;
        while let Some(packet) =
            self.websocket.next(&mut bytes, MessageLimits::from(limits)).map_err(|violation| violation.what)?
        {
            match packet {
                Packet::Data { bytes, .. } if self.transport == Transport::Websocket => {
                    feed_stomp(&mut self.stomp, bytes, on_event)?;
                }
                Packet::Data { bytes, end_of_message, .. } => {
                    self.packet.extend_from_slice(bytes);
                    if end_of_message {
                        feed_packet(&mut self.stomp, &std::mem::take(&mut self.packet), on_event)?;
                    }
                }
                Packet::Ping(payload) => on_event(Event::Ping(payload))?,
                Packet::Pong(_) => {}
                Packet::Close { code, reason } => on_event(Event::Close { code, reason })?,
            }
        }
        Ok(())
    }

    /// Decodes a whole packet of SockJS.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_packet(
        &mut self,
        packet: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> Result<(), Box<str>>,
    ) -> Result<(), Box<str>> {
        feed_packet(&mut self.stomp, packet, on_event)
    }
}

fn feed_packet(
    stomp: &mut stomp::Decoder,
    packet: &[u8],
    on_event: &mut impl FnMut(Event<'_>) -> Result<(), Box<str>>,
) -> Result<(), Box<str>> {
    match sockjs::parse(packet)? {
        sockjs::Packet::Open => on_event(Event::Open),
        sockjs::Packet::HeartBeat => Ok(()),
        sockjs::Packet::Messages(messages) => feed_stomp(stomp, messages.bytes(), on_event),
        sockjs::Packet::Close { code, reason } => on_event(Event::Close { code: Some(code), reason: &reason }),
    }
}

fn feed_stomp(
    stomp: &mut stomp::Decoder,
    mut bytes: &[u8],
    on_event: &mut impl FnMut(Event<'_>) -> Result<(), Box<str>>,
) -> Result<(), Box<str>> {
    loop {
        // An item borrows from the decoder as long as from its input: each call has a slice of its own.
        let mut rest = bytes;
        let Some(item) = stomp.next(&mut rest, &LIMITS).map_err(|fault| fault.message)? else { return Ok(()) };
        let taken = bytes.len() - rest.len();
        on_event(match item {
            Item::Frame(frame) => Event::Frame(frame),
            Item::HeartBeat => Event::HeartBeat,
        })?;
        bytes = bytes.get(taken..).unwrap_or_default();
    }
}

/// The outgoing direction: masked frames that wait to be written, or messages that a request of SockJS will take along.
#[derive(Default)]
pub struct Outbox {
    transport: Transport,
    /// JSON strings, over HTTP only.
    pub messages: VecDeque<Vec<u8>>,
    bytes: Vec<u8>,
    /// How much of `bytes` was written.
    written: usize,
    frame: Vec<u8>,
}

impl Outbox {
    /// An empty one.
    pub fn new(transport: Transport) -> Self {
        Self { transport, ..Self::default() }
    }

    pub fn frame(&mut self, command: Command, headers: &[(&str, &str)], body: &[u8], random: &mut Random) {
        self.frame.clear();
        let body = (command == Command::Send).then_some(body);
        stomp::encode(&mut self.frame, Version::V12, command, headers, body);
        self.push(random);
    }

    /// Frames what is in `frame` as the transport wants it.
    fn push(&mut self, random: &mut Random) {
        let Self { transport, messages, bytes, frame, .. } = self;
        let mut string = Vec::new();
        match transport {
            Transport::Websocket => websocket::masked_frame(Kind::Text, random.mask(), frame, bytes),
            Transport::SockjsWebsocket => {
                string.push(b'[');
                element(frame, &mut string);
                string.push(b']');
                websocket::masked_frame(Kind::Text, random.mask(), &string, bytes);
            }
            Transport::XhrStreaming | Transport::XhrPolling => {
                element(frame, &mut string);
                messages.push_back(string);
            }
        }
    }

    /// An EOL: STOMP's heart-beat.
    pub fn beat(&mut self, random: &mut Random) {
        self.frame.clear();
        self.frame.extend_from_slice(stomp::HEART_BEAT);
        self.push(random);
    }

    pub fn pong(&mut self, payload: &[u8], random: &mut Random) {
        websocket::masked_frame(Kind::Pong, random.mask(), payload, &mut self.bytes);
    }

    /// A close frame with code 1000.
    pub fn close(&mut self, random: &mut Random) {
        websocket::masked_frame(Kind::Close, random.mask(), &1000u16.to_be_bytes(), &mut self.bytes);
    }

    /// Bytes as they are: the handshake.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.messages.is_empty()
    }

    /// The first `count` pending bytes were written.
    pub fn consume(&mut self, count: usize) {
        self.written += count;
        assert!(self.written <= self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
        self.written = 0;
        // An idle connection holds no buffers, so that ten thousand of them stay small.
        if self.bytes.capacity() > 4_096 {
            self.bytes = Vec::new();
        }
    }
}

/// The first whole MESSAGE among raw bytes of a server, with its WebSocket header: what one delivery costs on the wire.
pub fn first_message(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (header, payload) = match *bytes {
            [_, short @ 0..=125, ..] => (2, usize::from(short)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            // Longer than any delivery measured here, or not whole.
            _ => return None,
        };
        let frame = bytes.get(..header + payload)?;
        if frame.get(header..).is_some_and(|payload| payload.starts_with(b"MESSAGE\n")) {
            return Some(frame);
        }
        bytes = bytes.get(header + payload..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut frame = Vec::new();
        websocket::frame(Kind::Ping, b"p", &mut bytes);
        websocket::frame(Kind::Text, b"\n", &mut bytes);
        let headers = [("destination", "/x"), ("message-id", "1"), ("subscription", "0")];
        stomp::encode(&mut frame, Version::V12, Command::Message, &headers, Some(b"{\"a\":1}"));
        websocket::frame(Kind::Text, &frame, &mut bytes);
        websocket::close(1012, "bye", &mut bytes);
        bytes
    }

    #[test]
    fn reads_the_same_however_the_bytes_are_split() {
        let bytes = server_bytes();
        for split in 0..bytes.len() {
            let (mut codec, mut seen) = (Codec::new(Transport::Websocket), Vec::new());
            let (first, second) = bytes.split_at(split);
            for piece in [first, second] {
                let result = codec.feed(&mut piece.to_vec(), &mut |event| {
                    seen.push(match event {
                        Event::Frame(frame) => format!("{:?} {}", frame.command, String::from_utf8_lossy(frame.body)),
                        Event::Open => "open".into(),
                        Event::HeartBeat => "beat".into(),
                        Event::Ping(payload) => format!("ping {}", payload.len()),
                        Event::Close { code, reason } => format!("{code:?} {reason}"),
                    });
                    Ok(())
                });
                assert_eq!(result, Ok(()));
            }
            assert_eq!(seen, ["ping 1", "beat", "Message {\"a\":1}", "Some(1012) bye"], "{split}");
        }
    }

    #[test]
    fn packets_in_a_websocket_are_read_however_the_bytes_are_split() {
        let mut bytes = Vec::new();
        for packet in
            ["o", "a[\"\\n\",\"MESSAGE\\nsubscription:0\\nmess\"]", "h", "a[\"age-id:1\\ndestination:/x\\n\\nhi\\u0000\"]"]
        {
            websocket::frame(Kind::Text, packet.as_bytes(), &mut bytes);
        }
        websocket::frame(Kind::Text, b"c[3000,\"Go away!\"]", &mut bytes);
        for split in 0..bytes.len() {
            let (mut codec, mut seen) = (Codec::new(Transport::SockjsWebsocket), Vec::new());
            let (first, second) = bytes.split_at(split);
            for piece in [first, second] {
                let result = codec.feed(&mut piece.to_vec(), &mut |event| {
                    seen.push(match event {
                        Event::Open => "open".into(),
                        Event::Frame(frame) => format!("{:?} {}", frame.command, String::from_utf8_lossy(frame.body)),
                        Event::HeartBeat => "beat".into(),
                        Event::Ping(_) => "ping".into(),
                        Event::Close { code, reason } => format!("{code:?} {reason}"),
                    });
                    Ok(())
                });
                assert_eq!(result, Ok(()));
            }
            assert_eq!(seen, ["open", "beat", "Message hi", "Some(3000) Go away!"], "{split}");
        }
    }

    #[test]
    fn finds_the_bytes_of_a_delivery() {
        let bytes = server_bytes();
        let message = first_message(&bytes).unwrap();
        assert!(message.ends_with(b"{\"a\":1}\0"));
        assert_eq!(first_message(&bytes[..bytes.len() - 10]), None);
        assert_eq!(first_message(b""), None);
    }

    #[test]
    fn what_was_written_in_part_goes_on() {
        let mut out = Outbox::default();
        out.raw(b"abcdef");
        out.consume(4);
        assert_eq!(out.pending(), b"ef");
        out.raw(b"g");
        out.consume(3);
        assert!(out.is_empty());
    }
}
