//! Requests from a connection's bytes.
//!
//! Up to four empty lines before a request are skipped (RFC 9112 section 2.2 asks for one).

use bytes::Bytes;

use super::chunked::Chunks;
use super::head::{self, Framing, Head, Scan, bad};
use super::{Request, is_token_byte};
use crate::model::{Limits, Refusal};

/// The answer to [`Event::Continue`] (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Four times CRLF.
const BLANK_BYTES_MAX: u8 = 8;

/// The next thing that the decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Request(Request),
    /// The client waits for [`CONTINUE`] before it sends the body; its request follows. The head kept all limits.
    Continue,
}

/// Decodes one connection. Uses the heap only while the end of the input cuts a request.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Partial>,
    /// Bytes of empty lines since the last request.
    blank_bytes: u8,
    /// The last of them is a CR.
    blank_cut: bool,
    state: StreamState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamState {
    #[default]
    Http,
    /// A request with `upgrade` was returned: the bytes after it are not HTTP.
    Upgrade,
    /// An error was returned: the bytes after it have no known meaning.
    Ended,
}

#[derive(Debug)]
enum Partial {
    Head(Box<PartialHead>),
    Body(Box<PartialBody>),
}

#[derive(Debug, Default)]
struct PartialHead {
    bytes: Vec<u8>,
    scan: Scan,
}

#[derive(Debug)]
struct PartialBody {
    request: Request,
    /// Grows as the body arrives, whatever length the head promises.
    bytes: Vec<u8>,
    end: BodyEnd,
}

#[derive(Debug)]
enum BodyEnd {
    Length(usize),
    Chunked(Chunks),
}

impl Decoder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event of `input`, consumed up to its end. `None` when all of `input` is consumed, or after a request to upgrade.
    ///
    /// # Errors
    ///
    /// 400, 413, 414, 417, 431, 501 or 505. The response must close the connection; further input is discarded.
    pub fn next(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Event>, Refusal> {
        let result = match self.state {
            StreamState::Http => self.next_event(input, limits),
            StreamState::Upgrade => Ok(None),
            StreamState::Ended => {
                *input = &[];
                Ok(None)
            }
        };
        match &result {
            Ok(Some(Event::Request(request))) => {
                self.blank_bytes = 0;
                if request.upgrade {
                    self.state = StreamState::Upgrade;
                }
            }
            Ok(_) => {}
            Err(_) => {
                *self = Self { state: StreamState::Ended, ..Self::default() };
                *input = &[];
            }
        }
        result
    }

    /// Whether the decoder holds no byte of an unfinished request: closing the connection now needs no 408.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// The upgrade was not accepted: the bytes after the request are HTTP after all (RFC 9110 section 7.8).
    pub fn decline_upgrade(&mut self) {
        if self.state == StreamState::Upgrade {
            self.state = StreamState::Http;
        }
    }

    fn next_event(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Event>, Refusal> {
        let partial_head = match self.partial.take() {
            Some(Partial::Body(body)) => return self.continue_body(body, input, limits),
            Some(Partial::Head(head)) => head,
            None => {
                self.skip_blank(input)?;
                match input.first() {
                    None => return Ok(None),
                    Some(byte) if !is_token_byte(*byte) => return Err(bad("a request begins with a method")),
                    Some(_) => {}
                }
                if let Some((head, head_bytes)) = head::parse_whole(input, limits)? {
                    *input = input.get(head_bytes..).unwrap_or_default();
                    return self.begin_body(head, input, limits);
                }
                Box::default()
            }
        };
        self.continue_head(partial_head, input, limits)
    }

    /// Skips empty lines before a request.
    fn skip_blank(&mut self, input: &mut &[u8]) -> Result<(), Refusal> {
        while let Some((byte, rest)) = input.split_first() {
            match byte {
                b'\n' => self.blank_cut = false,
                _ if self.blank_cut => return Err(bad("a CR stands alone")),
                b'\r' => self.blank_cut = true,
                _ => break,
            }
            self.blank_bytes += 1;
            if self.blank_bytes > BLANK_BYTES_MAX {
                return Err(bad("too many empty lines before a request"));
            }
            *input = rest;
        }
        Ok(())
    }

    /// Adds input to an incomplete head, never more than the limits allow.
    fn continue_head(
        &mut self,
        mut partial: Box<PartialHead>,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Event>, Refusal> {
        let PartialHead { bytes, scan } = &mut *partial;
        let held = bytes.len();
        let room = Scan::bytes_max(limits).saturating_sub(held);
        let piece = input.get(..room).unwrap_or(input);
        bytes.extend_from_slice(piece);
        let Some(head_bytes) = scan.head_bytes(bytes, limits)? else {
            assert_eq!(piece.len(), input.len(), "a head as long as its limits is whole or refused");
            *input = &[];
            self.partial = Some(Partial::Head(partial));
            return Ok(None);
        };
        assert!(held < head_bytes, "a head that was whole would have been taken before");
        bytes.truncate(head_bytes);
        *input = input.get(head_bytes - held..).unwrap_or_default();
        match head::parse_whole(bytes, limits)? {
            Some((head, parsed_bytes)) if parsed_bytes == head_bytes => self.begin_body(head, input, limits),
            _ => Err(head::malformed(bytes, limits)),
        }
    }

    fn begin_body(&mut self, head: Head, input: &mut &[u8], limits: &Limits) -> Result<Option<Event>, Refusal> {
        let Head { mut request, framing, expects_continue } = head;
        let end = match framing {
            Framing::Length(body_bytes) => match input.split_at_checked(body_bytes) {
                Some((body, rest)) if !expects_continue => {
                    request.body = Bytes::copy_from_slice(body);
                    *input = rest;
                    return Ok(Some(Event::Request(request)));
                }
                _ => BodyEnd::Length(body_bytes),
            },
            Framing::Chunked => BodyEnd::Chunked(Chunks::default()),
        };
        let partial = Box::new(PartialBody { request, bytes: Vec::new(), end });
        if expects_continue {
            self.partial = Some(Partial::Body(partial));
            return Ok(Some(Event::Continue));
        }
        self.continue_body(partial, input, limits)
    }

    fn continue_body(
        &mut self,
        mut partial: Box<PartialBody>,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Event>, Refusal> {
        let PartialBody { bytes, end, .. } = &mut *partial;
        let whole = match end {
            BodyEnd::Length(body_bytes) => {
                let missing = body_bytes.saturating_sub(bytes.len());
                let (piece, rest) = input.split_at(missing.min(input.len()));
                bytes.extend_from_slice(piece);
                *input = rest;
                bytes.len() == *body_bytes
            }
            BodyEnd::Chunked(chunks) => chunks.read(input, bytes, limits)?,
        };
        if !whole {
            self.partial = Some(Partial::Body(partial));
            return Ok(None);
        }
        let PartialBody { mut request, bytes, .. } = *partial;
        request.body = bytes.into();
        Ok(Some(Event::Request(request)))
    }
}

#[cfg(test)]
mod tests;
