//! Ids as types of their own, so that a user is no conversation and a number out of range is no id.

use std::fmt;
use std::str::FromStr;

use crate::model::time::Wall;

/// Ids of users and conversations stay below 2^53, so that a JSON number carries them exactly (RFC 8259 section 6).
pub const ID_MAX: u64 = (1 << 53) - 1;

/// The text or number is not a valid id: out of range, not a number, or not a time-UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a valid id")
    }
}

impl std::error::Error for InvalidId {}

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// # Errors
            /// `InvalidId` unless 1 <= `value` <= [`ID_MAX`].
            pub const fn new(value: u64) -> Result<Self, InvalidId> {
                if value == 0 || value > ID_MAX { Err(InvalidId) } else { Ok(Self(value)) }
            }

            #[must_use]
            pub const fn value(self) -> u64 {
                self.0
            }
        }

        /// Plain decimal digits only: no sign, no leading zero, no space.
        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.is_empty() || text.len() > 16 || text.starts_with('0') {
                    return Err(InvalidId);
                }
                let mut value = 0;
                for byte in text.bytes() {
                    if !byte.is_ascii_digit() {
                        return Err(InvalidId);
                    }
                    value = value * 10 + u64::from(byte - b'0');
                }
                Self::new(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

numeric_id! {
    /// A user: the `sub` of a token.
    UserId
}
numeric_id! {
    /// A conversation between two users or a group.
    ConversationId
}

/// A shard of this node: the index of its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A byte stream on one shard. The generation distinguishes successive connections in one slot,
/// so that a stale event finds no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub index: u32,
    pub generation: u32,
}

/// A session: 128 bits from a secure source, 32 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A whole session id lets its holder address the session; the log needs only enough to distinguish sessions.
        write!(f, "SessionId({:08x}..)", self.0 >> 96)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(InvalidId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| InvalidId)
    }
}

/// The greatest number of a node: ids have seven bits for it, and the last number is for imports.
pub const NODE_MAX: u16 = 126;

/// Stands for the node's number in the ids of imported messages, so that they differ from the ids that servers make.
const IMPORT_NODE: u64 = 127;
const _: () = assert!((NODE_MAX as u64) < IMPORT_NODE && IMPORT_NODE < 1 << 7);

/// The part of a node field that holds a start epoch.
const EPOCH_BITS: u32 = 40;
const EPOCH_MASK: u64 = (1 << EPOCH_BITS) - 1;
// An imported message's id holds its conversation in the bits of the epoch and of the clock sequence.
const _: () = assert!(ID_MAX >> EPOCH_BITS <= 0x3FFF);

/// A message: a version 1 UUID (RFC 9562 section 5.1).
///
/// Ordered by time, then by the low half as eight signed bytes: the order in which Cassandra and ScyllaDB
/// keep `timeuuid` columns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// 100 ns since 1582-10-15, 60 bits.
    ticks: u64,
    /// Variant, clock sequence and node, as in the UUID's last eight bytes.
    low: u64,
}

/// Ticks of 100 ns between the UUID epoch, 1582-10-15, and 1970-01-01 (RFC 9562 section 5.1).
const UUID_EPOCH_TICKS: u64 = 0x01B2_1DD2_1381_4000;
const TICKS_MAX: u64 = (1 << 60) - 1;
/// Flips the sign of each of eight bytes: unsigned comparison of the result is signed comparison of the bytes.
const SIGNS: u64 = 0x8080_8080_8080_8080;

impl MessageId {
    /// The least and the greatest possible id: positions before and after every message.
    pub const MIN: Self = Self { ticks: 0, low: SIGNS };
    pub const MAX: Self = Self { ticks: TICKS_MAX, low: 0xBF7F_7F7F_7F7F_7F7F };

    /// `clock_sequence` uses 14 bits, `node` 48; the node's multicast bit is set, as RFC 9562 section 6.10
    /// requires of a node that is no network card.
    #[must_use]
    pub fn from_parts(at: Wall, clock_sequence: u16, node: u64) -> Self {
        let ticks = at.0.saturating_add(UUID_EPOCH_TICKS).min(TICKS_MAX);
        let low = 0x8000_0000_0000_0000 | u64::from(clock_sequence & 0x3FFF) << 48 | (node & 0xFFFF_FFFF_FFFF) | 0x0100_0000_0000;
        Self { ticks, low }
    }

    /// The id of an imported message. It derives from time and conversation alone, so that every import of the message yields the
    /// same id, and differs from that of any other time or conversation and from those of every server.
    #[must_use]
    pub fn imported(at: Wall, conversation: ConversationId) -> Self {
        let clock_sequence = u16::try_from(conversation.value() >> EPOCH_BITS).expect("ids of conversations have 53 bits");
        Self::from_parts(at, clock_sequence, IMPORT_NODE << (EPOCH_BITS + 1) | conversation.value() & EPOCH_MASK)
    }

    /// The time at which the id was made: the message's `createdAt`.
    #[must_use]
    pub fn at(self) -> Wall {
        Wall(self.ticks.saturating_sub(UUID_EPOCH_TICKS))
    }

    /// Sixteen bytes whose lexicographic order is the order of ids: the key of a store.
    #[must_use]
    pub fn to_key(self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.ticks.to_be_bytes());
        key[8..].copy_from_slice(&(self.low ^ SIGNS).to_be_bytes());
        key
    }

    /// The inverse of [`to_key`](Self::to_key).
    ///
    /// # Errors
    /// `InvalidId` when the bytes are no key of a version 1 UUID.
    pub fn from_key(key: [u8; 16]) -> Result<Self, InvalidId> {
        let value = u128::from_be_bytes(key);
        let ticks = (value >> 64) as u64;
        let low = value as u64 ^ SIGNS;
        if ticks > TICKS_MAX || low >> 62 != 0b10 { Err(InvalidId) } else { Ok(Self { ticks, low }) }
    }

    /// The UUID's sixteen bytes in network order.
    #[must_use]
    pub fn to_uuid(self) -> u128 {
        let time_low = u128::from(self.ticks & 0xFFFF_FFFF);
        let time_mid = u128::from(self.ticks >> 32 & 0xFFFF);
        let time_high = u128::from(self.ticks >> 48 & 0x0FFF) | 0x1000;
        time_low << 96 | time_mid << 80 | time_high << 64 | u128::from(self.low)
    }

    /// # Errors
    /// `InvalidId` unless the UUID has version 1 and the variant of RFC 9562.
    pub fn from_uuid(uuid: u128) -> Result<Self, InvalidId> {
        if uuid >> 76 & 0xF != 1 || uuid >> 62 & 0b11 != 0b10 {
            return Err(InvalidId);
        }
        let time_low = (uuid >> 96) as u64;
        let time_mid = (uuid >> 80) as u64 & 0xFFFF;
        let time_high = (uuid >> 64) as u64 & 0x0FFF;
        Ok(Self { ticks: time_high << 48 | time_mid << 32 | time_low, low: uuid as u64 })
    }

    /// The 36 characters of the UUID's text, in lower case.
    #[must_use]
    pub fn to_text(self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let uuid = self.to_uuid();
        let mut text = [b'-'; 36];
        let mut at = 0;
        for nibble in 0..32 {
            if matches!(at, 8 | 13 | 18 | 23) {
                at += 1;
            }
            text[at] = HEX[(uuid >> (124 - 4 * nibble) & 0xF) as usize];
            at += 1;
        }
        text
    }
}

impl PartialOrd for MessageId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MessageId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ticks, self.low ^ SIGNS).cmp(&(other.ticks, other.low ^ SIGNS))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(InvalidId);
        }
        let mut uuid: u128 = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return Err(InvalidId);
                }
                continue;
            }
            let digit = char::from(*byte).to_digit(16).ok_or(InvalidId)?;
            uuid = uuid << 4 | u128::from(digit);
        }
        Self::from_uuid(uuid)
    }
}

/// Makes the ids of one shard: unique and increasing whatever the wall clock does.
#[derive(Debug)]
pub struct MessageIds {
    shard: ShardId,
    /// Node id (7 bits), the multicast bit, start epoch (40 bits): no restart and no other node repeats an id.
    node: u64,
    last: Wall,
}

impl MessageIds {
    /// `epoch` grows by at least one at every start of a node (40 bits used), `node` is its number in the cluster.
    ///
    /// # Panics
    /// When `node` is beyond [`NODE_MAX`]: its ids would be those of another node, or of imports.
    #[must_use]
    pub fn new(shard: ShardId, node: u16, epoch: u64) -> Self {
        assert!(node <= NODE_MAX, "a node's number fits into ids");
        // The multicast bit is bit 40: the node's number goes above it, the epoch below.
        let node = u64::from(node) << (EPOCH_BITS + 1) | epoch & EPOCH_MASK;
        Self { shard, node, last: Wall(0) }
    }

    /// The next id: later than every id this shard made and than `after`, the conversation's last.
    pub fn next_id(&mut self, wall: Wall, after: Option<MessageId>) -> MessageId {
        let floor = after.map_or(0, |id| id.at().0 + 1);
        let at = Wall(wall.0.max(self.last.0 + 1).max(floor));
        self.last = at;
        MessageId::from_parts(at, self.shard.0, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["", "0", "01", "-1", "+1", " 1", "1 ", "9007199254740992", "99999999999999999", "1e3", "١"] {
            assert_eq!(text.parse::<UserId>(), Err(InvalidId), "{text:?}");
        }
        assert_eq!("9007199254740991".parse::<UserId>().map(UserId::value), Ok(ID_MAX));
        assert_eq!("1".parse::<ConversationId>().map(ConversationId::value), Ok(1));
    }

    #[test]
    fn text_and_key_round_trip() {
        let text = "c232ab00-9414-11ec-b3c8-9f6bdeced846"; // RFC 9562 appendix A.1
        let id: MessageId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.at().unix_seconds(), 1_645_557_742);
        assert_eq!(MessageId::from_key(id.to_key()), Ok(id));
        assert_eq!(MessageId::from_uuid(id.to_uuid()), Ok(id));
    }

    #[test]
    fn other_uuids_are_refused() {
        for text in [
            "c232ab00-9414-41ec-b3c8-9f6bdeced846", // version 4
            "c232ab00-9414-11ec-73c8-9f6bdeced846", // another variant
            "c232ab00-9414-11ec-b3c8-9f6bdeced84",
            "c232ab00-9414-11ec-b3c8-9f6bdeced84g",
            "c232ab00.9414-11ec-b3c8-9f6bdeced846",
        ] {
            assert_eq!(text.parse::<MessageId>(), Err(InvalidId), "{text}");
        }
    }

    #[test]
    fn the_low_half_compares_as_signed_bytes() {
        let at = Wall::from_unix_seconds(1);
        let with_low = |low: u64| MessageId { ticks: MessageId::from_parts(at, 0, 0).ticks, low };
        let (negative, positive) = (with_low(0x8000_0000_0000_00FF), with_low(0x8000_0000_0000_0001));
        assert!(negative < positive);
        assert!(negative.to_key() < positive.to_key());
        assert!(MessageId::MIN < negative && positive < MessageId::MAX);
    }

    #[test]
    fn ids_increase_when_the_clock_jumps_back() {
        let mut ids = MessageIds::new(ShardId(3), 1, 7);
        let first = ids.next_id(Wall::from_unix_seconds(1_000), None);
        let second = ids.next_id(Wall::from_unix_seconds(10), None);
        let third = ids.next_id(Wall::from_unix_seconds(10), Some(MessageId::from_parts(Wall::from_unix_seconds(5_000), 0, 0)));
        assert!(first < second && second < third);
        assert_eq!(third.at().unix_seconds(), 5_000);
    }

    #[test]
    fn shards_and_starts_never_share_an_id() {
        let at = Wall::from_unix_seconds(1_000);
        let mut seen = std::collections::BTreeSet::new();
        for shard in 0..4 {
            for node in 0..4 {
                for epoch in 0..4 {
                    assert!(seen.insert(MessageIds::new(ShardId(shard), node, epoch).next_id(at, None)));
                }
            }
        }
    }

    #[test]
    fn imported_ids_depend_on_time_and_conversation_and_differ_from_those_of_servers() {
        let conversation = |value| ConversationId::new(value).unwrap();
        let at = Wall::from_unix_seconds(1_000);
        let ids = [1, 2, 1 << 40, (1 << 40) + 1, ID_MAX - 1, ID_MAX].map(|value| MessageId::imported(at, conversation(value)));
        let mut seen: std::collections::BTreeSet<_> = ids.into_iter().collect();
        assert_eq!(seen.len(), ids.len());
        for id in ids {
            assert_eq!(id.at(), at);
            assert_eq!(MessageId::from_uuid(id.to_uuid()), Ok(id));
        }
        assert!(MessageId::imported(Wall(at.0 + 1), conversation(1)) > MessageId::imported(at, conversation(ID_MAX)));
        for node in [0, NODE_MAX] {
            for (shard, epoch) in [(0, 0), (0, 1), (1, 2), (0x3FFF, EPOCH_MASK)] {
                assert!(seen.insert(MessageIds::new(ShardId(shard), node, epoch).next_id(at, None)), "{node} {shard} {epoch}");
            }
        }
    }
}
