//! HTTP/1.1 as a client speaks it (RFC 9112): requests to bytes, and a connection's bytes to responses.
//!
//! A response has a length, comes in chunks, or has no body. One that ends with its connection is refused: our server sends
//! such a response only to HTTP/1.0. Chunk extensions and trailers are skipped.

use std::str;

use memchr::memmem;

use super::Error;

const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The longest body that [`Responses::next`] collects.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request with its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub host: &'a str,
    /// Sent as a bearer token unless it is empty.
    pub token: &'a str,
    /// Sent unless it is empty.
    pub content_type: &'a str,
    /// Whole lines, each with its CRLF.
    pub headers: &'a str,
    pub body: &'a [u8],
}

impl Request<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { method, target, host, token, content_type, headers, body } = self;
        let mut line = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&[method, " ", target, " HTTP/1.1"]);
        line(&["Host: ", host]);
        if !token.is_empty() {
            line(&["Authorization: Bearer ", token]);
        }
        if !content_type.is_empty() {
            line(&["Content-Type: ", content_type]);
        }
        // RFC 9110 section 8.6: a method that may have a body says so when it has none.
        if !body.is_empty() || *method == "POST" {
            line(&["Content-Length: ", &body.len().to_string()]);
        }
        out.extend_from_slice(headers.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

/// A response with its whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// The connection takes another request.
    pub keep_alive: bool,
}

/// A part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Head(Head<'a>),
    Body(&'a [u8]),
    End { keep_alive: bool },
}

/// Status line and headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub status: u16,
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        lines(self.bytes).find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Names and values. A line without a colon or that is not UTF-8 is passed over.
fn lines(head: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let (name, value) = str::from_utf8(line).ok()?.split_once(':')?;
        Some((name, value.trim()))
    })
}

/// The responses of one connection.
#[derive(Debug, Default)]
pub struct Responses {
    state: State,
    /// The bytes so far of a head or of a line that is not whole; the whole head until the next call.
    held: Vec<u8>,
    /// `held` is a head that was returned.
    returned: bool,
    keep_alive: bool,
    /// The response that [`next`](Self::next) has begun.
    begun: Option<Response>,
}

#[derive(Clone, Copy, Debug, Default)]
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
    /// The connection has left HTTP: the bytes that follow are not ours.
    Upgraded,
}

impl Responses {
    /// The next whole response of `input`; `None` when all of it was consumed.
    ///
    /// # Errors
    /// The bytes are not HTTP, or a body is longer than 16 MiB.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Response>, Error> {
        let mut response = self.begun.take().unwrap_or_default();
        while let Some(part) = self.next_part(input)? {
            match part {
                Part::Head(head) => {
                    response = Response { status: head.status, ..Response::default() };
                    // It has no body and is the last: the connection has left HTTP.
                    if head.status == 101 {
                        return Ok(Some(response));
                    }
                }
                Part::Body(piece) => {
                    if response.body.len() + piece.len() > BODY_BYTES_MAX {
                        return Err(Error::broken("the body of a response is too long"));
                    }
                    response.body.extend_from_slice(piece);
                }
                Part::End { keep_alive } => {
                    response.keep_alive = keep_alive;
                    return Ok(Some(response));
                }
            }
        }
        self.begun = Some(response);
        Ok(None)
    }

    /// The next part, taken off the front of `input`; `None` when there is not enough of one, or when the connection has left
    /// HTTP.
    ///
    /// # Errors
    /// The bytes are not HTTP.
    pub fn next_part<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Part<'a>>, Error> {
        if std::mem::take(&mut self.returned) {
            self.held.clear();
        }
        loop {
            match self.state {
                State::Head => {
                    if !self.hold_until(b"\r\n\r\n", input)? {
                        return Ok(None);
                    }
                    let status = self.enter_body()?;
                    self.returned = true;
                    return Ok(Some(Part::Head(Head { status, bytes: &self.held })));
                }
                State::Body { left: 0 } => {
                    self.state = State::Head;
                    return Ok(Some(Part::End { keep_alive: self.keep_alive }));
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
                    return Ok(if piece.is_empty() { None } else { Some(Part::Body(piece)) });
                }
                State::ChunkSize => {
                    if !self.hold_until(b"\r\n", input)? {
                        return Ok(None);
                    }
                    let line = str::from_utf8(&self.held).unwrap_or_default();
                    let digits = line.split([';', '\r']).next().unwrap_or_default().trim();
                    let left = usize::from_str_radix(digits, 16).map_err(|_| Error::broken("a chunk without its size"))?;
                    self.held.clear();
                    self.state = if left == 0 { State::Trailer } else { State::Chunk { left } };
                }
                State::ChunkEnd => {
                    if !self.hold_until(b"\r\n", input)? {
                        return Ok(None);
                    }
                    if self.held != b"\r\n" {
                        return Err(Error::broken("a chunk is longer than its size"));
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
                State::Upgraded => return Ok(None),
            }
        }
    }

    /// Moves input to `held`, up to the end of `end`; false when `end` has not come.
    fn hold_until(&mut self, end: &[u8], input: &mut &[u8]) -> Result<bool, Error> {
        let before = self.held.len();
        // No more than the longest head: a body behind it is not copied.
        let taken = input.len().min(HEAD_BYTES_MAX + end.len());
        self.held.extend_from_slice(input.get(..taken).unwrap_or_default());
        let from = before.saturating_sub(end.len() - 1);
        let found = memmem::find(self.held.get(from..).unwrap_or_default(), end).map(|at| from + at + end.len());
        let length = found.unwrap_or(self.held.len());
        if length > HEAD_BYTES_MAX {
            return Err(Error::broken("the head of a response is too long"));
        }
        self.held.truncate(length);
        *input = input.get(length - before..).unwrap_or_default();
        Ok(found.is_some())
    }

    /// Reads the head that is held: how its body ends (RFC 9112 section 6.3).
    fn enter_body(&mut self) -> Result<u16, Error> {
        let status_line = self.held.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let (version, status) = parse_status_line(status_line).ok_or_else(|| Error::broken("the response is not HTTP"))?;
        let (mut length, mut chunked) = (None, false);
        self.keep_alive = version == b'1';
        for (name, value) in lines(&self.held) {
            if name.eq_ignore_ascii_case("content-length") {
                let parsed = value.parse::<usize>().map_err(|_| Error::broken("the length of a response is no number"))?;
                length = Some(parsed);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                self.keep_alive &= !value.eq_ignore_ascii_case("close");
            }
        }
        self.state = match (status, chunked, length) {
            (101, ..) => State::Upgraded,
            (100..200 | 204 | 304, ..) => State::Body { left: 0 },
            (_, true, _) => State::ChunkSize,
            (_, false, Some(left)) => State::Body { left },
            (_, false, None) => return Err(Error::broken("a response that ends with its connection")),
        };
        Ok(status)
    }
}

/// The minor version as its digit, and the status (RFC 9112 section 4).
fn parse_status_line(line: &[u8]) -> Option<(u8, u16)> {
    let (version, rest) = line.strip_prefix(b"HTTP/1.")?.split_first()?;
    let status = rest.strip_prefix(b" ")?.first_chunk::<3>()?;
    let after = rest.get(4);
    let status = str::from_utf8(status).ok().filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))?;
    matches!(after, None | Some(b' ')).then_some((*version, status.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limits, Wall};
    use crate::protocol::fuzz;
    use crate::protocol::http;

    fn check(bytes: &[u8], expect: &[(u16, &str, bool)]) {
        for cut in 0..=bytes.len() {
            let (mut responses, mut found) = (Responses::default(), Vec::new());
            let (first, second) = bytes.split_at(cut);
            for mut piece in [first, second] {
                while let Some(response) = responses.next(&mut piece).unwrap() {
                    found.push((response.status, String::from_utf8(response.body).unwrap(), response.keep_alive));
                }
            }
            let found: Vec<_> = found.iter().map(|(status, body, keep)| (*status, body.as_str(), *keep)).collect();
            assert_eq!(found, expect, "cut at {cut}");
        }
    }

    #[test]
    fn reads_what_the_servers_encoder_writes() {
        let mut bytes = Vec::new();
        http::Response::new(201).body("text/plain", "made").encode(false, true, Wall(0), &mut bytes);
        http::Response::new(204).encode(false, true, Wall(0), &mut bytes);
        http::Response::new(200).encode_stream(true, true, Wall(0), &mut bytes);
        http::chunk(b"in ", &mut bytes);
        http::chunk(b"pieces", &mut bytes);
        bytes.extend_from_slice(http::LAST_CHUNK);
        http::Response::new(404).encode(false, false, Wall(0), &mut bytes);
        check(&bytes, &[(201, "made", true), (204, "", true), (200, "in pieces", true), (404, "", false)]);
    }

    #[test]
    fn extensions_and_trailers_are_skipped() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nSum: 1\r\n\r\nHTTP/1.0 200\r\nContent-Length: 0\r\n\r\n";
        check(text.as_bytes(), &[(200, "hi", true), (200, "", false)]);
    }

    #[test]
    fn the_server_reads_its_requests() {
        let check = |request: Request<'_>, expect: (&str, Option<&str>, &str)| {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            let decoded = http::Decoder::new().next(&mut bytes.as_slice(), &Limits::default());
            let Ok(Some(http::Event::Request(decoded))) = decoded else { panic!("{decoded:?}") };
            let body = String::from_utf8(decoded.body.to_vec()).unwrap();
            assert_eq!((&*decoded.path, decoded.header("authorization"), body.as_str()), expect);
        };
        let get = Request { method: "GET", target: "/a?b=c", host: "x", ..Request::default() };
        check(get, ("/a", None, ""));
        check(Request { token: "t", ..get }, ("/a", Some("Bearer t"), ""));
        check(Request { method: "POST", content_type: "text/plain", body: b"hi", ..get }, ("/a", None, "hi"));
        check(Request { method: "POST", ..get }, ("/a", None, ""));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        for text in [
            "garbage\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 2x0\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhh\r\n",
            &long,
        ] {
            assert!(Responses::default().next(&mut text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_follows_an_upgrade_is_left() {
        let text = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept:  a \r\n\r\nrest";
        let (mut responses, mut input) = (Responses::default(), text.as_bytes());
        let Ok(Some(Part::Head(head))) = responses.next_part(&mut input) else { panic!() };
        assert_eq!((head.status, head.header("sec-websocket-accept")), (101, Some("a")));
        assert_eq!(responses.next_part(&mut input), Ok(None));
        assert_eq!(input, b"rest");
    }

    #[test]
    fn fuzz() {
        let sound = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        fuzz::rounds(2_000, |random| {
            let mut bytes = sound.to_vec();
            random.damage(&mut bytes);
            let whole = read(&bytes, &[0, bytes.len()]);
            let cuts = random.cuts(bytes.len());
            assert_eq!(read(&bytes, &cuts), whole, "{:?}", bytes.escape_ascii());
        });
    }

    fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<Response>, bool) {
        let (mut responses, mut found) = (Responses::default(), Vec::new());
        for range in cuts.windows(2) {
            let mut piece = &bytes[range[0]..range[1]];
            loop {
                match responses.next(&mut piece) {
                    Ok(Some(response)) => found.push(response),
                    Ok(None) => break,
                    Err(_) => return (found, false),
                }
            }
        }
        (found, true)
    }
}
