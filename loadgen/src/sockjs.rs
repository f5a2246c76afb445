//! The client's side of SockJS: packets, and a session over two HTTP connections, one that waits for packets and one that
//! brings messages.
//!
//! Strings in packets are read and written by the server's own protocol room, as WebSocket's and STOMP's frames are.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use clap::ValueEnum;
use serde::Serialize;
use tidings::protocol::sockjs::{self, Messages};

use crate::random::Random;

/// How a session travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// STOMP in a plain WebSocket.
    #[default]
    Websocket,
    /// SockJS in a WebSocket.
    SockjsWebsocket,
    /// SockJS: one response carries many packets.
    XhrStreaming,
    /// SockJS: one request for each packet.
    XhrPolling,
}

impl Transport {
    pub fn is_http(self) -> bool {
        matches!(self, Self::XhrStreaming | Self::XhrPolling)
    }
}

/// Where a new session of SockJS is: `/ws/{server}/{session}`, drawn as browsers draw them.
pub fn session_path(random: &mut Random) -> String {
    format!("/ws/{:03}/{:016x}", random.below(1_000), random.next_u64())
}

/// What a server says in SockJS.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    Open,
    HeartBeat,
    Messages(Messages),
    Close { code: u16, reason: String },
}

/// Reads one packet, without the line end behind it.
///
/// # Errors
/// What is wrong with it.
pub fn parse(packet: &[u8]) -> Result<Packet, &'static str> {
    match packet {
        b"o" => Ok(Packet::Open),
        b"h" => Ok(Packet::HeartBeat),
        [b'a', array @ ..] if array.first() == Some(&b'[') => {
            sockjs::messages(array).map(Packet::Messages).map_err(|_| "a SockJS packet without an array of strings")
        }
        [b'c', b'[', close @ .., b']'] => parse_close(close).ok_or("a SockJS close without a code and a reason"),
        _ => Err("a SockJS packet of no known kind"),
    }
}

/// `3000,"Go away!"`
fn parse_close(close: &[u8]) -> Option<Packet> {
    let comma = memchr::memchr(b',', close)?;
    let (code, reason) = close.split_at_checked(comma)?;
    let code = std::str::from_utf8(code).ok()?.trim().parse().ok()?;
    let reason = sockjs::messages(reason.get(1..)?).ok()?;
    Some(Packet::Close { code, reason: String::from_utf8_lossy(reason.bytes()).into_owned() })
}

/// What the beginning of a streaming response is filled up with, as browsers hold that back.
const PRELUDE_BYTES: usize = 2_048;
/// A packet is as long as the server's outbox at most; more than this is no packet.
const PACKET_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One body of `xhr_send`, far below the server's limit of a body. A longer message goes alone.
const BATCH_BYTES_MAX: usize = 48 * 1024;

/// Which of a session's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Receiver,
    Sender,
}

/// One kept-alive HTTP connection with at most one request under way; opened when there is something to be written.
#[derive(Default)]
pub struct Wire {
    pub fd: Option<OwnedFd>,
    /// Registered for writability.
    pub blocked: bool,
    out: Vec<u8>,
    written: usize,
    under_way: bool,
    responses: Responses,
}

impl Wire {
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// The first `count` pending bytes were written.
    pub fn consume(&mut self, count: usize) {
        self.written += count;
        assert!(self.written <= self.out.len());
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    fn begin(&mut self, request: &[u8]) {
        assert!(!self.under_way);
        self.under_way = true;
        self.out.extend_from_slice(request);
    }

    fn end(&mut self, keep: bool) {
        self.under_way = false;
        if !keep {
            self.drop_connection();
        }
    }

    fn drop_connection(&mut self) {
        self.fd = None;
        self.blocked = false;
        self.responses = Responses::default();
    }
}

/// One session over HTTP.
pub struct Session {
    pub receiver: Wire,
    pub sender: Wire,
    host: SocketAddrV4,
    path: String,
    /// Empty, or `?token=...`: every request of a session names its user.
    query: String,
    streaming: bool,
    /// A streaming response begins with its prelude, which has not come.
    prelude_due: bool,
    /// What came of the packet that is not whole.
    packet: Vec<u8>,
}

impl Session {
    /// Asks for the first packets, which opens the session.
    pub fn open(host: SocketAddrV4, query: String, streaming: bool, random: &mut Random) -> Self {
        let path = session_path(random);
        let mut session = Self {
            receiver: Wire::default(),
            sender: Wire::default(),
            host,
            path,
            query,
            streaming,
            prelude_due: false,
            packet: Vec::new(),
        };
        session.ask();
        session
    }

    pub fn wire(&mut self, role: Role) -> &mut Wire {
        match role {
            Role::Receiver => &mut self.receiver,
            Role::Sender => &mut self.sender,
        }
    }

    fn ask(&mut self) {
        let request = self.head(if self.streaming { "xhr_streaming" } else { "xhr" }, 0);
        self.prelude_due = self.streaming;
        self.receiver.begin(request.as_bytes());
    }

    fn head(&self, transport: &str, body_bytes: usize) -> String {
        let Self { host, path, query, .. } = self;
        format!(
            "POST {path}/{transport}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\r\n"
        )
    }

    /// Begins to bring what waits, if nothing is on its way: one request holds as many messages as a body may. True when it
    /// did.
    pub fn bring(&mut self, messages: &mut VecDeque<Vec<u8>>) -> bool {
        if self.sender.under_way || messages.is_empty() {
            return false;
        }
        let mut body = vec![b'['];
        while let Some(message) = messages.front() {
            if body.len() > 1 {
                if body.len() + message.len() > BATCH_BYTES_MAX {
                    break;
                }
                body.push(b',');
            }
            body.extend_from_slice(message);
            messages.pop_front();
        }
        body.push(b']');
        let mut request = self.head("xhr_send", body.len()).into_bytes();
        request.append(&mut body);
        self.sender.begin(&request);
        true
    }

    /// Whether there is something to be written now.
    pub fn is_writable(&self, messages: &VecDeque<Vec<u8>>) -> bool {
        let can_bring = !self.sender.under_way && !messages.is_empty();
        can_bring || !self.receiver.pending().is_empty() || !self.sender.pending().is_empty()
    }

    /// Takes what one of the connections read; whole packets go to `on_packet`. When a response to the receiver ends, the next
    /// request is made at once.
    ///
    /// # Errors
    /// Why the session must end: anything but the answer that was asked for, or what `on_packet` returned.
    pub fn take(
        &mut self,
        role: Role,
        mut bytes: &[u8],
        on_packet: &mut impl FnMut(&[u8]) -> Result<(), Box<str>>,
    ) -> Result<(), Box<str>> {
        let wanted = if role == Role::Receiver { 200 } else { 204 };
        while let Some(piece) = self.wire(role).responses.next(&mut bytes)? {
            if !self.wire(role).under_way {
                return Err("an answer to no request".into());
            }
            match piece {
                Piece::Head { status } if status != wanted => {
                    return Err(format!("{role:?} of SockJS answered with {status}").into());
                }
                Piece::Head { .. } => {}
                Piece::Body(body) if role == Role::Receiver => self.take_body(body, on_packet)?,
                Piece::Body(_) => return Err("a body in an answer to xhr_send".into()),
                Piece::End { keep } => {
                    self.wire(role).end(keep);
                    if role == Role::Receiver {
                        if !self.packet.is_empty() || self.prelude_due {
                            return Err("a response of SockJS ended within a packet".into());
                        }
                        self.ask();
                    }
                }
            }
        }
        Ok(())
    }

    fn take_body(&mut self, mut body: &[u8], on_packet: &mut impl FnMut(&[u8]) -> Result<(), Box<str>>) -> Result<(), Box<str>> {
        while let Some(end) = memchr::memchr(b'\n', body) {
            let (line, rest) = body.split_at(end);
            self.packet.extend_from_slice(line);
            body = rest.get(1..).unwrap_or_default();
            // Taken out while it is read; put back for its memory.
            let mut packet = std::mem::take(&mut self.packet);
            if self.prelude_due {
                if packet.len() != PRELUDE_BYTES || packet.iter().any(|byte| *byte != b'h') {
                    return Err("a stream of SockJS without its prelude".into());
                }
                self.prelude_due = false;
            } else {
                on_packet(&packet)?;
            }
            packet.clear();
            // Idle sessions hold no buffers.
            if packet.capacity() <= 4_096 {
                self.packet = packet;
            }
        }
        if self.packet.len() + body.len() > PACKET_BYTES_MAX {
            return Err("a packet of SockJS is too long".into());
        }
        self.packet.extend_from_slice(body);
        Ok(())
    }

    /// The server has closed one of the connections.
    ///
    /// # Errors
    /// When a request was under way: what it was to bring may be lost.
    pub fn closed(&mut self, role: Role) -> Result<(), Box<str>> {
        let wire = self.wire(role);
        if wire.under_way {
            return Err(format!("{role:?} of SockJS was closed within a request").into());
        }
        wire.drop_connection();
        Ok(())
    }
}

/// A part of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Head { status: u16 },
    Body(&'a [u8]),
    End { keep: bool },
}

const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Responses on one connection of HTTP/1.1 (RFC 9112), as they come: with a length, in chunks, or without a body.
#[derive(Default)]
pub struct Responses {
    state: State,
    /// What came of a head or of a line that is not whole.
    held: Vec<u8>,
    keep: bool,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    Body {
        left: usize,
    },
    ChunkSize,
    Chunk {
        left: usize,
    },
    ChunkEnd,
    Trailer,
}

impl Responses {
    /// The next part, taken off `input`; `None` when there is not enough of one.
    ///
    /// # Errors
    /// What is not HTTP.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, &'static str> {
        loop {
            match self.state {
                State::Head => {
                    if !self.hold_until(b"\r\n\r\n", input)? {
                        return Ok(None);
                    }
                    let held = std::mem::take(&mut self.held);
                    return self.take_head(&held).map(|status| Some(Piece::Head { status }));
                }
                State::Body { left: 0 } => {
                    self.state = State::Head;
                    return Ok(Some(Piece::End { keep: self.keep }));
                }
                State::Body { left } | State::Chunk { left } => {
                    let (piece, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    let left = left - piece.len();
                    self.state = match self.state {
                        State::Chunk { .. } if left == 0 => State::ChunkEnd,
                        State::Chunk { .. } => State::Chunk { left },
                        _ => State::Body { left },
                    };
                    return Ok(if piece.is_empty() { None } else { Some(Piece::Body(piece)) });
                }
                State::ChunkSize => {
                    if !self.hold_until(b"\r\n", input)? {
                        return Ok(None);
                    }
                    let line = std::str::from_utf8(&self.held).unwrap_or("");
                    let digits = line.split([';', '\r']).next().unwrap_or("").trim();
                    let left = usize::from_str_radix(digits, 16).map_err(|_| "a chunk without its size")?;
                    self.held.clear();
                    self.state = if left == 0 { State::Trailer } else { State::Chunk { left } };
                }
                State::ChunkEnd => {
                    if !self.hold_until(b"\r\n", input)? {
                        return Ok(None);
                    }
                    if self.held != b"\r\n" {
                        return Err("a chunk is longer than its size");
                    }
                    self.held.clear();
                    self.state = State::ChunkSize;
                }
                State::Trailer => {
                    if !self.hold_until(b"\r\n", input)? {
                        return Ok(None);
                    }
                    let last = self.held == b"\r\n";
                    self.held.clear();
                    if last {
                        self.state = State::Body { left: 0 };
                    }
                }
            }
        }
    }

    /// Moves input to what is held, up to and with `end`; false when that has not come.
    fn hold_until(&mut self, end: &[u8], input: &mut &[u8]) -> Result<bool, &'static str> {
        let before = self.held.len();
        self.held.extend_from_slice(input);
        let from = before.saturating_sub(end.len() - 1);
        let found = memchr::memmem::find(self.held.get(from..).unwrap_or_default(), end).map(|at| from + at + end.len());
        let length = found.unwrap_or(self.held.len());
        if length > HEAD_BYTES_MAX {
            return Err("the head of a response is too long");
        }
        self.held.truncate(length);
        *input = input.get(length - before..).unwrap_or_default();
        Ok(found.is_some())
    }

    /// RFC 9112 section 6.3.
    fn take_head(&mut self, head: &[u8]) -> Result<u16, &'static str> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(head).map_err(|_| "the response is not HTTP")?;
        let status = response.code.unwrap_or(0);
        let (mut length, mut chunked) = (None, false);
        self.keep = response.version == Some(1);
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or("").trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| "the response's length is no number")?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.keep &= !value.eq_ignore_ascii_case("close");
            }
        }
        self.state = match (status, chunked, length) {
            (204 | 304, ..) => State::Body { left: 0 },
            (_, true, _) => State::ChunkSize,
            (_, false, Some(left)) => State::Body { left },
            (_, false, None) => return Err("a response that ends with its connection"),
        };
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        let check = |packet: &str| match parse(packet.as_bytes()).unwrap() {
            Packet::Messages(messages) => messages.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!(check("o"), ["Open"]);
        assert_eq!(check("h"), ["HeartBeat"]);
        assert_eq!(check(r#"a["a\u0000","b\n"]"#), ["a\0", "b\n"]);
        assert_eq!(check(r#"c[3000,"Go away!"]"#), [r#"Close { code: 3000, reason: "Go away!" }"#]);
        for packet in ["", "x", "oo", "hh", "a", "a\"x\"", "a[1]", "a[\"x\"", "c[]", "c[3000]", "c[x,\"y\"]", "c[3000,1]"] {
            assert!(parse(packet.as_bytes()).is_err(), "{packet}");
        }
    }

    fn session(streaming: bool) -> Session {
        Session::open("127.0.0.1:80".parse().unwrap(), "?token=t".into(), streaming, &mut Random::new(1))
    }

    /// Pretends that all was written; gives it.
    fn written(wire: &mut Wire) -> String {
        let text = String::from_utf8(wire.pending().to_vec()).unwrap();
        wire.consume(text.len());
        text
    }

    fn take(session: &mut Session, role: Role, bytes: &[u8], seen: &mut Vec<String>) -> Result<(), Box<str>> {
        session.take(role, bytes, &mut |packet| {
            seen.push(String::from_utf8_lossy(packet).into_owned());
            Ok(())
        })
    }

    /// Two responses: the first in chunks that cut a packet, with an extension and a trailer.
    fn stream() -> Vec<u8> {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let prelude = format!("801\r\n{}\n\r\n", "h".repeat(PRELUDE_BYTES));
        let first = "2;x=y\r\no\n\r\n5\r\na[\"x\"\r\nB\r\n,\"y\"]\nh\na[\"\r\n4\r\nz\"]\n\r\n0\r\nA: b\r\n\r\n";
        let second = "5\r\nc[1,\"\r\n3\r\n\"]\n\r\n0\r\n\r\n";
        format!("{head}{prelude}{first}{head}{prelude}{second}").into_bytes()
    }

    #[test]
    fn streams_are_read_the_same_however_the_bytes_are_split() {
        let bytes = stream();
        for split in 0..bytes.len() {
            let (mut session, mut seen) = (session(true), Vec::new());
            assert!(written(&mut session.receiver).starts_with("POST /ws/"));
            let (first, second) = bytes.split_at(split);
            for piece in [first, second] {
                take(&mut session, Role::Receiver, piece, &mut seen).unwrap();
            }
            assert_eq!(seen, ["o", "a[\"x\",\"y\"]", "h", "a[\"z\"]", "c[1,\"\"]"], "{split}");
            assert_eq!(written(&mut session.receiver).matches("/xhr_streaming?token=t HTTP/1.1\r\n").count(), 2, "{split}");
        }
    }

    #[test]
    fn one_byte_at_a_time() {
        let (mut session, mut seen) = (session(true), Vec::new());
        for byte in stream() {
            take(&mut session, Role::Receiver, &[byte], &mut seen).unwrap();
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn polls_follow_each_other() {
        let (mut session, mut seen) = (session(false), Vec::new());
        for packet in ["o\n", "a[\"x\"]\n", "h\n"] {
            assert_eq!(written(&mut session.receiver).matches("/xhr?token=t HTTP/1.1\r\n").count(), 1);
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{packet}", packet.len());
            take(&mut session, Role::Receiver, response.as_bytes(), &mut seen).unwrap();
        }
        assert_eq!(seen, ["o", "a[\"x\"]", "h"]);
    }

    #[test]
    fn messages_wait_while_others_are_on_their_way() {
        let mut session = session(false);
        let mut waiting: VecDeque<Vec<u8>> = [b"\"a\"".to_vec(), b"\"b\"".to_vec()].into();
        assert!(session.bring(&mut waiting));
        let request = written(&mut session.sender);
        assert!(request.contains("/xhr_send?token=t HTTP/1.1\r\n") && request.contains("Content-Length: 9\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n[\"a\",\"b\"]"), "{request}");
        waiting.extend([vec![b'c'; BATCH_BYTES_MAX + 1], b"\"d\"".to_vec()]);
        assert!(!session.bring(&mut waiting));
        for left in [1, 0] {
            take(&mut session, Role::Sender, b"HTTP/1.1 204 No Content\r\n\r\n", &mut Vec::new()).unwrap();
            assert!(session.bring(&mut waiting));
            assert_eq!(waiting.len(), left);
        }
    }

    #[test]
    fn what_ends_a_session() {
        let check = |role, bytes: &str| {
            let mut session = session(true);
            session.bring(&mut [b"\"a\"".to_vec()].into());
            assert!(take(&mut session, role, bytes.as_bytes(), &mut Vec::new()).is_err(), "{bytes}");
        };
        check(Role::Receiver, "garbage\r\n\r\n");
        check(Role::Receiver, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\n\r\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhh\r\n");
        check(Role::Receiver, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n");
        check(Role::Sender, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        check(Role::Sender, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        check(Role::Sender, "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
        check(Role::Receiver, &format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX)));
    }

    #[test]
    fn a_connection_that_ends_between_requests_is_no_loss() {
        let mut session = session(false);
        assert!(session.closed(Role::Receiver).is_err());
        assert!(session.closed(Role::Sender).is_ok());
        session.bring(&mut [b"\"a\"".to_vec()].into());
        assert!(session.closed(Role::Sender).is_err());
        let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        take(&mut session, Role::Sender, answer, &mut Vec::new()).unwrap();
        assert!(session.closed(Role::Sender).is_ok());
    }
}
