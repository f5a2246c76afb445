//! The paths served beside REST: applications that talk over WebSocket and SockJS.

use std::borrow::Cow;

use crate::protocol::http::{Request, Response};

/// The endpoints of a server, and the fallback for all other paths.
#[derive(Debug)]
pub struct Endpoints {
    pub endpoints: Vec<Endpoint>,
    /// Replaces REST on servers that have none.
    pub fallback: Option<fn(&Request) -> Response>,
    /// Address of SockJS's client script, for the iframe page of other origins.
    pub client_url: Box<str>,
}

/// One application and its path.
#[derive(Debug)]
pub struct Endpoint {
    /// Path without a slash at its end.
    pub prefix: Box<str>,
    pub application: Application,
    /// Whether SockJS offers WebSockets here.
    pub websocket: bool,
    /// Whether SockJS responses set the cookie `JSESSIONID`, for load balancers that use it.
    pub cookie_needed: bool,
}

/// An index into [`Endpoints::endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u8);

#[derive(Clone, Copy, Debug)]
pub enum Application {
    /// Messaging: sessions, subscriptions, conversations.
    Stomp,
    /// Any application that replies message by message.
    Plain(Plain),
}

/// A stateless application.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    pub opened: fn() -> PlainReply,
    pub message: fn(PlainMessage<'_>) -> PlainReply,
}

/// A whole message.
#[derive(Clone, Copy, Debug)]
pub struct PlainMessage<'a> {
    /// Text or binary. Over SockJS every message is text.
    pub text: bool,
    pub bytes: &'a [u8],
}

/// The reaction of a [`Plain`] application.
#[derive(Debug)]
pub enum PlainReply {
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

    /// The endpoint of a path, and the rest of the path.
    #[must_use]
    pub fn find<'a>(&self, path: &'a str) -> Option<(EndpointId, &Endpoint, &'a str)> {
        self.endpoints.iter().zip(0..).find_map(|(endpoint, number)| {
            let rest = path.strip_prefix(&*endpoint.prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((EndpointId(number), endpoint, rest))
        })
    }

    /// # Panics
    /// When the endpoint does not exist: ids come from [`find`](Self::find).
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[usize::from(id.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_a_slash() {
        let endpoints = Endpoints::messaging("/sockjs.js".into(), true, false);
        let rest = |path| endpoints.find(path).map(|(_, _, rest)| rest);
        assert_eq!(rest("/ws"), Some(""));
        assert_eq!(rest("/ws/info"), Some("/info"));
        for path in ["/wss", "/", "/w", "/WS", "/api/ws", "/ws-echo"] {
            assert_eq!(rest(path), None, "{path}");
        }
    }
}
