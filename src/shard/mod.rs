//! One shard: the sessions of its users, the order of its conversations, and nothing of the world outside.
//!
//! Flows in: [`Input`]. Flows out: [`Effect`]. Never imports a socket, a file, a clock, a task, glommio, or another
//! shard's memory.

pub mod handover;
pub mod mail;
pub mod outbox;
pub mod seam;

use std::sync::Arc;

use crate::model::{ConnectionId, Mono, Now, ShardId};

pub use handover::Handover;
pub use mail::Mail;
pub use outbox::Outbox;
pub use seam::{Door, Effect, Input};

/// What a shard is told at its start.
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
    pub policy: Arc<crate::session::Policy>,
}

pub struct Shard {}

impl Shard {
    #[must_use]
    pub fn new(_settings: ShardSettings) -> Self {
        todo!()
    }

    /// Carries out one input at `now`; what is wanted of the world is appended to `effects`.
    pub fn handle(&mut self, _now: Now, _input: Input<'_>, _effects: &mut Vec<Effect>) {
        todo!()
    }

    /// When `Input::Deadline` is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        todo!()
    }

    /// What waits to be written to a connection; `None` when the shard does not know it.
    #[must_use]
    pub fn outbox(&self, _connection: ConnectionId) -> Option<&Outbox> {
        todo!()
    }
}
