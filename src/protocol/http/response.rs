//! Responses as bytes (RFC 9112 section 4).

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::Response;
use crate::model::time::civil_from_days;
use crate::model::{Refusal, RefusalCode, Wall};

/// The JSON body of every refusal.
#[derive(Serialize)]
struct RefusalBody<'a> {
    code: &'static str,
    message: &'a str,
}

impl Response {
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header. Control characters in the value become spaces, so that no value can end its line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self.header("Content-Type", content_type)
    }

    /// A refusal as `{code, message}`, with the headers that its status requires: `WWW-Authenticate` (RFC 9110 section
    /// 15.5.2), `Upgrade` and `Sec-WebSocket-Version` (RFC 9110 section 15.5.22, RFC 6455 section 4.4), `Retry-After`.
    /// Only the route knows the `Allow` of a 405.
    #[must_use]
    pub fn refusal(refusal: &Refusal) -> Self {
        let body = RefusalBody { code: refusal.code.name(), message: &refusal.message };
        let json = simd_json::to_vec(&body).expect("two strings are always JSON");
        let mut response = Self::new(refusal.code.status()).body("application/json", json);
        match refusal.code {
            RefusalCode::Unauthorized => response = response.header("WWW-Authenticate", "Bearer"),
            RefusalCode::UpgradeRequired => {
                response = response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
            }
            _ => {}
        }
        match refusal.retry_after {
            Some(seconds) => response.header("Retry-After", seconds.to_string()),
            None => response,
        }
    }

    /// Appends the response. `head_only` answers HEAD: the headers of GET without its body. A 1xx, 204 or 304 has no
    /// body and no `Content-Length`; a 1xx has only its own headers.
    pub fn encode(&self, head_only: bool, keep_alive: bool, now: Wall, out: &mut Vec<u8>) {
        let has_body = self.status >= 200 && self.status != 204 && self.status != 304;
        assert!(has_body || self.body.is_empty(), "a {} has no body", self.status);
        self.encode_headers(out);
        if has_body {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        self.encode_end(keep_alive, now, out);
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }

    /// Appends the head of a response whose body is sent piece by piece: in [chunks](chunk), or, for HTTP/1.0, until the
    /// end of the connection (RFC 9112 section 6.3).
    pub fn encode_stream(&self, chunked: bool, keep_alive: bool, now: Wall, out: &mut Vec<u8>) {
        assert!(self.body.is_empty(), "the body of a stream comes later");
        assert!(chunked || !keep_alive, "without chunks the body ends with the connection");
        self.encode_headers(out);
        if chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        self.encode_end(keep_alive, now, out);
    }

    fn encode_headers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
            out.extend_from_slice(b"\r\n");
        }
    }

    fn encode_end(&self, keep_alive: bool, now: Wall, out: &mut Vec<u8>) {
        if self.status >= 200 {
            out.extend_from_slice(self.connection(keep_alive));
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(imf_fixdate(now).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// RFC 9110 section 7.8: a sender of `Upgrade` also names it in `Connection`. `keep-alive` is for HTTP/1.0 clients.
    fn connection(&self, keep_alive: bool) -> &'static [u8] {
        match (self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade")), keep_alive) {
            (false, true) => b"Connection: keep-alive\r\n",
            (false, false) => b"Connection: close\r\n",
            (true, true) => b"Connection: keep-alive, upgrade\r\n",
            (true, false) => b"Connection: close, upgrade\r\n",
        }
    }
}

/// Hides header values and the body: the response to a login holds tokens.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// RFC 9110 section 15. Clients ignore the phrase (RFC 9112 section 4), so statuses that no route uses have none.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Appends a piece of a chunked body (RFC 9112 section 7.1). The piece is not empty.
pub fn chunk(piece: &[u8], out: &mut Vec<u8>) {
    assert!(!piece.is_empty(), "an empty chunk is the last one");
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Whether `If-None-Match` names the tag, by the weak comparison (RFC 9110 section 13.1.2): a proxy that compresses makes tags
/// weak. A comma within a tag ends it: the server's tags have none.
#[must_use]
pub fn names_tag(known: &str, tag: &str) -> bool {
    known.split(',').map(str::trim).any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

/// RFC 9110 section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn imf_fixdate(now: Wall) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.unix_seconds();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (weekday, month) = (WEEKDAYS[(days % 7) as usize], MONTHS[(month - 1) as usize]);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    // The year has four digits until 9999.
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_date(seconds: u64, expect: &str) {
        assert_eq!(imf_fixdate(Wall::from_unix_seconds(seconds)), expect);
    }

    /// The second is the standard's own example.
    #[test]
    fn dates() {
        check_date(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check_date(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
        check_date(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check_date(1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT");
    }

    fn check(response: &Response, head_only: bool, keep_alive: bool, expect: &str) {
        let mut out = Vec::new();
        response.encode(head_only, keep_alive, Wall(0), &mut out);
        let expect = expect.replace('\n', "\r\n").replace("DATE", "Date: Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn encodes() {
        let page = Response::new(200).body("text/plain", "hi");
        let head = "HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 2\nConnection: keep-alive\nDATE\n\n";
        check(&page, false, true, &format!("{head}hi"));
        check(&page, true, true, head);
        check(&Response::new(404), false, false, "HTTP/1.1 404 Not Found\nContent-Length: 0\nConnection: close\nDATE\n\n");
        check(&Response::new(204), false, true, "HTTP/1.1 204 No Content\nConnection: keep-alive\nDATE\n\n");
        check(&Response::new(100), false, true, "HTTP/1.1 100 Continue\n\n");
        let split = Response::new(204).header("Location", "/a\r\nSet-Cookie: b");
        check(&split, false, true, "HTTP/1.1 204 No Content\nLocation: /a  Set-Cookie: b\nConnection: keep-alive\nDATE\n\n");
    }

    #[test]
    fn streams_are_chunked_in_http_1_1() {
        let check = |chunked, expect: &str| {
            let mut out = Vec::new();
            Response::new(200).header("Content-Type", "text/plain").encode_stream(chunked, chunked, Wall(0), &mut out);
            let head = format!("HTTP/1.1 200 OK\nContent-Type: text/plain\n{expect}\nDate: {}\n\n", imf_fixdate(Wall(0)));
            assert_eq!(String::from_utf8(out).unwrap(), head.replace('\n', "\r\n"));
        };
        check(true, "Transfer-Encoding: chunked\nConnection: keep-alive");
        check(false, "Connection: close");
        let mut out = Vec::new();
        chunk(&[b'x'; 17], &mut out);
        assert_eq!(out, [&b"11\r\n"[..], &[b'x'; 17], b"\r\n"].concat());
    }

    #[test]
    fn refusals_carry_the_headers_of_their_status() {
        let late = Refusal::new(RefusalCode::RateLimited, "too \"many\"").retry_after(3);
        let expect = "HTTP/1.1 429 Too Many Requests\nContent-Type: application/json\nRetry-After: 3\nContent-Length: 48\n\
                      Connection: keep-alive\nDATE\n\n{\"code\":\"rate_limited\",\"message\":\"too \\\"many\\\"\"}";
        check(&Response::refusal(&late), false, true, expect);
        let upgrade = Refusal::new(RefusalCode::UpgradeRequired, "v");
        let expect = "HTTP/1.1 426 Upgrade Required\nContent-Type: application/json\nUpgrade: websocket\n\
                      Sec-WebSocket-Version: 13\nContent-Length: 41\nConnection: close, upgrade\nDATE\n\n\
                      {\"code\":\"upgrade_required\",\"message\":\"v\"}";
        check(&Response::refusal(&upgrade), false, false, expect);
    }

    #[test]
    fn prints_no_body() {
        let login = Response::new(200).header("Set-Cookie", "hunter2").body("text/plain", "hunter2");
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}
