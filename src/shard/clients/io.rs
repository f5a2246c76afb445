//! The part of a connection that every phase writes to.

use std::net::IpAddr;

use bytes::Bytes;

use crate::model::{ConnectionId, Mono, Redacted};
use crate::session::frames::Encapsulation;
use crate::shard::boundary::Effect;
use crate::shard::clients::outbox::Outbox;
use crate::shard::clients::receiver::Receiver;
use crate::shard::turn::Turn;

/// Lifetime and owner: the connection's.
#[derive(Debug)]
pub(super) struct ConnectionIo {
    pub(super) id: ConnectionId,
    pub(super) peer: Redacted<IpAddr>,
    pub(super) outbox: Outbox,
    /// A `Flush` is under way, or the socket is waited for.
    flushing: bool,
    pub(super) paused: bool,
    /// Since when a write has made no progress.
    pub(super) blocked_since: Option<Mono>,
    /// The one current entry among the timers.
    pub(super) timer: Option<Mono>,
    /// When the peer last sent anything.
    pub(super) heard: Mono,
    /// Receivers whose last packets are queued and not yet out: until they are, losing this connection loses them.
    pub(super) undelivered: Vec<Receiver>,
    /// What the last words of the connection travel in.
    pub(super) encapsulation: Encapsulation,
}

impl ConnectionIo {
    pub(super) fn new(id: ConnectionId, peer: Redacted<IpAddr>, now: Mono, encapsulation: Encapsulation) -> Self {
        Self {
            id,
            peer,
            outbox: Outbox::default(),
            flushing: false,
            paused: false,
            blocked_since: None,
            timer: None,
            heard: now,
            undelivered: Vec::new(),
            encapsulation,
        }
    }

    /// Queues bytes. They leave after the batch.
    #[inline]
    pub(super) fn write(&mut self, turn: &mut Turn, bytes: Bytes) {
        self.outbox.push(bytes);
        if !std::mem::replace(&mut self.flushing, true) {
            turn.effect(Effect::Flush { connection: self.id });
        }
    }

    /// The outbox is empty.
    pub(super) fn flushed(&mut self) {
        self.flushing = false;
        self.blocked_since = None;
        self.undelivered = Vec::new();
    }

    pub(super) fn pause(&mut self, turn: &mut Turn) {
        if !std::mem::replace(&mut self.paused, true) {
            turn.effect(Effect::Pause { connection: self.id });
        }
    }

    pub(super) fn resume(&mut self, turn: &mut Turn) {
        if std::mem::replace(&mut self.paused, false) {
            turn.effect(Effect::Resume { connection: self.id });
        }
    }
}
