//! Origins that browsers may come from: `cors.origins`.

use std::fmt;

/// `cors.origins`, parsed: exact origins, patterns with `*`, or all. Empty: only the server's own.
///
/// ```text
/// entry  = "*" / scheme "://" [ "*." ] host [ ":" port ]
/// ```
///
/// Origins are in the form of browsers (RFC 6454 section 6.2): in lower case, without a path and without the scheme's own port.
/// A leading `*` stands for one or more labels of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    all: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    scheme: Box<str>,
    /// Whether labels must precede `authority`.
    pattern: bool,
    /// The host, with its port if given.
    authority: Box<str>,
}

/// An entry of `cors.origins` that is no origin, pattern or `*`, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin {
    pub entry: Box<str>,
    pub problem: &'static str,
}

impl Origins {
    /// # Errors
    /// The first entry that could never match the `Origin` of a browser.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidOrigin> {
        let mut origins = Self::default();
        for entry in entries {
            if entry == "*" {
                origins.all = true;
            } else {
                origins.entries.push(Entry::parse(entry).map_err(|problem| InvalidOrigin { entry: entry.into(), problem })?);
            }
        }
        Ok(origins)
    }

    /// `*`: any page may come.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, entries: Vec::new() }
    }

    /// Whether any page may come.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.all
    }

    /// Whether a request with this `Origin` header may pass; `host` is the request's `Host`. The server's own origin
    /// always may. `null` (sandboxed frames, files) identifies no origin and passes only with `*`.
    #[must_use]
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        if self.all {
            return true;
        }
        let Ok((scheme, authority)) = parse_origin(origin) else { return false };
        if matches!(scheme, "http" | "https") && host == Some(authority) {
            return true;
        }
        self.entries.iter().any(|entry| entry.matches(scheme, authority))
    }
}

/// The entries as the configuration writes them.
impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.all {
            f.write_str("*")?;
            separator = ",";
        }
        for Entry { scheme, pattern, authority } in &self.entries {
            write!(f, "{separator}{scheme}://{}{authority}", if *pattern { "*." } else { "" })?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.entry, self.problem)
    }
}

impl std::error::Error for InvalidOrigin {}

impl Entry {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let bare = entry.replacen("://*.", "://", 1);
        let pattern = bare.len() < entry.len();
        let (scheme, authority) = parse_origin(&bare)?;
        if pattern && authority.starts_with('[') {
            return Err("has a pattern before an address");
        }
        Ok(Self { scheme: scheme.into(), pattern, authority: authority.into() })
    }

    fn matches(&self, scheme: &str, authority: &str) -> bool {
        if scheme != &*self.scheme {
            return false;
        }
        match authority.strip_suffix(&*self.authority) {
            Some("") => !self.pattern,
            // The labels were checked when the origin was parsed: at least one precedes the dot.
            Some(labels) => self.pattern && labels.ends_with('.'),
            None => false,
        }
    }
}

/// Scheme and authority of an origin in the only form that browsers send.
fn parse_origin(origin: &str) -> Result<(&str, &str), &'static str> {
    let (scheme, authority) = origin.split_once("://").ok_or("is not of the form https://host[:port]")?;
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("has upper case letters, which browsers never send");
    }
    // RFC 3986 section 3.1.
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
        || !scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
    {
        return Err("has no valid scheme");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("has a path: an origin ends with its host or port");
    }
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    if !is_host(host) {
        return Err("has no valid host");
    }
    match port {
        None => {}
        Some("80") if scheme == "http" => return Err("names port 80, which browsers leave out of http origins"),
        Some("443") if scheme == "https" => return Err("names port 443, which browsers leave out of https origins"),
        Some(port) => {
            let digits = !port.is_empty() && !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
            if !digits || port.parse::<u16>().is_err() {
                return Err("has no valid port");
            }
        }
    }
    Ok((scheme, authority))
}

/// A host name in ASCII, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entries: &[&str], origin: &str, host: Option<&str>, expect: bool) {
        let origins = Origins::parse(entries.iter().copied()).unwrap();
        assert_eq!(origins.allows(origin, host), expect, "{origin} at {host:?} with {entries:?}");
    }

    #[test]
    fn own_origin() {
        for origin in ["http://chat.example.com:8080", "https://chat.example.com:8080"] {
            check(&[], origin, Some("chat.example.com:8080"), true);
        }
        check(&[], "http://[::1]:8080", Some("[::1]:8080"), true);
        check(&[], "http://chat.example.com", Some("chat.example.com:8080"), false);
        check(&[], "http://chat.example.com:8080", None, false);
        check(&[], "app://localhost", Some("localhost"), false);
        check(&[], "null", Some("null"), false);
        check(&[], "", Some(""), false);
    }

    #[test]
    fn exact_origins() {
        let entries = ["https://example.com", "http://localhost:3000", "app://localhost", "http://[::1]:3000"];
        for origin in entries {
            check(&entries, origin, Some("chat.example.com"), true);
        }
        for origin in [
            "http://example.com",
            "https://example.com:8443",
            "https://example.com:443",
            "https://www.example.com",
            "https://example.com.evil.org",
            "https://evilexample.com",
            "https://example.com.",
            "https://EXAMPLE.com",
            "HTTPS://example.com",
            "https://user@example.com",
            "https://example.com@evil.org",
            "https://example.com/",
            "https://example.com?",
            "https://example.com\\",
            " https://example.com",
            "https://example.com https://evil.org",
            "https://ex\u{e4}mple.com",
            "http://localhost",
            "http://localhost:30000",
            "null",
            "",
            "*",
        ] {
            check(&entries, origin, Some("chat.example.com"), false);
        }
    }

    #[test]
    fn patterns() {
        let entries = ["https://*.example.com", "https://*.example.org:8443"];
        for origin in ["https://a.example.com", "https://b.a.example.com", "https://a.example.org:8443"] {
            check(&entries, origin, None, true);
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://*.example.com",
            "https://aexample.com",
            "https://a..example.com",
            "https://a.example.com:8443",
            "https://a.example.org",
            "https://example.org:8443",
            "http://a.example.com",
            "https://a.example.com.evil.org",
            "https://evil.org/.example.com",
            "https://evil.org:1.example.com",
            "https://x@a.example.com",
            "null",
        ] {
            check(&entries, origin, None, false);
        }
    }

    #[test]
    fn all() {
        for origin in ["https://evil.org", "null", "file://"] {
            check(&["*"], origin, None, true);
        }
    }

    #[test]
    fn entries_that_could_never_match_are_refused() {
        for entry in [
            "",
            "null",
            "example.com",
            "//example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://*example.com",
            "https://*.*.example.com",
            "https://*.[::1]",
            "https://example.com/",
            "https://example.com/app",
            "https://Example.com",
            "https://example.com.",
            "https://example.com:443",
            "http://example.com:80",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:*",
            "https://user@example.com",
            "https://[::1",
            "https://::1",
            "1https://example.com",
        ] {
            assert!(Origins::parse([entry]).is_err(), "{entry}");
        }
    }

    #[test]
    fn prints_the_entries_as_written() {
        let text = "*,https://*.example.com:8443,http://localhost";
        assert_eq!(Origins::parse(text.split(',')).unwrap().to_string(), text);
    }
}
