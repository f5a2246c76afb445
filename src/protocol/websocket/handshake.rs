//! The opening handshake on the server's side (RFC 6455 section 4.2).
//!
//! Extensions are never accepted, so `Sec-WebSocket-Extensions` is not read.

use std::fmt;
use std::str;

use tungstenite::handshake::derive_accept_key;

use crate::model::{Refusal, RefusalCode};
use crate::protocol::http::{Method, Request, Response, is_token};

/// The only version that exists (RFC 6455 section 4.1).
pub const VERSION: &str = "13";

/// STOMP's subprotocols, the preferred first (STOMP 1.2 registered them with IANA).
const STOMP_PROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

/// A handshake that can be answered with 101.
///
/// Some clients pass a token in place of a subprotocol's name, so `Debug` hides the names.
#[derive(Clone, PartialEq, Eq)]
pub struct Accept {
    /// The value of `Sec-WebSocket-Accept`.
    pub key_response: String,
    /// The client's offer, in its order of preference.
    pub protocols: Vec<Box<str>>,
}

/// Checks a handshake. The caller decides whether the path and the origin may be upgraded.
///
/// # Errors
///
/// 405 for a method other than GET, 426 without the upgrade or for another version ([`Response::refusal`] adds the headers of
/// 426), 400 for an invalid key, or for names of subprotocols that are not tokens.
pub fn accept(request: &Request) -> Result<Accept, Refusal> {
    if request.method != Method::Get {
        return Err(Refusal::new(RefusalCode::MethodNotAllowed, "a WebSocket is opened with GET"));
    }
    if !request.upgrade {
        return Err(Refusal::new(RefusalCode::UpgradeRequired, "upgrade to websocket over HTTP/1.1"));
    }
    if single(request, "sec-websocket-version")?.map(str::trim) != Some(VERSION) {
        return Err(Refusal::new(RefusalCode::UpgradeRequired, "Sec-WebSocket-Version must be 13"));
    }
    let key = match single(request, "sec-websocket-key")? {
        Some(key) if is_key(key) => key,
        _ => return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64")),
    };
    Ok(Accept { key_response: derive_accept_key(key.as_bytes()), protocols: offered_protocols(request)? })
}

/// The 101 that completes the handshake. A chosen protocol must be one that the client offered.
///
/// # Panics
///
/// When the client did not offer the protocol: it would have to fail the connection (RFC 6455 section 4.1).
#[must_use]
pub fn response(accept: &Accept, chosen_protocol: Option<&str>) -> Response {
    let response = Response::new(101)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Accept", accept.key_response.clone());
    match chosen_protocol {
        Some(chosen) => {
            assert!(accept.protocols.iter().any(|offered| **offered == *chosen), "the client did not offer it");
            response.header("Sec-WebSocket-Protocol", chosen)
        }
        None => response,
    }
}

/// The highest STOMP version among the offered protocols.
#[must_use]
pub fn choose_stomp(protocols: &[Box<str>]) -> Option<&'static str> {
    STOMP_PROTOCOLS.into_iter().find(|name| protocols.iter().any(|offered| **offered == **name))
}

/// The value of a header that may appear once.
fn single<'a>(request: &'a Request, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let mut values = request.header_values(name);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(bad("a handshake header came twice")),
        (value, _) => Ok(value.and_then(|value| str::from_utf8(value).ok())),
    }
}

/// 16 bytes in base64 (RFC 4648 section 4): 22 characters and two of padding. Bits of the last character beyond the
/// 128th are ignored.
fn is_key(key: &str) -> bool {
    key.strip_suffix("==").is_some_and(|digits| {
        digits.len() == 22 && digits.bytes().all(|digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/')
    })
}

/// RFC 6455 section 4.3: `1#token` over one or several lines. Empty elements are skipped (RFC 9110 section 5.6.1.2).
fn offered_protocols(request: &Request) -> Result<Vec<Box<str>>, Refusal> {
    let mut protocols = Vec::new();
    for value in request.header_values("sec-websocket-protocol") {
        for element in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
            match str::from_utf8(element) {
                Ok(name) if is_token(name) => protocols.push(name.into()),
                _ => return Err(bad("Sec-WebSocket-Protocol is not a list of tokens")),
            }
        }
    }
    Ok(protocols)
}

fn bad(message: &'static str) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").field("protocols", &self.protocols.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limits, Wall};
    use crate::protocol::http::{Decoder, Event};

    /// RFC 6455 section 1.3.
    const SAMPLE: [(&str, &str); 5] = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn request(method: &str, changes: &[(&str, &str)]) -> Request {
        let mut head = format!("{method} /ws HTTP/1.1\r\n");
        for (name, value) in SAMPLE.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name)).chain(changes) {
            if *value != "-" {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        match Decoder::new().next(&mut head.as_bytes(), &Limits::default()) {
            Ok(Some(Event::Request(request))) => request,
            other => panic!("{other:?}"),
        }
    }

    fn check(method: &str, changes: &[(&str, &str)], status: u16) {
        let result = accept(&request(method, changes));
        assert_eq!(result.map_or_else(|refusal| refusal.code.status(), |_| 101), status, "{method} {changes:?}");
    }

    #[test]
    fn accepts_or_refuses_with_a_reason() {
        check("GET", &[], 101);
        check("GET", &[("Upgrade", "WebSocket"), ("Connection", "keep-alive, upgrade")], 101);
        check("POST", &[], 405);
        check("GET", &[("Upgrade", "-")], 426);
        check("GET", &[("Connection", "close")], 426);
        check("GET", &[("Sec-WebSocket-Version", "-")], 426);
        check("GET", &[("Sec-WebSocket-Version", "8")], 426);
        check("GET", &[("Sec-WebSocket-Version", "13, 8")], 426);
        check("GET", &[("Sec-WebSocket-Version", "13"), ("sec-websocket-version", "13")], 400);
        check("GET", &[("Sec-WebSocket-Key", "-")], 400);
        check("GET", &[("Sec-WebSocket-Key", "")], 400);
        check("GET", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], 400);
        check("GET", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQA=")], 400);
        check("GET", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j\u{e9}==")], 400);
        check("GET", &[("Sec-WebSocket-Protocol", "v12.stomp,, v11.stomp ,")], 101);
        check("GET", &[("Sec-WebSocket-Protocol", "")], 101);
        check("GET", &[("Sec-WebSocket-Protocol", "v12 stomp")], 400);
        check("GET", &[("Sec-WebSocket-Protocol", "v12.stomp, \u{fc}")], 400);
        check("GET", &[("Sec-WebSocket-Protocol", "a\"b")], 400);
    }

    #[test]
    fn accept_key_matches_the_standard() {
        let accept = accept(&request("GET", &[("Sec-WebSocket-Protocol", "secret, v10.stomp, v12.stomp")])).unwrap();
        assert_eq!(accept.key_response, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(choose_stomp(&accept.protocols), Some("v12.stomp"));
        assert_eq!(choose_stomp(&[]), None);
        assert!(!format!("{accept:?}").contains("secret"));
        let mut out = Vec::new();
        response(&accept, Some("v12.stomp")).encode(false, true, Wall(0), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: v12.stomp\r\n\r\n"
        );
    }
}
