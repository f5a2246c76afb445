//! The types of values: each reads one from text (or a list of texts) and writes it back.
//!
//! A scalar is read from its text whatever source it came from, so that `8`, `"8"` and `TIDINGS_SHARDS=8` mean the same.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, ConfigError};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::access::origins::Origins;
use crate::log::Format;
use crate::model::Redacted;
use crate::model::ids::NODE_MAX;

use super::settings::{Consistency, Profile, Store};

/// A type of value. The implementors are names only; the settings hold `Field`.
pub(super) trait ValueType {
    type Field;
    /// "expected ..." in faults, and the type's column in the reference.
    const EXPECTED: &'static str;
    /// A list takes a TOML array, or one text with commas between its elements.
    const LIST: bool = false;

    /// # Errors
    /// Why the text is no such value, as the end of a sentence that begins with the expected form.
    fn parse(texts: &[String]) -> Result<Self::Field, String>;

    /// As a TOML value; `parse` reads it back.
    fn show(field: &Self::Field) -> String;
}

/// Reads `key` as a `K`; `None` when no source gives it.
///
/// # Errors
/// The expected form, and the value found unless the key is `secret`.
pub(super) fn read<K: ValueType>(merged: &Config, key: &str, secret: bool) -> Result<Option<K::Field>, String> {
    let found = match merged.get::<Texts<K>>(key) {
        Ok(Texts { texts, .. }) => match K::parse(&texts) {
            Ok(field) => return Ok(Some(field)),
            Err(problem) if problem.is_empty() => format!("{:?}", texts.join(",")),
            Err(problem) => format!("{:?}: {problem}", texts.join(",")),
        },
        Err(ConfigError::NotFound(_)) => return Ok(None),
        Err(ConfigError::Type { unexpected, .. }) => unexpected.to_string(),
        Err(_) => "another type".into(),
    };
    let found = if secret { "something else".into() } else { found };
    Err(format!("expected {}, found {found}", K::EXPECTED))
}

/// The profile chooses the defaults, so it is read before everything else.
pub(super) fn profile(merged: &Config) -> Result<Profile, String> {
    read::<ProfileName>(merged, "profile", false).map(Option::unwrap_or_default)
}

/// The text of a scalar, or the texts of a list.
struct Texts<K> {
    texts: Vec<String>,
    kind: PhantomData<K>,
}

impl<'de, K: ValueType> Deserialize<'de> for Texts<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = if K::LIST { deserializer.deserialize_any(ListVisitor)? } else { vec![String::deserialize(deserializer)?] };
        Ok(Self { texts, kind: PhantomData })
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(String::from).collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(element) = seq.next_element::<config::Value>()? {
            let config::ValueKind::String(text) = element.kind else {
                return Err(A::Error::custom("a list of strings"));
            };
            texts.push(text);
        }
        Ok(texts)
    }
}

/// A kind whose values are one text.
macro_rules! scalar {
    ($(#[$doc:meta])* $name:ident, $field:ty, $words:literal, $parse:expr, $show:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl ValueType for $name {
            type Field = $field;
            const EXPECTED: &'static str = $words;

            fn parse(texts: &[String]) -> Result<$field, String> {
                let parse: fn(&str) -> Option<$field> = $parse;
                texts.first().and_then(|text| parse(text)).ok_or_else(String::new)
            }

            fn show(field: &$field) -> String {
                let show: fn(&$field) -> String = $show;
                show(field)
            }
        }
    };
}

scalar!(Address, SocketAddr, "address:port", |text| text.parse().ok(), |address| quote(&address.to_string()));
scalar!(
    OptionalAddress,
    Option<SocketAddr>,
    "address:port, or \"off\"",
    |text| if text == "off" { Some(None) } else { text.parse().ok().map(Some) },
    |address| quote(&address.map_or_else(|| "off".to_owned(), |address| address.to_string()))
);
scalar!(Url, String, "URL or path", |text| is_url(text).then(|| text.to_owned()), |url| quote(url));
scalar!(Directory, PathBuf, "path", |text| if text.is_empty() { None } else { Some(text.into()) }, |path| quote(
    &path.display().to_string()
));
scalar!(File, Option<PathBuf>, "path, or empty", |text| Some((!text.is_empty()).then(|| text.into())), |path| quote(
    &path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
));
scalar!(
    /// A name of the domain name system, or nothing.
    HostName,
    String,
    "name of a host, or empty",
    |text| {
        let label = |label: &str| {
            let ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(ok) && !label.starts_with('-') && !label.ends_with('-')
        };
        (text.is_empty() || text.len() <= 253 && text.split('.').all(label)).then(|| text.into())
    },
    |name| quote(name)
);
scalar!(Switch, bool, "true or false", |text| text.parse().ok(), bool::to_string);
scalar!(
    ProfileName,
    Profile,
    "\"development\" or \"production\"",
    |text| match text {
        "development" => Some(Profile::Development),
        "production" => Some(Profile::Production),
        _ => None,
    },
    |profile| quote(match profile {
        Profile::Development => "development",
        Profile::Production => "production",
    })
);
scalar!(
    StoreName,
    Store,
    "\"embedded\" or \"scylla\"",
    |text| match text {
        "embedded" => Some(Store::Embedded),
        "scylla" => Some(Store::Scylla),
        _ => None,
    },
    |store| quote(match store {
        Store::Embedded => "embedded",
        Store::Scylla => "scylla",
    })
);
scalar!(
    ConsistencyName,
    Consistency,
    "\"local_quorum\" or \"quorum\"",
    |text| match text {
        "local_quorum" => Some(Consistency::LocalQuorum),
        "quorum" => Some(Consistency::Quorum),
        _ => None,
    },
    |consistency| quote(match consistency {
        Consistency::LocalQuorum => "local_quorum",
        Consistency::Quorum => "quorum",
    })
);
scalar!(
    /// A name that the database accepts unquoted, or nothing.
    Name,
    String,
    "letters, digits and _, at most 48",
    |text| {
        let ok = text.len() <= 48 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        ok.then(|| text.into())
    },
    |name| quote(name)
);
scalar!(
    /// A piece of a statement.
    Cql,
    String,
    "text without ;",
    |text| (!text.contains([';', '\n'])).then(|| text.into()),
    |text| quote(text)
);
scalar!(
    LogFormat,
    Format,
    "\"text\" or \"json\"",
    |text| match text {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    },
    |format| quote(match format {
        Format::Text => "text",
        Format::Json => "json",
    })
);
scalar!(NodeNumber, u16, "number from 0 to 126", |text| parse_number(text).filter(|number| *number <= NODE_MAX), u16::to_string);
scalar!(Number, usize, "number", parse_number, usize::to_string);
scalar!(Millis, u32, "number of milliseconds", parse_number, u32::to_string);
scalar!(
    /// How long something lasts; never zero.
    Period,
    Duration,
    "duration such as \"30s\"",
    |text| parse_duration(text).filter(|duration| !duration.is_zero()),
    |duration| quote(&show_duration(*duration))
);
scalar!(
    /// A duration that may be zero.
    Tolerance,
    Duration,
    "duration such as \"5s\", or \"0s\"",
    parse_duration,
    |duration| quote(&show_duration(*duration))
);
scalar!(Size, usize, "size in bytes such as 65536 or \"64KiB\"", |text| parse_size(text).filter(|size| *size > 0), |size| {
    show_size(*size)
});
scalar!(
    Secret,
    Option<Redacted<Box<str>>>,
    "text",
    |text| Some(if text.is_empty() { None } else { Some(Redacted::new(text.into())) }),
    |secret| quote(if secret.is_some() { "[redacted]" } else { "" })
);
scalar!(
    /// A one-time code, or nothing to turn it off.
    Code,
    Option<Redacted<Box<str>>>,
    "4 to 12 digits, or nothing",
    |text| match text.len() {
        0 => Some(None),
        4..=12 if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(Redacted::new(text.into()))),
        _ => None,
    },
    |code| quote(if code.is_some() { "[redacted]" } else { "" })
);

/// A number of things, at least one.
pub(super) struct Count<T>(PhantomData<T>);

impl<T: std::str::FromStr + PartialOrd + From<u8> + fmt::Display> ValueType for Count<T> {
    type Field = T;
    const EXPECTED: &'static str = "number above 0";

    fn parse(texts: &[String]) -> Result<T, String> {
        let number: T = texts.first().and_then(|text| parse_number(text)).ok_or_else(String::new)?;
        if number < T::from(1) { Err(String::new()) } else { Ok(number) }
    }

    fn show(field: &T) -> String {
        field.to_string()
    }
}

/// An absolute URL, or a path on this server, without characters that could end the attribute it is written into.
fn is_url(text: &str) -> bool {
    let placed = ["/", "http://", "https://"].iter().any(|start| text.starts_with(start));
    placed && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>".contains(&byte))
}

/// The value of `log.level`.
pub(super) struct LogLevel;

impl ValueType for LogLevel {
    type Field = String;
    const EXPECTED: &'static str = "level (error, warn, info, debug, trace, off) or filter such as \"info,tidings::io=debug\"";

    fn parse(texts: &[String]) -> Result<String, String> {
        let text = texts.concat();
        crate::log::check_level(&text).map(|()| text)
    }

    fn show(field: &String) -> String {
        quote(field)
    }
}

/// The value of `cors.origins`.
pub(super) struct OriginList;

impl ValueType for OriginList {
    type Field = Origins;
    const EXPECTED: &'static str = "list of origins such as \"https://example.com\" or \"https://*.example.com\", or \"*\"";
    const LIST: bool = true;

    fn parse(texts: &[String]) -> Result<Origins, String> {
        Origins::parse(texts.iter().map(String::as_str)).map_err(|invalid| invalid.to_string())
    }

    fn show(field: &Origins) -> String {
        let text = field.to_string();
        let quoted: Vec<_> = text.split(',').filter(|entry| !entry.is_empty()).map(quote).collect();
        format!("[{}]", quoted.join(", "))
    }
}

/// The value of `scylla.nodes`.
pub(super) struct NodeList;

impl ValueType for NodeList {
    type Field = Vec<String>;
    const EXPECTED: &'static str = "list of nodes such as \"10.0.0.1:9042\" or \"db.example.com:9042\"";
    const LIST: bool = true;

    fn parse(texts: &[String]) -> Result<Self::Field, String> {
        let is_node = |text: &String| {
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if !texts.is_empty() && texts.iter().all(is_node) { Ok(texts.to_vec()) } else { Err(String::new()) }
    }

    fn show(field: &Self::Field) -> String {
        let quoted: Vec<_> = field.iter().map(|node| quote(node)).collect();
        format!("[{}]", quoted.join(", "))
    }
}

/// Phone numbers, compared as users write them at login.
pub(super) struct PhoneList;

impl ValueType for PhoneList {
    type Field = Vec<Redacted<Box<str>>>;
    const EXPECTED: &'static str = "list of phone numbers such as \"+4915112345678\"";
    const LIST: bool = true;

    fn parse(texts: &[String]) -> Result<Self::Field, String> {
        Ok(texts.iter().map(|text| Redacted::new(text.as_str().into())).collect())
    }

    fn show(field: &Self::Field) -> String {
        let quoted: Vec<_> = field.iter().map(|_| quote("[redacted]")).collect();
        format!("[{}]", quoted.join(", "))
    }
}

/// Digits only, with `_` between them as TOML allows.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// Digits and a unit: ms, s, m, h, d. At most 100 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let total = parse_number::<u64>(number.trim_end())?.checked_mul(millis)?;
    if total > 100 * 366 * 86_400_000 { None } else { Some(Duration::from_millis(total)) }
}

/// The greatest unit that divides the duration.
fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis.is_multiple_of(unit) && (millis > 0 || unit == 1_000) {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// Bytes, or a number with KiB, MiB or GiB.
fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let bytes: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    parse_number::<usize>(number.trim_end())?.checked_mul(bytes)
}

fn show_size(size: usize) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if size > 0 && size.is_multiple_of(unit) {
            return quote(&format!("{}{name}", size / unit));
        }
    }
    size.to_string()
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: ValueType>(text: &str, expect: Option<K::Field>)
    where
        K::Field: PartialEq + fmt::Debug,
    {
        assert_eq!(K::parse(&[text.into()]).ok(), expect, "{text:?}");
    }

    #[test]
    fn durations() {
        for (text, expect) in [
            ("0s", Some(Duration::ZERO)),
            ("250ms", Some(Duration::from_millis(250))),
            ("30s", Some(Duration::from_secs(30))),
            ("30 s", Some(Duration::from_secs(30))),
            ("15m", Some(Duration::from_secs(900))),
            ("24h", Some(Duration::from_secs(86_400))),
            ("30d", Some(Duration::from_secs(2_592_000))),
            ("36600d", Some(Duration::from_secs(36_600 * 86_400))),
            ("36601d", None),
            ("99999999999999999999s", None),
            ("30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1w", None),
            ("1sec", None),
        ] {
            check::<Tolerance>(text, expect);
        }
        check::<Period>("0s", None);
        for text in ["0s", "1ms", "1500ms", "90s", "15m", "24h", "25h", "1d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes() {
        for (text, expect) in [
            ("1", Some(1)),
            ("65536", Some(65_536)),
            ("65_536", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("64 KiB", Some(65_536)),
            ("2MiB", Some(2 << 20)),
            ("1GiB", Some(1 << 30)),
            ("12B", Some(12)),
            ("0", None),
            ("", None),
            ("KiB", None),
            ("64KB", None),
            ("64k", None),
            ("-1", None),
            ("1.5MiB", None),
            ("99999999999999999999", None),
            ("99999999999GiB", None),
        ] {
            check::<Size>(text, expect);
        }
        assert_eq!(show_size(65_536), "\"64KiB\"");
        assert_eq!(show_size(65_537), "65537");
    }

    #[test]
    fn numbers_and_words() {
        check::<Count<u16>>("1", Some(1));
        check::<Count<u16>>("65535", Some(65_535));
        for bad in ["0", "65536", "-1", "+1", "1.0", "one", "", " 1"] {
            check::<Count<u16>>(bad, None);
        }
        check::<NodeNumber>("0", Some(0));
        check::<NodeNumber>("126", Some(NODE_MAX));
        check::<NodeNumber>("127", None);
        check::<Switch>("true", Some(true));
        check::<Switch>("yes", None);
        check::<ProfileName>("production", Some(Profile::Production));
        check::<ProfileName>("prod", None);
        check::<Address>("[::1]:80", Some("[::1]:80".parse().unwrap()));
        check::<Address>("localhost:80", None);
        check::<Address>("127.0.0.1", None);
        check::<NodeList>("db:9042", Some(vec!["db:9042".into()]));
        for bad in ["db", "db:", ":9042", "db:0", "db:x"] {
            check::<NodeList>(bad, None);
        }
        check::<Name>("tidings_2", Some("tidings_2".into()));
        check::<Name>("a\"b", None);
        check::<Cql>("{'class': 'x'}; DROP", None);
        check::<File>("/etc/ca.pem", Some(Some("/etc/ca.pem".into())));
        check::<File>("", Some(None));
        check::<HostName>("cql.example.org", Some("cql.example.org".into()));
        check::<HostName>("", Some(String::new()));
        for text in ["a b", "a..b", "-a", "a-", "https://a"] {
            check::<HostName>(text, None);
        }
        check::<Code>("000000", Some(Some(Redacted::new("000000".into()))));
        check::<Code>("", Some(None));
        check::<Code>("abc123", None);
        check::<Code>("123", None);
        check::<LogLevel>("info,tidings::io=debug", Some("info,tidings::io=debug".into()));
        check::<LogLevel>("loud", None);
    }

    #[test]
    fn quotes() {
        assert_eq!(quote("a\"b\\c\n"), r#""a\"b\\c\u000A""#);
    }
}
