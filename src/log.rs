//! The log: structured lines on standard error, with a last line of defence against secrets.
//!
//! Types that hold secrets redact themselves ([`crate::model::Redacted`]). This writer is the second barrier: it replaces
//! anything that looks like a token in every line before it leaves the process, including lines of libraries.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time level target: message field=value`
    Text,
    /// One JSON object a line.
    Json,
}

/// Replaces a secret.
const REDACTED: &[u8] = b"[redacted]";
/// Names whose values are redacted, alone or as the end of a longer name: `access_token`, `refreshToken`, `auth.secret`.
const NAMES: [&[u8]; 5] = [b"token", b"secret", b"otp", b"ticket", b"authorization"];

/// Sends the process's log to standard error, including panics: their messages may hold user data.
///
/// # Errors
/// The level is no filter, or a log was already set up.
pub fn init(format: Format, level: &str) -> Result<(), String> {
    tracing::dispatcher::set_global_default(dispatch(format, level, io::stderr)?).map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let message = info.payload_as_str().unwrap_or("a panic without words");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(thread = thread.name(), place, %backtrace, "panic: {message}");
        }
        _ => tracing::error!(thread = thread.name(), place, "panic: {message}"),
    }
}

fn dispatch<M>(format: Format, level: &str, writer: M) -> Result<Dispatch, String>
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parse_level(level)?)
        // Colour codes would come between a name and its value and hide them from the redaction.
        .with_ansi(false)
        .with_writer(Redact(writer));
    Ok(match format {
        Format::Text => lines.into(),
        Format::Json => lines.json().flatten_event(true).into(),
    })
}

/// # Errors
/// Why `level` is neither a level nor a filter.
pub fn check_level(level: &str) -> Result<(), String> {
    parse_level(level).map(|_| ())
}

fn parse_level(level: &str) -> Result<EnvFilter, String> {
    if level.trim().is_empty() {
        return Err("is empty".into());
    }
    // A bare word that is no level would pass as the name of a target.
    for directive in level.split(',').filter(|directive| !directive.contains(['=', '['])) {
        directive.trim().parse::<tracing_subscriber::filter::LevelFilter>().map_err(|error| error.to_string())?;
    }
    EnvFilter::builder().parse(level).map_err(|error| error.to_string())
}

/// Makes writers that redact their input. The formatter writes each line in one call, so nothing is split.
struct Redact<M>(M);

struct RedactWriter<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redact<M> {
    type Writer = RedactWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for RedactWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(&redact(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `line` with every value of [`NAMES`], every bearer credential and every JWT replaced. Each byte is read a small,
/// bounded number of times.
fn redact(line: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [first, ..] = rest {
        // A secret begins at the start of a word, never inside one.
        let word = word_length(rest);
        if word == 0 {
            clean.push(*first);
            rest = &rest[1..];
            continue;
        }
        let (head, tail) = rest.split_at(word);
        if let Some(token) = token_length(head, tail) {
            clean.extend_from_slice(REDACTED);
            rest = &rest[token..];
            continue;
        }
        clean.extend_from_slice(head);
        rest = tail;
        if let Some((before, value)) = secret_span(head, tail) {
            clean.extend_from_slice(&tail[..before]);
            clean.extend_from_slice(REDACTED);
            rest = &tail[before + value..];
        }
    }
    clean
}

/// Bytes of the token that begins with the word `head`: `eyJ`, the start of `{"` in base64, followed by dotted parts.
fn token_length(head: &[u8], tail: &[u8]) -> Option<usize> {
    let start = find(head, b"eyJ")?;
    let mut length = head.len();
    let mut rest = tail;
    while let Some(part) = rest.strip_prefix(b".") {
        let part = word_length(part);
        length += 1 + part;
        rest = &rest[1 + part..];
    }
    // A word of prose may hold these letters; a JWT continues after a dot.
    if length > head.len() || (start == 0 && head.len() > 40) { Some(length) } else { None }
}

/// The span of the secret in `tail` that the word `head` announces: bytes before it, and its own.
fn secret_span(head: &[u8], tail: &[u8]) -> Option<(usize, usize)> {
    let before = if head.eq_ignore_ascii_case(b"bearer") {
        Some(separator_length(tail, &SPACES)).filter(|length| *length > 0)?
    } else if NAMES.iter().any(|name| ends_with_ignoring_case(head, name)) {
        secret_span_named(head, tail)?
    } else {
        return None;
    };
    let value = value_length(&tail[before..]);
    if value == 0 { None } else { Some((before, value)) }
}

/// Bytes between a name and its value: `=`, or `:` where it cannot be prose (`token: expired`).
fn secret_span_named(head: &[u8], tail: &[u8]) -> Option<usize> {
    let quotes = separator_length(tail, &QUOTES);
    let equals = separator_length(&tail[quotes..], &[b"=", b"%3D", b"%3d"]);
    let colon = separator_length(&tail[quotes..], &[b":", b"%3A", b"%3a"]);
    let mut before = quotes + equals.max(colon);
    if colon > 0 {
        before += separator_length(&tail[before..], &SPACES);
    }
    before += separator_length(&tail[before..], &[b"Some("]);
    let quotes_of_value = separator_length(&tail[before..], &QUOTES);
    before += quotes_of_value;
    let header = ends_with_ignoring_case(head, b"authorization");
    if equals == 0 && (colon == 0 || (quotes == 0 && quotes_of_value == 0 && !header)) {
        return None;
    }
    // The scheme of a credential is public; the text after it is secret.
    for scheme in [b"bearer".as_slice(), b"basic"] {
        let scheme_then_space = match tail[before..].split_at_checked(scheme.len()) {
            Some((word, rest)) if word.eq_ignore_ascii_case(scheme) => separator_length(rest, &SPACES),
            _ => 0,
        };
        if scheme_then_space > 0 {
            before += scheme.len() + scheme_then_space;
        }
    }
    Some(before)
}

const SPACES: [&[u8]; 4] = [b" ", b"\t", b"+", b"%20"];
const QUOTES: [&[u8]; 4] = [b"\"", b"'", b"\\", b"%22"];

fn ends_with_ignoring_case(word: &[u8], end: &[u8]) -> bool {
    word.len() >= end.len() && word[word.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// Bytes of letters, digits, `_`, `-`.
fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')).count()
}

/// Bytes until something that ends a value in a URL, a header, a field or JSON.
fn value_length(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"&\"'\\,;<>(){}[]#".contains(byte);
    bytes.iter().take_while(|byte| !ends(byte)).count()
}

/// Bytes of any of `separators`, repeated at most 8 times.
fn separator_length(bytes: &[u8], separators: &[&[u8]]) -> usize {
    let mut length = 0;
    for _ in 0..8 {
        match separators.iter().find(|separator| bytes[length..].starts_with(separator)) {
            Some(separator) => length += separator.len(),
            None => break,
        }
    }
    length
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn check(line: &str, expect: &str) {
        let clean = String::from_utf8(redact(line.as_bytes())).unwrap();
        assert_eq!(clean, expect, "{line}");
        assert_eq!(redact(clean.as_bytes()), clean.as_bytes(), "redacting twice changes nothing");
    }

    #[test]
    fn secrets_by_name() {
        check("GET /ws?token=abc.def&x=1 HTTP/1.1", "GET /ws?token=[redacted]&x=1 HTTP/1.1");
        check("access_token=abc, refreshToken=def", "access_token=[redacted], refreshToken=[redacted]");
        check("TOKEN=abc;Ticket=def#x", "TOKEN=[redacted];Ticket=[redacted]#x");
        check("token%3Dabc next", "token%3D[redacted] next");
        check("token=\"abc\" otp='123456'", "token=\"[redacted]\" otp='[redacted]'");
        check(r#"{"token":"abc","n":1}"#, r#"{"token":"[redacted]","n":1}"#);
        check(r#"{"m":"{\"accessToken\": \"abc\"}"}"#, r#"{"m":"{\"accessToken\": \"[redacted]\"}"}"#);
        check("Login { token: \"abc\", user: 7 }", "Login { token: \"[redacted]\", user: 7 }");
        check("Login { token: Some(\"abc\") }", "Login { token: Some(\"[redacted]\") }");
        check("auth.secret=abc", "auth.secret=[redacted]");
    }

    #[test]
    fn credentials() {
        check("Authorization: Bearer abc~def==", "Authorization: Bearer [redacted]");
        check("authorization:bearer  abc x", "authorization:bearer  [redacted] x");
        check("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]");
        check("Authorization=Bearer+abc", "Authorization=Bearer+[redacted]");
        check(r#"("Authorization", "BEARER abc")"#, r#"("Authorization", "BEARER [redacted]")"#);
    }

    #[test]
    fn jwts_anywhere() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl-_";
        for (before, after) in [("", ""), ("x ", " y"), ("/", "/"), ("\"", "\""), ("(", ")"), ("%20", "&")] {
            let expect = if before == "%20" { format!("%[redacted]{after}") } else { format!("{before}[redacted]{after}") };
            check(&format!("{before}{jwt}{after}"), &expect);
        }
        check("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0", "[redacted]");
        check(&format!("token: {jwt}"), "token: [redacted]");
    }

    #[test]
    fn prose_is_unchanged() {
        for line in [
            "",
            "the token has expired",
            "bad token: expired",
            "token= x",
            "tokens=3 token_count=4",
            "bearer",
            "a heyJude b",
            "shard=1 session=00ff store reply user=7",
            "Origin: https://example.com?x=1",
            "caf\u{e9} \u{1f600} token",
        ] {
            check(line, line);
        }
    }

    #[test]
    fn cost_is_linear_in_the_line() {
        // A quadratic scan of these would outlast the test run.
        for part in ["eyJ", "eyJ.", "token=", "bearer ", "token=\"", "%20", ".", "a "] {
            let line = part.repeat((4 << 20) / part.len());
            assert!(redact(line.as_bytes()).len() <= 4 * line.len());
        }
    }

    #[test]
    fn levels() {
        for good in ["info", "WARN", "off", "info,tidings::io=debug", "tidings[shard{id=1}]=trace"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "loud", "info,loud", "tidings=loud"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }

    struct Lines(mpsc::Sender<Vec<u8>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whole_lines_are_redacted_in_both_formats() {
        for format in [Format::Text, Format::Json] {
            let (sender, receiver) = mpsc::channel();
            let dispatch = dispatch(format, "info", move || Lines(sender.clone())).unwrap();
            tracing::dispatcher::with_default(&dispatch, || {
                tracing::info!(token = "hunter2", url = "/ws?access_token=hunter2", "Bearer hunter2 \"token\":\"hunter2\"");
                tracing::debug!("below the level");
            });
            drop(dispatch);
            let lines: Vec<_> = receiver.iter().map(|line| String::from_utf8(line).unwrap()).collect();
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("hunter2") && lines[0].matches("[redacted]").count() == 4, "{}", lines[0]);
            assert_eq!(lines[0].starts_with('{'), format == Format::Json);
        }
    }
}
