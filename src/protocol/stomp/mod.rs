//! STOMP 1.0, 1.1 and 1.2.
//!
//! Flows in: bytes in any pieces, from a client ([`Side::Server`]) or from a server ([`Side::Client`]). Flows out: frames
//! that borrow from those bytes, heart-beats, and bytes of frames to send. Never imports a session, a clock or a limit
//! that is not in [`Limits`](crate::model::Limits).
//!
//! The grammar that is accepted, in the notation of STOMP 1.2, "Augmented BNF":
//!
//! ```text
//! stream  = *( EOL / frame )
//! frame   = command EOL *( name ":" value EOL ) EOL body NUL
//! EOL     = [CR] LF
//! name    = 1*<any UTF-8 but NUL, LF, ":">
//! value   = *<any UTF-8 but NUL, LF>
//! body    = content-length octets, or without that header *<any octet but NUL>
//! ```
//!
//! More lenient than the standards:
//! - CR before LF belongs to the EOL in every version (only 1.2 has it), since clients that negotiate 1.0 send it too;
//! - a colon in a value may be unescaped (1.1 and 1.2 ask for `\c`), since widespread clients do not escape;
//! - header text is UTF-8 in 1.0 too (its grammar has US-ASCII), and a value may be empty there;
//! - commands of a later version (STOMP, NACK) are understood in an earlier one;
//! - EOLs may come before the first frame.
//!
//! Stricter than some brokers: a lone CR is refused in 1.2 and in CONNECT and CONNECTED; a body is refused on every frame
//! but SEND, MESSAGE and ERROR (in 1.0 also SUBSCRIBE, whose body that standard ignores); values are trimmed of spaces
//! and tabs in 1.0, whose own examples pad them, and never in 1.1 and 1.2.

use std::borrow::Cow;

use smallvec::SmallVec;

mod decode;
mod encode;
mod parse;
mod reserved;
mod scan;
mod version;

pub use decode::Decoder;
pub use encode::{HEART_BEAT, begin, encode, finish, header};
pub use reserved::is_reserved;
pub use version::{NoCommonVersion, negotiate, parse_heart_beat};

/// Ordered: the highest version common to both sides is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V10,
    V11,
    V12,
}

/// Client and server commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// CONNECT, or STOMP, which means the same since 1.1.
    Connect,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
    Connected,
    Message,
    Receipt,
    Error,
}

/// The side of the connection that decodes: a server receives the commands of clients, a client those of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// One header line, unescaped.
pub type Header<'a> = (Cow<'a, str>, Cow<'a, str>);

/// One frame; borrows from the decoder's input unless something had to be unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub command: Command,
    /// In order of arrival, with repeats; [`header`](Self::header) returns the first.
    pub headers: SmallVec<[Header<'a>; 8]>,
    pub body: &'a [u8],
}

/// The next thing that the decoder found.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "an item lives on the stack until the next one; a box would be a heap call a frame"
)]
pub enum Item<'a> {
    Frame(Frame<'a>),
    /// An EOL between frames.
    HeartBeat,
}

impl Frame<'_> {
    /// The first header of this name: repeated ones are ignored (STOMP 1.2, "Repeated Header Entries").
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

impl Command {
    /// The command on the wire; CONNECT also for STOMP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// Commands are case-sensitive (STOMP 1.2, "STOMP Frames").
    #[must_use]
    pub const fn parse(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"CONNECT" | b"STOMP" => Self::Connect,
            b"SEND" => Self::Send,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"DISCONNECT" => Self::Disconnect,
            b"CONNECTED" => Self::Connected,
            b"MESSAGE" => Self::Message,
            b"RECEIPT" => Self::Receipt,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// Whether `side` may receive this command.
    #[must_use]
    pub const fn comes_in_at(self, side: Side) -> bool {
        let from_server = matches!(self, Self::Connected | Self::Message | Self::Receipt | Self::Error);
        from_server == matches!(side, Side::Client)
    }

    /// Only SEND, MESSAGE and ERROR may have a body (STOMP 1.2, "Value Encoding"); 1.0 says only that SUBSCRIBE's is ignored.
    #[must_use]
    pub const fn may_have_body(self, version: Version) -> bool {
        match self {
            Self::Send | Self::Message | Self::Error => true,
            Self::Subscribe => matches!(version, Version::V10),
            _ => false,
        }
    }

    /// CONNECT and CONNECTED are written without escapes, since they come before a version is agreed
    /// (STOMP 1.2, "Value Encoding").
    #[must_use]
    pub const fn is_never_escaped(self) -> bool {
        matches!(self, Self::Connect | Self::Connected)
    }
}

#[cfg(test)]
mod tests;
