//! Values of the rows: compact, and each begins with the version of its layout.
//!
//! Grammar: numbers are LEB128 varints, at most ten bytes; text is a length and UTF-8; an optional field is its length
//! plus one, or zero; ids of messages are their sixteen key bytes. No checksum: the engine has one for each block and
//! each journalled batch. A value that does not follow the grammar to its last byte is corrupt.

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, Message, Participant, ParticipantRole};
use crate::model::time::Wall;
use crate::store::accounts::{FamilyId, SecretHash, User};
use crate::store::one_time::{CodeRow, LiveCode};

use super::keys::PERIOD_BYTES;

/// A value on disk that no version of this code wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// The layout of every value today.
const VERSION: u8 = 1;

/// A client message id in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientIdRow {
    pub(super) message: MessageId,
    pub(super) expires: Wall,
}

/// How far a user has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MarkRow {
    pub(super) message: MessageId,
    pub(super) sequence: u64,
    /// The message is the user's own, and those that follow it closely may have no row of the mark.
    pub(super) leads: bool,
}

/// A refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenRow {
    pub(super) user: UserId,
    pub(super) family: FamilyId,
    pub(super) expires: Wall,
    /// The token that replaced it.
    pub(super) next: Option<SecretHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FamilyRow {
    pub(super) user: UserId,
    /// When the last of its tokens expires.
    pub(super) expires: Wall,
    pub(super) revoked: Option<Wall>,
}

/// Writes into a buffer that is used again for the next value.
struct Encoder<'a>(&'a mut Vec<u8>);

impl<'a> Encoder<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        out.push(VERSION);
        Self(out)
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn text_option(&mut self, text: Option<&str>) {
        self.number(text.map_or(0, |text| text.len() as u64 + 1));
        self.bytes(text.unwrap_or_default().as_bytes());
    }

    fn wall_option(&mut self, wall: Option<Wall>) {
        self.number(u64::from(wall.is_some()));
        if let Some(wall) = wall {
            self.number(wall.0);
        }
    }
}

/// The rest of a value.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn new(value: &'a [u8]) -> Result<Self, Corrupt> {
        match value.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            _ => Err(Corrupt),
        }
    }

    fn number(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Corrupt)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return Err(Corrupt);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt)
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8], Corrupt> {
        let length = usize::try_from(length).map_err(|_| Corrupt)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Corrupt)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Corrupt)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn text(&mut self) -> Result<Box<str>, Corrupt> {
        let length = self.number()?;
        self.utf8(length)
    }

    fn text_option(&mut self) -> Result<Option<Box<str>>, Corrupt> {
        match self.number()? {
            0 => Ok(None),
            length => self.utf8(length - 1).map(Some),
        }
    }

    fn utf8(&mut self, length: u64) -> Result<Box<str>, Corrupt> {
        std::str::from_utf8(self.bytes(length)?).map(Box::from).map_err(|_| Corrupt)
    }

    fn flag(&mut self) -> Result<bool, Corrupt> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt),
        }
    }

    fn wall(&mut self) -> Result<Wall, Corrupt> {
        self.number().map(Wall)
    }

    fn wall_option(&mut self) -> Result<Option<Wall>, Corrupt> {
        Ok(if self.flag()? { Some(self.wall()?) } else { None })
    }

    fn hash_option(&mut self) -> Result<Option<SecretHash>, Corrupt> {
        Ok(if self.flag()? { Some(self.array()?) } else { None })
    }

    fn user(&mut self) -> Result<UserId, Corrupt> {
        UserId::new(self.number()?).map_err(|_| Corrupt)
    }

    fn message_id(&mut self) -> Result<MessageId, Corrupt> {
        MessageId::from_key(self.array()?).map_err(|_| Corrupt)
    }

    fn end(self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { Err(Corrupt) }
    }
}

/// Messages of one period, ascending, with their conversations. The first one stands in the key; of the others the
/// period does.
pub(super) fn put_group(out: &mut Vec<u8>, group: &[(MessageId, ConversationId)]) {
    let mut fields = Encoder::new(out);
    for (number, (message, conversation)) in group.iter().enumerate() {
        if number > 0 {
            fields.bytes(&message.to_key()[PERIOD_BYTES..]);
        }
        fields.number(conversation.value());
    }
}

/// The conversation of `message`, if it is in the group that begins with `first`.
pub(super) fn find_in_group(first: MessageId, value: &[u8], message: MessageId) -> Result<Option<ConversationId>, Corrupt> {
    let found = group(first, value)?.into_iter().find(|(there, _)| *there == message);
    Ok(found.map(|(_, conversation)| conversation))
}

/// The messages of the group that begins with `first`, ascending, with their conversations.
pub(super) fn group(first: MessageId, value: &[u8]) -> Result<Vec<(MessageId, ConversationId)>, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let (mut key, mut group) = (first.to_key(), Vec::new());
    loop {
        let conversation = ConversationId::new(fields.number()?).map_err(|_| Corrupt)?;
        group.push((MessageId::from_key(key).map_err(|_| Corrupt)?, conversation));
        if fields.0.is_empty() {
            return Ok(group);
        }
        key[PERIOD_BYTES..].copy_from_slice(&fields.array::<{ 16 - PERIOD_BYTES }>()?);
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, value: u64) {
    Encoder::new(out).number(value);
}

pub(super) fn number(value: &[u8]) -> Result<u64, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let number = fields.number()?;
    fields.end().map(|()| number)
}

/// The id of the message and its conversation stand in the key.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    let mut fields = Encoder::new(out);
    fields.number(message.sender.value());
    fields.number(message.sequence);
    fields.number(u64::from(message.prev.is_some()));
    if let Some(prev) = message.prev {
        fields.bytes(&prev.to_key());
    }
    fields.text_option(message.client_id.as_deref());
    fields.number(message.headers.len() as u64);
    for (name, value) in &message.headers {
        fields.text(name);
        fields.text(value);
    }
    fields.bytes(message.content.as_bytes());
}

pub(super) fn message(conversation: ConversationId, id: MessageId, value: &[u8]) -> Result<Message, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let sender = fields.user()?;
    let sequence = fields.number()?;
    let prev = if fields.flag()? { Some(fields.message_id()?) } else { None };
    let client_id = fields.text_option()?;
    let count = fields.number()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((fields.text()?, fields.text()?));
    }
    let content = std::str::from_utf8(fields.0).map_err(|_| Corrupt)?.into();
    Ok(Message { id, conversation, sender, content, client_id, prev, sequence, headers })
}

/// Sender and sequence alone, for heads and marks.
pub(super) fn message_sender(value: &[u8]) -> Result<(UserId, u64), Corrupt> {
    let mut fields = Decoder::new(value)?;
    Ok((fields.user()?, fields.number()?))
}

/// Without participants: they have rows of their own.
pub(super) fn put_conversation(out: &mut Vec<u8>, conversation: &Conversation) {
    let mut fields = Encoder::new(out);
    fields.number(match conversation.kind {
        ConversationKind::Direct => 0,
        ConversationKind::Group => 1,
    });
    fields.text_option(conversation.title.as_deref());
    fields.number(conversation.created_by.value());
    fields.number(conversation.created_at.0);
}

pub(super) fn conversation(id: ConversationId, value: &[u8]) -> Result<Conversation, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let kind = if fields.flag()? { ConversationKind::Group } else { ConversationKind::Direct };
    let title = fields.text_option()?;
    let created_by = fields.user()?;
    let created_at = fields.wall()?;
    fields.end()?;
    Ok(Conversation { id, kind, title, created_by, created_at, participants: Vec::new() })
}

pub(super) fn put_participant(out: &mut Vec<u8>, participant: &Participant) {
    let mut fields = Encoder::new(out);
    fields.number(match participant.role {
        ParticipantRole::Member => 0,
        ParticipantRole::Admin => 1,
    });
    fields.number(participant.joined_at.0);
}

pub(super) fn participant(user: UserId, value: &[u8]) -> Result<Participant, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let role = if fields.flag()? { ParticipantRole::Admin } else { ParticipantRole::Member };
    let joined_at = fields.wall()?;
    fields.end()?;
    Ok(Participant { user, role, joined_at })
}

pub(super) fn put_client_id(out: &mut Vec<u8>, row: ClientIdRow) {
    let mut fields = Encoder::new(out);
    fields.bytes(&row.message.to_key());
    fields.number(row.expires.0);
}

pub(super) fn client_id(value: &[u8]) -> Result<ClientIdRow, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let row = ClientIdRow { message: fields.message_id()?, expires: fields.wall()? };
    fields.end().map(|()| row)
}

pub(super) fn put_mark(out: &mut Vec<u8>, row: MarkRow) {
    let mut fields = Encoder::new(out);
    fields.bytes(&row.message.to_key());
    fields.number(row.sequence);
    if row.leads {
        fields.number(1);
    }
}

pub(super) fn mark(value: &[u8]) -> Result<MarkRow, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let (message, sequence) = (fields.message_id()?, fields.number()?);
    let leads = match fields.0 {
        [] => false,
        [1] => true,
        _ => return Err(Corrupt),
    };
    Ok(MarkRow { message, sequence, leads })
}

pub(super) fn put_user(out: &mut Vec<u8>, user: &User) {
    let mut fields = Encoder::new(out);
    fields.number(user.roles.len() as u64);
    for role in &user.roles {
        fields.text(role);
    }
    fields.text_option(user.display_name.as_deref());
}

pub(super) fn user(user: UserId, value: &[u8]) -> Result<User, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let mut roles = Vec::new();
    for _ in 0..fields.number()? {
        roles.push(fields.text()?);
    }
    let display_name = fields.text_option()?;
    fields.end()?;
    Ok(User { user, roles, display_name })
}

pub(super) fn put_code(out: &mut Vec<u8>, row: &CodeRow) {
    let mut fields = Encoder::new(out);
    fields.number(u64::from(row.live.is_some()));
    if let Some(live) = row.live {
        fields.bytes(&live.code);
        fields.number(live.expires.0);
        fields.number(u64::from(live.wrong_attempts));
    }
    fields.number(row.sent.len() as u64);
    for at in &row.sent {
        fields.number(at.0);
    }
    fields.number(u64::from(row.last_attempt.is_some()));
    if let Some((at, code, right)) = row.last_attempt {
        fields.number(at.0);
        fields.bytes(&code);
        fields.number(u64::from(right));
    }
}

pub(super) fn code(value: &[u8]) -> Result<CodeRow, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let mut row = CodeRow::default();
    if fields.flag()? {
        let (code, expires) = (fields.array()?, fields.wall()?);
        let wrong_attempts = u32::try_from(fields.number()?).map_err(|_| Corrupt)?;
        row.live = Some(LiveCode { code, expires, wrong_attempts });
    }
    for _ in 0..fields.number()? {
        row.sent.push(fields.wall()?);
    }
    if fields.flag()? {
        row.last_attempt = Some((fields.wall()?, fields.array()?, fields.flag()?));
    }
    fields.end().map(|()| row)
}

pub(super) fn put_token(out: &mut Vec<u8>, row: &TokenRow) {
    let mut fields = Encoder::new(out);
    fields.number(row.user.value());
    fields.bytes(&row.family.0.to_be_bytes());
    fields.number(row.expires.0);
    fields.number(u64::from(row.next.is_some()));
    fields.bytes(row.next.as_ref().map_or(&[], |next| &next[..]));
}

pub(super) fn token(value: &[u8]) -> Result<TokenRow, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let user = fields.user()?;
    let family = FamilyId(u64::from_be_bytes(fields.array()?));
    let expires = fields.wall()?;
    let next = fields.hash_option()?;
    fields.end()?;
    Ok(TokenRow { user, family, expires, next })
}

pub(super) fn put_family(out: &mut Vec<u8>, row: &FamilyRow) {
    let mut fields = Encoder::new(out);
    fields.number(row.user.value());
    fields.number(row.expires.0);
    fields.wall_option(row.revoked);
}

pub(super) fn family(value: &[u8]) -> Result<FamilyRow, Corrupt> {
    let mut fields = Decoder::new(value)?;
    let row = FamilyRow { user: fields.user()?, expires: fields.wall()?, revoked: fields.wall_option()? };
    fields.end().map(|()| row)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Reads back the written value, and refuses one that is shorter or longer.
    fn check<T: PartialEq + Debug>(row: &T, value: &[u8], read: impl Fn(&[u8]) -> Result<T, Corrupt>, exact: bool) {
        assert_eq!(read(value).as_ref(), Ok(row));
        for end in 0..value.len() {
            assert!(read(&value[..end]).as_ref() != Ok(row), "{row:?} from {end} bytes");
            assert!(!exact || read(&value[..end]) == Err(Corrupt), "{row:?} from {end} bytes");
        }
        let longer = [value, &[0]].concat();
        assert!(!exact || read(&longer) == Err(Corrupt));
        let newer = [&[VERSION + 1], &value[1..]].concat();
        assert_eq!(read(&newer), Err(Corrupt));
    }

    fn id(ticks: u64) -> MessageId {
        MessageId::from_parts(Wall(ticks), 1, 2)
    }

    #[test]
    fn messages_round_trip() {
        let conversation = ConversationId::new(5).unwrap();
        let plain = Message {
            id: id(9),
            conversation,
            sender: UserId::new(1 << 50).unwrap(),
            content: "tschüss".into(),
            client_id: None,
            prev: None,
            sequence: 1,
            headers: Vec::new(),
        };
        let full = Message {
            client_id: Some("".into()),
            prev: Some(id(8)),
            sequence: u64::MAX,
            headers: vec![("a".into(), "".into()), ("".into(), "b".into())],
            ..plain.clone()
        };
        let mut out = Vec::new();
        for row in [plain, full] {
            put_message(&mut out, &row);
            assert_eq!(message_sender(&out), Ok((row.sender, row.sequence)));
            // The content goes to the end of the value, so that a shorter value may be a shorter message.
            check(&row, &out, |value| message(conversation, row.id, value), false);
        }
    }

    #[test]
    fn a_group_tells_the_conversations_of_its_messages() {
        /// Where a period begins: the last 16 bits of the ticks of 1970-01-01 are 0x4000.
        const PERIOD: u64 = (8 << 16) - 0x4000;
        let [one, two] = [1, u64::pow(2, 53) - 1].map(|value| ConversationId::new(value).unwrap());
        let ids = [0, 1, 0xFFFF].map(|ticks| MessageId::from_parts(Wall(PERIOD + ticks), 3, 9));
        let group = [(ids[0], one), (ids[1], two), (ids[2], one)];
        let mut out = Vec::new();
        for count in 1..=3 {
            put_group(&mut out, &group[..count]);
            assert_eq!(super::group(ids[0], &out).as_deref(), Ok(&group[..count]));
            let find = |message| find_in_group(ids[0], &out, message);
            for (number, (message, conversation)) in group.iter().enumerate() {
                assert_eq!(find(*message), Ok((number < count).then_some(*conversation)));
            }
            assert_eq!(find(MessageId::from_parts(Wall(PERIOD + 1), 3, 8)), Ok(None));
        }
        // Cut between two messages it is a shorter group; the engine's checksums stand against that.
        let whole: Vec<usize> = (1..=3)
            .map(|count| {
                put_group(&mut out, &group[..count]);
                out.len()
            })
            .collect();
        for length in (0..out.len()).filter(|length| !whole.contains(length)) {
            assert_eq!(find_in_group(ids[0], &out[..length], ids[0]), Err(Corrupt), "{length}");
        }
    }

    #[test]
    fn rows_round_trip() {
        let (user_id, out) = (UserId::new(3).unwrap(), &mut Vec::new());
        let row = User { user: user_id, roles: vec!["admin".into(), "".into()], display_name: Some("".into()) };
        put_user(out, &row);
        check(&row, out, |value| user(user_id, value), true);

        let row = ClientIdRow { message: id(7), expires: Wall(u64::MAX) };
        put_client_id(out, row);
        check(&row, out, client_id, true);

        let row = MarkRow { message: id(7), sequence: 300, leads: false };
        put_mark(out, row);
        check(&row, out, mark, true);
        let plain = out.clone();
        let row = MarkRow { leads: true, ..row };
        put_mark(out, row);
        assert_eq!((mark(out), &out[..plain.len()]), (Ok(row), &plain[..]));

        let live = LiveCode { code: [1; 32], expires: Wall(5), wrong_attempts: 4 };
        let row = CodeRow { live: Some(live), sent: vec![Wall(1), Wall(2)], last_attempt: Some((Wall(3), [2; 32], true)) };
        put_code(out, &row);
        check(&row, out, code, true);
        put_code(out, &CodeRow::default());
        check(&CodeRow::default(), out, code, true);

        let row = TokenRow { user: user_id, family: FamilyId(u64::MAX), expires: Wall(1), next: Some([9; 32]) };
        put_token(out, &row);
        check(&row, out, token, true);

        let row = FamilyRow { user: user_id, expires: Wall(1), revoked: Some(Wall(0)) };
        put_family(out, &row);
        check(&row, out, family, true);
    }

    #[test]
    fn numbers_that_are_too_long_are_corrupt() {
        for (bytes, expect) in [
            (&[1, 0x7F][..], Ok(127)),
            (&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], Ok(u64::MAX)),
            (&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2], Err(Corrupt)),
            (&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0], Err(Corrupt)),
            (&[1, 0x80], Err(Corrupt)),
            (&[], Err(Corrupt)),
        ] {
            assert_eq!(number(bytes), expect, "{bytes:?}");
        }
    }
}
