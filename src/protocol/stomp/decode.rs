//! Bytes in any pieces to frames and heart-beats.
//!
//! A frame that is complete within the input is borrowed from it. Of an incomplete one, the decoder keeps the bytes so far (never
//! more than `limits.frame_bytes`) and how far they were read, so that one byte at a time costs no more than all at once.

use smallvec::SmallVec;

use crate::model::{Fault, Limits};
use crate::protocol::stomp::parse::{find_receipt, parse_headers};
use crate::protocol::stomp::scan::{Outline, Rules, Scan};
use crate::protocol::stomp::{Frame, Item, Side, Version};

/// One stream's decoder; owned by its session, and without heap memory while nothing is partial.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    version: Version,
    /// A CR was read between frames: its LF must follow.
    after_cr: bool,
    /// `partial` was returned as a frame and can be freed.
    spent: bool,
    scan: Scan,
    partial: Vec<u8>,
    receipt: Option<Box<str>>,
}

/// First capacity for a partial frame, in bytes: most frames fit.
const PARTIAL_BYTES_MIN: usize = 256;

impl Decoder {
    /// Until [`set_version`](Self::set_version), frames are read as STOMP 1.0 has them.
    #[must_use]
    pub const fn new(side: Side) -> Self {
        Self { side, version: Version::V10, after_cr: false, spent: false, scan: Scan::START, partial: Vec::new(), receipt: None }
    }

    /// Sets the agreed version, which holds from the next frame on. Call it between two frames, as soon as CONNECT was answered
    /// (or CONNECTED read), since frames of the new version may follow in the same input.
    pub fn set_version(&mut self, version: Version) {
        debug_assert!(self.is_between_frames(), "the version changes only between frames");
        self.version = version;
    }

    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether no byte of a frame is kept here, so that the next frame is still in the input.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        (self.partial.is_empty() || self.spent) && !self.after_cr
    }

    /// Heap bytes held for a partial frame.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// After a fault: the receipt that the faulty frame asked for, for the `receipt-id` of the ERROR.
    #[must_use]
    pub fn faulty_receipt(&self) -> Option<&str> {
        self.receipt.as_deref()
    }

    /// Takes the next frame or heart-beat off the front of `input`. Call it until it returns `None`: then `input` is
    /// empty, and the memory of a frame that arrived in pieces is freed.
    ///
    /// # Errors
    /// A fault of the framing, or a limit. The stream cannot be read after it; do not use the decoder again.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], limits: &Limits) -> Result<Option<Item<'a>>, Fault> {
        if self.spent {
            self.spent = false;
            self.partial = Vec::new();
        }
        let direct = self.partial.is_empty();
        if direct {
            if self.take_eol(input)? {
                return Ok(Some(Item::HeartBeat));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let bytes = *input;
        let found = if direct { self.take_whole(input, limits)? } else { self.complete(input, limits)? };
        let Some(outline) = found else { return Ok(None) };
        self.scan = Scan::START;
        self.spent = !direct;
        let bytes = if direct { bytes } else { &self.partial };
        let mut frame = Frame {
            command: outline.command,
            headers: SmallVec::new(),
            body: bytes.get(outline.body..outline.body_end).unwrap_or_default(),
        };
        if let Err(fault) = parse_headers(bytes, outline, self.version, &mut frame.headers) {
            self.receipt = find_receipt(bytes.get(..outline.body).unwrap_or_default(), self.version);
            return Err(fault);
        }
        Ok(Some(Item::Frame(frame)))
    }

    /// An EOL between frames; its CR and LF may arrive in two pieces.
    fn take_eol(&mut self, input: &mut &[u8]) -> Result<bool, Fault> {
        loop {
            match (input.split_first(), self.after_cr) {
                (Some((b'\n', rest)), _) => {
                    *input = rest;
                    self.after_cr = false;
                    return Ok(true);
                }
                (Some((b'\r', rest)), false) => {
                    *input = rest;
                    self.after_cr = true;
                }
                (Some(_), true) => return Err(Fault::protocol("CR without LF between frames")),
                (Some(_), false) | (None, _) => return Ok(false),
            }
        }
    }

    /// Takes a frame that is complete within `input`; keeps the bytes of an incomplete one.
    fn take_whole(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Outline>, Fault> {
        let bytes = *input;
        if let Some(outline) = self.advance(Some(bytes), limits)? {
            *input = bytes.get(outline.body_end + 1..).unwrap_or_default();
            return Ok(Some(outline));
        }
        self.keep(bytes, limits);
        *input = &[];
        Ok(None)
    }

    /// Takes only the bytes that the partial frame lacks from `input`; the whole frame is then in `partial`.
    fn complete(&mut self, input: &mut &[u8], limits: &Limits) -> Result<Option<Outline>, Fault> {
        while !input.is_empty() {
            // One byte over the limit is enough for the scan to see that it was passed.
            let room = limits.frame_bytes.saturating_add(1).saturating_sub(self.partial.len());
            let wanted = self.scan.wants(self.partial.len(), input).min(room).max(1);
            let (taken, rest) = input.split_at(wanted);
            *input = rest;
            self.keep(taken, limits);
            if let Some(outline) = self.advance(None, limits)? {
                return Ok(Some(outline));
            }
        }
        Ok(None)
    }

    /// Scans `bytes`, or `partial` without them.
    fn advance(&mut self, bytes: Option<&[u8]>, limits: &Limits) -> Result<Option<Outline>, Fault> {
        let bytes = bytes.unwrap_or(&self.partial);
        let rules = Rules { side: self.side, version: self.version, limits };
        self.scan.advance(bytes, rules).inspect_err(|_| {
            self.receipt = find_receipt(bytes.get(..self.scan.line()).unwrap_or_default(), self.version);
        })
    }

    /// Grows by doubling, as `Vec` does, but not beyond the limit: a drip of bytes costs linear time, and a frame near the
    /// limit no more memory than it has bytes.
    fn keep(&mut self, bytes: &[u8], limits: &Limits) {
        let needed = self.partial.len() + bytes.len();
        if needed > self.partial.capacity() {
            let doubled = (self.partial.capacity() * 2).max(PARTIAL_BYTES_MIN).min(limits.frame_bytes.saturating_add(1));
            self.partial.reserve_exact(doubled.max(needed) - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }
}
