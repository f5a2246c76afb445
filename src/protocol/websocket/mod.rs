//! WebSocket (RFC 6455) on tungstenite's frame layer.

use crate::model::Close;

/// What the decoder found next. Data is passed on as it comes, so a message is never held here.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A piece of a text or binary message, unmasked; text has been checked to be UTF-8 up to a character that the
    /// piece's end may have cut. May be empty when it ends a message.
    Data {
        text: bool,
        bytes: &'a [u8],
        end_of_message: bool,
    },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The peer's close: its code, when it gave one.
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// A violation by the peer: close with this code, after nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub close: Close,
    /// What was wrong, for the log.
    pub what: &'static str,
}
