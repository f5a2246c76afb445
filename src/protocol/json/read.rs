//! One JSON object, read by asking for its members.
//!
//! simd-json checks the whole text and lays it out as a flat tape, in which an array or object says how many nodes it
//! holds. We then walk the members by hand: serde would recurse to skip unknown ones.
//! Stricter than RFC 8259: a repeated name is refused where it matters (section 4 leaves it open), nesting ends at
//! [`DEPTH_MAX`]. More lenient: nowhere.

use std::fmt;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, StaticNode, Tape};

use crate::model::ids::{InvalidId, UserId};
use crate::model::{Refusal, RefusalCode};

/// Deepest nesting of arrays and objects. The server's own bodies nest two deep.
pub const DEPTH_MAX: usize = 32;

/// The reader frees buffers that a body larger than this made grow.
pub const KEPT_BYTES: usize = 16 * 1024;

/// Reads bodies one after another, reusing its buffers.
///
/// Lifetime: any. Owner: a reader of many bodies, such as a shard; for a single body, create a new one.
pub struct Reader {
    /// The body, which simd-json unescapes in place, and padding that it may read beyond the end.
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { copy: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH_MAX), tape: Tape(Vec::new()) }
    }
}

/// Hides the last body.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one body, which must be an object, with `members`.
    ///
    /// # Errors
    /// `content_invalid` when `body` is not UTF-8, `bad_request` when it is not one JSON object or nests too deep, and
    /// any refusal of `members`.
    pub fn read<T>(&mut self, body: &[u8], members: impl FnOnce(&Object<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(bad_request("the body is empty, a JSON object is expected"));
        }
        self.copy.clear();
        self.copy.reserve(body.len() + INPUT_PADDING);
        self.copy.extend_from_slice(body);
        self.copy.resize(body.len() + INPUT_PADDING, b' ');

        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.copy, body.len(), &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) => Object::of(&tape.0).and_then(|object| members(&object)),
            Err(error) => Err(refuse_text(error.error())),
        };
        self.tape = tape.reset();

        if body.len() > KEPT_BYTES {
            *self = Self::default();
        }
        result
    }
}

fn refuse_text(error: &ErrorType) -> Refusal {
    match error {
        ErrorType::InvalidUtf8 => Refusal::new(RefusalCode::ContentInvalid, "the body is not valid UTF-8"),
        ErrorType::DepthLimitExceeded => bad_request(format!("the body nests deeper than {DEPTH_MAX} levels")),
        _ => bad_request("the body is not valid JSON"),
    }
}

/// The members of the body's object. `null` counts as absent everywhere.
#[derive(Debug)]
pub struct Object<'a> {
    /// Alternating names and values, each value followed by its own nodes.
    nodes: &'a [Node<'a>],
}

impl<'a> Object<'a> {
    fn of(tape: &'a [Node<'a>]) -> Result<Self, Refusal> {
        match tape.split_first() {
            Some((Node::Object { .. }, nodes)) => Ok(Self { nodes }),
            _ => Err(bad_request("the body is not a JSON object")),
        }
    }

    /// The text of a member.
    ///
    /// # Errors
    /// `bad_request` when it appears twice or is not a string.
    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.member(name)? {
            None => Ok(None),
            Some([Node::String(text), ..]) => Ok(Some(text)),
            Some(_) => Err(bad_request(format!("{name} must be a string"))),
        }
    }

    /// The text of a required member.
    ///
    /// # Errors
    /// As [`string`](Self::string), and `bad_request` when it is absent.
    pub fn required_string(&self, name: &str) -> Result<&'a str, Refusal> {
        self.string(name)?.ok_or_else(|| missing(name))
    }

    /// An id: a JSON number, or its decimal digits as a string; `new` is the id's own check.
    ///
    /// # Errors
    /// `bad_request` when it appears twice or is no such id.
    pub fn id<T>(&self, name: &str, new: impl Fn(u64) -> Result<T, InvalidId>) -> Result<Option<T>, Refusal> {
        let Some(value) = self.member(name)? else { return Ok(None) };
        let id = value.first().and_then(number).and_then(|number| new(number).ok());
        id.map(Some).ok_or_else(|| bad_request(format!("{name} must be a positive integer below 2^53")))
    }

    /// A list of user ids, at most `count_max` of them, repeats included.
    ///
    /// # Errors
    /// `bad_request` when it appears twice, is not an array of ids, or is longer than `count_max`.
    pub fn users(&self, name: &str, count_max: usize) -> Result<Option<Vec<UserId>>, Refusal> {
        let Some(value) = self.member(name)? else { return Ok(None) };
        let Some((Node::Array { len, .. }, elements)) = value.split_first() else {
            return Err(bad_request(format!("{name} must be an array of user ids")));
        };
        if *len > count_max {
            return Err(bad_request(format!("{name} has more than {count_max} entries")));
        }
        // An array or object among the elements is no number, so the walk ends before it would have to skip one.
        let ids = elements.iter().map(|node| number(node).and_then(|number| UserId::new(number).ok()));
        let ids: Option<Vec<UserId>> = ids.collect();
        ids.map(Some).ok_or_else(|| bad_request(format!("{name} must hold positive integers below 2^53")))
    }

    /// The nodes of a member's value: the value itself, then the nodes inside it.
    fn member(&self, name: &str) -> Result<Option<&'a [Node<'a>]>, Refusal> {
        let mut found = None;
        let mut rest = self.nodes;
        while let Some((key, values)) = rest.split_first() {
            let Some((value, after)) = values.split_at_checked(values.first().map_or(0, span)) else { break };
            if matches!(key, Node::String(key) if *key == name) {
                if found.is_some() {
                    return Err(bad_request(format!("{name} is given twice")));
                }
                found = Some(value);
            }
            rest = after;
        }
        Ok(found.filter(|value| !matches!(value.first(), Some(Node::Static(StaticNode::Null)))))
    }
}

/// Number of tape nodes of a value, including itself.
fn span(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => count.saturating_add(1),
        Node::String(_) | Node::Static(_) => 1,
    }
}

fn number(node: &Node<'_>) -> Option<u64> {
    match node {
        Node::Static(StaticNode::U64(number)) => Some(*number),
        Node::Static(StaticNode::I64(number)) => u64::try_from(*number).ok(),
        // The same form that a path accepts: digits, no sign, no leading zero.
        Node::String(text) => text.parse::<UserId>().ok().map(UserId::value),
        _ => None,
    }
}

pub(crate) fn missing(name: &str) -> Refusal {
    bad_request(format!("{name} is missing"))
}

pub(crate) fn bad_request(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ConversationId;

    type Seen = (Option<String>, Option<u64>, Option<Vec<u64>>);

    fn read(body: &[u8]) -> Result<Seen, (RefusalCode, String)> {
        let members = |object: &Object<'_>| {
            let text = object.string("s")?.map(str::to_owned);
            let id = object.id("n", ConversationId::new)?.map(ConversationId::value);
            let users = object.users("a", 3)?.map(|users| users.into_iter().map(UserId::value).collect());
            Ok((text, id, users))
        };
        Reader::new().read(body, members).map_err(|refusal| (refusal.code, refusal.message.into_owned()))
    }

    #[test]
    fn members_in_any_order_and_unknown_ones_skipped() {
        let check = |body: &str, expect: Seen| assert_eq!(read(body.as_bytes()), Ok(expect), "{body}");
        let text = |text: &str| Some(text.to_owned());
        check("{}", (None, None, None));
        check(r#" {"s":null,"n":null,"a":null} "#, (None, None, None));
        check(r#"{"n":7,"a":[1,"2"],"s":"x"}"#, (text("x"), Some(7), Some(vec![1, 2])));
        check(r#"{"x":{"s":"no","n":[9]},"s":"yes","y":[[],{}],"n":"42"}"#, (text("yes"), Some(42), None));
        check(r#"{"x":1,"x":2,"a":[]}"#, (None, None, Some(vec![])));
        check(r#"{"n":9007199254740991}"#, (None, Some((1 << 53) - 1), None));
        check(r#"{"s":"\u00e9\n\"\\\/ \ud83d\ude00"}"#, (text("é\n\"\\/ 😀"), None, None));
    }

    #[test]
    fn a_wrong_member_is_named() {
        let check = |body: &str, expect: &str| {
            assert_eq!(read(body.as_bytes()), Err((RefusalCode::BadRequest, expect.to_owned())), "{body}");
        };
        check(r#"{"s":1}"#, "s must be a string");
        check(r#"{"s":["x"]}"#, "s must be a string");
        check(r#"{"s":"a","s":"b"}"#, "s is given twice");
        check(r#"{"s":null,"s":"b"}"#, "s is given twice");
        for number in
            ["0", "-1", "1.0", "1e3", "9007199254740992", "99999999999999999999", "\"01\"", "\"\"", "\"1 \"", "true", "[1]"]
        {
            let body = format!("{{\"n\":{number}}}");
            assert_eq!(read(body.as_bytes()).map_err(|(code, _)| code), Err(RefusalCode::BadRequest), "{body}");
        }
        check(r#"{"a":1}"#, "a must be an array of user ids");
        check(r#"{"a":[1,2,3,4]}"#, "a has more than 3 entries");
        check(r#"{"a":[1,[2]]}"#, "a must hold positive integers below 2^53");
        check(r#"{"a":[1,0]}"#, "a must hold positive integers below 2^53");
    }

    #[test]
    fn bodies_other_than_an_object_are_refused() {
        for body in [
            "",
            " \r\n",
            "null",
            "1",
            "\"x\"",
            "[]",
            "{",
            "}",
            "{]",
            "{\"s\"}",
            "{\"s\":}",
            "{\"s\":\"x}",
            "{}{}",
            "{},",
            "{s:1}",
        ] {
            assert_eq!(read(body.as_bytes()).map_err(|(code, _)| code), Err(RefusalCode::BadRequest), "{body}");
        }
        for body in [
            r#"{"s":"\x"}"#,
            r#"{"s":"\ud800"}"#,
            r#"{"s":"\ud800\u0041"}"#,
            r#"{"s":"\udc00"}"#,
            "{\"s\":\"a\nb\"}",
            "{\"s\":\"\0\"}",
        ] {
            assert_eq!(read(body.as_bytes()).map_err(|(code, _)| code), Err(RefusalCode::BadRequest), "{body}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_has_its_own_code() {
        for text in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"] {
            let body = [b"{\"s\":\"", text, b"\"}"].concat();
            assert_eq!(read(&body).map_err(|(code, _)| code), Err(RefusalCode::ContentInvalid), "{text:?}");
        }
    }

    #[test]
    fn nesting_ends_at_its_limit() {
        let nested = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        for levels in [DEPTH_MAX + 1, 60_000] {
            let refused = read(nested(levels).as_bytes()).unwrap_err();
            assert_eq!(refused.1, "the body nests deeper than 32 levels");
        }
        assert!(read("{\"x\":".repeat(20_000).as_bytes()).is_err());
    }

    #[test]
    fn every_truncation_is_refused_and_the_reader_stays_usable() {
        let body = r#"{"s":"é \u00e9","n":7,"a":[1,2],"x":{"y":[true,null,1.5e3]}}"#.as_bytes();
        let mut reader = Reader::new();
        for end in 0..body.len() {
            assert!(reader.read(&body[..end], |_| Ok(())).is_err(), "{end}");
        }
        assert_eq!(reader.read(body, |object| object.string("s").map(|s| s.map(str::to_owned))), Ok(Some("é é".to_owned())));
    }

    #[test]
    fn a_large_body_leaves_no_large_buffers() {
        let mut reader = Reader::new();
        let body = format!("{{\"s\":\"{}\"}}", "x".repeat(KEPT_BYTES));
        assert!(reader.read(body.as_bytes(), |_| Ok(())).is_ok());
        assert_eq!(reader.copy.capacity(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _seen = read(&body);
        }

        #[test]
        fn no_text_like_json_panics(body in "(\\{|[\\[\\]{}:,]|\"[sna]\"|\"\\\\u?[d8-f0]{0,4}|null|-?[0-9.e]{1,20}| ){0,40}") {
            let _seen = read(body.as_bytes());
        }
    }
}
