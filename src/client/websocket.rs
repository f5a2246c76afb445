//! WebSocket as a client opens it (RFC 6455 section 4.1).

use std::borrow::Cow;

use tungstenite::handshake::derive_accept_key;

use super::http::{Part, Request, Responses};
use super::{Error, Options, Random, Role};
use crate::protocol::websocket::{self, handshake};

/// One WebSocket, from its handshake on.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// The response to the handshake, until it has come.
    handshake: Option<Box<Handshake>>,
    pub(super) decoder: websocket::Decoder,
    /// The part of a SockJS packet that has come.
    pub(super) packet: Vec<u8>,
    /// The SockJS session is open.
    pub(super) is_open: bool,
}

#[derive(Debug)]
struct Handshake {
    key: String,
    responses: Responses,
}

impl WebSocket {
    /// Writes the handshake for this path.
    pub(super) fn new(path: &str, options: &Options<'_>, random: &mut Random, out: &mut Vec<u8>) -> Self {
        let key = draw_key(random);
        let protocols = match options.protocols {
            "" => Cow::Borrowed(""),
            protocols => format!("Sec-WebSocket-Protocol: {protocols}\r\n").into(),
        };
        write_upgrade(&format!("{path}{}", options.query), options.host, &key, &protocols, out);
        let handshake = Handshake { key, responses: Responses::default() };
        Self { handshake: Some(Box::new(handshake)), ..Self::upgraded() }
    }

    /// On a connection that has left HTTP already.
    pub(super) fn upgraded() -> Self {
        Self { handshake: None, decoder: websocket::Decoder::client(), packet: Vec::new(), is_open: false }
    }

    /// Whether the handshake is under way.
    pub(super) fn is_opening(&self) -> bool {
        self.handshake.is_some()
    }

    /// Takes the response to the handshake off the front of `input`: true when the handshake is over.
    pub(super) fn take_handshake(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        let Some(handshake) = &mut self.handshake else { return Ok(true) };
        let Handshake { key, responses } = &mut **handshake;
        match responses.next_part(input)? {
            None => return Ok(false),
            Some(Part::Head(head)) if head.status != 101 => {
                return Err(Error::Refused { role: Role::Receiver, status: head.status });
            }
            Some(Part::Head(head)) if head.header("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) => {
                return Err(Error::broken("the handshake was accepted with a wrong key"));
            }
            Some(_) => {}
        }
        self.handshake = None;
        Ok(true)
    }
}

/// A handshake in bytes. `headers` are whole lines, each with its CRLF.
pub fn write_upgrade(target: &str, host: &str, key: &str, headers: &str, out: &mut Vec<u8>) {
    let version = handshake::VERSION;
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n{headers}"
    );
    Request { method: "GET", target, host, headers: &headers, ..Request::default() }.encode(out);
}

/// 16 random bytes in base64: 22 digits, the last of which has only two bits that count.
fn draw_key(random: &mut Random) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = String::with_capacity(24);
    for at in 0..22 {
        let digit = if at < 21 { random.next() % 64 } else { random.next() % 4 * 16 };
        key.push(char::from(DIGITS[digit as usize]));
    }
    key + "=="
}
