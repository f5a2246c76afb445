//! The marker in a message's content: its run, sender and number, and when it was due.
//!
//! `lg:` run `:` sender `:` number `:` due `:`, all in decimal. It is plain text to JSON and HTML, so the delivered body
//! contains it byte for byte. A search finds it, without parsing the JSON of a delivery.

use std::io::Write;

use memchr::memmem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Distinguishes this run's messages from an earlier run's in the same conversation.
    pub run: u32,
    /// Index of the sender within the run.
    pub sender: u32,
    /// From 1, one by one.
    pub number: u64,
    /// Monotonic time in nanoseconds.
    pub due: u64,
}

impl Marker {
    pub fn write(self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "lg:{}:{}:{}:{}:", self.run, self.sender, self.number, self.due);
    }

    /// The first marker in `bytes`.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let at = memmem::find(bytes, b"lg:")?;
        let mut rest = bytes.get(at + 3..)?;
        let mut next = || {
            let mut value: u64 = 0;
            for (index, byte) in rest.iter().enumerate() {
                match byte {
                    b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
                    b':' if index > 0 => {
                        rest = &rest[index + 1..];
                        return Some(value);
                    }
                    _ => return None,
                }
            }
            None
        };
        Some(Self { run: next()?.try_into().ok()?, sender: next()?.try_into().ok()?, number: next()?, due: next()? })
    }
}

/// Writes the JSON body of a SEND, `{"content":"..."}`, of exactly `bytes` bytes, or as short as the marker allows.
pub fn write_body(marker: Marker, client_id: bool, bytes: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"{");
    if client_id {
        let _ = write!(out, "\"clientMessageId\":\"{}-{}-{}\",", marker.run, marker.sender, marker.number);
    }
    out.extend_from_slice(b"\"content\":\"");
    marker.write(out);
    let end = bytes.saturating_sub(2);
    if out.len() < end {
        out.resize(end, b'.');
    }
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: u32::MAX, sender: 12, number: 345, due: u64::MAX };

    #[test]
    fn is_found_where_it_was_written() {
        for bytes in [0, 128, 512] {
            let mut body = Vec::new();
            write_body(MARKER, bytes == 512, bytes, &mut body);
            assert_eq!(Marker::find(&body), Some(MARKER));
            assert!(bytes == 0 || body.len() == bytes);
        }
    }

    #[test]
    fn other_text_is_no_marker() {
        for text in
            ["", "lg:", "lg:1:2:3:4", "lg:1:2:3", "lg::2:3:4:", "lg:4294967296:1:1:1:", "lg:1:2:3:99999999999999999999999:"]
        {
            assert_eq!(Marker::find(text.as_bytes()), None, "{text}");
        }
    }
}
