//! Finds a frame's end without reading any byte twice.
//!
//! Grammar: the frame's outline, `command EOL *( 1*octet EOL ) EOL body NUL`; `parse` reads the header lines, except
//! `content-length`, which says where the body ends. A fault is found at the same byte however the
//! input was split, because every check reads only the bytes up to it.

use memchr::{memchr, memchr2};

use crate::model::{Close, Fault, Limits};
use crate::protocol::stomp::{Command, Side, Version};

/// The longest command word, UNSUBSCRIBE, in bytes.
const COMMAND_BYTES_MAX: usize = 11;
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// Progress through the current frame. Owned by one [`Decoder`](super::Decoder); offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    /// Bytes read.
    seen: usize,
    /// Start of the line that contains `seen`.
    line: usize,
    headers: usize,
    state: ScanState,
}

#[derive(Clone, Copy, Debug)]
enum ScanState {
    Command,
    Headers { command: Command, head: usize, length: Option<usize> },
    Body { outline: Outline, length: Option<usize> },
}

/// A frame's parts, as offsets from its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) command: Command,
    /// The first header line.
    pub(super) head: usize,
    /// The blank line after the last.
    pub(super) head_end: usize,
    pub(super) body: usize,
    /// The NUL.
    pub(super) body_end: usize,
}

/// The rules that a scan applies.
#[derive(Clone, Copy)]
pub(super) struct Rules<'l> {
    pub(super) side: Side,
    pub(super) version: Version,
    pub(super) limits: &'l Limits,
}

impl Scan {
    pub(super) const START: Self = Self { seen: 0, line: 0, headers: 0, state: ScanState::Command };

    /// Start of the line that is still incomplete: complete lines precede it.
    pub(super) const fn line(&self) -> usize {
        self.line
    }

    /// Continues with `bytes`, the frame from its first byte on; others may follow it.
    ///
    /// # Errors
    /// A fault of the outline, or a limit.
    pub(super) fn advance(&mut self, bytes: &[u8], rules: Rules<'_>) -> Result<Option<Outline>, Fault> {
        // Bytes beyond the limit are not read, so the scan meets the limit at the same byte whether or not more has arrived.
        let window = bytes.get(..rules.limits.frame_bytes).unwrap_or(bytes);
        let found = loop {
            match self.state {
                ScanState::Command => match next_line(window, self, COMMAND_BYTES_MAX) {
                    Line::Partial => break None,
                    Line::TooLong | Line::Nul => return Err(unknown_command()),
                    Line::Whole { text, next } => self.enter_headers(text, next, rules.side)?,
                },
                ScanState::Headers { command, head, length } => match next_line(window, self, rules.limits.frame_header_bytes) {
                    Line::Partial => break None,
                    Line::TooLong => return Err(header_too_long(rules.limits)),
                    Line::Nul => return Err(Fault::protocol("NUL before the end of the headers")),
                    Line::Whole { text: [], next } => {
                        let outline = Outline { command, head, head_end: self.line, body: next, body_end: next };
                        self.enter_body(outline, length, rules)?;
                    }
                    Line::Whole { text, next } => self.take_header(text, next, rules)?,
                },
                ScanState::Body { outline, length } => break self.find_end(window, outline, length, rules.version)?,
            }
        };
        if found.is_none() && bytes.len() > window.len() {
            return Err(frame_too_big(rules.limits));
        }
        Ok(found)
    }

    /// How many bytes of `input`, which follow `have` bytes of the frame, can be taken without going beyond its end.
    pub(super) fn wants(&self, have: usize, input: &[u8]) -> usize {
        let wanted = match self.state {
            ScanState::Body { outline, length: Some(length) } => (outline.body + length + 1).saturating_sub(have),
            ScanState::Body { length: None, .. } => memchr(0, input).map_or(input.len(), |at| at + 1),
            ScanState::Command | ScanState::Headers { .. } => memchr2(b'\n', 0, input).map_or(input.len(), |at| at + 1),
        };
        wanted.min(input.len())
    }

    fn enter_headers(&mut self, word: &[u8], next: usize, side: Side) -> Result<(), Fault> {
        let command = Command::parse(word).ok_or_else(unknown_command)?;
        if !command.comes_in_at(side) {
            return Err(Fault::protocol(format!("{} is not a command of this side", command.name())));
        }
        self.line = next;
        self.state = ScanState::Headers { command, head: next, length: None };
        Ok(())
    }

    fn take_header(&mut self, text: &[u8], next: usize, rules: Rules<'_>) -> Result<(), Fault> {
        self.headers += 1;
        if self.headers > rules.limits.frame_headers {
            let most = rules.limits.frame_headers;
            return Err(Fault::new(Close::TooBig, format!("more than {most} headers (limits.frame_headers)")));
        }
        if let ScanState::Headers { command, length: length @ None, .. } = &mut self.state
            && let Some(value) = text.strip_prefix(CONTENT_LENGTH)
        {
            let padded = rules.version == Version::V10 || command.is_never_escaped();
            *length = Some(content_length(if padded { value.trim_ascii() } else { value })?);
        }
        self.line = next;
        Ok(())
    }

    fn enter_body(&mut self, outline: Outline, length: Option<usize>, rules: Rules<'_>) -> Result<(), Fault> {
        let Rules { version, limits, .. } = rules;
        if let Some(length) = length {
            if length > 0 && !outline.command.may_have_body(version) {
                return Err(no_body(outline.command));
            }
            // The NUL counts. Refused here, no byte of such a body is kept.
            if length.saturating_add(outline.body).saturating_add(1) > limits.frame_bytes {
                return Err(frame_too_big(limits));
            }
        }
        self.line = outline.body;
        self.seen = outline.body;
        self.state = ScanState::Body { outline, length };
        Ok(())
    }

    fn find_end(
        &mut self,
        window: &[u8],
        outline: Outline,
        length: Option<usize>,
        version: Version,
    ) -> Result<Option<Outline>, Fault> {
        let body_end = match length {
            Some(length) => match window.get(outline.body + length) {
                None => return Ok(None),
                Some(0) => outline.body + length,
                Some(_) => return Err(Fault::protocol("no NUL where content-length says that the body ends")),
            },
            None => {
                let unseen = window.get(self.seen..).unwrap_or_default();
                let nul = memchr(0, unseen);
                if nul != Some(0) && !unseen.is_empty() && !outline.command.may_have_body(version) {
                    return Err(no_body(outline.command));
                }
                match nul {
                    None => {
                        self.seen = window.len();
                        return Ok(None);
                    }
                    Some(at) => self.seen + at,
                }
            }
        };
        Ok(Some(Outline { body_end, ..outline }))
    }
}

/// The content of the line that `Scan::line` begins.
enum Line<'a> {
    Partial,
    /// The line exceeds the allowed bytes, before its EOL or without one yet.
    TooLong,
    Nul,
    /// The line without its EOL, and the start of the next one.
    Whole {
        text: &'a [u8],
        next: usize,
    },
}

fn next_line<'a>(window: &'a [u8], scan: &mut Scan, bytes_max: usize) -> Line<'a> {
    let unseen = window.get(scan.seen..).unwrap_or_default();
    let stop = memchr2(b'\n', 0, unseen).map(|at| scan.seen + at);
    let end = stop.unwrap_or(window.len());
    let raw = window.get(scan.line..end).unwrap_or_default();
    let text = raw.strip_suffix(b"\r").unwrap_or(raw);
    if text.len() > bytes_max {
        return Line::TooLong;
    }
    match stop {
        None => {
            scan.seen = end;
            Line::Partial
        }
        Some(at) if window.get(at) == Some(&0) => Line::Nul,
        Some(at) => {
            scan.seen = at + 1;
            Line::Whole { text, next: at + 1 }
        }
    }
}

/// Digits only; a number too large for memory counts as the largest.
fn content_length(value: &[u8]) -> Result<usize, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::protocol("content-length is not a number"));
    }
    Ok(value.iter().fold(0usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'))))
}

fn unknown_command() -> Fault {
    Fault::protocol("unknown command")
}

fn no_body(command: Command) -> Fault {
    Fault::protocol(format!("{} must not have a body", command.name()))
}

fn header_too_long(limits: &Limits) -> Fault {
    let most = limits.frame_header_bytes;
    Fault::new(Close::TooBig, format!("header longer than {most} bytes (limits.frame_header_bytes)"))
}

fn frame_too_big(limits: &Limits) -> Fault {
    let most = limits.frame_bytes;
    Fault::new(Close::TooBig, format!("frame larger than {most} bytes (limits.frame_bytes)"))
}
