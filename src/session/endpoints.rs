//! What is served at which path beside REST: applications that talk over WebSocket and SockJS.

use std::borrow::Cow;

use crate::protocol::http::{Request, Response};

/// The endpoints of a server, and what answers below none of them.
#[derive(Debug)]
pub struct Endpoints {
    pub endpoints: Vec<Endpoint>,
    /// Instead of REST, for servers that have none.
    pub fallback: Option<fn(&Request) -> Response>,
    /// Where the page for frames of other origins finds SockJS's client script.
    pub client_url: Box<str>,
}

/// One application and the way to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Path without a slash at its end.
    pub prefix: Box<str>,
    pub application: Application,
    /// Whether SockJS offers WebSockets here.
    pub websocket: bool,
    /// Whether SockJS's answers carry the cookie `JSESSIONID`, for load balancers that go by it.
    pub cookie_needed: bool,
}

/// An endpoint's place in [`Endpoints::endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u8);

#[derive(Clone, Copy, Debug)]
pub enum Application {
    /// Messaging: sessions, subscriptions, conversations.
    Stomp,
    /// Anything that answers message by message.
    Plain(Plain),
}

/// An application without a state of its own.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    pub opened: fn() -> Reply,
    pub message: fn(Content<'_>) -> Reply,
}

/// A whole message.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Text, not bytes. Over SockJS everything is text.
    pub text: bool,
    pub bytes: &'a [u8],
}

/// What a [`Plain`] application does.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Send {
        text: bool,
        bytes: Vec<u8>,
    },
    /// Ends the session; a code of RFC 6455 section 7.4.2 and a reason of at most 123 bytes.
    Close {
        code: u16,
        reason: Cow<'static, str>,
    },
}

impl Endpoints {
    /// Messaging at `/ws`.
    #[must_use]
    pub fn messaging(client_url: Box<str>, websocket: bool, cookie_needed: bool) -> Self {
        let endpoint = Endpoint { prefix: "/ws".into(), application: Application::Stomp, websocket, cookie_needed };
        Self { endpoints: vec![endpoint], fallback: None, client_url }
    }

    /// The endpoint of a path, and what follows it there.
    #[must_use]
    pub fn find<'a>(&self, path: &'a str) -> Option<(EndpointId, &Endpoint, &'a str)> {
        self.endpoints.iter().zip(0..).find_map(|(endpoint, number)| {
            let rest = path.strip_prefix(&*endpoint.prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((EndpointId(number), endpoint, rest))
        })
    }

    /// # Panics
    /// When there is no such endpoint: ids come from [`find`](Self::find).
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[usize::from(id.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_end_at_a_slash() {
        let endpoints = Endpoints::messaging("/sockjs.js".into(), true, false);
        let rest = |path| endpoints.find(path).map(|(_, _, rest)| rest);
        assert_eq!(rest("/ws"), Some(""));
        assert_eq!(rest("/ws/info"), Some("/info"));
        for path in ["/wss", "/", "/w", "/WS", "/api/ws", "/ws-echo"] {
            assert_eq!(rest(path), None, "{path}");
        }
    }
}
