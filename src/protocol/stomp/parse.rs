//! The header lines of one whole frame.
//!
//! ```text
//! header  = name ":" value EOL
//! escape  = "\n" / "\c" / "\\"     1.1 and 1.2
//!         / "\r"                   1.2
//! ```
//!
//! Any other backslash is fatal in 1.1 and 1.2 (STOMP 1.2, "Value Encoding"); in 1.0, CONNECT and CONNECTED it is a
//! character like others. More lenient than the standard: a value may hold colons as they are.

use std::borrow::Cow;

use memchr::memchr2;
use smallvec::SmallVec;

use crate::model::{Close, Fault};
use crate::protocol::stomp::scan::Outline;
use crate::protocol::stomp::{Command, Header, Version};

/// The octets that a header line of this frame may hold.
#[derive(Clone, Copy)]
struct Text {
    escapes: bool,
    escaped_cr: bool,
    /// CR is an ordinary octet up to 1.1, whose EOL is LF alone; yet a CR before LF counts as part of the EOL.
    lone_cr: bool,
    padded: bool,
}

impl Text {
    const fn of(command: Command, version: Version) -> Self {
        if command.is_never_escaped() {
            return Self { escapes: false, escaped_cr: false, lone_cr: false, padded: false };
        }
        match version {
            Version::V10 => Self { escapes: false, escaped_cr: false, lone_cr: true, padded: true },
            Version::V11 => Self { escapes: true, escaped_cr: false, lone_cr: true, padded: false },
            Version::V12 => Self { escapes: true, escaped_cr: true, lone_cr: false, padded: false },
        }
    }
}

/// Reads the headers of the frame that `outline` found in `bytes` into `headers`, their final place: moving a frame is measurably
/// slow.
///
/// # Errors
/// A fault of a header line: not UTF-8, no colon, an empty name, an undefined escape, a lone CR.
pub(super) fn parse_headers<'a>(
    bytes: &'a [u8],
    outline: Outline,
    version: Version,
    headers: &mut SmallVec<[Header<'a>; 8]>,
) -> Result<(), Fault> {
    let Outline { command, head, head_end, .. } = outline;
    let head = bytes.get(head..head_end).unwrap_or_default();
    let mut rest = str::from_utf8(head).map_err(|_| Fault::new(Close::InvalidText, "headers are not UTF-8"))?;
    let text = Text::of(command, version);
    let plain = memchr2(b'\\', b'\r', head).is_none();

    while let Some((line, next)) = rest.split_once('\n') {
        rest = next;
        let (name, value) = line.split_once(':').ok_or_else(|| Fault::protocol("header line without a colon"))?;
        if name.is_empty() {
            return Err(Fault::protocol("header with an empty name"));
        }
        headers.push(if plain {
            (Cow::Borrowed(name), Cow::Borrowed(if text.padded { trim(value) } else { value }))
        } else {
            read_special(name, value, text)?
        });
    }
    if is_padded_greeting(command, headers) {
        for (_, value) in headers {
            if let Cow::Borrowed(value) = value {
                *value = trim(value);
            }
        }
    }
    Ok(())
}

/// A header line with a backslash or a CR somewhere in it.
fn read_special<'a>(name: &'a str, value: &'a str, text: Text) -> Result<Header<'a>, Fault> {
    let value = value.strip_suffix('\r').unwrap_or(value);
    if !text.lone_cr && (name.contains('\r') || value.contains('\r')) {
        return Err(Fault::protocol("CR within a header line"));
    }
    let value = if text.padded { trim(value) } else { value };
    if text.escapes {
        Ok((unescape(name, text.escaped_cr)?, unescape(value, text.escaped_cr)?))
    } else {
        Ok((Cow::Borrowed(name), Cow::Borrowed(value)))
    }
}

/// A CONNECT without accept-version, and a CONNECTED without version, are of 1.0, where values are padded.
fn is_padded_greeting(command: Command, headers: &[Header<'_>]) -> bool {
    let version_header = match command {
        Command::Connect => "accept-version",
        Command::Connected => "version",
        _ => return false,
    };
    headers.iter().all(|(name, _)| name != version_header)
}

fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

fn unescape(text: &str, escaped_cr: bool) -> Result<Cow<'_, str>, Fault> {
    let Some((plain, mut rest)) = text.split_once('\\') else { return Ok(Cow::Borrowed(text)) };
    // Unescaping only shortens.
    let mut out = String::with_capacity(text.len());
    out.push_str(plain);
    loop {
        let mut chars = rest.chars();
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some('r') if escaped_cr => '\r',
            _ => return Err(Fault::protocol("undefined escape in a header")),
        });
        match chars.as_str().split_once('\\') {
            Some((plain, next)) => {
                out.push_str(plain);
                rest = next;
            }
            None => {
                out.push_str(chars.as_str());
                return Ok(Cow::Owned(out));
            }
        }
    }
}

/// The value of the first `receipt` among the complete header lines of a faulty frame, as far as it can be read:
/// the ERROR should name it (STOMP 1.2, "ERROR").
pub(super) fn find_receipt(lines: &[u8], version: Version) -> Option<Box<str>> {
    let mut lines = lines.split(|b| *b == b'\n');
    let word = lines.next()?;
    let command = Command::parse(word.strip_suffix(b"\r").unwrap_or(word))?;
    let value = lines.take_while(|line| !matches!(*line, b"" | b"\r")).find_map(|line| line.strip_prefix(b"receipt:"))?;
    let (_, value) = read_special("receipt", str::from_utf8(value).ok()?, Text::of(command, version)).ok()?;
    Some(value.into())
}
