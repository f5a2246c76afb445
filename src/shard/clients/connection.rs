//! One byte stream: what is written to it, and what has been understood of it so far.

use std::net::IpAddr;

use crate::model::{ConnectionId, Mono, Redacted, ShardId};
use crate::session::frames::Encapsulation;
use crate::shard::clients::handover::Handover;
use crate::shard::clients::http::Http;
use crate::shard::clients::io::ConnectionIo;
use crate::shard::clients::socket::Socket;

/// Lifetime: from accept or adoption to close or hand-over. Owner: the clients' part. View: one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) io: ConnectionIo,
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
    /// Queued bytes still go out; input is discarded.
    Ending {
        until: Mono,
        shut: bool,
    },
}

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: Redacted<IpAddr>, now: Mono, encapsulation: Encapsulation, phase: Phase) -> Self {
        Self { io: ConnectionIo::new(id, peer, now, encapsulation), phase }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
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
        let index = connection.io.id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let before = self.slots[index].replace(Box::new(connection));
        assert!(before.is_none(), "a connection's slot was given twice");
        self.count += 1;
    }

    #[inline]
    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.index as usize)?.as_deref().filter(|connection| connection.io.id == id)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.index as usize)?.as_deref_mut().filter(|connection| connection.io.id == id)
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
        self.slots.iter().flatten().map(|connection| connection.io.id).collect()
    }
}
