//! The server's frames (RFC 6455 section 5.2): always final, in the shortest form of the length.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::decoder::apply_mask;

/// RFC 6455 section 5.5: 125 bytes, 2 of which hold the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The kind of a whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    const fn opcode(self) -> OpCode {
        match self {
            Self::Text => OpCode::Data(Data::Text),
            Self::Binary => OpCode::Data(Data::Binary),
            Self::Close => OpCode::Control(Control::Close),
            Self::Ping => OpCode::Control(Control::Ping),
            Self::Pong => OpCode::Control(Control::Pong),
        }
    }
}

/// Writes the header of an unmasked frame with this payload to the start of `out`; returns its length, 2 to 10 bytes.
///
/// # Panics
///
/// When the payload of a control frame is longer than 125 bytes.
pub fn header(kind: Kind, payload_bytes: usize, out: &mut [u8; 10]) -> usize {
    let header = frame_header(kind, None, payload_bytes);
    let length = payload_bytes as u64;
    header.format(length, &mut out.as_mut_slice()).expect("10 bytes hold any unmasked header");
    header.len(length)
}

/// Appends an unmasked frame, as a server sends it.
///
/// # Panics
///
/// When the payload of a control frame is longer than 125 bytes.
pub fn frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    write_header(kind, None, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends an unmasked close frame; the reason is cut at a character so that it fits. A close without a code is
/// [`frame`] with an empty payload.
pub fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = reason.get(..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)).unwrap_or_default();
    write_header(Kind::Close, None, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a masked frame, as a client sends it. RFC 6455 section 10.3 asks for a fresh, unpredictable mask each time.
///
/// # Panics
///
/// When the payload of a control frame is longer than 125 bytes.
pub fn masked_frame(kind: Kind, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    write_header(kind, Some(mask), payload.len(), out);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(out.get_mut(start..).unwrap_or_default(), mask);
}

fn write_header(kind: Kind, mask: Option<[u8; 4]>, payload_bytes: usize, out: &mut Vec<u8>) {
    frame_header(kind, mask, payload_bytes).format(payload_bytes as u64, out).expect("a vector takes every write");
}

fn frame_header(kind: Kind, mask: Option<[u8; 4]>, payload_bytes: usize) -> FrameHeader {
    let opcode = kind.opcode();
    assert!(matches!(opcode, OpCode::Data(_)) || payload_bytes <= 125, "RFC 6455 section 5.5");
    FrameHeader { is_final: true, opcode, mask, ..FrameHeader::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, payload: &[u8], header_expect: &[u8]) {
        let mut out = Vec::new();
        frame(kind, payload, &mut out);
        assert_eq!(&out[..header_expect.len()], header_expect);
        assert_eq!(&out[header_expect.len()..], payload);
        let mut apart = [0; 10];
        assert_eq!(header(kind, payload.len(), &mut apart), header_expect.len());
        assert_eq!(&apart[..header_expect.len()], header_expect);
    }

    /// RFC 6455 section 5.7 has the first and the last three.
    #[test]
    fn encodes_the_lengths_of_the_standard() {
        check(Kind::Text, b"Hello", &[0x81, 0x05]);
        check(Kind::Ping, b"Hello", &[0x89, 0x05]);
        check(Kind::Pong, b"", &[0x8a, 0x00]);
        check(Kind::Binary, &[7; 125], &[0x82, 125]);
        check(Kind::Binary, &[7; 126], &[0x82, 0x7e, 0x00, 0x7e]);
        check(Kind::Binary, &[7; 256], &[0x82, 0x7e, 0x01, 0x00]);
        check(Kind::Binary, &[7; 65_535], &[0x82, 0x7e, 0xff, 0xff]);
        check(Kind::Binary, &[7; 65_536], &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    /// RFC 6455 section 5.7: a single-frame masked text message.
    #[test]
    fn masks() {
        let mut out = Vec::new();
        masked_frame(Kind::Text, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn closes_with_a_reason_that_fits() {
        let mut out = Vec::new();
        close(1000, "bye", &mut out);
        assert_eq!(out, *b"\x88\x05\x03\xe8bye");
        out.clear();
        close(1008, &"é".repeat(100), &mut out);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
