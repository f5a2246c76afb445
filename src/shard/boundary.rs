//! The one boundary between a shard and the world: what happens to it, and what it wants done.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{ConnectionId, Redacted, ShardId};
use crate::session::Policy;
use crate::shard::clients::handover::Handover;
use crate::shard::mail::Mail;
use crate::store;

/// What a shard is given at its start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub id: ShardId,
    /// Number of shards of this node.
    pub shards: u16,
    /// This node's number in the cluster.
    pub node: u16,
    /// Grows at every start of the node.
    pub epoch: u64,
    /// From a secure source; the simulator gives its own.
    pub seed: [u8; 32],
    pub policy: Arc<Policy>,
}

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP/1.1: REST, and the upgrade to WebSocket.
    Http,
    /// STOMP with nothing around it.
    Stomp,
}

/// What happens to a shard. Bytes are borrowed from the caller's scratch buffer.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted by this shard's listener. The caller chose its id, which is free.
    Opened { connection: ConnectionId, peer: Redacted<IpAddr>, kind: ListenerKind },
    /// A connection came over from another shard, under a new id that the caller chose.
    Adopted { connection: ConnectionId, handover: Box<Handover> },
    /// Bytes from the peer, never empty; the shard may unmask them where they lie.
    Received { connection: ConnectionId, bytes: &'a mut [u8] },
    /// `bytes` of the outbox went out. `blocked`: the socket took no more although more was there.
    Written { connection: ConnectionId, bytes: usize, blocked: bool },
    /// The peer closed or reset the connection, or a write failed: it is gone, its id will not be used again.
    Lost { connection: ConnectionId },
    /// A message from another shard of this node, in the order in which that shard sent it.
    Mail { from: ShardId, mail: Mail },
    /// The answer to an [`Effect::Store`] of this shard.
    Stored { ticket: store::Ticket, reply: store::Reply },
    /// Whether the store can be reached, reported when it changes. A shard begins with one that can.
    StoreReachable { up: bool },
    /// Another policy holds from now on.
    Policy(Arc<Policy>),
    /// [`next_deadline`](crate::shard::Shard::next_deadline) has passed.
    Deadline,
    /// The server is asked to end: refuse new work, finish writes, close every connection.
    Drain,
}

/// What a shard wants done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// The connection's outbox is no longer empty: write it once, after the batch. At most one of these is under way
    /// for a connection; after `Written` left bytes behind, the caller goes on by itself when the socket is writable.
    Flush {
        connection: ConnectionId,
    },
    /// Stop reading from the peer until `Resume`. Nothing that was read is given back.
    Pause {
        connection: ConnectionId,
    },
    Resume {
        connection: ConnectionId,
    },
    /// Everything has been written: close the writing half; the peer may go on.
    Shutdown {
        connection: ConnectionId,
    },
    /// Close the descriptor now. The shard has forgotten the connection, `Lost` does not follow.
    Close {
        connection: ConnectionId,
    },
    /// Move the descriptor to another shard, with what is known of it. The shard has forgotten the connection.
    HandOver {
        connection: ConnectionId,
        to: ShardId,
        handover: Box<Handover>,
    },
    /// To another shard of this node; never to itself.
    Mail {
        to: ShardId,
        mail: Mail,
    },
    /// To the store; exactly one `Stored` with this ticket follows.
    Store {
        ticket: store::Ticket,
        request: store::Request,
    },
    /// A one-time code for the configured sender. Never to the log.
    SendOtp {
        phone: Redacted<Box<str>>,
        code: Redacted<Box<str>>,
    },
    /// After `Drain`: nothing is left here, all connections are closed and no write is under way.
    Drained,
}

/// Counts since the shard's start, for operators. View: shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections closed with 4409, as their first STOMP frame did not come in time.
    pub without_first_frame: u64,
}
