//! Keys of the rows: one ordered space, a tag byte before each table.
//!
//! Ids of users and conversations are below 2^53, so seven big-endian bytes carry them; most keys then fit the
//! twenty bytes that the engine keeps without another allocation. Ascending bytes are ascending ids.

use fjall::Slice;
use sha2::{Digest, Sha256};

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::time::Wall;
use crate::store::accounts::{FamilyId, SecretHash};

/// The first byte of a key. Numbers are part of the format on disk: never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    /// Name -> number.
    Meta = 0,
    /// Conversation -> kind, title, by, at.
    Conversations = 1,
    /// Conversation, user -> role, since.
    Participants = 2,
    /// User, conversation -> nothing.
    ConversationsOf = 3,
    /// Lower user, higher user -> direct conversation.
    Pairs = 4,
    /// Conversation, message -> message. The last row of a conversation is its head.
    Log = 5,
    /// First message of a group -> conversations of the group's messages.
    Index = 6,
    /// Conversation, hash of sender and client message id -> message, expiry.
    ClientIds = 7,
    /// Conversation, user -> message, sequence.
    Marks = 8,
    /// User, other user -> nothing.
    Blocks = 9,
    /// Hash of a login -> user.
    Logins = 10,
    /// User -> roles, name.
    Users = 11,
    /// Hash of a login -> one-time code.
    Codes = 12,
    /// Hash of a refresh token -> user, family, expiry, successor.
    Tokens = 13,
    /// Family -> user, expiry, revocation.
    Families = 14,
    /// Time, family -> user.
    Revoked = 15,
    /// Conversation -> last message, sequence, where the messages up to the last one are gone.
    Heads = 16,
}

const ID_BYTES: usize = 7;
/// Bytes of SHA-256 that stand for sender and client message id: with the conversation they fill a short key, and
/// only a sender could make two of its own collide. A row found by it is compared with the message all the same.
const CLIENT_ID_HASH_BYTES: usize = 12;

fn id7(value: u64) -> [u8; ID_BYTES] {
    let bytes = value.to_be_bytes();
    assert!(bytes[0] == 0, "ids are below 2^53");
    [bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

fn key(table: Table, parts: [&[u8]; 2]) -> Slice {
    let mut bytes = [0; 40];
    bytes[0] = table as u8;
    let mut end = 1;
    for part in parts {
        bytes[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    Slice::from(&bytes[..end])
}

pub(super) fn meta(name: &str) -> Slice {
    key(Table::Meta, [name.as_bytes(), &[]])
}

pub(super) fn conversation(id: ConversationId) -> Slice {
    key(Table::Conversations, [&id7(id.value()), &[]])
}

pub(super) fn participant(id: ConversationId, user: UserId) -> Slice {
    key(Table::Participants, [&id7(id.value()), &id7(user.value())])
}

pub(super) fn conversation_of(user: UserId, id: ConversationId) -> Slice {
    key(Table::ConversationsOf, [&id7(user.value()), &id7(id.value())])
}

/// The same for both orders of the two.
pub(super) fn pair(first: UserId, second: UserId) -> Slice {
    key(Table::Pairs, [&id7(first.min(second).value()), &id7(first.max(second).value())])
}

pub(super) fn log(id: ConversationId, message: MessageId) -> Slice {
    key(Table::Log, [&id7(id.value()), &message.to_key()])
}

pub(super) fn head(id: ConversationId) -> Slice {
    key(Table::Heads, [&id7(id.value()), &[]])
}

pub(super) fn index(message: MessageId) -> Slice {
    key(Table::Index, [&message.to_key(), &[]])
}

/// The bytes that the ids of one group share: those of the same 2^16 ticks of 100 ns, about 6.6 ms.
pub(super) const PERIOD_BYTES: usize = 6;

pub(super) fn period(message: MessageId) -> [u8; PERIOD_BYTES] {
    let [period @ .., _, _, _, _, _, _, _, _, _, _] = message.to_key();
    period
}

/// First key of the groups that may hold a message, and the first beyond them.
pub(super) fn groups_of(message: MessageId) -> (Slice, Slice) {
    (key(Table::Index, [&period(message), &[]]), key(Table::Index, [&message.to_key(), &[0]]))
}

/// The message of a key of the index.
pub(super) fn index_message(key: &[u8]) -> Option<MessageId> {
    MessageId::from_key(key.get(1..)?.try_into().ok()?).ok()
}

pub(super) fn client_id(id: ConversationId, sender: UserId, client_id: &str) -> Slice {
    let mut hash = Sha256::new();
    hash.update(sender.value().to_be_bytes());
    hash.update(client_id.as_bytes());
    key(Table::ClientIds, [&id7(id.value()), &hash.finalize()[..CLIENT_ID_HASH_BYTES]])
}

pub(super) fn mark(id: ConversationId, user: UserId) -> Slice {
    key(Table::Marks, [&id7(id.value()), &id7(user.value())])
}

pub(super) fn block(user: UserId, other: UserId) -> Slice {
    key(Table::Blocks, [&id7(user.value()), &id7(other.value())])
}

/// Hashed, so that a login of any length has a short key.
pub(super) fn login(login: &str) -> Slice {
    key(Table::Logins, [&Sha256::digest(login.as_bytes()), &[]])
}

pub(super) fn user(user: UserId) -> Slice {
    key(Table::Users, [&id7(user.value()), &[]])
}

pub(super) fn code(login: &str) -> Slice {
    key(Table::Codes, [&Sha256::digest(login.as_bytes()), &[]])
}

/// The one-time code of the login with this key.
pub(super) fn code_of(login: &[u8]) -> Slice {
    key(Table::Codes, [login.get(1..).unwrap_or_default(), &[]])
}

pub(super) fn token(token: &SecretHash) -> Slice {
    key(Table::Tokens, [token, &[]])
}

pub(super) fn family(family: FamilyId) -> Slice {
    key(Table::Families, [&family.0.to_be_bytes(), &[]])
}

pub(super) fn revoked(at: Wall, family: FamilyId) -> Slice {
    key(Table::Revoked, [&at.0.to_be_bytes(), &family.0.to_be_bytes()])
}

/// First key of a table, and the first beyond it.
pub(super) fn table(table: Table) -> (Slice, Slice) {
    (Slice::from(&[table as u8][..]), Slice::from(&[table as u8 + 1][..]))
}

/// First key of the rows of a conversation or user in a table, and the first beyond them.
pub(super) fn rows_of(table: Table, id: u64) -> (Slice, Slice) {
    // An id of all ones would need an eighth byte for the key beyond; ids are below 2^53, so there is none.
    (key(table, [&id7(id), &[]]), key(table, [&id7(id + 1), &[]]))
}

/// The id in the last seven bytes of a key of two ids.
pub(super) fn second_id(key: &[u8]) -> Option<u64> {
    value7(key.get(1 + ID_BYTES..)?)
}

/// The id behind the tag of a key.
pub(super) fn first_id(key: &[u8]) -> Option<u64> {
    value7(key.get(1..1 + ID_BYTES)?)
}

fn value7(bytes: &[u8]) -> Option<u64> {
    let bytes: [u8; ID_BYTES] = bytes.try_into().ok()?;
    let mut value = [0; 8];
    value[1..].copy_from_slice(&bytes);
    Some(u64::from_be_bytes(value))
}

/// The message of a key of the log.
pub(super) fn log_message(key: &[u8]) -> Option<MessageId> {
    MessageId::from_key(key.get(1 + ID_BYTES..)?.try_into().ok()?).ok()
}

/// The family of a key of the families.
pub(super) fn family_of(key: &[u8]) -> Option<FamilyId> {
    Some(FamilyId(u64::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

/// The family of a key of the revoked.
pub(super) fn revoked_family(key: &[u8]) -> Option<FamilyId> {
    Some(FamilyId(u64::from_be_bytes(key.get(9..)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ID_MAX;

    fn conversation_id(value: u64) -> ConversationId {
        ConversationId::new(value).unwrap()
    }

    #[test]
    fn bytes_keep_the_order_of_ids() {
        let values = [1, 2, 255, 256, 1 << 32, ID_MAX - 1, ID_MAX];
        assert!(values.windows(2).all(|pair| conversation(conversation_id(pair[0])) < conversation(conversation_id(pair[1]))));
        let (from, to) = rows_of(Table::Log, ID_MAX);
        assert!(from <= log(conversation_id(ID_MAX), MessageId::MIN) && log(conversation_id(ID_MAX), MessageId::MAX) < to);
        assert!(to <= table(Table::Log).1);
    }

    #[test]
    fn ids_are_read_back() {
        let (id, user) = (conversation_id(ID_MAX), UserId::new(77).unwrap());
        assert_eq!(second_id(&participant(id, user)), Some(77));
        assert_eq!(second_id(&conversation_of(user, id)), Some(ID_MAX));
        assert_eq!(first_id(&log(id, MessageId::MAX)), Some(ID_MAX));
        assert_eq!(code_of(&login("a")), code("a"));
        assert_eq!(log_message(&log(id, MessageId::MAX)), Some(MessageId::MAX));
        assert_eq!(revoked_family(&revoked(Wall(1), FamilyId(9))), Some(FamilyId(9)));
        for short in [&b""[..], b"\x02", &participant(id, user)[..14]] {
            assert_eq!((second_id(short), log_message(short), revoked_family(short)), (None, None, None));
        }
    }

    #[test]
    fn a_client_id_belongs_to_its_sender_and_conversation() {
        let [one, two] = [1, 2].map(|value| UserId::new(value).unwrap());
        let key = client_id(conversation_id(1), one, "a");
        assert!(key.len() <= 20);
        assert_ne!(key, client_id(conversation_id(1), two, "a"));
        assert_ne!(key, client_id(conversation_id(2), one, "a"));
        assert_ne!(key, client_id(conversation_id(1), one, "b"));
    }
}
