//! The shards of users, conversations, topics and addresses. No other code computes a shard.

use std::net::IpAddr;

use crate::model::destination::Topic;
use crate::model::{ConversationId, Redacted, ShardId, UserId};

/// The shards of one node. A key has the same shard on every node and after every restart, as long as the number of shards stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: u16,
}

impl Placement {
    /// # Panics
    /// Without a shard.
    #[must_use]
    pub const fn new(shards: u16) -> Self {
        assert!(shards > 0, "a node has at least one shard");
        Self { shards }
    }

    /// Number of shards.
    #[must_use]
    pub const fn shards(self) -> u16 {
        self.shards
    }

    /// Every shard, in order.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.shards).map(ShardId)
    }

    /// The shard of all sessions of a user.
    #[must_use]
    pub fn user(self, user: UserId) -> ShardId {
        self.key(user.value())
    }

    /// The shard that orders a conversation's messages.
    #[must_use]
    pub fn conversation(self, conversation: ConversationId) -> ShardId {
        self.key(conversation.value())
    }

    /// The shard that knows which shards have subscribers of a topic; a conversation's topic lives with its conversation.
    #[must_use]
    pub fn topic(self, topic: &Topic) -> ShardId {
        match topic {
            Topic::Conversation(conversation) => self.conversation(*conversation),
            Topic::Named(name) => self.named_topic(name),
        }
    }

    /// The shard of a named topic.
    #[must_use]
    pub fn named_topic(self, name: &str) -> ShardId {
        // FNV-1a: the choice must be the same everywhere, and need not withstand an attacker.
        let hash =
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        self.key(hash)
    }

    /// The shard that keeps an address's rate limit.
    #[must_use]
    pub fn address(self, peer: &Redacted<IpAddr>) -> ShardId {
        self.key(network(peer))
    }

    /// The shard of anything else with a key of 64 bits.
    #[must_use]
    pub fn key(self, key: u64) -> ShardId {
        // Fibonacci hashing: neighbouring ids spread evenly, and the high bits choose.
        let mixed = (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let index = (u128::from(mixed) * u128::from(self.shards)) >> 64;
        ShardId(u16::try_from(index).unwrap_or(0))
    }
}

/// The unit of a rate limit: an IPv4 address, or an IPv6 network of 64 bits, which one customer holds.
#[must_use]
pub fn network(peer: &Redacted<IpAddr>) -> u64 {
    match peer.expose().to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_rate_limit() {
        let check = |one: &str, other: &str, same: bool| {
            let [one_network, other_network] = [one, other].map(|address| network(&Redacted::new(address.parse().unwrap())));
            assert_eq!(one_network == other_network, same, "{one} {other}");
        };
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.1", "::ffff:10.0.0.1", true);
        check("::ffff:10.0.0.1", "::ffff:10.0.0.2", false);
        check("2001:db8::1", "2001:db8::2:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
    }

    #[test]
    fn keys_spread_over_shards() {
        let mut counts = [0; 4];
        for key in 1..=10_000 {
            counts[Placement::new(4).key(key).index()] += 1;
        }
        assert!(counts.iter().all(|count| (2_000..3_000).contains(count)), "{counts:?}");
    }
}
