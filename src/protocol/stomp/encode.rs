//! Frames to bytes, appended to the caller's buffer.
//!
//! ```text
//! frame = command LF *( name ":" value LF ) [ "content-length:" 1*DIGIT LF ] LF body NUL
//! ```
//!
//! Line ends are LF alone and a body always follows its length in bytes, so that the output is the same in all versions but for
//! the escapes. The parts can be written separately: the shared part of a message (the last headers and the body) once, and each
//! receiver's own headers in front of it.
//!
//! No text can break out of its line: an octet that this version cannot express (CR, LF and NUL, and a colon in a name,
//! where no escape for it exists) is written as a space, as RFC 9110 section 5.5 has it for HTTP.

use crate::protocol::stomp::{Command, Version};

/// Keeps an idle connection alive (STOMP 1.2, "Heart-beating").
pub const HEART_BEAT: &[u8] = b"\n";

/// Writes the first line. Headers and [`finish`] follow.
pub fn begin(out: &mut Vec<u8>, command: Command) {
    out.extend_from_slice(command.name().as_bytes());
    out.push(b'\n');
}

/// Writes one header line, escaped as `version` asks. CONNECT and CONNECTED have no escapes: write them as 1.0.
///
/// Not for `content-length`: [`finish`] writes it.
pub fn header(out: &mut Vec<u8>, version: Version, name: &str, value: &str) {
    debug_assert!(!name.is_empty() && name != "content-length");
    out.reserve(name.len() + value.len() + 2);
    if is_special(name.as_bytes()) {
        push_escaped(out, version, name.as_bytes(), true);
    } else {
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b':');
    if is_special(value.as_bytes()) {
        push_escaped(out, version, value.as_bytes(), false);
    } else {
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'\n');
}

/// Ends the headers, and writes the body with its length in bytes, if the frame has one.
pub fn finish(out: &mut Vec<u8>, body: Option<&[u8]>) {
    match body {
        None => out.extend_from_slice(b"\n\0"),
        Some(body) => {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(body.len()).as_bytes();
            out.reserve(b"content-length:".len() + digits.len() + 2 + body.len() + 1);
            out.extend_from_slice(b"content-length:");
            out.extend_from_slice(digits);
            out.extend_from_slice(b"\n\n");
            out.extend_from_slice(body);
            out.push(0);
        }
    }
}

/// Writes a whole frame; without escapes if it is CONNECT or CONNECTED.
pub fn encode(out: &mut Vec<u8>, version: Version, command: Command, headers: &[(&str, &str)], body: Option<&[u8]>) {
    debug_assert!(body.is_none_or(|body| body.is_empty() || command.may_have_body(version)));
    let version = if command.is_never_escaped() { Version::V10 } else { version };
    begin(out, command);
    for (name, value) in headers {
        header(out, version, name, value);
    }
    finish(out, body);
}

/// Whether some version may have to escape an octet; true for all controls. Blocks of a fixed size, the last of which overlaps
/// the one before it, are compared many bytes at a time; most text is clean.
fn is_special(text: &[u8]) -> bool {
    const BLOCK: usize = 16;
    const HALF: usize = 8;
    if let Some(last) = text.last_chunk::<BLOCK>() {
        return text.as_chunks::<BLOCK>().0.iter().any(has_special) || has_special(last);
    }
    match (text.first_chunk::<HALF>(), text.last_chunk::<HALF>()) {
        (Some(first), Some(last)) => has_special(first) | has_special(last),
        _ => text.iter().any(|byte| has_special(&[*byte])),
    }
}

/// Without an early return, so that the compiler can vectorise it.
fn has_special<const N: usize>(block: &[u8; N]) -> bool {
    block.iter().fold(false, |any, byte| any | (*byte < b' ') | (*byte == b':') | (*byte == b'\\'))
}

fn push_escaped(out: &mut Vec<u8>, version: Version, text: &[u8], is_name: bool) {
    let escapes = version >= Version::V11;
    for &byte in text {
        match byte {
            b'\\' if escapes => out.extend_from_slice(b"\\\\"),
            b':' if escapes => out.extend_from_slice(b"\\c"),
            b'\n' if escapes => out.extend_from_slice(b"\\n"),
            b'\r' if version >= Version::V12 => out.extend_from_slice(b"\\r"),
            b'\n' | b'\r' | 0 => out.push(b' '),
            b':' if is_name => out.push(b' '),
            _ => out.push(byte),
        }
    }
}
