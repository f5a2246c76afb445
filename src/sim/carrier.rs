//! What a device's STOMP travels in: a WebSocket, SockJS in one, SockJS over HTTP, or nothing, in real bytes.

use std::collections::VecDeque;

use crate::protocol::sockjs;
use crate::protocol::websocket::{self, Kind, MessageLimits, Packet};
use crate::shard::ListenerKind;
use crate::sim::device::{Ctx, Do};
use crate::sim::network::Line;
use crate::sim::rest::parse;

/// The key of RFC 6455 section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What came out of it.
#[derive(Debug)]
pub(super) enum Carried {
    /// STOMP can begin.
    Open,
    Stomp(Vec<u8>),
    Close(Option<u16>),
    /// The way in was refused with this status.
    Refused(u16),
    /// The session at the other end is not the one that was there.
    Lost,
    Fault(String),
}

/// Lifetime: one link.
pub(super) enum Carrier {
    Bare,
    WebSocket(WebSocket),
    Http(Http),
}

pub(super) struct WebSocket {
    sockjs: bool,
    /// The head of the answer to the handshake, until it is whole.
    head: Option<Vec<u8>>,
    decoder: websocket::Decoder,
    message: Vec<u8>,
}

/// SockJS over HTTP: one line waits for packets, the other brings messages, one request after the other.
pub(super) struct Http {
    /// Path of the session, and the query of every request.
    session: String,
    query: String,
    stream: bool,
    open: bool,
    received: Vec<u8>,
    /// The head of a streaming response has come, and is its body's.
    streaming: bool,
    packets: Vec<u8>,
    answers: Vec<u8>,
    bodies: VecDeque<Vec<u8>>,
    bringing: bool,
    /// The line that brings is there.
    connected: bool,
}

impl Carrier {
    /// Opens the lines. `query` is empty or has the token; `name` is the SockJS session's.
    pub(super) fn begin(ctx: &mut Ctx<'_>, query: &str, name: u64) -> Self {
        let choice = ctx.random.below(20);
        let kind = if choice == 0 && query.is_empty() { ListenerKind::Stomp } else { ListenerKind::Http };
        ctx.out.push(Do::Open(Line::Socket, kind));
        if kind == ListenerKind::Stomp {
            return Self::Bare;
        }
        let sockjs = choice >= 13;
        let session = format!("/ws/{:03}/{name:x}", ctx.random.below(1_000));
        if choice >= 16 {
            let stream = ctx.random.percent(50);
            let http = Http {
                session,
                query: query.to_owned(),
                stream,
                open: false,
                received: Vec::new(),
                streaming: false,
                packets: Vec::new(),
                answers: Vec::new(),
                bodies: VecDeque::new(),
                bringing: false,
                connected: false,
            };
            http.ask(ctx);
            return Self::Http(http);
        }
        let path = if sockjs { format!("{session}/websocket") } else { ctx.random.pick(&["/ws", "/ws/websocket"]).to_owned() };
        let request = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: v12.stomp, v11.stomp\r\n\r\n"
        );
        ctx.out.push(Do::Send(Line::Socket, request.into_bytes()));
        let decoder = websocket::Decoder::client();
        Self::WebSocket(WebSocket { sockjs, head: Some(Vec::new()), decoder, message: Vec::new() })
    }

    /// Whether STOMP may begin before anything has come.
    pub(super) fn takes_at_once(&self) -> bool {
        match self {
            Self::Bare => true,
            Self::WebSocket(websocket) => !websocket.sockjs,
            Self::Http(_) => false,
        }
    }

    /// Nothing stands between the device and STOMP from the start.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self, Self::Bare)
    }

    /// Sends STOMP bytes: in one piece or several, cut anywhere.
    pub(super) fn send(&mut self, ctx: &mut Ctx<'_>, batch: &[u8]) {
        let mut out = Vec::new();
        let mut elements = Vec::new();
        for piece in pieces(ctx, batch) {
            match self {
                Self::Bare => out.extend_from_slice(piece),
                Self::WebSocket(websocket) if !websocket.sockjs => packet(ctx, Kind::Text, piece, &mut out),
                Self::WebSocket(_) | Self::Http(_) => {
                    let mut element = Vec::new();
                    sockjs::element(piece, &mut element);
                    elements.push(element);
                }
            }
        }
        if !elements.is_empty() {
            let mut array = Vec::new();
            sockjs::array(elements.iter().map(Vec::as_slice), &mut array);
            // What clients send has no letter before it.
            array.remove(0);
            match self {
                Self::Http(http) => return http.bring(ctx, array),
                Self::Bare | Self::WebSocket(_) => packet(ctx, Kind::Text, &array, &mut out),
            }
        }
        if !out.is_empty() {
            ctx.out.push(Do::Send(Line::Socket, out));
        }
    }

    /// A ping, where there are pings.
    pub(super) fn ping(&self, ctx: &mut Ctx<'_>, bytes: usize) {
        if let Self::WebSocket(_) = self {
            let mut out = Vec::new();
            packet(ctx, Kind::Ping, &vec![b'p'; bytes], &mut out);
            ctx.out.push(Do::Send(Line::Socket, out));
        }
    }

    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, line: Line, bytes: &[u8]) -> Vec<Carried> {
        match (self, line) {
            (Self::Bare, _) => vec![Carried::Stomp(bytes.to_vec())],
            (Self::WebSocket(websocket), _) => websocket.receive(ctx, bytes),
            (Self::Http(http), Line::Bring) => http.brought(ctx, bytes),
            (Self::Http(http), _) => http.receive(ctx, bytes),
        }
    }

    /// The line that brings messages is gone. Whether one of them was on its way: what became of it nobody knows.
    pub(super) fn bring_ended(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Self::Http(http) = self else { return false };
        http.connected = false;
        http.answers.clear();
        if !http.bringing {
            http.bring_next(ctx);
        }
        http.bringing && !http.connected
    }
}

/// At characters' ends, as strings are.
fn pieces<'a>(ctx: &mut Ctx<'_>, batch: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let mut count = if ctx.random.percent(70) { rest.len() } else { ctx.random.between(1, rest.len()) };
        while rest.get(count).is_some_and(|byte| byte & 0xC0 == 0x80) {
            count += 1;
        }
        let (piece, behind) = rest.split_at(count);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn packet(ctx: &mut Ctx<'_>, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let mask = (ctx.random.bits() as u32).to_be_bytes();
    websocket::masked_frame(kind, mask, payload, out);
}

/// A packet of SockJS, told.
fn unpack(packet: &[u8], open: &mut bool, carried: &mut Vec<Carried>) {
    match packet.split_first() {
        Some((b'o', [])) if *open => carried.push(Carried::Lost),
        Some((b'o', [])) => {
            *open = true;
            carried.push(Carried::Open);
        }
        // A heart-beat, or what a stream begins with.
        Some((b'h', _)) => {}
        Some((b'a', array)) => match sockjs::messages(array) {
            Ok(messages) => carried.push(Carried::Stomp(messages.bytes().to_vec())),
            Err(sockjs::BrokenJson) => carried.push(Carried::Fault(format!("{:?}", String::from_utf8_lossy(packet)))),
        },
        Some((b'c', rest)) => {
            let code = std::str::from_utf8(rest).ok().and_then(|rest| rest.get(1..5)?.parse().ok());
            carried.push(Carried::Close(code));
        }
        _ => carried.push(Carried::Fault(format!("{:?}", String::from_utf8_lossy(packet)))),
    }
}

impl WebSocket {
    fn receive(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Vec<Carried> {
        let mut carried = Vec::new();
        let mut bytes = bytes.to_vec();
        if let Some(head) = &mut self.head {
            head.extend_from_slice(&bytes);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { return carried };
            bytes = head.split_off(end + 4);
            let head = String::from_utf8_lossy(head).into_owned();
            if !head.starts_with("HTTP/1.1 101 ") {
                return vec![Carried::Refused(head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0))];
            }
            if !head.contains(ACCEPT) {
                return vec![Carried::Fault(format!("a wrong accept key: {head:?}"))];
            }
            self.head = None;
            if !self.sockjs {
                carried.push(Carried::Open);
            }
        }
        self.decode(ctx, &mut bytes, &mut carried);
        carried
    }

    fn decode(&mut self, ctx: &mut Ctx<'_>, bytes: &mut [u8], carried: &mut Vec<Carried>) {
        let mut input = bytes;
        let limits = MessageLimits { message_bytes: usize::MAX, fragments: 1 };
        loop {
            match self.decoder.next(&mut input, limits) {
                Ok(None) => return,
                Ok(Some(Packet::Data { bytes, .. })) if !self.sockjs => carried.push(Carried::Stomp(bytes.to_vec())),
                Ok(Some(Packet::Data { bytes, end_of_message, .. })) => {
                    self.message.extend_from_slice(bytes);
                    if end_of_message {
                        // One WebSocket has one session, so its opening comes once.
                        unpack(&std::mem::take(&mut self.message), &mut false, carried);
                    }
                }
                Ok(Some(Packet::Ping(payload))) => {
                    let mut out = Vec::new();
                    packet(ctx, Kind::Pong, payload, &mut out);
                    ctx.out.push(Do::Send(Line::Socket, out));
                }
                Ok(Some(Packet::Pong(_))) => {}
                // SockJS has said why before.
                Ok(Some(Packet::Close { .. })) if self.sockjs => {}
                Ok(Some(Packet::Close { code, .. })) => carried.push(Carried::Close(code)),
                Err(violation) => return carried.push(Carried::Fault(violation.what.to_owned())),
            }
        }
    }
}

impl Http {
    fn ask(&self, ctx: &mut Ctx<'_>) {
        let transport = if self.stream { "xhr_streaming" } else { "xhr" };
        let request =
            format!("POST {}/{transport}{} HTTP/1.1\r\nHost: sim\r\nContent-Length: 0\r\n\r\n", self.session, self.query);
        ctx.out.push(Do::Send(Line::Socket, request.into_bytes()));
    }

    fn bring(&mut self, ctx: &mut Ctx<'_>, body: Vec<u8>) {
        self.bodies.push_back(body);
        self.bring_next(ctx);
    }

    fn bring_next(&mut self, ctx: &mut Ctx<'_>) {
        if self.bringing {
            return;
        }
        let Some(body) = self.bodies.pop_front() else { return };
        if !self.connected {
            self.connected = true;
            ctx.out.push(Do::Open(Line::Bring, ListenerKind::Http));
        }
        self.bringing = true;
        let head = format!(
            "POST {}/xhr_send{} HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n",
            self.session,
            self.query,
            body.len()
        );
        ctx.out.push(Do::Send(Line::Bring, [head.as_bytes(), &body].concat()));
    }

    fn brought(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Vec<Carried> {
        self.answers.extend_from_slice(bytes);
        let mut carried = Vec::new();
        while let Some((answer, length)) = parse(&self.answers) {
            self.answers.drain(..length);
            match answer.status {
                204 => {}
                // Gone, or ending.
                404 | 503 => carried.push(Carried::Lost),
                // A connection that is ended for its silence may be told so.
                408 => continue,
                status => carried.push(Carried::Fault(format!("xhr_send was answered {status}"))),
            }
            self.bringing = false;
        }
        if carried.is_empty() {
            self.bring_next(ctx);
        }
        carried
    }

    fn receive(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Vec<Carried> {
        self.received.extend_from_slice(bytes);
        let mut carried = Vec::new();
        loop {
            let done = if self.streaming { self.take_chunk() } else { self.take_response(&mut carried) };
            let Some(done) = done else { break };
            self.take_packets(&mut carried);
            if done {
                self.streaming = false;
                if !carried.iter().any(|item| matches!(item, Carried::Close(_) | Carried::Lost | Carried::Refused(_))) {
                    self.ask(ctx);
                }
            }
        }
        carried
    }

    /// The beginning of a stream, or a whole answer: then true.
    fn take_response(&mut self, carried: &mut Vec<Carried>) -> Option<bool> {
        let end = self.received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        if head.contains("Transfer-Encoding: chunked\r\n") {
            self.received.drain(..end);
            self.streaming = true;
            return Some(false);
        }
        let (answer, length) = parse(&self.received)?;
        self.received.drain(..length);
        match answer.status {
            200 => self.packets.extend_from_slice(&answer.body),
            status => carried.push(Carried::Refused(status)),
        }
        Some(true)
    }

    /// A chunk; the last one: true.
    fn take_chunk(&mut self) -> Option<bool> {
        let end = self.received.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(&String::from_utf8_lossy(&self.received[..end]), 16).unwrap_or(0);
        let chunk = self.received.get(end + 2..end + 2 + length + 2)?;
        self.packets.extend_from_slice(&chunk[..length]);
        self.received.drain(..end + 2 + length + 2);
        Some(length == 0)
    }

    fn take_packets(&mut self, carried: &mut Vec<Carried>) {
        while let Some(end) = self.packets.iter().position(|byte| *byte == b'\n') {
            let packet: Vec<u8> = self.packets.drain(..=end).collect();
            unpack(&packet[..end], &mut self.open, carried);
        }
    }
}
