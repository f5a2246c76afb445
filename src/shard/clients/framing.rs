//! What the messages of a connection travel in.

use crate::protocol::websocket;
use crate::session::frames::Encapsulation;

/// What messages travel in on this connection.
#[derive(Debug)]
pub(super) enum Framing {
    /// Nothing: STOMP on TCP.
    Bare,
    WebSocket(Box<WebSocket>),
}

#[derive(Debug)]
pub(super) struct WebSocket {
    pub(super) decoder: websocket::Decoder,
    /// Messages are SockJS's.
    pub(super) sockjs: bool,
    /// The beginning of a message, where messages are only understood whole.
    pub(super) message: Vec<u8>,
}

impl Framing {
    pub(super) fn websocket(sockjs: bool) -> Self {
        Self::WebSocket(Box::new(WebSocket { decoder: websocket::Decoder::server(), sockjs, message: Vec::new() }))
    }

    pub(super) fn encapsulation(&self) -> Encapsulation {
        match self {
            Self::Bare => Encapsulation::Bare,
            Self::WebSocket(websocket) if websocket.sockjs => Encapsulation::SockJsWebSocket,
            Self::WebSocket(_) => Encapsulation::WebSocket,
        }
    }
}
