//! The peer's frames (RFC 6455 section 5), unmasked in place and passed on as they arrive.
//!
//! Never stricter than section 5.2; more lenient in one point: a length need not be in its shortest form.

use std::io::Cursor;
use std::str;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::utf8::Utf8;
use super::{MessageLimits, Packet, Violation};
use crate::model::Close;

/// RFC 6455 section 5.2: 2 bytes, 8 of extended length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;
/// RFC 6455 section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// Decodes one direction of one connection. Uses the heap only while the end of the input cuts a control frame.
#[derive(Debug)]
pub struct Decoder {
    /// RFC 6455 section 5.1: a client masks every frame, a server none.
    peer_masks: bool,
    /// The peer closed or violated the protocol: the rest of its bytes is meaningless.
    ended: bool,
    utf8: Utf8,
    /// Bytes of a header that the end of the input has cut.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    /// The frame whose payload comes next.
    frame: Option<Frame>,
    /// The data message whose last frame has not ended.
    message: Option<Message>,
    /// The payload of a control frame that arrived in pieces; kept until the call after the one that returned it.
    control: Option<Box<ControlPayload>>,
}

struct Header {
    frame: FrameHeader,
    payload_bytes: u64,
    /// The header's own length.
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    /// `None`: a frame of the current message.
    control: Option<Control>,
    is_final: bool,
    /// Rotated so that its first byte belongs to the next byte of the payload.
    mask: [u8; 4],
    remaining: u64,
}

#[derive(Debug)]
struct Message {
    text: bool,
    bytes: usize,
    fragments: usize,
}

#[derive(Debug)]
struct ControlPayload {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

/// A packet before it borrows from the decoder.
enum PacketParts<'i> {
    Data {
        text: bool,
        bytes: &'i [u8],
        end_of_message: bool,
    },
    /// The payload, unless it is in [`Decoder::control`].
    Control(Control, Option<&'i [u8]>),
}

impl Decoder {
    /// Decodes the frames of a client: every frame must be masked.
    #[must_use]
    pub fn server() -> Self {
        Self::new(true)
    }

    /// Decodes the frames of a server: no frame may be masked.
    #[must_use]
    pub fn client() -> Self {
        Self::new(false)
    }

    fn new(peer_masks: bool) -> Self {
        Self {
            peer_masks,
            ended: false,
            utf8: Utf8::default(),
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            message: None,
            control: None,
        }
    }

    /// The next packet of `input`, consumed up to its end; `None` when all of `input` is consumed.
    ///
    /// After [`Packet::Close`], or an error, further input is discarded.
    ///
    /// # Errors
    ///
    /// A violation of RFC 6455 (1002), text that is not UTF-8 (1007, at the first wrong byte), or a message
    /// over `limits` (1009, when a header promises it).
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        limits: MessageLimits,
    ) -> Result<Option<Packet<'a, 'i>>, Violation> {
        if self.ended {
            *input = &mut [];
            return Ok(None);
        }
        let step = match self.next_parts(input, limits) {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(None),
            Err(violation) => {
                self.ended = true;
                *input = &mut [];
                return Err(violation);
            }
        };
        match step {
            PacketParts::Data { text, bytes, end_of_message } => Ok(Some(Packet::Data { text, bytes, end_of_message })),
            PacketParts::Control(control, payload) => {
                if control == Control::Close {
                    self.ended = true;
                    *input = &mut [];
                }
                let payload = payload.or_else(|| self.control.as_deref().map(ControlPayload::filled)).unwrap_or_default();
                control_packet(control, payload).map(Some)
            }
        }
    }

    fn next_parts<'i>(&mut self, input: &mut &'i mut [u8], limits: MessageLimits) -> Result<Option<PacketParts<'i>>, Violation> {
        loop {
            let Some(frame) = &mut self.frame else {
                self.control = None;
                let Some(header) = self.next_header(input)? else { return Ok(None) };
                self.frame = Some(self.begin(&header, limits)?);
                continue;
            };
            if let Some(control) = frame.control {
                return Ok(self.control_payload(input).map(|payload| PacketParts::Control(control, payload)));
            }
            if input.is_empty() && frame.remaining > 0 {
                return Ok(None);
            }
            let piece = frame.take_payload(input);
            let end_of_message = frame.remaining == 0 && frame.is_final;
            if frame.remaining == 0 {
                self.frame = None;
            }
            let text = self.message.as_ref().is_some_and(|message| message.text);
            if text && !self.utf8.push(piece) {
                return Err(violation(Close::InvalidText, "text is not UTF-8"));
            }
            if end_of_message {
                self.message = None;
                if !self.utf8.finish() {
                    return Err(violation(Close::InvalidText, "text ends inside a character"));
                }
            }
            if !piece.is_empty() || end_of_message {
                return Ok(Some(PacketParts::Data { text, bytes: piece, end_of_message }));
            }
        }
    }

    /// The next header; keeps the bytes of an incomplete one.
    fn next_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        let held = usize::from(self.header_bytes);
        if held == 0
            && let Some(header) = parse_header(input)?
        {
            skip(input, header.bytes);
            return Ok(Some(header));
        }
        let mut added = 0;
        for (slot, byte) in self.header.iter_mut().skip(held).zip(input.iter()) {
            *slot = *byte;
            added += 1;
        }
        match parse_header(self.header.get(..held + added).unwrap_or_default())? {
            Some(header) => {
                assert!(header.bytes > held, "a header that was whole would have been taken before");
                skip(input, header.bytes - held);
                self.header_bytes = 0;
                Ok(Some(header))
            }
            None => {
                assert_eq!(added, input.len(), "the longest header is never cut");
                skip(input, added);
                self.header_bytes = (held + added) as u8;
                Ok(None)
            }
        }
    }

    /// Checks a header against the state of the connection, and begins or continues its message.
    fn begin(&mut self, header: &Header, limits: MessageLimits) -> Result<Frame, Violation> {
        let Header { frame: header, payload_bytes, .. } = header;
        let payload_bytes = *payload_bytes;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("reserved bit set, no extension was negotiated"));
        }
        if header.mask.is_some() != self.peer_masks {
            return Err(protocol(if self.peer_masks { "client frame is not masked" } else { "server frame is masked" }));
        }
        if payload_bytes > i64::MAX as u64 {
            return Err(protocol("length with its highest bit set"));
        }
        let control = match header.opcode {
            OpCode::Data(data) => {
                self.begin_data(data, payload_bytes, limits)?;
                None
            }
            OpCode::Control(_) if !header.is_final => return Err(protocol("control frame is fragmented")),
            OpCode::Control(_) if payload_bytes > CONTROL_BYTES_MAX as u64 => {
                return Err(protocol("control frame is longer than 125 bytes"));
            }
            OpCode::Control(control) => Some(control),
        };
        let mask = header.mask.unwrap_or_default();
        Ok(Frame { control, is_final: header.is_final, mask, remaining: payload_bytes })
    }

    fn begin_data(&mut self, data: Data, payload_bytes: u64, limits: MessageLimits) -> Result<(), Violation> {
        let message = match (data, &mut self.message) {
            (Data::Continue, Some(message)) => message,
            (Data::Text | Data::Binary, message @ None) => {
                message.insert(Message { text: data == Data::Text, bytes: 0, fragments: 0 })
            }
            (Data::Continue, None) => return Err(protocol("continuation without a message")),
            (Data::Text | Data::Binary, Some(_)) => return Err(protocol("new message inside a message")),
            (Data::Reserved(_), _) => return Err(protocol("reserved opcode")),
        };
        message.fragments += 1;
        if message.fragments > limits.fragments {
            return Err(violation(Close::TooBig, "too many fragments"));
        }
        match usize::try_from(payload_bytes).ok().and_then(|bytes| message.bytes.checked_add(bytes)) {
            Some(bytes) if bytes <= limits.message_bytes => message.bytes = bytes,
            _ => return Err(violation(Close::TooBig, "message too big")),
        }
        Ok(())
    }

    /// The payload of the current control frame, once it is complete: `Some(None)` when it is in `self.control`.
    fn control_payload<'i>(&mut self, input: &mut &'i mut [u8]) -> Option<Option<&'i [u8]>> {
        let frame = self.frame.as_mut()?;
        if self.control.is_none() && input.len() as u64 >= frame.remaining {
            let payload = frame.take_payload(input);
            self.frame = None;
            return Some(Some(payload));
        }
        if input.is_empty() {
            return None;
        }
        let piece = frame.take_payload(input);
        let whole = frame.remaining == 0;
        self.control.get_or_insert_with(|| Box::new(ControlPayload { bytes: [0; CONTROL_BYTES_MAX], len: 0 })).push(piece);
        if whole {
            self.frame = None;
        }
        whole.then_some(None)
    }
}

impl Frame {
    /// Takes this frame's payload from the input, unmasked, as far as it has arrived.
    fn take_payload<'i>(&mut self, input: &mut &'i mut [u8]) -> &'i [u8] {
        let bytes = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = std::mem::take(input).split_at_mut(bytes);
        *input = rest;
        self.remaining -= bytes as u64;
        if self.mask != [0; 4] {
            apply_mask(payload, self.mask);
            self.mask.rotate_left(bytes % 4);
        }
        payload
    }
}

impl ControlPayload {
    fn push(&mut self, piece: &[u8]) {
        let held = usize::from(self.len);
        assert!(held + piece.len() <= CONTROL_BYTES_MAX, "the header was checked");
        for (slot, byte) in self.bytes.iter_mut().skip(held).zip(piece) {
            *slot = *byte;
        }
        self.len += piece.len() as u8;
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// RFC 6455 section 5.3, eight bytes at a time.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let mask = [a, b, c, d, a, b, c, d];
    let wide = u64::from_ne_bytes(mask);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn parse_header(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((frame, payload_bytes))) => {
            let bytes = cursor.position() as usize;
            // RFC 6455 section 5.2: the length must be in its shortest form, and 63 bits at most.
            if frame.len(payload_bytes) != bytes || payload_bytes >> 63 != 0 {
                return Err(protocol("length not in its shortest form"));
            }
            Ok(Some(Header { frame, payload_bytes, bytes }))
        }
        Ok(None) => Ok(None),
        Err(_) => Err(protocol("reserved opcode")),
    }
}

fn skip(input: &mut &mut [u8], bytes: usize) {
    let (_, rest) = std::mem::take(input).split_at_mut(bytes);
    *input = rest;
}

fn control_packet<'i>(control: Control, payload: &[u8]) -> Result<Packet<'_, 'i>, Violation> {
    match control {
        Control::Ping => Ok(Packet::Ping(payload)),
        Control::Pong => Ok(Packet::Pong(payload)),
        Control::Close => close_packet(payload),
        Control::Reserved(_) => Err(protocol("reserved opcode")),
    }
}

/// RFC 6455 sections 5.5.1 and 7.4.
fn close_packet<'i>(payload: &[u8]) -> Result<Packet<'_, 'i>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        if payload.is_empty() {
            return Ok(Packet::Close { code: None, reason: "" });
        }
        return Err(protocol("close payload of one byte"));
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(protocol("close code that must not be sent"));
    }
    match str::from_utf8(reason) {
        Ok(reason) => Ok(Packet::Close { code: Some(code), reason }),
        Err(_) => Err(violation(Close::InvalidText, "close reason is not UTF-8")),
    }
}

/// Codes of RFC 6455 section 7.4.1 and IANA's registry (1012 to 1014), of libraries and of applications; not those that
/// are never on the wire (1004 to 1006, 1015).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn protocol(what: &'static str) -> Violation {
    violation(Close::Protocol, what)
}

fn violation(close: Close, what: &'static str) -> Violation {
    Violation { close, what }
}

#[cfg(test)]
mod tests;
