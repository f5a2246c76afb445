//! Byte streams between clients and shards: bounded, cut anywhere, reset at any time.

use std::collections::VecDeque;
use std::fmt;

use crate::model::{ConnectionId, Mono};
use crate::shard::ListenerKind;
use crate::sim::random::Random;

/// Names a stream for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WireId(pub(super) u64);

/// Which of a device's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// STOMP, or the packets of SockJS.
    Socket,
    /// The requests that bring messages over SockJS.
    Bring,
    Rest,
}

/// One shard of one node, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardAddress {
    pub(super) node: usize,
    pub(super) shard: usize,
}

impl fmt::Display for ShardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}.{}", self.node, self.shard)
    }
}

/// Where the server's end of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerEnd {
    /// In the queue of its node's listener.
    Unaccepted,
    At(ShardAddress, ConnectionId),
    /// On its way from one shard to another.
    HandedOver,
    Closed,
}

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) device: usize,
    pub(super) line: Line,
    pub(super) kind: ListenerKind,
    /// The node that the client connects to.
    pub(super) node: usize,
    pub(super) server_end: ServerEnd,
    /// From the client, not yet read by the server.
    pub(super) up: VecDeque<u8>,
    /// The client sends nothing after `up`.
    pub(super) up_ends: bool,
    /// From the server, not yet read by the client; at most `capacity` bytes.
    pub(super) down: VecDeque<u8>,
    pub(super) down_ends: bool,
    pub(super) capacity: usize,
    /// Bytes of one read or write at most.
    chunk: usize,
    pub(super) reset: bool,
    /// The client's end is closed: a write to it is answered with a reset.
    pub(super) client_gone: bool,
    pub(super) paused: bool,
    /// A flush is under way, as the boundary has it.
    pub(super) flushing: bool,
    /// The client does not read before this.
    pub(super) stalled_until: Mono,
    /// One event of each kind at most is in the queue.
    pub(super) read_due: bool,
    pub(super) write_due: bool,
    pub(super) arrive_due: bool,
}

impl Wire {
    pub(super) fn new(random: &mut Random, (device, node): (usize, usize), line: Line, kind: ListenerKind) -> Self {
        Self {
            device,
            line,
            kind,
            node,
            server_end: ServerEnd::Unaccepted,
            up: VecDeque::new(),
            up_ends: false,
            down: VecDeque::new(),
            down_ends: false,
            capacity: random.pick(&[600, 4_096, 65_536]),
            chunk: random.pick(&[40, 200, 400, 1_500, 1_500, 65_536, 65_536, 65_536]),
            reset: false,
            client_gone: false,
            paused: false,
            flushing: false,
            stalled_until: Mono(0),
            read_due: false,
            write_due: false,
            arrive_due: false,
        }
    }

    /// How many of `available` bytes go in one piece; at least one when there is one.
    pub(super) fn piece(&self, random: &mut Random, available: usize) -> usize {
        let most = available.min(self.chunk);
        if most <= 1 || random.percent(40) { most } else { random.between(1, most) }
    }

    /// From now on the network is fast, and the client reads without a pause.
    pub(super) fn calm(&mut self, now: Mono) {
        self.chunk = 65_536;
        self.stalled_until = now;
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.down.len())
    }

    /// Takes the first `count` bytes off a queue.
    pub(super) fn take(queue: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
        queue.drain(..count).collect()
    }
}

/// Ids of connections on one shard: a free index, and a generation that was never used with it.
#[derive(Debug, Default)]
pub(super) struct ConnectionIds {
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl ConnectionIds {
    pub(super) fn take(&mut self) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.generations.len() as u32 - 1
        });
        ConnectionId { index, generation: self.generations[index as usize] }
    }

    pub(super) fn release(&mut self, id: ConnectionId) {
        self.generations[id.index as usize] += 1;
        self.free.push(id.index);
    }
}
