//! One node of the world as a value: its shards, the mail between them, its clock and its requests to the store.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{ConnectionId, Mono, Wall};
use crate::shard::{Handover, Mail, Shard};
use crate::sim::network::{ConnectionIds, WireId};
use crate::store::{Read, Ticket, Write};

/// The wall clocks' first reading: in the year 2026.
pub(super) const START: Wall = Wall(1_770_000_000 * Wall::TICKS_PER_SECOND);

/// What one shard of a node sends to another.
pub(super) enum Envelope {
    Mail(Box<Mail>),
    Connection { wire: WireId, handover: Box<Handover> },
}

impl Envelope {
    pub(super) fn mail(&self) -> Option<&Mail> {
        match self {
            Self::Mail(mail) => Some(mail),
            Self::Connection { .. } => None,
        }
    }
}

/// One shard, and what io keeps for it. Lifetime: from a start of its node to its end.
pub(super) struct SimShard {
    pub(super) shard: Shard,
    pub(super) connection_ids: ConnectionIds,
    pub(super) wires: BTreeMap<ConnectionId, WireId>,
    /// The deadline for which an event is in the queue.
    pub(super) armed: Option<Mono>,
    pub(super) drained: bool,
}

impl SimShard {
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard, connection_ids: ConnectionIds::default(), wires: BTreeMap::new(), armed: None, drained: false }
    }
}

/// Mail from one shard to another, in order.
#[derive(Default)]
struct Lane {
    envelopes: VecDeque<Envelope>,
    /// When the last of them arrives: none overtakes it.
    last: Mono,
}

/// A request of one shard.
#[derive(Debug)]
pub(super) struct Job<T> {
    pub(super) shard: usize,
    pub(super) ticket: Ticket,
    pub(super) request: T,
}

/// A node's requests that wait for the store. Lifetime: the run's; a crash of the node empties it.
#[derive(Debug, Default)]
pub(super) struct StoreAccess {
    pub(super) writes: VecDeque<Job<Write>>,
    pub(super) reads: VecDeque<Job<Read>>,
    pub(super) commit_due: bool,
    /// Until then the node cannot reach the store.
    pub(super) outage_until: Mono,
    /// When the last reply arrives.
    pub(super) reply_last: Mono,
}

impl StoreAccess {
    fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }
}

/// Lifetime: the run's. The shards and their mail last from a start to the next end.
pub(super) struct Node {
    pub(super) number: u16,
    /// Empty while the node is down.
    pub(super) shards: Vec<SimShard>,
    /// Grows at every start and at every end: events of another epoch mean nothing.
    pub(super) epoch: u64,
    pub(super) draining: bool,
    /// Ticks that the node's wall clock is ahead of its start, beside the time that has passed.
    pub(super) wall_offset: i64,
    pub(super) store: StoreAccess,
    lanes: BTreeMap<(usize, usize), Lane>,
}

impl Node {
    pub(super) fn new(number: u16) -> Self {
        Self {
            number,
            shards: Vec::new(),
            epoch: 0,
            draining: false,
            wall_offset: 0,
            store: StoreAccess::default(),
            lanes: BTreeMap::new(),
        }
    }

    /// Whether its listener takes connections.
    pub(super) fn is_listening(&self) -> bool {
        !self.shards.is_empty() && !self.draining
    }

    pub(super) fn wall(&self, mono: Mono) -> Wall {
        Wall(START.0.saturating_add(mono.0 / 100).saturating_add_signed(self.wall_offset))
    }

    /// Whether nothing is under way between the shards and the store.
    pub(super) fn is_at_rest(&self) -> bool {
        self.store.is_idle() && self.lanes.values().all(|lane| lane.envelopes.is_empty())
    }

    /// The shards are gone, and their mail with them.
    pub(super) fn end(&mut self) {
        self.shards.clear();
        self.epoch += 1;
        self.lanes.values_mut().for_each(|lane| lane.envelopes.clear());
    }

    /// Puts an envelope into the lane from one shard to another: behind those under way, or before them if it `overtakes`.
    /// Returns when an envelope of the lane arrives for it, `at` the earliest.
    pub(super) fn post(&mut self, (from, to): (usize, usize), envelope: Envelope, overtakes: bool, at: Mono) -> Mono {
        let lane = self.lanes.entry((from, to)).or_default();
        if overtakes {
            lane.envelopes.push_front(envelope);
        } else {
            lane.envelopes.push_back(envelope);
        }
        lane.last = lane.last.max(at);
        lane.last
    }

    /// Takes the next envelope out of a lane.
    pub(super) fn next_envelope(&mut self, from: usize, to: usize) -> Option<Envelope> {
        self.lanes.get_mut(&(from, to))?.envelopes.pop_front()
    }
}
