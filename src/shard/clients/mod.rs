//! Clients of this shard: their connections, their transports, and what they send, understood.
//!
//! Flows in: bytes, the end of writes, lost connections, deadlines, [`ClientMail`], frames to write. Flows out: owned
//! [`ClientEvent`]s, which are pulled; commands of REST by mail; bytes in outboxes. Never imports a session's rights, or
//! another part: it reports events, and carries out what its caller decides about a client.
//!
//! Invariants: the end of a client that has a session is reported as [`ClientEvent::Gone`] once; answers of HTTP leave in
//! the order of their requests; a connection moves to another shard at most once, with nothing queued.

mod answer;
mod connection;
mod decisions;
mod endpoint;
mod framing;
pub(super) mod handover;
mod http;
mod io;
mod lifecycle;
mod outbox;
mod payload;
mod reading;
mod receiver;
mod socket;
mod sockjs;
mod stomp;

use std::collections::VecDeque;

use rand_chacha::rand_core::Rng;

use crate::access::token::Claims;
use crate::model::{ConnectionId, Mono, ShardId};
use crate::protocol::json::Reader;
use crate::session::intent::{ClientFrame, ConnectRequest};
use crate::session::sockjs::RequestAddress;
use crate::shard::mail::{ClientMail, SessionKey};
use crate::shard::turn::Turn;
use crate::shard::turn::timers::Timers;

pub use handover::Handover;
pub use outbox::Outbox;

use connection::{Connections, Phase};
use payload::Payload;
use sockjs::{SockJsKey, SockJsSessions};

/// After `Drain`, how long commands under way may hold their connections.
const DRAIN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// One client: a connection, or a SockJS session over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientId {
    Socket(ConnectionId),
    SockJs(SockJsKey),
}

/// What clients do, in order for each of them.
#[derive(Debug)]
pub(super) enum ClientEvent {
    /// CONNECT, not yet believed. `handshake`: of the handshake's token, if there was one. `moved`: another shard believed
    /// it and sent the client here.
    Connect {
        client: ClientId,
        connect: ConnectRequest,
        handshake: Option<Box<Claims>>,
        moved: bool,
    },
    Frame {
        session: SessionKey,
        frame: ClientFrame,
    },
    /// The client of a session is gone.
    Gone {
        session: SessionKey,
        why: Gone,
    },
}

/// Why a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The peer closed or lost the connection.
    Lost,
    /// The server closed it with this code.
    Closed(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnectionId),
    SockJs(SockJsKey),
    /// The patience of a shard that ends is over; the end of every call looks for that.
    Drain,
}

/// Bytes of one client that are being read. Lifetime: a call.
pub(super) struct Received<'i> {
    client: ClientId,
    /// Out of its packet, and not all of it read.
    payload: Option<Payload<'i>>,
    bytes: &'i mut [u8],
    /// The request that brought them, answered when they have been read.
    request: Option<RequestAddress>,
}

/// Bytes that were read before and can be understood now.
pub(super) struct Backlog {
    client: ClientId,
    payload: Option<Payload<'static>>,
    bytes: Vec<u8>,
    request: Option<RequestAddress>,
}

impl Received<'_> {
    /// No bytes, for events that did not come out of any.
    pub(super) fn nothing() -> Self {
        Self::new(ConnectionId { index: u32::MAX, generation: u32::MAX }, &mut [])
    }

    pub(super) fn new(connection: ConnectionId, bytes: &mut [u8]) -> Received<'_> {
        Received { client: ClientId::Socket(connection), payload: None, bytes, request: None }
    }
}

impl Backlog {
    pub(super) fn received(&mut self) -> Received<'_> {
        Received { client: self.client, payload: self.payload.take(), bytes: &mut self.bytes, request: self.request }
    }
}

/// Lifetime and owner: the shard. View: shard.
pub(super) struct Clients {
    connections: Connections,
    sockjs: SockJsSessions,
    timers: Timers<Timer>,
    /// Events that did not come out of bytes being read.
    events: VecDeque<ClientEvent>,
    backlog: VecDeque<Backlog>,
    /// Buffers in which the bodies of SENDs are read.
    reader: Reader,
    /// Names the version of the page for frames of other origins.
    iframe_etag: Box<str>,
}

impl Clients {
    pub(super) fn new(turn: &mut Turn) -> Self {
        Self {
            connections: Connections::default(),
            sockjs: SockJsSessions::new(turn.random.next_u64()),
            timers: Timers::default(),
            events: VecDeque::new(),
            backlog: VecDeque::new(),
            reader: Reader::new(),
            iframe_etag: endpoint::iframe_etag(&turn.policy.endpoints),
        }
    }

    /// The next event: one that waits, or the next of the bytes being read. Its handler may write to the client, close it
    /// or move it; what is left of the bytes then goes the same way.
    pub(super) fn next(&mut self, turn: &mut Turn, received: &mut Received<'_>) -> Option<ClientEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let read = match received.client {
                ClientId::Socket(id) => self.read_connection(turn, id, received),
                ClientId::SockJs(key) => self.read_sockjs(turn, key, received),
            };
            if let Some(event) = read {
                return Some(event);
            }
            if self.events.is_empty() {
                return None;
            }
        }
    }

    /// The next event that waits.
    pub(super) fn next_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Events or bytes wait.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.backlog.is_empty()
    }

    /// The next bytes that were read before and can be understood now.
    pub(super) fn next_backlog(&mut self) -> Option<Backlog> {
        self.backlog.pop_front()
    }

    pub(super) fn handle_mail(&mut self, turn: &mut Turn, from: ShardId, mail: ClientMail) {
        match mail {
            ClientMail::Answer { connection: id, number, outcome } => {
                let Some(connection) = self.connections.find_mut(id) else { return };
                if let Phase::Http(http) = &mut connection.phase
                    && http.answered(number, &outcome)
                {
                    self.resume_http(turn, id);
                }
            }
            ClientMail::SockJs(request) => self.sockjs_requested(turn, *request),
            ClientMail::SockJsAnswer { connection: id, number, answer } => {
                let Some(connection) = self.connections.find_mut(id) else { return };
                if let Phase::Http(http) = &mut connection.phase
                    && http.receiver_answered(number, *answer)
                {
                    self.resume_http(turn, id);
                }
            }
            ClientMail::SockJsWritten { session, receiver } => self.sockjs_written(turn, &session, receiver),
            ClientMail::SockJsLost { session, receiver } => self.sockjs_lost(turn, &session, receiver),
            ClientMail::SockJsMove(moved) => self.adopt_sockjs(turn, from, *moved),
            ClientMail::SockJsGone { session, serial } => self.sockjs_gone(&session, serial),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.timers.next_deadline()
    }

    pub(super) fn handle_due(&mut self, turn: &mut Turn) {
        while let Some((at, timer)) = self.timers.pop_due(turn.now.mono) {
            match timer {
                Timer::Connection(id) => self.connection_due(turn, id, at),
                Timer::SockJs(key) => self.sockjs_due(turn, key, at),
                Timer::Drain => {}
            }
        }
    }

    /// The server ends: closes all clients without a session. Those with one are left to the caller, which knows what they
    /// have under way.
    pub(super) fn drain(&mut self, turn: &mut Turn) {
        let until = turn.after(DRAIN_PATIENCE);
        turn.draining = Some(until);
        self.timers.schedule(until, Timer::Drain);
        for id in self.connections.ids() {
            self.drain_connection(turn, id);
        }
        for key in self.sockjs.keys() {
            if self.protocol(ClientId::SockJs(key)).is_some_and(|protocol| protocol.session().is_none()) {
                self.drain_sockjs(turn, key);
            }
        }
    }

    /// Patience is over: ends every client now.
    pub(super) fn drop_all(&mut self, turn: &mut Turn) {
        for id in self.connections.ids() {
            self.drop_connection(turn, id);
        }
        for key in self.sockjs.keys() {
            self.end_sockjs(turn, key);
        }
    }

    pub(super) fn are_none(&self) -> bool {
        self.connections.is_empty() && self.sockjs.is_empty()
    }

    /// The policy has changed.
    pub(super) fn follow_policy(&mut self, turn: &Turn) {
        self.iframe_etag = endpoint::iframe_etag(&turn.policy.endpoints);
    }

    /// Sessions of SockJS may have something to send.
    #[inline]
    pub(super) fn must_flush(&self) -> bool {
        self.sockjs.must_flush()
    }

    /// Gives receivers of SockJS sessions what has gathered for them.
    pub(super) fn flush(&mut self, turn: &mut Turn) {
        self.flush_sockjs(turn);
    }

    /// The parts of the state that a test expects to be gone, by name.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> [(&'static str, bool); 3] {
        [
            ("connections", !self.connections.is_empty()),
            ("SockJS sessions", !self.sockjs.is_forgotten()),
            ("events of clients", !self.events.is_empty() || !self.backlog.is_empty()),
        ]
    }
}

/// Heap sizes of what an idle WebSocket client keeps, by name.
#[cfg(test)]
pub(super) fn sizes() -> [(&'static str, usize); 3] {
    [
        ("Connection", size_of::<connection::Connection>()),
        ("Socket", size_of::<socket::Socket>()),
        ("the outbox's queue", 4 * size_of::<bytes::Bytes>()),
    ]
}
