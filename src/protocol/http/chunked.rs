//! Bodies in chunks (RFC 9112 section 7.1).
//!
//! Stricter than the grammar: lines end in CRLF only, no white space around a size. Extensions and trailers are checked
//! for their form, counted against `http_header_bytes` together, and dropped.

use super::head::{bad, check_body_bytes, check_header_bytes, headers_too_large};
use super::is_token_byte;
use crate::model::{Limits, Refusal};

/// 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: ChunkState,
    /// The current line, as far as it has arrived.
    line: Vec<u8>,
    /// Bytes of extensions and trailers of this body.
    extra_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
}

impl Chunks {
    /// Moves data from the input to the body; true when the body is complete.
    pub(super) fn read(&mut self, input: &mut &[u8], body: &mut Vec<u8>, limits: &Limits) -> Result<bool, Refusal> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(size) = self.size(input, body.len(), limits)? else { return Ok(false) };
                    self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                }
                ChunkState::Data(remaining) => {
                    let Some((data, rest)) = input.split_at_checked(remaining) else {
                        body.extend_from_slice(input);
                        self.state = ChunkState::Data(remaining - input.len());
                        *input = &[];
                        return Ok(false);
                    };
                    body.extend_from_slice(data);
                    *input = rest;
                    self.state = ChunkState::DataEnd;
                }
                ChunkState::DataEnd => {
                    if !self.data_is_ended(input)? {
                        return Ok(false);
                    }
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailers => {
                    let line_bytes_max = limits.http_header_bytes.saturating_sub(self.extra_bytes);
                    if !self.line_is_whole(input, line_bytes_max, limits)? {
                        return Ok(false);
                    }
                    if self.trailer_is_last(limits)? {
                        return Ok(true);
                    }
                }
            }
            self.line.clear();
        }
    }

    /// A chunk's size, checked against the room that the body has left.
    fn size(&mut self, input: &mut &[u8], body_bytes: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
        let line_bytes_max = SIZE_DIGITS_MAX + limits.http_header_bytes.saturating_sub(self.extra_bytes);
        if !self.line_is_whole(input, line_bytes_max, limits)? {
            return Ok(None);
        }
        let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = self.line.split_at(digits);
        if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX || !matches!(extension.first(), None | Some(b';')) {
            return Err(bad("a chunk does not begin with its size"));
        }
        self.extra_bytes += extension.len();
        check_header_bytes(self.extra_bytes, limits)?;
        let size =
            digits.iter().filter_map(|digit| char::from(*digit).to_digit(16)).fold(0, |size, digit| size << 4 | u64::from(digit));
        let whole = usize::try_from(size).ok().and_then(|size| size.checked_add(body_bytes));
        check_body_bytes(whole, limits).map(|whole| Some(whole - body_bytes))
    }

    fn data_is_ended(&mut self, input: &mut &[u8]) -> Result<bool, Refusal> {
        while let Some((byte, rest)) = input.split_first() {
            let expected = if self.line.is_empty() { b'\r' } else { b'\n' };
            if *byte != expected {
                return Err(bad("a chunk is longer than its size"));
            }
            *input = rest;
            if expected == b'\n' {
                return Ok(true);
            }
            self.line.push(*byte);
        }
        Ok(false)
    }

    /// Whether the trailer line is the empty one that ends the body (RFC 9112 section 7.1.2).
    fn trailer_is_last(&mut self, limits: &Limits) -> Result<bool, Refusal> {
        if self.line.is_empty() {
            return Ok(true);
        }
        self.extra_bytes += self.line.len() + "\r\n".len();
        check_header_bytes(self.extra_bytes, limits)?;
        match self.line.iter().position(|byte| *byte == b':') {
            Some(name_bytes) if name_bytes > 0 && self.line.iter().take(name_bytes).all(|byte| is_token_byte(*byte)) => Ok(false),
            _ => Err(bad("a trailer does not begin with a name and a colon")),
        }
    }

    /// Gathers a line of at most `line_bytes_max` without its CRLF; true when it is complete and `self.line` holds it.
    fn line_is_whole(&mut self, input: &mut &[u8], line_bytes_max: usize, limits: &Limits) -> Result<bool, Refusal> {
        let newline = input.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = input.split_at(newline.map_or(input.len(), |newline| newline + 1));
        if self.line.len() + piece.len() > line_bytes_max + "\r\n".len() {
            return Err(headers_too_large(limits));
        }
        self.line.extend_from_slice(piece);
        *input = rest;
        if newline.is_none() {
            return Ok(false);
        }
        if !self.line.ends_with(b"\r\n") {
            return Err(bad("a line of a chunked body does not end in CRLF"));
        }
        self.line.truncate(self.line.len() - "\r\n".len());
        if self.line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(bad("a line of a chunked body holds a control character"));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::str;

    use super::*;

    fn limits() -> Limits {
        Limits { http_body_bytes: 16, http_header_bytes: 32, ..Limits::default() }
    }

    /// The body and the number of bytes left in the input, or the status of the refusal; the same at every cut.
    fn check(input: &str, expect: Result<(&str, &str), u16>) {
        for cut in 0..=input.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            let (mut first, second) = input.as_bytes().split_at(cut);
            let mut result = chunks.read(&mut first, &mut body, &limits());
            let mut rest = [first, second].concat();
            if let Ok(false) = result {
                assert!(first.is_empty(), "{input:?} cut at {cut}");
                let mut second = second;
                result = chunks.read(&mut second, &mut body, &limits());
                rest = second.to_vec();
            }
            let found = match &result {
                Ok(true) => Ok((str::from_utf8(&body).unwrap(), str::from_utf8(&rest).unwrap())),
                Ok(false) => panic!("{input:?} cut at {cut} does not end"),
                Err(refusal) => Err(refusal.code.status()),
            };
            assert_eq!(found, expect, "{input:?} cut at {cut}");
        }
    }

    #[test]
    fn reads_chunks() {
        check("0\r\n\r\nGET", Ok(("", "GET")));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", "")));
        check("5;a=b\r\nhello\r\n1;\r\n!\r\n00\r\n\r\n", Ok(("hello!", "")));
        check("A\r\n0123456789\r\n0\r\nSum: 1\r\nX:\r\n\r\n", Ok(("0123456789", "")));
        check("0000000000000001\r\n\n\r\n0\r\n\r\n", Ok(("\n", "")));
    }

    #[test]
    fn refuses_bad_chunks() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r\n",
            "1;\0\r\n",
            "1\r\nab",
            "1\r\na\n",
            "00000000000000001\r\n",
            "0\r\nnocolon\r\n",
            "0\r\n: x\r\n",
            "0\r\na b: x\r\n",
            "0\r\na:\rb\r\n",
        ] {
            check(bad, Err(400));
        }
        for too_large in ["11\r\n", "ffffffffffffffff\r\n", "7fffffffffffffff\r\n", "8\r\n01234567\r\n9\r\n"] {
            check(too_large, Err(413));
        }
    }

    #[test]
    fn bounds_the_body() {
        check("10\r\n0123456789abcdef\r\n0\r\n\r\n", Ok(("0123456789abcdef", "")));
        check("10\r\n0123456789abcdef\r\n1\r\n", Err(413));
    }

    #[test]
    fn bounds_extensions_and_trailers_together() {
        let x = "x".repeat(31);
        check(&format!("0;{x}\r\n\r\n"), Ok(("", "")));
        check(&format!("0;{x}x\r\n\r\n"), Err(431));
        check(&format!("1;{x}\r\na\r\n1;\r\n"), Err(431));
        check(&format!("0;{x}{x}{x}"), Err(431));
        let y = "y".repeat(28);
        check(&format!("0\r\na:{y}\r\n\r\n"), Ok(("", "")));
        check(&format!("0\r\na:{y}y\r\n\r\n"), Err(431));
        check(&format!("0;\r\na:{y}\r\n\r\n"), Err(431));
        check(&format!("0\r\na:{y}{y}"), Err(431));
    }
}
