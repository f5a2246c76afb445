use tidings::protocol::websocket::{Decoder, MessageLimits, Packet, Violation};

use super::split;

/// A packet that owns its bytes, with the pieces of a message put together.
#[derive(Debug, PartialEq, Eq)]
enum Whole {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// A client's WebSocket frames: no cut changes what comes out before a violation, nor the violation; messages keep their limit, and
/// what is said to be text is UTF-8.
pub fn websocket(data: &[u8]) {
    let (first, bytes) = split(data);
    let limits = MessageLimits { message_bytes: 250, fragments: 3 };
    let whole = decode([bytes], limits);
    let pieces = decode(bytes.chunks(1 + usize::from(first % 32)), limits);
    assert_eq!(pieces, whole, "in pieces, and whole");
    for packet in &whole.0 {
        if let Whole::Message(text, bytes) = packet {
            assert!(bytes.len() <= limits.message_bytes);
            assert!(!text || std::str::from_utf8(bytes).is_ok(), "text is UTF-8");
        }
    }
}

fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limits: MessageLimits) -> (Vec<Whole>, Option<Violation>) {
    let (mut decoder, mut wholes, mut message) = (Decoder::server(), Vec::new(), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(Packet::Data { text, bytes, end_of_message })) => {
                    message.extend_from_slice(bytes);
                    if end_of_message {
                        wholes.push(Whole::Message(text, std::mem::take(&mut message)));
                    }
                }
                Ok(Some(Packet::Ping(bytes))) => wholes.push(Whole::Ping(bytes.to_vec())),
                Ok(Some(Packet::Pong(bytes))) => wholes.push(Whole::Pong(bytes.to_vec())),
                Ok(Some(Packet::Close { code, reason })) => wholes.push(Whole::Close(code, reason.to_owned())),
                Ok(None) => break,
                Err(violation) => {
                    assert!(input.is_empty(), "the rest is discarded");
                    return (wholes, Some(violation));
                }
            }
        }
        assert!(input.is_empty(), "all input was consumed");
    }
    (wholes, None)
}
