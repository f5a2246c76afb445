//! The values that clients receive: bodies of MESSAGE frames and parts of REST responses.

use crate::model::message::{
    Conversation, ConversationKind, ConversationSummary, Message, Participant, ParticipantRole, ReadMark,
};
use crate::model::{ConversationId, Refusal};
use crate::protocol::json::write::ObjectWriter;

/// Bytes of a message's JSON apart from its content and client id: member names, two numbers, two UUIDs and the time.
const MESSAGE_FRAME_BYTES: usize = 240;

/// `{id, conversationId, senderId, content, createdAt, erased?, clientMessageId?, prev?}`
pub fn message_dto(message: &Message, out: &mut Vec<u8>) {
    out.reserve(MESSAGE_FRAME_BYTES + message.content.len());
    let object = ObjectWriter::new(out)
        .message_id("id", message.id)
        .number("conversationId", message.conversation.value())
        .number("senderId", message.sender.value())
        .string("content", &message.content)
        .time("createdAt", message.created_at());
    let object = if message.is_erased() { object.boolean("erased", true) } else { object };
    with_prev(object.optional_string("clientMessageId", message.client_id.as_deref()), message).end();
}

/// Acknowledges a stored message to the sending session, without its content:
/// `{id, conversationId, clientMessageId?, createdAt, prev?, replay}`.
pub fn ack(message: &Message, replay: bool, out: &mut Vec<u8>) {
    let object = ObjectWriter::new(out)
        .message_id("id", message.id)
        .number("conversationId", message.conversation.value())
        .optional_string("clientMessageId", message.client_id.as_deref())
        .time("createdAt", message.created_at());
    with_prev(object, message).boolean("replay", replay).end();
}

fn with_prev<'a>(object: ObjectWriter<'a>, message: &Message) -> ObjectWriter<'a> {
    match message.prev {
        Some(prev) => object.message_id("prev", prev),
        None => object,
    }
}

/// `{code, message, receipt?}`: the only error body; `receipt` is that of the refused frame.
pub fn error_body(refusal: &Refusal, receipt: Option<&str>, out: &mut Vec<u8>) {
    let object = ObjectWriter::new(out).string("code", refusal.code.name()).string("message", &refusal.message);
    object.optional_string("receipt", receipt).end();
}

/// Reports to the other participants how far one has read: `{type: "read", conversationId, messageId, userId}`.
pub fn read_mark_event(conversation: ConversationId, mark: &ReadMark, out: &mut Vec<u8>) {
    ObjectWriter::new(out)
        .string("type", "read")
        .number("conversationId", conversation.value())
        .message_id("messageId", mark.message)
        .number("userId", mark.user.value())
        .end();
}

/// `{messageId, userId}`: a read mark inside its conversation.
pub fn read_mark(mark: &ReadMark, out: &mut Vec<u8>) {
    ObjectWriter::new(out).message_id("messageId", mark.message).number("userId", mark.user.value()).end();
}

/// `{id, kind, title?, createdBy, createdAt, participants}`
pub fn conversation_dto(conversation: &Conversation, out: &mut Vec<u8>) {
    conversation_members(conversation, out).end();
}

/// A conversation with `lastMessage?` and `unreadCount`.
pub fn conversation_summary(summary: &ConversationSummary, out: &mut Vec<u8>) {
    let mut object = conversation_members(&summary.conversation, out);
    if let Some(message) = &summary.last_message {
        object = object.value("lastMessage", |out| message_dto(message, out));
    }
    object.number("unreadCount", summary.unread).end();
}

fn conversation_members<'a>(conversation: &Conversation, out: &'a mut Vec<u8>) -> ObjectWriter<'a> {
    ObjectWriter::new(out)
        .number("id", conversation.id.value())
        .string("kind", kind_name(conversation.kind))
        .optional_string("title", conversation.title.as_deref())
        .number("createdBy", conversation.created_by.value())
        .time("createdAt", conversation.created_at)
        .array("participants", &conversation.participants, participant)
}

/// `{userId, role, joinedAt}`
fn participant(participant: &Participant, out: &mut Vec<u8>) {
    ObjectWriter::new(out)
        .number("userId", participant.user.value())
        .string("role", role_name(participant.role))
        .time("joinedAt", participant.joined_at)
        .end();
}

/// The wire name of a kind, in both directions.
#[must_use]
pub const fn kind_name(kind: ConversationKind) -> &'static str {
    match kind {
        ConversationKind::Direct => "direct",
        ConversationKind::Group => "group",
    }
}

/// The wire name of a role, in both directions.
#[must_use]
pub const fn role_name(role: ParticipantRole) -> &'static str {
    match role {
        ParticipantRole::Member => "member",
        ParticipantRole::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MessageId, RefusalCode, UserId, Wall};

    const ID: &str = "c232ab00-9414-11ec-b3c8-9f6bdeced846";

    fn message(client_id: Option<&str>, prev: bool) -> Message {
        let id: MessageId = ID.parse().unwrap();
        Message {
            id,
            conversation: ConversationId::new(7).unwrap(),
            sender: UserId::new(42).unwrap(),
            content: "say \"hi\"\n".into(),
            client_id: client_id.map(Into::into),
            prev: prev.then_some(id),
            sequence: 3,
            headers: vec![("x".into(), "y".into())],
        }
    }

    fn check(write: impl FnOnce(&mut Vec<u8>), expect: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn messages_and_acks() {
        let expect = r#"{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":7,"senderId":42,"content":"say \"hi\"\n","createdAt":"2022-02-22T19:22:22.000000Z"}"#;
        check(|out| message_dto(&message(None, false), out), expect);
        let expect = r#"{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":7,"senderId":42,"content":"say \"hi\"\n","createdAt":"2022-02-22T19:22:22.000000Z","clientMessageId":"k\"1","prev":"c232ab00-9414-11ec-b3c8-9f6bdeced846"}"#;
        check(|out| message_dto(&message(Some("k\"1"), true), out), expect);
        let expect = r#"{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":7,"senderId":42,"content":"","createdAt":"2022-02-22T19:22:22.000000Z","erased":true,"prev":"c232ab00-9414-11ec-b3c8-9f6bdeced846"}"#;
        check(|out| message_dto(&message(Some("k"), true).erased(), out), expect);
        let expect = r#"{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":7,"clientMessageId":"k","createdAt":"2022-02-22T19:22:22.000000Z","prev":"c232ab00-9414-11ec-b3c8-9f6bdeced846","replay":true}"#;
        check(|out| ack(&message(Some("k"), true), true, out), expect);
    }

    #[test]
    fn errors_and_marks() {
        let refusal = Refusal::new(RefusalCode::RateLimited, "60 messages a minute");
        check(|out| error_body(&refusal, None, out), r#"{"code":"rate_limited","message":"60 messages a minute"}"#);
        let expect = r#"{"code":"rate_limited","message":"60 messages a minute","receipt":"r\"1"}"#;
        check(|out| error_body(&refusal, Some("r\"1"), out), expect);
        let mark = ReadMark { user: UserId::new(42).unwrap(), message: ID.parse().unwrap(), sequence: 3 };
        let expect = r#"{"type":"read","conversationId":7,"messageId":"c232ab00-9414-11ec-b3c8-9f6bdeced846","userId":42}"#;
        check(|out| read_mark_event(ConversationId::new(7).unwrap(), &mark, out), expect);
        check(|out| read_mark(&mark, out), r#"{"messageId":"c232ab00-9414-11ec-b3c8-9f6bdeced846","userId":42}"#);
    }

    #[test]
    fn conversations() {
        let member = |user, role| Participant { user: UserId::new(user).unwrap(), role, joined_at: Wall(0) };
        let conversation = Conversation {
            id: ConversationId::new(7).unwrap(),
            kind: ConversationKind::Group,
            title: Some("Tea".into()),
            created_by: UserId::new(1).unwrap(),
            created_at: Wall(0),
            participants: vec![member(1, ParticipantRole::Admin), member(2, ParticipantRole::Member)],
        };
        let expect = r#"{"id":7,"kind":"group","title":"Tea","createdBy":1,"createdAt":"1970-01-01T00:00:00.000000Z","participants":[{"userId":1,"role":"admin","joinedAt":"1970-01-01T00:00:00.000000Z"},{"userId":2,"role":"member","joinedAt":"1970-01-01T00:00:00.000000Z"}]}"#;
        check(|out| conversation_dto(&conversation, out), expect);
        let direct = Conversation { kind: ConversationKind::Direct, title: None, participants: vec![], ..conversation };
        let mut summary = ConversationSummary { conversation: direct, last_message: None, unread: 5 };
        let expect = r#"{"id":7,"kind":"direct","createdBy":1,"createdAt":"1970-01-01T00:00:00.000000Z","participants":[],"unreadCount":5}"#;
        check(|out| conversation_summary(&summary, out), expect);
        summary.last_message = Some(message(None, false).into());
        let mut out = Vec::new();
        conversation_summary(&summary, &mut out);
        assert!(String::from_utf8(out).unwrap().contains(r#""participants":[],"lastMessage":{"id":"c232ab00"#));
    }
}
