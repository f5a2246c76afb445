//! Bytes for a protocol that are out of their packet.

use crate::protocol::sockjs;
use crate::session::endpoints::PlainMessage;

/// A piece of STOMP, or a whole message for other protocols.
#[derive(Debug)]
pub(super) enum Payload<'i> {
    Borrowed {
        text: bool,
        bytes: &'i [u8],
    },
    Owned {
        text: bool,
        bytes: Vec<u8>,
        read: usize,
    },
    /// The messages of one SockJS packet; STOMP reads them as one piece.
    Messages {
        messages: sockjs::Messages,
        read: usize,
    },
}

impl Payload<'_> {
    pub(super) fn owned(bytes: Vec<u8>) -> Self {
        Self::Owned { text: true, bytes, read: 0 }
    }

    pub(super) fn messages(messages: sockjs::Messages) -> Self {
        Self::Messages { messages, read: 0 }
    }

    /// The bytes that have not been read.
    pub(super) fn rest(&self) -> &[u8] {
        match self {
            Self::Borrowed { bytes, .. } => bytes,
            Self::Owned { bytes, read, .. } => &bytes[*read..],
            Self::Messages { messages, read } => &messages.bytes()[*read..],
        }
    }

    pub(super) fn advance(&mut self, count: usize) {
        match self {
            Self::Borrowed { bytes, .. } => *bytes = &bytes[count..],
            Self::Owned { read, .. } | Self::Messages { read, .. } => *read += count,
        }
    }

    /// Calls `each` with every message, for protocols that read whole messages, until it returns false.
    pub(super) fn each_message(&self, mut each: impl FnMut(PlainMessage<'_>) -> bool) {
        match self {
            Self::Borrowed { text, bytes } => _ = each(PlainMessage { text: *text, bytes }),
            Self::Owned { text, bytes, .. } => _ = each(PlainMessage { text: *text, bytes }),
            Self::Messages { messages, .. } => _ = messages.iter().all(|bytes| each(PlainMessage { text: true, bytes })),
        }
    }
}
