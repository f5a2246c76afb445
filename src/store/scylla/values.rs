//! Between the model's values and the columns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scylla::DeserializeRow;
use scylla::value::CqlTimeuuid;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::limits::LIFE_MAX;
use crate::model::message::{ConversationKind, Head, Message, Participant, ParticipantRole, PassedHeaders, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::FamilyId;
use crate::store::log::REPEAT_WINDOW;

use super::Fault;

/// Ids stay below 2^53 and ticks below 2^63: both are the same number as a bigint.
pub(super) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn number(value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::Corrupt)
}

pub(super) fn wall(value: i64) -> Result<Wall, Fault> {
    number(value).map(Wall)
}

pub(super) fn user_id(value: i64) -> Result<UserId, Fault> {
    UserId::new(number(value)?).map_err(|_| Fault::Corrupt)
}

pub(super) fn conversation_id(value: i64) -> Result<ConversationId, Fault> {
    ConversationId::new(number(value)?).map_err(|_| Fault::Corrupt)
}

/// A family's 64 random bits, with the sign where it falls.
pub(super) fn family_value(family: FamilyId) -> i64 {
    family.0.cast_signed()
}

pub(super) fn family_id(value: i64) -> FamilyId {
    FamilyId(value.cast_unsigned())
}

pub(super) fn timeuuid(id: MessageId) -> CqlTimeuuid {
    CqlTimeuuid::from_u128(id.to_uuid())
}

pub(super) fn message_id(value: CqlTimeuuid) -> Result<MessageId, Fault> {
    MessageId::from_uuid(value.as_u128()).map_err(|_| Fault::Corrupt)
}

/// The time of a write that belongs to a message: microseconds since 1970, as the database counts.
pub(super) fn write_time(id: MessageId) -> i64 {
    bigint(id.at().0 / 10)
}

/// Seconds that a row is kept which counts until `expires`: longer than that, as its own column decides.
pub(super) fn seconds_to_live(now: Wall, expires: Wall) -> i32 {
    const SLACK: u64 = 3_600;
    // An append may still be repeated that was decided while its client id was in force.
    const _: () = assert!(REPEAT_WINDOW.as_secs() <= SLACK);
    let seconds = (now.until(expires).as_secs() + SLACK).min(LIFE_MAX.as_secs());
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// Seconds that a message is kept, or what leads to it, if it was sent at `at`; zero, which is for ever, without a
/// retention. What is over already is over in a second.
pub(super) fn message_seconds(now: Wall, at: Wall, retention: Option<Duration>) -> i32 {
    let Some(retention) = retention else { return 0 };
    i32::try_from(now.until(at.after(retention)).as_secs().clamp(1, LIFE_MAX.as_secs())).unwrap_or(i32::MAX)
}

pub(super) fn kind_text(kind: ConversationKind) -> &'static str {
    match kind {
        ConversationKind::Direct => "direct",
        ConversationKind::Group => "group",
    }
}

pub(super) fn kind(text: &str) -> Result<ConversationKind, Fault> {
    match text {
        "direct" => Ok(ConversationKind::Direct),
        "group" => Ok(ConversationKind::Group),
        _ => Err(Fault::Corrupt),
    }
}

pub(super) fn role_text(role: ParticipantRole) -> &'static str {
    match role {
        ParticipantRole::Member => "member",
        ParticipantRole::Admin => "admin",
    }
}

fn role(text: &str) -> Result<ParticipantRole, Fault> {
    match text {
        "member" => Ok(ParticipantRole::Member),
        "admin" => Ok(ParticipantRole::Admin),
        _ => Err(Fault::Corrupt),
    }
}

/// Sequence first: of two marks written at the same microsecond the database keeps the greater value.
pub(super) type MarkValue = (i64, CqlTimeuuid);

#[derive(DeserializeRow)]
pub(super) struct ParticipantRow {
    user_id: i64,
    role: Option<String>,
    joined_at: Option<i64>,
    departures: Option<i32>,
    read_marks: Option<BTreeMap<i32, MarkValue>>,
}

/// A user of a conversation, present or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) user: UserId,
    pub(super) participant: Option<Participant>,
    pub(super) departures: i32,
    pub(super) mark: Option<ReadMark>,
    /// The furthest mark of any stay.
    pub(super) furthest: Option<Head>,
}

impl ParticipantRow {
    pub(super) fn member(self) -> Result<Member, Fault> {
        let user = user_id(self.user_id)?;
        let participant = match (self.role, self.joined_at) {
            (Some(text), Some(joined_at)) => Some(Participant { user, role: role(&text)?, joined_at: wall(joined_at)? }),
            _ => None,
        };
        let departures = self.departures.unwrap_or(0);
        let mut marks = self.read_marks.unwrap_or_default();
        let furthest = marks.values().max_by_key(|(sequence, _)| *sequence).copied();
        let furthest =
            furthest.map(|(sequence, message)| Ok(Head { last: Some(message_id(message)?), sequence: number(sequence)? }));
        let mark = marks.remove(&departures);
        let mark =
            mark.map(|(sequence, message)| Ok(ReadMark { user, message: message_id(message)?, sequence: number(sequence)? }));
        Ok(Member { user, participant, departures, mark: mark.transpose()?, furthest: furthest.transpose()? })
    }
}

/// In the order of the statements' columns, which is theirs to keep: a page has hundreds of columns to find by name.
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub(super) struct MessageRow {
    id: CqlTimeuuid,
    sender_id: i64,
    sequence: i64,
    prev: Option<CqlTimeuuid>,
    client_id: Option<Box<str>>,
    headers: Option<PassedHeaders>,
    /// Erased: none.
    content: Option<Box<str>>,
}

impl MessageRow {
    pub(super) fn message(self, conversation: ConversationId) -> Result<Arc<Message>, Fault> {
        Ok(Arc::new(Message {
            id: message_id(self.id)?,
            conversation,
            sender: user_id(self.sender_id)?,
            content: self.content.unwrap_or_default(),
            client_id: self.client_id,
            prev: self.prev.map(message_id).transpose()?,
            sequence: number(self.sequence)?,
            headers: self.headers.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_outlive_what_they_say() {
        let now = Wall::from_unix_seconds(1_000);
        for (expires, expect) in [(0, 3_600), (1_000, 3_600), (1_060, 3_660), (u64::MAX / 10_000_000, 630_720_000)] {
            assert_eq!(seconds_to_live(now, Wall::from_unix_seconds(expires)), expect, "{expires}");
        }
        for (sent, retention, expect) in [(1_000, Some(60), 60), (990, Some(60), 50), (900, Some(60), 1), (1_000, None, 0)] {
            let retention = retention.map(Duration::from_secs);
            assert_eq!(message_seconds(now, Wall::from_unix_seconds(sent), retention), expect, "{sent} {retention:?}");
        }
    }
}
