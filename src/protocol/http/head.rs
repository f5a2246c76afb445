//! Request line and headers (RFC 9112 sections 2 to 6): finding the end of a head, and parsing it.
//!
//! More lenient than the grammar: a line may end in a bare LF (section 2.2 allows it), the path may hold visible ASCII
//! that a URI would encode. Stricter: one `Content-Length` of digits only, `Transfer-Encoding` only `chunked`, no
//! HTTP/1.0 with a transfer coding, no fragment in the target.

use std::mem::MaybeUninit;
use std::str;

use bytes::Bytes;

use super::{Method, Request};
use crate::model::{Limits, Refusal, RefusalCode};

/// The parser's table on the stack; a greater `http_headers` has no effect.
const HEADERS_MAX: usize = 256;

/// A request head whose body follows.
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) framing: Framing,
    /// `Expect: 100-continue`: the client may wait for 100 before it sends the body.
    pub(super) expects_continue: bool,
}

/// How to find the body's end (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Bytes of the body, within the limit; 0 when there is none.
    Length(usize),
    Chunked,
}

/// Parses a complete head at the start of `bytes`, and returns its length. `None`: it is incomplete, malformed or over a limit;
/// [`Scan`] finds out which.
pub(super) fn parse_whole(bytes: &[u8], limits: &Limits) -> Result<Option<(Head, usize)>, Refusal> {
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let table = table.get_mut(..limits.http_headers.min(HEADERS_MAX)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(length)) = parsed.parse_with_uninit_headers(bytes, table) else { return Ok(None) };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else { return Ok(None) };
    let line_bytes = method.len() + target.len() + " ".len() * 2 + "HTTP/1.1".len();
    let after_line = bytes.get(line_bytes..length).unwrap_or_default();
    let header_bytes = after_line.len() - newline_bytes(after_line) - last_newline_bytes(after_line);
    if line_bytes > limits.http_line_bytes || header_bytes > limits.http_header_bytes {
        return Ok(None);
    }
    let head = read(method, target, minor, parsed.headers, limits)?;
    Ok(Some((head, length)))
}

fn newline_bytes(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r") { 2 } else { 1 }
}

fn last_newline_bytes(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r\n") { 2 } else { 1 }
}

/// Searches for the end of a head that arrives in pieces; reads each byte once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes searched so far.
    searched: usize,
    line_start: usize,
    /// Start of the header lines; 0 until the request line is complete.
    headers_start: usize,
}

impl Scan {
    /// The length of the head at the start of `bytes`, which only grew since the last call; `None` while it is incomplete. The
    /// request line is checked as soon as it is complete, so that input other than HTTP is refused at once.
    pub(super) fn head_bytes(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        while let Some(found) = bytes.get(self.searched..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let newline = self.searched + found;
            let line = bytes.get(self.line_start..newline).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.searched = newline + 1;
            if self.headers_start == 0 {
                check_line(line, bytes.get(..=newline).unwrap_or_default(), limits)?;
                self.headers_start = newline + 1;
            } else if line.is_empty() {
                check_header_bytes(self.line_start - self.headers_start, limits)?;
                return Ok(Some(newline + 1));
            }
            self.line_start = newline + 1;
        }
        self.searched = bytes.len();
        let line_bytes = bytes.len() - usize::from(bytes.ends_with(b"\r"));
        if self.headers_start == 0 {
            check_line_bytes(line_bytes, limits)?;
        } else {
            // The last byte may be the CR of the empty line that ends the head.
            check_header_bytes((bytes.len() - self.headers_start).saturating_sub(1), limits)?;
        }
        Ok(None)
    }

    /// The most bytes that [`head_bytes`](Self::head_bytes) needs to find the end or to refuse.
    pub(super) fn bytes_max(limits: &Limits) -> usize {
        limits.http_line_bytes.saturating_add(limits.http_header_bytes).saturating_add("\r\n\r\n".len())
    }
}

/// The refusal of a complete head that [`parse_whole`] rejected.
pub(super) fn malformed(bytes: &[u8], limits: &Limits) -> Refusal {
    let mut table = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let table = table.get_mut(..limits.http_headers.min(HEADERS_MAX)).unwrap_or_default();
    match httparse::Request::new(&mut []).parse_with_uninit_headers(bytes, table) {
        Err(httparse::Error::TooManyHeaders) => Refusal::new(RefusalCode::HeadersTooLarge, "too many header lines"),
        Err(httparse::Error::HeaderValue) => bad("a header value holds a byte that it must not"),
        Err(httparse::Error::HeaderName) => bad("a header line does not begin with a name and a colon"),
        _ => bad("not an HTTP/1.1 request"),
    }
}

fn check_line(line: &[u8], with_newline: &[u8], limits: &Limits) -> Result<(), Refusal> {
    check_line_bytes(line.len(), limits)?;
    match httparse::Request::new(&mut []).parse(with_newline) {
        Ok(_) => Ok(()),
        Err(httparse::Error::Version) if ends_in_version(line) => {
            Err(Refusal::new(RefusalCode::VersionNotSupported, "this server speaks HTTP/1.1"))
        }
        Err(_) => Err(bad("the request line is not `method target HTTP/1.1`")),
    }
}

/// `HTTP/` DIGIT `.` DIGIT (RFC 9112 section 2.3): also the first line of an HTTP/2 client.
fn ends_in_version(line: &[u8]) -> bool {
    match line.last_chunk::<8>() {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

fn check_line_bytes(bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    if bytes > limits.http_line_bytes {
        let message = format!("the request line is longer than {} bytes", limits.http_line_bytes);
        return Err(Refusal::new(RefusalCode::UriTooLong, message));
    }
    Ok(())
}

pub(super) fn check_header_bytes(bytes: usize, limits: &Limits) -> Result<(), Refusal> {
    if bytes > limits.http_header_bytes { Err(headers_too_large(limits)) } else { Ok(()) }
}

pub(super) fn headers_too_large(limits: &Limits) -> Refusal {
    let message = format!("the headers are longer than {} bytes", limits.http_header_bytes);
    Refusal::new(RefusalCode::HeadersTooLarge, message)
}

/// Refuses a body of a known length before a byte of it is kept.
pub(super) fn check_body_bytes(bytes: Option<usize>, limits: &Limits) -> Result<usize, Refusal> {
    match bytes {
        Some(bytes) if bytes <= limits.http_body_bytes => Ok(bytes),
        _ => {
            let message = format!("the body is longer than {} bytes", limits.http_body_bytes);
            Err(Refusal::new(RefusalCode::TooLarge, message))
        }
    }
}

fn read(method: &str, target: &str, minor: u8, headers: &[httparse::Header<'_>], limits: &Limits) -> Result<Head, Refusal> {
    let (path, query) = read_target(method, target)?;
    let mut fields = Fields::default();
    let mut kept = Vec::with_capacity(headers.len());
    for header in headers {
        let mut name: Box<str> = header.name.into();
        name.make_ascii_lowercase();
        let value = header.value.trim_ascii();
        fields.note(&name, value)?;
        kept.push((name, value.into()));
    }
    if fields.hosts != 1 && (minor > 0 || fields.hosts > 1) {
        return Err(bad("one Host header is needed"));
    }
    let framing = fields.framing(minor, limits)?;
    let has_body = framing != Framing::Length(0);
    // RFC 9110 section 10.1.1: HTTP/1.0 has no Expect.
    if minor > 0 && fields.expects_other {
        return Err(Refusal::new(RefusalCode::ExpectationFailed, "only 100-continue can be expected"));
    }
    let request = Request {
        method: read_method(method),
        path,
        query,
        version_minor: minor,
        headers: kept,
        body: Bytes::new(),
        keep_alive: !fields.close && (minor > 0 || fields.keep_alive),
        // RFC 9110 section 7.8: an Upgrade in HTTP/1.0 is ignored.
        upgrade: minor > 0 && fields.connection_upgrade && fields.upgrade_websocket,
    };
    Ok(Head { request, framing, expects_continue: minor > 0 && has_body && fields.expects_continue })
}

/// The headers that the codec itself uses.
#[derive(Default)]
struct Fields {
    hosts: usize,
    content_lengths: usize,
    /// `None`: the number does not fit.
    content_length: Option<usize>,
    transfer_encoding: bool,
    chunked: usize,
    other_codings: usize,
    keep_alive: bool,
    close: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl Fields {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        match name {
            "host" => {
                if !is_authority(value) {
                    return Err(bad("Host is not a host name"));
                }
                self.hosts += 1;
            }
            "content-length" => {
                self.content_lengths += 1;
                self.content_length = read_content_length(value)?;
            }
            "transfer-encoding" => {
                self.transfer_encoding = true;
                for coding in elements(value) {
                    if coding.eq_ignore_ascii_case(b"chunked") {
                        self.chunked += 1;
                    } else {
                        self.other_codings += 1;
                    }
                }
            }
            "connection" => {
                for option in elements(value) {
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            "upgrade" => {
                self.upgrade_websocket |= elements(value).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
            }
            "expect" => {
                for expectation in elements(value) {
                    let known = expectation.eq_ignore_ascii_case(b"100-continue");
                    self.expects_continue |= known;
                    self.expects_other |= !known;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 sections 6.1 to 6.3. Ambiguous framing is refused: a proxy before the server may read it differently.
    fn framing(&self, minor: u8, limits: &Limits) -> Result<Framing, Refusal> {
        if !self.transfer_encoding {
            return match self.content_lengths {
                0 => Ok(Framing::Length(0)),
                1 => check_body_bytes(self.content_length, limits).map(Framing::Length),
                _ => Err(bad("Content-Length came twice")),
            };
        }
        if self.content_lengths > 0 {
            return Err(bad("Content-Length and Transfer-Encoding exclude each other"));
        }
        if minor == 0 {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.other_codings > 0 {
            return Err(Refusal::new(RefusalCode::NotImplemented, "the only transfer coding is chunked"));
        }
        if self.chunked != 1 {
            return Err(bad("chunked must stand once"));
        }
        Ok(Framing::Chunked)
    }
}

/// Elements of a comma-separated list (RFC 9110 section 5.6.1.2).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Digits only; `None` for a number that exceeds the address space.
fn read_content_length(value: &[u8]) -> Result<Option<usize>, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not one decimal number"));
    }
    Ok(str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()))
}

fn read_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// Path and query of the target (RFC 9112 section 3.2): origin-form, absolute-form, or the asterisk of OPTIONS.
fn read_target(method: &str, target: &str) -> Result<(Box<str>, Option<Box<str>>), Refusal> {
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(bad("the target holds a byte that must be percent-encoded"));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(("*".into(), None));
    }
    let local = if target.starts_with('/') { target } else { strip_authority(target)? };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query.into())),
        None => (local, None),
    };
    Ok((if path.is_empty() { "/" } else { path }.into(), query))
}

/// The part after the authority in `http://authority/path?query`.
fn strip_authority(target: &str) -> Result<&str, Refusal> {
    let rest = target
        .split_once("://")
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
    if let Some((_, rest)) = rest {
        let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !authority.is_empty() && is_authority(authority.as_bytes()) {
            return Ok(local);
        }
    }
    Err(bad("the target is not a path"))
}

/// The bytes of `uri-host [":" port]` (RFC 3986 section 3.2.2). A comma is refused, or two merged Host headers would pass as one.
/// May be empty (RFC 9112 section 3.2).
fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte))
}

pub(super) fn bad(message: &'static str) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}
