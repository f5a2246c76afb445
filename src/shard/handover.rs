//! What goes with a connection that moves to another shard.

/// Opaque to everything but the two shards.
#[derive(Debug)]
pub struct Handover {}
