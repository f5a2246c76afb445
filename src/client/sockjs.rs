//! SockJS as a client speaks it: packets, and a session over two HTTP connections.
//!
//! The receiver waits for packets, one request after the other. The sender brings messages, one request at a time, so that
//! they stay in order.

use std::collections::VecDeque;
use std::str;

use memchr::memchr;

use super::http::{Part, Request, Responses};
use super::{Error, Options, Random, Role, Transport, Wire};
use crate::protocol::sockjs::{self, Messages};

/// A packet is as long as the server's outbox at most.
const PACKET_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One body of `xhr_send`, far below the server's limit of a body. A longer message goes alone.
const BATCH_BYTES_MAX: usize = 48 * 1024;

/// A packet of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Open,
    HeartBeat,
    Messages(Messages),
    Close { code: u16, reason: String },
}

impl Packet {
    /// Reads a whole packet, without the line end behind it.
    ///
    /// # Errors
    /// The bytes are no packet.
    pub fn parse(packet: &[u8]) -> Result<Self, Error> {
        match packet {
            b"o" => Ok(Self::Open),
            b"h" => Ok(Self::HeartBeat),
            [b'a', array @ ..] if array.first() == Some(&b'[') => sockjs::messages(array)
                .map(Self::Messages)
                .map_err(|_| Error::broken("a SockJS packet without an array of strings")),
            [b'c', b'[', close @ .., b']'] => {
                parse_close(close).ok_or_else(|| Error::broken("a SockJS close without a code and a reason"))
            }
            _ => Err(Error::broken("a SockJS packet of no known kind")),
        }
    }
}

/// `3000,"Go away!"`
fn parse_close(close: &[u8]) -> Option<Packet> {
    let (code, reason) = close.split_at_checked(memchr(b',', close)?)?;
    let code = str::from_utf8(code).ok()?.trim().parse().ok()?;
    let reason = sockjs::messages(reason.get(1..)?).ok()?;
    Some(Packet::Close { code, reason: String::from_utf8_lossy(reason.bytes()).into_owned() })
}

/// The path of a new session below its endpoint: `/{server}/{session}`, drawn as browsers draw it.
pub(super) fn session_path(endpoint: &str, random: &mut Random) -> String {
    format!("{endpoint}/{:03}/{:016x}", random.next() % 1_000, random.next())
}

/// One session over HTTP.
#[derive(Debug)]
pub(super) struct Session {
    transport: Transport,
    host: Box<str>,
    path: Box<str>,
    /// Every request of a session names its user.
    query: Box<str>,
    receiver: Exchange,
    sender: Exchange,
    /// Messages, as JSON strings, that no request has taken along.
    unsent: VecDeque<Vec<u8>>,
    /// The server has opened the session: it would not know an earlier message.
    pub(super) open: bool,
    /// The response's first line is its prelude, and has not come.
    prelude_due: bool,
    /// The part of the receiver's body that was not read, from `body_at` on.
    body: Vec<u8>,
    body_at: usize,
}

/// The request and response of one connection.
#[derive(Debug, Default)]
struct Exchange {
    responses: Responses,
    /// A request was made, and its response has not ended.
    under_way: bool,
}

impl Session {
    /// Asks for the first packets, which opens the session.
    pub(super) fn new(transport: Transport, options: &Options<'_>, random: &mut Random, wire: &mut Wire) -> Self {
        let mut session = Self {
            transport,
            host: options.host.into(),
            path: session_path(options.endpoint, random).into(),
            query: options.query.into(),
            receiver: Exchange::default(),
            sender: Exchange::default(),
            unsent: VecDeque::new(),
            open: false,
            prelude_due: false,
            body: Vec::new(),
            body_at: 0,
        };
        session.poll(wire);
        session
    }

    fn poll(&mut self, wire: &mut Wire) {
        let (method, name) = match self.transport {
            Transport::EventSource => ("GET", "eventsource"),
            Transport::XhrStreaming => ("POST", "xhr_streaming"),
            _ => ("POST", "xhr"),
        };
        self.prelude_due = self.transport == Transport::XhrStreaming;
        self.receiver.under_way = true;
        self.request(method, name, b"", wire);
    }

    fn request(&self, method: &str, name: &str, body: &[u8], wire: &mut Wire) {
        let target = format!("{}/{name}{}", self.path, self.query);
        let content_type = if method == "POST" { "text/plain" } else { "" };
        Request { method, target: &target, host: &self.host, content_type, body, ..Request::default() }.encode(wire.buffer());
    }

    /// Queues a message. A request takes it along when output is asked for.
    pub(super) fn send(&mut self, message: &[u8]) {
        let mut string = Vec::new();
        sockjs::element(message, &mut string);
        self.unsent.push_back(string);
    }

    /// Whether [`send_unsent`](Self::send_unsent) would make a request.
    pub(super) fn can_send(&self) -> bool {
        self.open && !self.sender.under_way && !self.unsent.is_empty()
    }

    /// Makes a request with as many messages as a body may hold, if there are any and none is under way.
    pub(super) fn send_unsent(&mut self, wire: &mut Wire) {
        if !self.can_send() {
            return;
        }
        let mut body = vec![b'['];
        while let Some(message) = self.unsent.front() {
            if body.len() > 1 {
                if body.len() + message.len() > BATCH_BYTES_MAX {
                    break;
                }
                body.push(b',');
            }
            body.extend_from_slice(message);
            self.unsent.pop_front();
        }
        body.push(b']');
        self.sender.under_way = true;
        self.request("POST", "xhr_send", &body, wire);
    }

    /// Takes bytes of the sender's connection.
    pub(super) fn receive_sent(&mut self, mut input: &[u8], wire: &mut Wire) -> Result<(), Error> {
        while let Some(part) = self.sender.responses.next_part(&mut input)? {
            match part {
                Part::Head(head) => match head.status {
                    204 if self.sender.under_way => {}
                    // RFC 9110 section 15.5.9: a server may say so on a connection that it closes for its silence.
                    408 if !self.sender.under_way => {}
                    _ if !self.sender.under_way => return Err(Error::broken("a response without a request")),
                    status => return Err(Error::Refused { role: Role::Sender, status }),
                },
                Part::Body(_) if self.sender.under_way => return Err(Error::broken("a body in a response to xhr_send")),
                Part::Body(_) => {}
                Part::End { keep_alive } => {
                    self.sender.under_way = false;
                    if !keep_alive {
                        self.sender.responses = Responses::default();
                        return wire.close();
                    }
                }
            }
        }
        Ok(())
    }

    /// The next packet of the receiver's connection, taken off the front of `input`; `None` when all of it was consumed. When
    /// a response ends, the next request is made at once.
    pub(super) fn next_packet(&mut self, input: &mut &[u8], wire: &mut Wire) -> Result<Option<Packet>, Error> {
        loop {
            if let Some(packet) = self.next_line()? {
                return Ok(Some(packet));
            }
            match self.receiver.responses.next_part(input)? {
                None => return Ok(None),
                Some(_) if !self.receiver.under_way => return Err(Error::broken("a response without a request")),
                Some(Part::Head(head)) if head.status != 200 => {
                    return Err(Error::Refused { role: Role::Receiver, status: head.status });
                }
                Some(Part::Head(_)) => {}
                Some(Part::Body(piece)) => {
                    if self.body.len() + piece.len() > PACKET_BYTES_MAX {
                        return Err(Error::broken("a packet of SockJS is too long"));
                    }
                    self.body.extend_from_slice(piece);
                }
                Some(Part::End { keep_alive }) => {
                    if !self.body.is_empty() || self.prelude_due {
                        return Err(Error::broken("a response of SockJS ended within a packet"));
                    }
                    if !keep_alive {
                        self.receiver.responses = Responses::default();
                        wire.close()?;
                    }
                    self.poll(wire);
                }
            }
        }
    }

    /// The packet in the next line of the body.
    fn next_line(&mut self) -> Result<Option<Packet>, Error> {
        while let Some(length) = memchr(b'\n', self.body.get(self.body_at..).unwrap_or_default()) {
            let end = self.body_at + length;
            let line = self.body.get(self.body_at..end).unwrap_or_default();
            self.body_at = end + 1;
            if self.transport == Transport::EventSource {
                // Events are apart by blank lines, and so is the prelude.
                match line.strip_suffix(b"\r").unwrap_or(line) {
                    [] => {}
                    line => return parse_event(line).map(Some),
                }
            } else if self.prelude_due {
                let prelude = sockjs::prelude(sockjs::Transport::XhrStreaming, "");
                if prelude.strip_suffix(b"\n") != Some(line) {
                    return Err(Error::broken("a stream of SockJS without its prelude"));
                }
                self.prelude_due = false;
            } else {
                return Packet::parse(line).map(Some);
            }
        }
        self.body.drain(..self.body_at);
        self.body_at = 0;
        // An idle session holds no buffer.
        if self.body.is_empty() && self.body.capacity() > super::KEPT_BYTES_MAX {
            self.body = Vec::new();
        }
        Ok(None)
    }

    /// A connection was closed by the server.
    pub(super) fn disconnected(&mut self, role: Role) -> Result<(), Error> {
        let exchange = match role {
            Role::Receiver => &mut self.receiver,
            Role::Sender => &mut self.sender,
        };
        if exchange.under_way {
            return Err(Error::Disconnected { role });
        }
        exchange.responses = Responses::default();
        Ok(())
    }
}

/// `data: ` and a packet, whose `%` is percent-encoded.
fn parse_event(line: &[u8]) -> Result<Packet, Error> {
    let data = line.strip_prefix(b"data: ").ok_or_else(|| Error::broken("a line of an event stream without data"))?;
    if memchr(b'%', data).is_none() {
        return Packet::parse(data);
    }
    let mut pieces = data.split(|byte| *byte == b'%');
    let mut packet = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        // The server encodes nothing else.
        let rest = piece.strip_prefix(b"25").ok_or_else(|| Error::broken("an event with an unknown percent-encoding"))?;
        packet.push(b'%');
        packet.extend_from_slice(rest);
    }
    Packet::parse(&packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        let check = |packet: &str| match Packet::parse(packet.as_bytes()).unwrap() {
            Packet::Messages(messages) => messages.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!(check("o"), ["Open"]);
        assert_eq!(check("h"), ["HeartBeat"]);
        assert_eq!(check(r#"a["a\u0000","b\n"]"#), ["a\0", "b\n"]);
        assert_eq!(check(r#"c[3000,"Go away!"]"#), [r#"Close { code: 3000, reason: "Go away!" }"#]);
        for packet in ["", "x", "oo", "hh", "a", "a\"x\"", "a[1]", "a[\"x\"", "c[]", "c[3000]", "c[x,\"y\"]", "c[3000,1]"] {
            assert!(Packet::parse(packet.as_bytes()).is_err(), "{packet}");
        }
    }

    #[test]
    fn the_servers_close_is_read() {
        let packet = sockjs::close(1008, "a \"reason\", with a comma");
        let expect = Packet::Close { code: 1008, reason: "a \"reason\", with a comma".into() };
        assert_eq!(Packet::parse(&packet), Ok(expect));
    }

    #[test]
    fn the_servers_events_are_read() {
        for text in ["plain", "100%", "%25%", "é%"] {
            let (mut packet, mut line) = (Vec::new(), Vec::new());
            let mut string = Vec::new();
            sockjs::element(text.as_bytes(), &mut string);
            sockjs::array([string.as_slice()], &mut packet);
            sockjs::packet(sockjs::Transport::EventSource, "", &packet, &mut line);
            let Packet::Messages(messages) = parse_event(line.trim_ascii_end()).unwrap() else { panic!() };
            assert_eq!(messages.bytes(), text.as_bytes());
        }
        for line in ["", "o", "data:o", "data: %", "data: %2", "data: %41"] {
            assert!(parse_event(line.as_bytes()).is_err(), "{line}");
        }
    }
}
