//! HTTP/1.1 on the server's side (RFC 9112), over httparse.
//!
//! Flows in: bytes as they arrive, in any pieces; responses as values. Flows out: whole requests, and the bytes of
//! responses. Never imports a route, a socket or a clock: the time of `Date` is an argument.
//!
//! Invariants: an idle connection holds no heap; a partial request holds at most the limits of its line, headers and
//! body; any fault ends the connection, since the place where the next request begins is then in doubt; what comes out
//! does not depend on where the input was cut.

mod chunked;
mod decoder;
mod head;
mod request;
mod response;

pub use decoder::{CONTINUE, Decoder, Event};
pub use response::{LAST_CHUNK, chunk, imf_fixdate, names_tag};

use bytes::Bytes;

/// Methods with a route of ours or a meaning to the codec; any other token is answered 405 or 501.
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
/// The target is kept as it came, undecoded; it may hold a token, so `Debug` redacts the query.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Path without the query, as sent (still percent-encoded); begins with `/`, but for the `*` of OPTIONS.
    pub path: Box<str>,
    /// What follows the first `?`, without it.
    pub query: Option<Box<str>>,
    /// 0 or 1: the minor version of HTTP/1.
    pub version_minor: u8,
    /// Names in lower case, values trimmed; repeated headers stand in their order.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    pub body: Bytes,
    /// The connection goes on after the response (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Connection: upgrade` and `Upgrade: websocket` are both there, in HTTP/1.1: what follows the request is not HTTP,
    /// and was not read.
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
