//! HTTP/1.1 on the server's side (RFC 9112), over httparse.
//!
//! Flows in: bytes as they arrive, in any pieces; responses as values. Flows out: complete requests, and the bytes of
//! responses. Never imports a route, a socket or a clock: the time of `Date` is an argument.
//!
//! Invariants: an idle connection holds no heap; a partial request holds at most the limits of its line, headers and
//! body; any error ends the connection, since the start of the next request is then unknown; the result does not depend on
//! where the input was cut.

mod chunked;
mod decoder;
mod head;
mod request;
mod response;

pub use decoder::{CONTINUE, Decoder, Event};
pub use response::{LAST_CHUNK, chunk, imf_fixdate, names_tag};

use bytes::Bytes;

/// Methods that a route or the codec knows; any other token is answered 405 or 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

/// One request with its whole body.
///
/// The target is kept undecoded. It may hold a token, so `Debug` redacts the query.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Path without the query, as sent (still percent-encoded); begins with `/`, but for the `*` of OPTIONS.
    pub path: Box<str>,
    /// The part after the first `?`, without the `?`.
    pub query: Option<Box<str>>,
    /// 0 or 1: the minor version of HTTP/1.
    pub version_minor: u8,
    /// Names in lower case, values trimmed; repeated headers keep their order.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    pub body: Bytes,
    /// The connection stays open after the response (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Connection: upgrade` and `Upgrade: websocket` are both present, in HTTP/1.1: the bytes after the request are not HTTP
    /// and were not read.
    pub upgrade: bool,
}

/// One response; the codec adds `Content-Length`, `Connection` and `Date`.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
