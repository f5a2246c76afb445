//! JSON text, appended to a buffer member by member.

use crate::model::{MessageId, Wall};

/// Writes one object. [`end`](Self::end) closes it; without it the text is incomplete.
#[must_use = "an object that is not ended is not JSON"]
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    /// The byte before the next member: the brace or a comma.
    before: u8,
}

impl<'a> ObjectWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    pub fn end(self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }

    pub fn string(mut self, name: &'static str, value: &str) -> Self {
        push_string(value, self.name(name));
        self
    }

    /// Omitted when `None`.
    pub fn optional_string(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.string(name, value),
            None => self,
        }
    }

    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        push_number(value, self.name(name));
        self
    }

    pub fn boolean(mut self, name: &'static str, value: bool) -> Self {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    pub fn null(mut self, name: &'static str) -> Self {
        self.name(name).extend_from_slice(b"null");
        self
    }

    pub fn message_id(mut self, name: &'static str, value: MessageId) -> Self {
        push_message_id(value, self.name(name));
        self
    }

    /// RFC 3339, as [`Wall`] prints it.
    pub fn time(mut self, name: &'static str, value: Wall) -> Self {
        let out = self.name(name);
        out.push(b'"');
        out.extend_from_slice(&value.to_text());
        out.push(b'"');
        self
    }

    /// A member whose value `write` appends: exactly one JSON value.
    pub fn value(mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        write(self.name(name));
        self
    }

    /// A member that is an array with one value for each of `items`.
    pub fn array<T>(
        mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Vec<u8>),
    ) -> Self {
        let out = self.name(name);
        out.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(item, out);
        }
        out.push(b']');
        self
    }

    /// The server chooses the names: none needs escaping.
    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(first_special(name.as_bytes()).is_none());
        self.out.push(self.before);
        self.before = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }
}

pub fn push_number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub fn push_message_id(id: MessageId, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&id.to_text());
    out.push(b'"');
}

/// A string with its quotes.
///
/// Escapes only what RFC 8259 section 7 requires: the quote, the backslash, and characters below U+0020.
/// U+2028 and U+2029 stay unescaped: JSON always allowed them, scripts do since ECMAScript 2019, and clients parse
/// these bodies and never run them. A transport that wraps a body in a script does its own escaping.
pub fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = first_special(rest) {
        let (clean, special) = rest.split_at(at);
        out.extend_from_slice(clean);
        let Some((byte, after)) = special.split_first() else { break };
        push_escape(*byte, out);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Index of the first byte that must be escaped. Eight bytes at a time: most text has none.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return Some(at * 8 + special.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

/// The top bit of every byte of `word` that must be escaped. A borrow may set wrong bits above the lowest right one, never below
/// it, so only the lowest bit is reliable.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & TOPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::json::Reader;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        push_string(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn read_back(json: &str) -> String {
        let body = format!("{{\"s\":{json}}}");
        Reader::new().read(body.as_bytes(), |object| object.required_string("s").map(str::to_owned)).unwrap()
    }

    #[test]
    fn escapes_only_the_required_bytes() {
        let check = |text: &str, expect: &str| assert_eq!(written(text), expect);
        check("", r#""""#);
        check("a < b & c / d", r#""a < b & c / d""#);
        check("\"\\", r#""\"\\""#);
        check("\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}", "\"\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\"");
        check("\u{2028}é😀", "\"\u{2028}é😀\"");
    }

    #[test]
    fn every_special_byte_is_found_at_every_offset() {
        for byte in 0..=0x7Fu8 {
            for at in 0..20 {
                let mut text = [b'x'; 20];
                text[at] = byte;
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(first_special(&text), special.then_some(at), "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn objects_have_commas_between_members_only() {
        let mut out = Vec::new();
        ObjectWriter::new(&mut out).end();
        let id = "c232ab00-9414-11ec-b3c8-9f6bdeced846".parse().unwrap();
        let object = ObjectWriter::new(&mut out).number("a", 0).optional_string("no", None).boolean("b", true).null("c");
        let object = object.array("d", [1, 2], push_number).array("e", [0; 0], push_number).message_id("f", id);
        object.value("g", |out| ObjectWriter::new(out).string("h", "i").end()).end();
        let expect = r#"{}{"a":0,"b":true,"c":null,"d":[1,2],"e":[],"f":"c232ab00-9414-11ec-b3c8-9f6bdeced846","g":{"h":"i"}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    proptest! {
        #[test]
        fn any_text_round_trips(text in any::<String>()) {
            prop_assert_eq!(read_back(&written(&text)), text);
        }

        #[test]
        fn text_full_of_escapes_round_trips(text in "[\\x00-\\x22\\\\/ -~\u{2028}\u{2029}é😀]{0,80}") {
            prop_assert_eq!(read_back(&written(&text)), text);
        }
    }
}
