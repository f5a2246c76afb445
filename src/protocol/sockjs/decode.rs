//! Input from clients: a JSON array of strings, or one string.
//!
//! The array is read by hand: JavaScript's strings may hold unpaired surrogates, which no JSON library for UTF-8 passes on.

use std::str;

/// The messages of one request or packet, concatenated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// WTF-8.
    bytes: Vec<u8>,
    /// The end offset of each message.
    ends: Vec<usize>,
}

/// The input is neither an array of strings nor a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenJson;

impl Messages {
    /// All of them as one stream.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Reads a client's input. The result is never longer than the input.
///
/// # Errors
/// [`BrokenJson`] for anything but an array of strings or a string.
pub fn messages(sent: &[u8]) -> Result<Messages, BrokenJson> {
    let text = str::from_utf8(sent).map_err(|_| BrokenJson)?;
    let mut reader = Reader { rest: text.as_bytes() };
    let mut messages = Messages::default();
    reader.skip_space();
    if reader.take(b'[') {
        reader.skip_space();
        if !reader.take(b']') {
            loop {
                reader.skip_space();
                reader.string(&mut messages)?;
                reader.skip_space();
                if reader.take(b']') {
                    break;
                }
                if !reader.take(b',') {
                    return Err(BrokenJson);
                }
            }
        }
    } else {
        reader.string(&mut messages)?;
    }
    reader.skip_space();
    if reader.rest.is_empty() { Ok(messages) } else { Err(BrokenJson) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// RFC 8259 section 2.
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// RFC 8259 section 7.
    fn string(&mut self, messages: &mut Messages) -> Result<(), BrokenJson> {
        if !self.take(b'"') {
            return Err(BrokenJson);
        }
        loop {
            let stop = memchr::memchr2(b'"', b'\\', self.rest).ok_or(BrokenJson)?;
            let (plain, rest) = self.rest.split_at(stop);
            if plain.iter().any(|byte| *byte < 0x20) {
                return Err(BrokenJson);
            }
            messages.bytes.extend_from_slice(plain);
            self.rest = &rest[1..];
            if rest[0] == b'"' {
                messages.ends.push(messages.bytes.len());
                return Ok(());
            }
            self.escape(&mut messages.bytes)?;
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), BrokenJson> {
        let [first, rest @ ..] = self.rest else { return Err(BrokenJson) };
        self.rest = rest;
        out.push(match first {
            b'"' | b'\\' | b'/' => *first,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = u32::from(self.unit()?);
                if (0xD800..0xDC00).contains(&unit) {
                    unit = self.pair(unit);
                }
                push_wtf8(unit, out);
                return Ok(());
            }
            _ => return Err(BrokenJson),
        });
        Ok(())
    }

    fn unit(&mut self) -> Result<u16, BrokenJson> {
        let (digits, rest) = self.rest.split_first_chunk::<4>().ok_or(BrokenJson)?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or(BrokenJson)?;
            unit = unit << 4 | u16::try_from(digit).map_err(|_| BrokenJson)?;
        }
        self.rest = rest;
        Ok(unit)
    }

    /// The character of a high surrogate and the low one after it; without a low one, the high one alone.
    fn pair(&mut self, high: u32) -> u32 {
        let mut ahead = Reader { rest: self.rest };
        if ahead.take(b'\\')
            && ahead.take(b'u')
            && let Ok(low @ 0xDC00..=0xDFFF) = ahead.unit()
        {
            self.rest = ahead.rest;
            return 0x1_0000 + ((high - 0xD800) << 10) + (u32::from(low) - 0xDC00);
        }
        high
    }
}

/// UTF-8, surrogates included.
fn push_wtf8(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend([0xE0 | (code >> 12) as u8, 0x80 | (code >> 6 & 0x3F) as u8, 0x80 | (code & 0x3F) as u8]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::sockjs::{array, element};

    fn check(sent: &str, expect: &[&[u8]]) {
        let messages = messages(sent.as_bytes()).unwrap();
        assert_eq!(messages.iter().collect::<Vec<_>>(), expect, "{sent}");
        assert_eq!(messages.bytes(), expect.concat());
    }

    #[test]
    fn arrays_and_strings() {
        check("[]", &[]);
        check(" [ ] ", &[]);
        check(r#"["a"]"#, &[b"a"]);
        check(r#" [ "a" , "", "b\n" ] "#, &[b"a", b"", b"b\n"]);
        check(r#""alone""#, &[b"alone"]);
        check(r#"["\"\\\/\b\f\n\r\t\u0041\u00e9\u0000"]"#, &["\"\\/\u{8}\u{c}\n\r\tA\u{e9}\0".as_bytes()]);
        check(r#"["é\ud83d\ude00"]"#, &["é\u{1F600}".as_bytes()]);
    }

    #[test]
    fn halves_of_pairs_are_kept() {
        check(r#"["\ud800"]"#, &[b"\xed\xa0\x80"]);
        check(r#"["\udfffx"]"#, &[b"\xed\xbf\xbfx"]);
        check(r#"["\ud800\ud800\udc00"]"#, &[b"\xed\xa0\x80\xf0\x90\x80\x80"]);
        check(r#"["\ud800\n"]"#, &[b"\xed\xa0\x80\n"]);
    }

    #[test]
    fn other_input_is_broken_json() {
        for sent in [
            "",
            " ",
            "[",
            "[\"a",
            "[\"a\"",
            "[\"a\",]",
            "[,]",
            "[\"a\"]x",
            "[\"a\" \"b\"]",
            "[1]",
            "[null]",
            "[[\"a\"]]",
            "{}",
            "a",
            "[\"\\x\"]",
            "[\"\\u12\"]",
            "[\"\\u12g4\"]",
            "[\"\\",
            "[\"\n\"]",
            "['a']",
        ] {
            assert_eq!(messages(sent.as_bytes()), Err(BrokenJson), "{sent}");
        }
        assert_eq!(messages(b"[\"\xff\"]"), Err(BrokenJson));
    }

    proptest! {
        #[test]
        fn encoded_messages_are_decoded(texts in prop::collection::vec(".*", 0..4)) {
            let elements: Vec<Vec<u8>> = texts.iter().map(|text| {
                let mut out = Vec::new();
                element(text.as_bytes(), &mut out);
                out
            }).collect();
            let mut packet = Vec::new();
            array(elements.iter().map(Vec::as_slice), &mut packet);
            let read = messages(&packet[1..]).unwrap();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), texts.iter().map(String::as_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_is_bounded(sent in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(messages) = messages(&sent) {
                prop_assert!(messages.bytes().len() <= sent.len());
            }
        }
    }
}
