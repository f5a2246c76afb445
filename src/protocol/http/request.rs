//! Accessors of a request, and its printed form.

use std::borrow::Cow;
use std::fmt;
use std::str;

use super::Request;

/// Headers whose values may be printed. All others are hidden: any may carry a token (`Authorization`, `Cookie`,
/// `Sec-WebSocket-Protocol`, the URL of a `Referer`, headers that a proxy adds).
const PRINTED: [&str; 10] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "origin",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
];

impl Request {
    /// The first header of this name, in any case; `None` also when its value is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.header_values(name).next()?).ok()
    }

    /// All values of a header, line by line.
    pub fn header_values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The first value of this name in the query, decoded as `application/x-www-form-urlencoded` is (WHATWG URL,
    /// section 5.1): `+` is a space, a `%` without two digits stands for itself, bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<String> {
        form_value(self.query.as_deref()?, name)
    }

    /// The first value of this name in a form body, decoded like the query.
    #[must_use]
    pub fn form_value(&self, name: &str) -> Option<String> {
        form_value(str::from_utf8(&self.body).ok()?, name)
    }
}

fn form_value(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(key) == name).then(|| form_decode(value).into_owned())
    })
}

fn form_decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        decoded.push(match first {
            b'+' => b' ',
            b'%' => match after.split_first_chunk::<2>().and_then(|(digits, after)| Some((hex(*digits)?, after))) {
                Some((byte, after)) => {
                    rest = after;
                    byte
                }
                None => b'%',
            },
            byte => *byte,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// Shows neither the query, nor the body, nor any header value that may hold a secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query.as_ref().map(|_| format_args!("[redacted]")))
            .field("version_minor", &self.version_minor)
            .field("headers", &Headers(self))
            .field("body_bytes", &self.body.len())
            .field("keep_alive", &self.keep_alive)
            .field("upgrade", &self.upgrade)
            .finish()
    }
}

struct Headers<'a>(&'a Request);

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in &self.0.headers {
            if PRINTED.contains(&&**name) {
                map.entry(name, &format_args!("{}", value.escape_ascii()));
            } else {
                map.entry(name, &format_args!("[redacted]"));
            }
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::http::Method;

    fn request(query: &str, headers: &[(&str, &[u8])]) -> Request {
        Request {
            method: Method::Get,
            path: "/ws".into(),
            query: Some(query.into()),
            version_minor: 1,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Bytes::from_static(b"hunter2"),
            keep_alive: true,
            upgrade: false,
        }
    }

    fn check(query: &str, name: &str, expect: Option<&str>) {
        assert_eq!(request(query, &[]).query_value(name).as_deref(), expect, "{query}");
    }

    #[test]
    fn decodes_the_query() {
        check("token=a.b-c_d&x=1", "token", Some("a.b-c_d"));
        check("x=1&token=first&token=second", "token", Some("first"));
        check("t%6Fken=%41+%c3%a9", "token", Some("A é"));
        check("token", "token", Some(""));
        check("token=a=b", "token", Some("a=b"));
        check("token=%zz%4", "token", Some("%zz%4"));
        check("token=%ff", "token", Some("\u{fffd}"));
        check("tokens=1&&=", "token", None);
        check("", "token", None);
    }

    #[test]
    fn finds_the_first_header_in_any_case() {
        let request = request("", &[("accept", b"a"), ("accept", b"b"), ("x-bytes", b"\xff")]);
        assert_eq!(request.header("Accept"), Some("a"));
        assert_eq!(request.header_values("accept").count(), 2);
        assert_eq!(request.header("x-bytes"), None);
        assert_eq!(request.header("absent"), None);
    }

    #[test]
    fn prints_no_secret() {
        let headers: Vec<(&str, &[u8])> =
            ["authorization", "cookie", "sec-websocket-protocol", "referer", "x-auth"].map(|name| (name, &b"hunter2"[..])).into();
        let printed = format!("{:?}", request("token=hunter2", &headers));
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("sec-websocket-protocol") && printed.contains("/ws"), "{printed}");
    }
}
