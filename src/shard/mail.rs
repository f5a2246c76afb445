//! What shards say to each other.

/// Opaque to everything but shards.
#[derive(Debug)]
pub enum Mail {}
