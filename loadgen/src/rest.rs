//! A blocking REST client over one kept-alive connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use tidings::client::http;

const TIMEOUT: Duration = Duration::from_secs(20);
const READ_BYTES: usize = 16 * 1024;
/// Requests in one pipeline; the server takes at most 16.
pub const PIPELINED_MAX: usize = 8;

pub struct Request<'a> {
    pub method: &'a str,
    pub path: String,
    /// Empty for routes that need none.
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

pub struct RestClient {
    address: SocketAddrV4,
    stream: Option<TcpStream>,
    responses: http::Responses,
    /// Bytes read beyond the last response.
    ahead: Vec<u8>,
}

impl RestClient {
    pub fn new(address: SocketAddrV4) -> Self {
        Self { address, stream: None, responses: http::Responses::default(), ahead: Vec::new() }
    }

    /// Sends one request. Reconnects once if the kept-alive connection has ended.
    ///
    /// # Errors
    /// When the server cannot be reached, or its answer is not HTTP.
    pub fn call(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let mut responses = self.pipeline(std::slice::from_ref(request))?;
        responses.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sends several requests in one write and returns the responses in order. The requests must be safe to send twice.
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
        }
        result
    }

    fn exchange(&mut self, requests: &[Request<'_>]) -> io::Result<Vec<Response>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut bytes = Vec::new();
        for request in requests {
            encode(self.address, request, &mut bytes);
        }
        stream.write_all(&bytes)?;
        let mut responses = Vec::with_capacity(requests.len());
        let mut keep = true;
        for _ in requests {
            let response = read_response(&mut stream, &mut self.responses, &mut self.ahead)?;
            keep &= response.keep_alive;
            responses.push(Response { status: response.status, body: response.body });
        }
        if keep {
            self.stream = Some(stream);
        }
        Ok(responses)
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        self.ahead.clear();
        self.responses = http::Responses::default();
        let stream = TcpStream::connect_timeout(&self.address.into(), TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }
}

fn encode(address: SocketAddrV4, request: &Request<'_>, out: &mut Vec<u8>) {
    let Request { method, path, token, body } = request;
    let content_type = if body.is_empty() { "" } else { "application/json" };
    let (host, body) = (address.to_string(), body.as_bytes());
    http::Request { method, target: path, host: &host, token, content_type, body, headers: "" }.encode(out);
}

/// Reads the connection's next response. Bytes after it stay in `ahead`.
fn read_response(stream: &mut impl Read, responses: &mut http::Responses, ahead: &mut Vec<u8>) -> io::Result<http::Response> {
    loop {
        let mut rest = ahead.as_slice();
        let response = responses.next(&mut rest).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let read = ahead.len() - rest.len();
        ahead.drain(..read);
        if let Some(response) = response {
            return Ok(response);
        }
        ahead.resize(READ_BYTES, 0);
        let count = stream.read(ahead)?;
        ahead.truncate(count);
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte a read.
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
    fn responses_are_read_one_after_another() {
        let text = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let (mut stream, mut responses, mut ahead) = (Trickle(text), http::Responses::default(), Vec::new());
        let first = read_response(&mut stream, &mut responses, &mut ahead).unwrap();
        assert_eq!((first.status, first.body.as_slice(), first.keep_alive), (201, &b"ok"[..], true));
        let second = read_response(&mut stream, &mut responses, &mut ahead).unwrap();
        assert_eq!((second.status, second.body.len(), second.keep_alive), (204, 0, false));
        assert!(read_response(&mut stream, &mut responses, &mut ahead).is_err());
    }
}
