//! One byte stream and what has been understood of it so far.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::api;
use crate::model::{ConnectionId, Mono, Redacted, ShardId};
use crate::protocol::{http, stomp, websocket};
use crate::session::endpoints::Plain;
use crate::session::frames::{Encapsulation, FrameFormat};
use crate::session::token::Claims;
use crate::shard::handover::Handover;
use crate::shard::mail::SessionKey;
use crate::shard::outbox::Outbox;
use crate::shard::receivers::Receiving;

/// Lifetime: from accept or adoption to close or hand-over. Owner: the shard. View: one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: Redacted<IpAddr>,
    pub(super) outbox: Outbox,
    /// A `Flush` is under way, or the socket is waited for.
    pub(super) flushing: bool,
    pub(super) paused: bool,
    /// Since when a write has made no progress.
    pub(super) blocked_since: Option<Mono>,
    /// The one current entry among the timers.
    pub(super) timer: Option<Mono>,
    /// Receivers whose last packets are queued and not yet out: until they are, losing this connection loses them.
    pub(super) undelivered: Vec<Receiving>,
    /// What closes it, also while its phase is in the hands of the function that works on it.
    pub(super) encapsulation: Encapsulation,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Http(Box<Http>),
    Socket(Box<Socket>),
    /// On its way to another shard, as soon as the outbox is empty.
    Moving {
        to: ShardId,
        handover: Box<Handover>,
    },
    /// What is queued goes out, what comes in is thrown away.
    Ending {
        until: Mono,
        shut: bool,
    },
    /// Its state is in the hands of the function that works on it.
    Taken,
}

/// Requests of one HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) decoder: http::Decoder,
    /// Requests not yet answered, in their order: answers leave in that order.
    pub(super) slots: VecDeque<Slot>,
    pub(super) next_number: u32,
    /// An upgrade waits until everything before it has been answered.
    pub(super) upgrade: Option<Box<http::Request>>,
    /// Bytes that wait for a slot or the upgrade.
    pub(super) held: Vec<u8>,
    /// The first byte of the request under way, or the end of the last exchange: how long the client may take counts
    /// from here.
    pub(super) since: Mono,
    /// A client waits for `100 Continue` before it sends its body.
    pub(super) expected: bool,
    /// No request after this one is read.
    pub(super) last: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) answer: Answer,
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    /// How the outcome is to be rendered.
    pub(super) context: api::Context,
    /// The origin that may read the answer.
    pub(super) origin: Option<Box<str>>,
    /// A request of a SockJS session, which is answered from the session's home.
    pub(super) receiving: Option<Box<Receiving>>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Awaited,
    Whole(http::Response),
    /// A response that goes on, with what is still to be written of it.
    Stream(Stream),
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Until it has been written.
    pub(super) head: Option<http::Response>,
    /// Packets as their transport frames them, in chunks already where there are chunks.
    pub(super) pieces: Vec<u8>,
    pub(super) ended: bool,
    /// Something was written, and the session is to be told when it is out.
    pub(super) sending: bool,
}

/// A connection that is no longer HTTP, or never was.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) framing: Framing,
    pub(super) talk: Talk,
}

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

/// What is talked with a client, whatever carries it.
#[derive(Debug)]
pub(super) enum Talk {
    Stomp(Stomp),
    Plain(Encapsulation, Plain),
}

#[derive(Debug)]
pub(super) struct Stomp {
    pub(super) encapsulation: Encapsulation,
    pub(super) decoder: stomp::Decoder,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// CONNECT has not come: what the handshake's token said, if there was one.
    AwaitingConnect {
        claims: Option<Box<Claims>>,
        until: Mono,
    },
    Connected(SessionKey),
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

impl Talk {
    pub(super) fn session(&self) -> Option<SessionKey> {
        match self {
            Self::Stomp(Stomp { stage: Stage::Connected(session), .. }) => Some(*session),
            Self::Stomp(_) | Self::Plain(..) => None,
        }
    }
}

impl Stomp {
    pub(super) fn new(encapsulation: Encapsulation, claims: Option<Claims>, until: Mono) -> Self {
        let stage = Stage::AwaitingConnect { claims: claims.map(Box::new), until };
        Self { encapsulation, decoder: stomp::Decoder::new(stomp::Side::Server), stage }
    }

    /// How frames are written before a version was agreed on.
    pub(super) fn first_format(&self) -> FrameFormat {
        FrameFormat { encapsulation: self.encapsulation, version: stomp::Version::V12 }
    }
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: Redacted<IpAddr>, phase: Phase) -> Self {
        Self {
            id,
            peer,
            outbox: Outbox::default(),
            flushing: false,
            paused: false,
            blocked_since: None,
            timer: None,
            undelivered: Vec::new(),
            encapsulation: Encapsulation::WebSocket,
            phase,
        }
    }
}

impl Http {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            decoder: http::Decoder::new(),
            slots: VecDeque::new(),
            next_number: 0,
            upgrade: None,
            held: Vec::new(),
            since: now,
            expected: false,
            last: false,
        }
    }

    /// No byte of a request has come that was not answered.
    pub(super) fn is_idle(&self) -> bool {
        self.decoder.is_idle() && self.held.is_empty()
    }

    /// Opens the place of the next answer. With one that ends the connection, no request behind it is read
    /// (RFC 9112 section 9.6).
    pub(super) fn open_slot(&mut self, head_only: bool, keep_alive: bool) -> u32 {
        self.last |= !keep_alive;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let context = api::Context::default();
        let (answer, origin, receiving) = (Answer::Awaited, None, None);
        self.slots.push_back(Slot { number, answer, head_only, keep_alive, context, origin, receiving });
        number
    }

    /// Puts an answer into its place; an answer nobody waits for is dropped.
    pub(super) fn fill_slot(&mut self, number: u32, response: http::Response) {
        if let Some(slot) = self.slot_mut(number) {
            slot.answer = Answer::Whole(response);
        }
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.number == number)
    }
}

/// Connections by index, each with the generation of its id.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    count: usize,
}

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) {
        let index = connection.id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let before = self.slots[index].replace(Box::new(connection));
        assert!(before.is_none(), "a connection's slot was given twice");
        self.count += 1;
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.index as usize)?.as_deref().filter(|connection| connection.id == id)
    }

    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.index as usize)?.as_deref_mut().filter(|connection| connection.id == id)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        self.find(id)?;
        self.count -= 1;
        self.slots[id.index as usize].take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.slots.iter().flatten().map(|connection| connection.id).collect()
    }
}
