//! A request of a SockJS session on the connection that carries it.

use crate::model::{ConnectionId, ShardId};
use crate::protocol::http::{self, Method, Request};
use crate::protocol::sockjs::{self, Path, Transport};
use crate::session::sockjs::RequestAddress;
use crate::shard::mail::{ClientMail, SockJsId};
use crate::shard::turn::Turn;

/// A request of a SockJS session, as the connection that carries it knows it. Lifetime: its response's.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) home: ShardId,
    pub(super) session: SockJsId,
    pub(super) number: u32,
    pub(super) transport: Transport,
    pub(super) callback: Box<str>,
    /// The body comes in chunks; else it ends with the connection.
    pub(super) chunked: bool,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// Whether a request asks for a WebSocket where there is one.
pub(super) fn asks_for_socket(turn: &Turn, request: &Request) -> bool {
    request.upgrade
        && request.method == Method::Get
        && turn.policy.endpoints.find(&request.path).is_some_and(|(_, endpoint, rest)| {
            sockjs::parse(rest).is_some_and(|path| path == Path::Base || (endpoint.websocket && is_websocket(&path)))
        })
}

impl Receiver {
    pub(super) fn address(&self, turn: &Turn, connection: ConnectionId) -> RequestAddress {
        RequestAddress { shard: turn.id, connection, number: self.number }
    }

    /// Tells the session's home that the connection is gone, and perhaps the packets it was given.
    pub(super) fn lose(&self, turn: &mut Turn, connection: ConnectionId) {
        if !self.transport.is_send() {
            let receiver = self.address(turn, connection);
            turn.mail(self.home, ClientMail::SockJsLost { session: self.session.clone(), receiver });
        }
    }

    pub(super) fn piece(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            http::chunk(bytes, out);
        } else {
            out.extend_from_slice(bytes);
        }
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.chunked
    }
}

/// Whether a path of SockJS is a WebSocket.
pub(super) fn is_websocket(path: &Path<'_>) -> bool {
    matches!(path, Path::RawWebSocket | Path::Session { transport: Transport::WebSocket, .. })
}
