//! A small blocking HTTP/1.1 client over one kept-alive connection: what the REST routes need, and no more.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests in one pipeline; the server takes at most 16.
pub const PIPELINED_MAX: usize = 8;

pub struct Request<'a> {
    pub method: &'a str,
    pub path: String,
    /// Empty for the routes that need none.
    pub token: &'a str,
    pub body: String,
}

pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    /// The body's beginning, for an error message.
    pub fn excerpt(&self) -> String {
        String::from_utf8_lossy(self.body.get(..200).unwrap_or(&self.body)).into_owned()
    }
}

pub struct Client {
    address: SocketAddrV4,
    stream: Option<TcpStream>,
    /// Bytes read beyond the last response.
    ahead: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddrV4) -> Self {
        Self { address, stream: None, ahead: Vec::new() }
    }

    /// One request; a kept-alive connection that had ended is opened again once.
    ///
    /// # Errors
    /// When the server cannot be reached, or its answer is not HTTP.
    pub fn call(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let mut responses = self.pipeline(std::slice::from_ref(request))?;
        responses.pop().ok_or_else(|| invalid("no response"))
    }

    /// Several requests in one write, answered in their order. They must bear being sent twice.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn pipeline(&mut self, requests: &[Request<'_>]) -> io::Result<Vec<Response>> {
        assert!(requests.len() <= PIPELINED_MAX);
        let kept = self.stream.is_some();
        match self.attempt(requests) {
            Err(_) if kept => self.attempt(requests),
            result => result,
        }
    }

    fn attempt(&mut self, requests: &[Request<'_>]) -> io::Result<Vec<Response>> {
        let result = self.exchange(requests);
        if result.is_err() {
            self.stream = None;
            self.ahead.clear();
        }
        result
    }

    fn exchange(&mut self, requests: &[Request<'_>]) -> io::Result<Vec<Response>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut text = String::new();
        for request in requests {
            render(self.address, request, &mut text);
        }
        stream.write_all(text.as_bytes())?;
        let mut responses = Vec::with_capacity(requests.len());
        let mut keep = true;
        for _ in requests {
            let (response, kept) = read_response(&mut stream, &mut self.ahead)?;
            keep &= kept;
            responses.push(response);
        }
        if keep {
            self.stream = Some(stream);
        }
        Ok(responses)
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        self.ahead.clear();
        let stream = TcpStream::connect_timeout(&self.address.into(), TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }
}

fn render(address: SocketAddrV4, request: &Request<'_>, out: &mut String) {
    let Request { method, path, token, body } = request;
    // Writing to a String cannot fail.
    let _ = write!(out, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    if !token.is_empty() {
        let _ = write!(out, "Authorization: Bearer {token}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(out, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    let _ = write!(out, "\r\n{body}");
}

fn read_response(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<(Response, bool)> {
    loop {
        if let Some(head) = parse_head(ahead)? {
            let end = head.bytes.checked_add(head.body_bytes).ok_or_else(|| invalid("the response is too long"))?;
            while ahead.len() < end {
                read_more(stream, ahead)?;
            }
            let body = ahead.get(head.bytes..end).unwrap_or_default().to_vec();
            ahead.drain(..end);
            return Ok((Response { status: head.status, body }, head.keep));
        }
        if ahead.len() > HEAD_BYTES_MAX {
            return Err(invalid("the response's head is too long"));
        }
        read_more(stream, ahead)?;
    }
}

fn read_more(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    let count = stream.read(&mut piece)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    ahead.extend_from_slice(piece.get(..count).unwrap_or_default());
    Ok(())
}

struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
    keep: bool,
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| invalid("the response is not HTTP"))? else {
        return Ok(None);
    };
    let mut head = Head { status: response.code.unwrap_or(0), bytes: length, body_bytes: 0, keep: true };
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.body_bytes = value.parse().map_err(|_| invalid("the response's length is no number"))?;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keep = !value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("the response is chunked, which this client does not read"));
        }
    }
    if head.body_bytes > BODY_BYTES_MAX {
        return Err(invalid("the response is too long"));
    }
    Ok(Some(head))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn responses_are_read_one_after_the_other() {
        let text = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (mut stream, mut ahead) = (Trickle(text), Vec::new());
        let (first, keep) = read_response(&mut stream, &mut ahead).unwrap();
        assert_eq!((first.status, first.body.as_slice(), keep), (201, &b"ok"[..], true));
        let (second, keep) = read_response(&mut stream, &mut ahead).unwrap();
        assert_eq!((second.status, second.body.len(), keep), (204, 0, false));
        assert!(read_response(&mut stream, &mut ahead).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in [
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        ] {
            assert!(read_response(&mut text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
        }
    }
}
