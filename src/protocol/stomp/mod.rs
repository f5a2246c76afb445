//! STOMP 1.0, 1.1 and 1.2.

use std::borrow::Cow;

use smallvec::SmallVec;

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

/// One header line, unescaped.
pub type Header<'a> = (Cow<'a, str>, Cow<'a, str>);

/// One frame; borrows from the decoder's input wherever nothing had to be unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub command: Command,
    /// In their order, repeated ones too; [`header`](Self::header) gives the first.
    pub headers: SmallVec<[Header<'a>; 8]>,
    pub body: &'a [u8],
}

/// What the decoder found next.
#[derive(Debug, PartialEq, Eq)]
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
