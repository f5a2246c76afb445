//! Paths below an endpoint.

use crate::protocol::http::Method;

/// Length of a session's name in bytes; clients draw eight characters.
const SESSION_BYTES_MAX: usize = 256;

/// A path below an endpoint, undecoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// The endpoint itself: SockJS's greeting, and a plain WebSocket for clients that upgrade.
    Base,
    /// The endpoint with a slash: the greeting only.
    Greeting,
    Info,
    Iframe,
    /// A WebSocket without SockJS's framing.
    RawWebSocket,
    /// The server's name is for load balancers; we ignore it.
    Session {
        session: &'a str,
        transport: Transport,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Xhr,
    XhrSend,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
    JsonpSend,
}

impl Transport {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "websocket" => Self::WebSocket,
            "xhr" => Self::Xhr,
            "xhr_send" => Self::XhrSend,
            "xhr_streaming" => Self::XhrStreaming,
            "eventsource" => Self::EventSource,
            "htmlfile" => Self::HtmlFile,
            "jsonp" => Self::Jsonp,
            "jsonp_send" => Self::JsonpSend,
            _ => return None,
        })
    }

    /// Whether one response carries many packets.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Self::XhrStreaming | Self::EventSource | Self::HtmlFile)
    }

    /// Whether its requests bring messages and receive none.
    #[must_use]
    pub fn is_send(self) -> bool {
        matches!(self, Self::XhrSend | Self::JsonpSend)
    }

    /// Whether packets are arguments of a function that the client names.
    #[must_use]
    pub fn takes_callback(self) -> bool {
        matches!(self, Self::HtmlFile | Self::Jsonp)
    }
}

impl Path<'_> {
    /// The methods of a path; HEAD too, where GET does not start a session.
    #[must_use]
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Self::Base | Self::Greeting | Self::Iframe | Self::RawWebSocket => &[Method::Get, Method::Head],
            Self::Info => &[Method::Get, Method::Head, Method::Options],
            Self::Session { transport, .. } => match transport {
                Transport::Xhr | Transport::XhrSend | Transport::XhrStreaming | Transport::JsonpSend => {
                    &[Method::Post, Method::Options]
                }
                Transport::WebSocket => &[Method::Get],
                Transport::EventSource | Transport::HtmlFile | Transport::Jsonp => &[Method::Get, Method::Options],
            },
        }
    }

    /// The value of `Allow` and of `Access-Control-Allow-Methods`.
    #[must_use]
    pub fn allow(&self) -> &'static str {
        match self.methods() {
            [Method::Post, ..] => "OPTIONS, POST",
            [Method::Get, Method::Head] => "GET, HEAD",
            [Method::Get, Method::Head, ..] => "OPTIONS, GET, HEAD",
            [Method::Get] => "GET",
            _ => "OPTIONS, GET",
        }
    }
}

/// `rest` is the part of the path after the endpoint: empty, or beginning with a slash.
#[must_use]
pub fn parse(rest: &str) -> Option<Path<'_>> {
    match rest {
        "" => return Some(Path::Base),
        "/" => return Some(Path::Greeting),
        "/info" => return Some(Path::Info),
        "/websocket" => return Some(Path::RawWebSocket),
        _ => {}
    }
    if let Some(version) = rest.strip_prefix("/iframe").and_then(|rest| rest.strip_suffix(".html")) {
        let versions = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        return version.bytes().all(versions).then_some(Path::Iframe);
    }
    let mut segments = rest.strip_prefix('/')?.split('/');
    let (server, session, transport) = (segments.next()?, segments.next()?, segments.next()?);
    let named = |segment: &str| !segment.is_empty() && !segment.contains('.') && segment.len() <= SESSION_BYTES_MAX;
    if segments.next().is_some() || !named(server) || !named(session) {
        return None;
    }
    Some(Path::Session { session, transport: Transport::named(transport)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(parse(""), Some(Path::Base));
        assert_eq!(parse("/"), Some(Path::Greeting));
        for rest in ["/iframe.html", "/iframe-a.html", "/iframe-.html", "/iframe-0.1.2abc-dirty.2144.html"] {
            assert_eq!(parse(rest), Some(Path::Iframe), "{rest}");
        }
        for rest in ["/_/_/xhr", "/1//xhr", "/abcdefgh_i-j%20/abcdefg_i-j%20/xhr"] {
            let expect = (rest != "/1//xhr").then(|| rest.split('/').nth(2).unwrap());
            let expect = expect.map(|session| Path::Session { session, transport: Transport::Xhr });
            assert_eq!(parse(rest), expect, "{rest}");
        }
    }

    #[test]
    fn other_paths_are_not_found() {
        let long = format!("/0/{}/xhr", "s".repeat(SESSION_BYTES_MAX + 1));
        for rest in [
            "/a",
            "/a.html",
            "//",
            "///",
            "/a/a",
            "/a/a/",
            "/a/",
            "///xhr",
            "//a/xhr",
            "/a./a/xhr",
            "/a/a./xhr",
            "/././xhr",
            "//xhr",
            "////xhr",
            "/a/a/xhr/",
            "/a/a/a/xhr",
            "/a/a/XHR",
            "/a/a/",
            "/iframe.htm",
            "/iframe",
            "/IFRAME.HTML",
            "/iframe.HTML",
            "/iframe.xml",
            "/iframe-/.html",
            "/info/",
            "/websocket/",
            &long,
        ] {
            assert_eq!(parse(rest), None, "{rest}");
        }
    }

    #[test]
    fn methods_and_allow_agree() {
        for rest in ["", "/", "/info", "/iframe.html", "/websocket", "/0/0/xhr", "/0/0/jsonp", "/0/0/websocket", "/0/0/htmlfile"]
        {
            let path = parse(rest).unwrap();
            for (method, name) in
                [(Method::Get, "GET"), (Method::Head, "HEAD"), (Method::Post, "POST"), (Method::Options, "OPTIONS")]
            {
                let allowed = path.allow().split(", ").any(|allowed| allowed == name);
                assert_eq!(path.methods().contains(&method), allowed, "{name} {rest}");
            }
        }
    }
}
