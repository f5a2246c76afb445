//! WebSocket (RFC 6455) on tungstenite's frame layer.
//!
//! Flows in: the peer's bytes after the handshake, in any pieces. Flows out: [`Packet`]s that borrow from them, and the
//! bytes of the server's frames. Never imports a socket, a clock or randomness: a client's masks are arguments.
//!
//! Invariants: data is never held, so an idle connection costs the decoder's own bytes and no heap; the result does not depend on
//! where the input was cut, except where the pieces of a message end; after a close or a violation the rest is discarded.
//!
//! Deliberately absent: permessage-deflate (RFC 7692). It is never accepted in the handshake, so RSV1 is a reserved bit.
//! It would sit in the decoder between unmasking and the UTF-8 check, for messages whose first frame has RSV1, with its
//! output bounded by [`MessageLimits::message_bytes`] after inflating.

mod decoder;
mod encoder;
pub mod handshake;
mod utf8;

pub use decoder::Decoder;
pub use encoder::{Kind, close, frame, header, masked_frame};

use crate::model::{Close, Limits};

/// The next thing that the decoder found. Data is passed on as it arrives, borrowed from the input (`'i`), so a message is never
/// held here; the payload of a control frame may be the decoder's own (`'a`).
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a, 'i> {
    /// A piece of a text or binary message, unmasked; text is checked to be UTF-8 up to a character that the
    /// end of the piece may have cut. May be empty when it ends a message.
    Data {
        text: bool,
        bytes: &'i [u8],
        end_of_message: bool,
    },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The peer's close: its code, if it gave one.
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// A violation by the peer: close with this code, and send nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub close: Close,
    /// The violation, for the log.
    pub what: &'static str,
}

/// Bounds of one message. Neither costs memory here: they end a message that would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Payload of all frames of one message; more is refused with 1009 as soon as a header promises it.
    pub message_bytes: usize,
    /// Frames of one message, empty ones included; more are refused with 1009.
    pub fragments: usize,
}

impl From<&Limits> for MessageLimits {
    fn from(limits: &Limits) -> Self {
        Self { message_bytes: limits.frame_bytes, fragments: limits.message_fragments }
    }
}
