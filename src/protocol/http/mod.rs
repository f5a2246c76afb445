//! HTTP/1.1 on the server's side (RFC 9112), over httparse.

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
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// Path without the query, as sent (still percent-encoded); begins with `/`.
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
    /// `Connection: upgrade` and `Upgrade: websocket` are both there: what follows the head is not HTTP, and was not read.
    pub upgrade: bool,
}

/// One response; the codec adds `Content-Length`, `Connection` and `Date`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}
