//! Checks a message's content, and makes it harmless in a page.
//!
//! The stored text, parsed as HTML, is text and nothing else: each `<` that would open a tag, a comment, a doctype or a
//! processing instruction becomes `&lt;`. That is a `<` followed by an ASCII letter, `!` or `?`, or by `/` and anything
//! (WHATWG HTML, 13.2.5.6 "Tag open state" and 13.2.5.7 "End tag open state": even `</>` and `</ 3` vanish from the page).
//! At the very end `<` and `</` are text. The rest stays byte for byte: `a < b & c`, `<3`, `&amp;`.
//!
//! We escape instead of removing: the reader still sees the text as written, and removal can join separate parts (`<<b>` minus
//! one `<` is a tag). Stored text passes unchanged when it is sent again, since `&lt;` opens nothing; so an edit of a
//! stored text does not escape it again. Clients that show content as plain text show `&lt;`, and a typed `&lt;` is the same
//! as an escaped `<`. The rule covers the text by itself: a page that puts it inside an
//! attribute, a script or half-open markup has to escape it for that context.
//!
//! Controls stay too: they open nothing, and stripping them joins separate parts (`<`, NUL, `b>`).

use std::borrow::Cow;

use memchr::memchr_iter;

use crate::model::{Refusal, RefusalCode};

/// Checks content as it was sent, and returns the text to store: the same, or with openers escaped if `sanitize`.
///
/// `chars_max` counts Unicode scalar values of the content as sent; the stored text may be longer by 3 bytes for each
/// escaped `<`.
///
/// # Errors
/// `content_empty` if the content is only whitespace, or `content_too_long`.
pub fn check(content: &str, chars_max: usize, sanitize: bool) -> Result<Cow<'_, str>, Refusal> {
    // The first test saves counting most contents: a text has at most as many characters as bytes.
    if content.len() > chars_max && content.chars().count() > chars_max {
        let message = format!("content is longer than {chars_max} characters (limits.content_chars)");
        return Err(Refusal::new(RefusalCode::ContentTooLong, message));
    }
    if content.trim().is_empty() {
        return Err(Refusal::new(RefusalCode::ContentEmpty, "content is empty"));
    }
    Ok(if sanitize { escape_openers(content) } else { Cow::Borrowed(content) })
}

/// Escapes each `<` that opens something in the tokenizer's data state. The output opens nothing, so each `<` is judged by the
/// input after it: an escaped `<` begins with `&`, which ends no opener before it.
fn escape_openers(content: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for at in memchr_iter(b'<', content.as_bytes()) {
        if opens(content.as_bytes().get(at + 1..).unwrap_or_default()) {
            out.push_str(content.get(copied..at).unwrap_or_default());
            out.push_str("&lt;");
            copied = at + 1;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(content);
    }
    out.push_str(content.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Whether a `<` opens something before `rest`.
const fn opens(rest: &[u8]) -> bool {
    match rest {
        [b'!' | b'?', ..] | [b'/', _, ..] => true,
        [first, ..] => first.is_ascii_alphabetic(),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use html5ever::tendril::StrTendril;
    use html5ever::tokenizer::{
        BufferQueue, CharacterTokens, EOFToken, NullCharacterToken, ParseError, Token, TokenSink, TokenSinkResult, Tokenizer,
        TokenizerOpts,
    };
    use proptest::prelude::*;

    use super::*;

    /// A browser's tokens of a text.
    #[derive(Default)]
    struct Seen {
        text: RefCell<String>,
        markup: Cell<bool>,
    }

    impl TokenSink for Seen {
        type Handle = ();

        fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
            match token {
                CharacterTokens(text) => self.text.borrow_mut().push_str(&text),
                ParseError(_) | EOFToken => {}
                NullCharacterToken => self.text.borrow_mut().push('\0'),
                _ => self.markup.set(true),
            }
            TokenSinkResult::Continue
        }
    }

    /// Whether `text` is only text, and which.
    fn parse(text: &str) -> (bool, String) {
        let tokenizer = Tokenizer::new(Seen::default(), TokenizerOpts::default());
        let input = BufferQueue::default();
        input.push_back(StrTendril::from(text));
        let _ = tokenizer.feed(&input);
        tokenizer.end();
        (!tokenizer.sink.markup.get(), tokenizer.sink.text.take())
    }

    fn sanitize(content: &str) -> String {
        check(content, usize::MAX, true).unwrap().into_owned()
    }

    /// Asks the tokenizer about each `<`: it stays if, alone among escaped ones, it is shown unchanged.
    fn sanitize_by_trial(content: &str) -> String {
        let escaped = |text: &str| text.replace('<', "&lt;");
        let shown = parse(&escaped(content));
        let mut stored = String::new();
        for (at, c) in content.char_indices() {
            let trial = || escaped(&content[..at]) + "<" + &escaped(&content[at + 1..]);
            match c {
                '<' if parse(&trial()) != shown => stored.push_str("&lt;"),
                _ => stored.push(c),
            }
        }
        stored
    }

    #[test]
    fn only_openers_are_escaped() {
        let table = [
            ("a < b & c", "a < b & c"),
            ("<3 <- <= << <> < <é", "<3 <- <= << <> < <é"),
            ("&lt;b> &amp; &#60;b", "&lt;b> &amp; &#60;b"),
            ("x <", "x <"),
            ("x </", "x </"),
            ("<b>hi</b>", "&lt;b>hi&lt;/b>"),
            ("<SCRIPT>x</SCRIPT>", "&lt;SCRIPT>x&lt;/SCRIPT>"),
            ("<img src=x onerror=alert(1)", "&lt;img src=x onerror=alert(1)"),
            ("<!-- x -->", "&lt;!-- x -->"),
            ("<!doctype html>", "&lt;!doctype html>"),
            ("<![CDATA[x]]>", "&lt;![CDATA[x]]>"),
            ("<!", "&lt;!"),
            ("<?php", "&lt;?php"),
            ("</>", "&lt;/>"),
            ("</ 3", "&lt;/ 3"),
            ("</é", "&lt;/é"),
            ("<<b>", "<&lt;b>"),
            ("<</b", "<&lt;/b"),
            ("</</b>", "&lt;/&lt;/b>"),
            ("< b>", "< b>"),
            ("a\r\n<\tb\n", "a\r\n<\tb\n"),
        ];
        for (content, expect) in table {
            assert_eq!(sanitize(content), expect, "{content:?}");
            assert!(parse(expect).0, "{expect:?}");
            let off = check(content, usize::MAX, false).unwrap();
            assert_eq!(off, content);
        }
    }

    #[test]
    fn length_is_counted_in_characters_as_sent() {
        let check_length = |content: &str, chars_max, fits: bool| {
            let code = check(content, chars_max, true).map_err(|refusal| refusal.code).err();
            assert_eq!(code, (!fits).then_some(RefusalCode::ContentTooLong), "{content:?}");
        };
        check_length("abc", 3, true);
        check_length("abcd", 3, false);
        check_length("äöü", 3, true);
        check_length("🦀🦀🦀", 3, true);
        check_length("🦀🦀🦀🦀", 3, false);
        // The stored text exceeds the limit, the sent one does not.
        check_length("<b>", 3, true);
        check_length(&" ".repeat(4_001), 4_000, false);
        check_length(&"x".repeat(1_000_000), 4_000, false);
        let refusal = check("abcd", 3, true).unwrap_err();
        assert!(refusal.message.contains("3 characters"), "{refusal}");
    }

    #[test]
    fn white_space_alone_is_empty() {
        fn code(content: &str) -> Result<Cow<'_, str>, RefusalCode> {
            check(content, 100, false).map_err(|refusal| refusal.code)
        }
        for empty in ["", " ", "\r\n\t", "\u{a0}\u{2003}\u{3000}"] {
            assert_eq!(code(empty), Err(RefusalCode::ContentEmpty), "{empty:?}");
        }
        for control in (0..0x20u8).chain([0x7f]) {
            let content = format!("a{}b", char::from(control));
            assert_eq!(code(&content), Ok(Cow::Borrowed(content.as_str())), "{control}");
        }
        assert_eq!(code(" a\tb\r\nc "), Ok(Cow::Borrowed(" a\tb\r\nc ")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_browser_sees_text_only(content in "[<>/!?\\-&;a'\"# =lt\\[\n\ré]{1,24}") {
            prop_assume!(!content.trim().is_empty());
            let stored = sanitize(&content);
            let (is_text, text) = parse(&stored);
            prop_assert!(is_text, "stored as {:?}", stored);
            prop_assert_eq!(text, parse(&content.replace('<', "&lt;")).1, "stored as {:?}", &stored);
            prop_assert_eq!(&stored, &sanitize_by_trial(&content));
            prop_assert_eq!(&sanitize(&stored), &stored);
        }

        #[test]
        fn text_without_openers_is_unchanged(content in "[^<[:cntrl:]]([^<[:cntrl:]]|<[^a-zA-Z!?/<[:cntrl:]]){0,24}x") {
            let stored = sanitize(&content);
            prop_assert_eq!(stored, content);
        }
    }
}
