//! UTF-8 checked piece by piece (RFC 6455 section 8.1; the encoding: RFC 3629).

use std::str;

/// Checks one text message; holds at most the 3 bytes of a character that the last piece cut.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    carry: [u8; 3],
    carry_bytes: u8,
}

impl Utf8 {
    /// Whether the message may still become valid: false at the first byte that no continuation can repair.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        if self.carry_bytes > 0 && !self.push_carried(&mut bytes) {
            return false;
        }
        match str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.keep(bytes.get(error.valid_up_to()..).unwrap_or_default());
                true
            }
        }
    }

    /// Whether no character is incomplete. Also resets for the next message.
    pub(super) fn finish(&mut self) -> bool {
        std::mem::take(&mut self.carry_bytes) == 0
    }

    /// Moves bytes from the piece to the carried character until it is complete, wrong, or the piece is used up.
    fn push_carried(&mut self, bytes: &mut &[u8]) -> bool {
        let mut character = [0; 4];
        let mut held = 0;
        for (slot, byte) in character.iter_mut().zip(self.carry.iter().take(usize::from(self.carry_bytes))) {
            *slot = *byte;
            held += 1;
        }
        self.carry_bytes = 0;
        while let Some((byte, rest)) = bytes.split_first() {
            let Some(slot) = character.get_mut(held) else { return false };
            *slot = *byte;
            held += 1;
            *bytes = rest;
            match str::from_utf8(character.get(..held).unwrap_or_default()) {
                Ok(_) => return true,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        self.keep(character.get(..held).unwrap_or_default());
        true
    }

    fn keep(&mut self, cut: &[u8]) {
        assert!(cut.len() < 4, "a cut character is shorter than the longest one");
        for (slot, byte) in self.carry.iter_mut().zip(cut) {
            *slot = *byte;
        }
        self.carry_bytes = cut.len() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Validity as the standard library sees it, byte by byte and cut at every place.
    fn check(text: &[u8]) {
        let first_wrong = match str::from_utf8(text) {
            Err(error) if error.error_len().is_some() => Some(error.valid_up_to()),
            _ => None,
        };
        let mut utf8 = Utf8::default();
        let fails_at = text.iter().position(|byte| !utf8.push(&[*byte]));
        assert_eq!(fails_at.is_some(), first_wrong.is_some(), "{text:x?}");
        if let (Some(at), Some(from)) = (fails_at, first_wrong) {
            assert!(from <= at && at < from + 4, "{text:x?} fails at {at}");
        }
        for cut in 0..=text.len() {
            let mut utf8 = Utf8::default();
            let valid = utf8.push(&text[..cut]) && utf8.push(&text[cut..]) && utf8.finish();
            assert_eq!(valid, str::from_utf8(text).is_ok(), "{text:x?} cut at {cut}");
        }
    }

    #[test]
    fn agrees_with_the_standard_library_at_every_cut() {
        for text in ["", "plain", "κόσμε", "a\u{10ffff}b", "\u{7ff}\u{800}\u{ffff}\u{10000}", "𝄞𝄞"] {
            check(text.as_bytes());
        }
        for broken in [
            &b"\xc0\x80"[..],
            b"ab\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xce\xba\xe1\xbd",
            b"\xf0\x9d\x84",
            b"\xff",
            b"\xe2\x82a",
        ] {
            check(broken);
        }
    }

    /// A surrogate is wrong at its second byte, before the third has come.
    #[test]
    fn fails_at_the_first_wrong_byte() {
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"ok \xed"));
        assert!(!utf8.push(b"\xa0"));
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"\xf4"));
        assert!(!utf8.push(b"\x90"));
    }
}
