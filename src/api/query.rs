//! The query of a URL, as forms write it (application/x-www-form-urlencoded, WHATWG URL standard section 5.1).
//!
//! Stricter: a `%` without two hexadecimal digits after it, and bytes that are not UTF-8, are refused on access instead of
//! being replaced.

use crate::model::Refusal;
use crate::protocol::json::read::bad_request;

/// `name=value` pairs, undecoded.
#[derive(Clone, Copy)]
pub struct Query<'a>(&'a str);

/// Hides the values: one of them may be a token.
impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Query([redacted])")
    }
}

impl<'a> Query<'a> {
    /// `text` is the part after the first `?`.
    #[must_use]
    pub fn new(text: Option<&'a str>) -> Self {
        Self(text.unwrap_or_default())
    }

    /// The first value of this name, decoded; an empty one counts as absent, so that a client may send `cursor=` for its
    /// first page.
    ///
    /// # Errors
    /// `bad_request` when the value cannot be decoded.
    pub fn value(self, name: &str) -> Result<Option<String>, Refusal> {
        for pair in self.0.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A name that cannot be decoded matches none.
            if key != name && decode(key).is_none_or(|key| key != name) {
                continue;
            }
            let value = decode(value).ok_or_else(|| bad_request(format!("{name} is not well percent-encoded UTF-8")))?;
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
        Ok(None)
    }
}

/// `None` for a broken escape, and for bytes that are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_and_decoded() {
        let check = |query: &str, expect: Option<&str>| {
            assert_eq!(Query::new(Some(query)).value("key"), Ok(expect.map(str::to_owned)), "{query}");
        };
        check("", None);
        check("key", None);
        check("key=", None);
        check("key=a", Some("a"));
        check("x=1&&key=a&key=b", Some("a"));
        check("key=a=b", Some("a=b"));
        check("keyx=1&xkey=2&KEY=3", None);
        check("%6Bey=a", Some("a"));
        check("k%zzy=1&%ff=2&key=a", Some("a"));
        check("key=a+b%20c%2B%c3%A9", Some("a b c+é"));
        assert_eq!(Query::new(None).value("key"), Ok(None));
    }

    #[test]
    fn undecodable_values_are_refused() {
        for query in ["key=%", "key=%4", "key=%4g", "key=%ff", "key=%c3", "key=%+1"] {
            assert!(Query::new(Some(query)).value("key").is_err(), "{query}");
            assert_eq!(Query::new(Some(query)).value("other"), Ok(None), "{query}");
        }
    }
}
