//! One line: a JSON object that is a conversation or a message, under the names of the REST API.
//!
//! ```text
//! {"conversationId": 7, "participants": [1, 2], "kind": "direct", "title": "..", "createdBy": 1, "createdAt": ".."}
//! {"conversationId": 7, "senderId": 1, "content": "..", "createdAt": "..", "clientMessageId": ".."}
//! ```
//!
//! A line with `participants` is a conversation. Other members are ignored, so that messages can be imported as the
//! API returns them.

use crate::api::body::{self, Named};
use crate::model::message::{ConversationKind, Draft};
use crate::model::{ConversationId, Refusal, UserId, Wall};
use crate::protocol::json::read::{Object, Reader, bad_request, missing};
use crate::protocol::json::send::SendBody;
use crate::session::content;

use super::Rules;
use super::time::rfc_3339;

/// The longest line, without its end: the size of a request's body.
pub const LINE_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug)]
pub(super) enum Line {
    Conversation(ConversationLine),
    Message(MessageLine),
}

#[derive(Debug)]
pub(super) struct ConversationLine {
    pub(super) id: ConversationId,
    pub(super) kind: ConversationKind,
    /// Ascending, no user twice.
    pub(super) participants: Vec<UserId>,
    pub(super) title: Option<Box<str>>,
    pub(super) created_by: UserId,
    pub(super) created_at: Option<Wall>,
}

#[derive(Debug)]
pub(super) struct MessageLine {
    pub(super) conversation: ConversationId,
    pub(super) sender: UserId,
    pub(super) draft: Draft,
    pub(super) created_at: Wall,
}

/// # Errors
/// The fault of the line.
pub(super) fn parse(reader: &mut Reader, text: &[u8], rules: &Rules, now: Wall) -> Result<Line, String> {
    let line = reader.read(text, |object| {
        let conversation = object.id("conversationId", ConversationId::new)?.ok_or_else(|| missing("conversationId"))?;
        match object.users("participants", usize::MAX)? {
            Some(listed) => parse_conversation(object, conversation, &listed, rules, now).map(Line::Conversation),
            None => parse_message(object, conversation, rules, now).map(Line::Message),
        }
    });
    // The reader is that of requests, which have bodies.
    line.map_err(|refusal| refusal.message.replacen("the body", "the line", 1))
}

fn parse_conversation(
    object: &Object<'_>,
    id: ConversationId,
    listed: &[UserId],
    rules: &Rules,
    now: Wall,
) -> Result<ConversationLine, Refusal> {
    let Named { kind, participants, title } = body::named(object, &rules.limits)?;
    let created_by = object.id("createdBy", UserId::new)?;
    let created_by = created_by.or_else(|| listed.first().copied()).ok_or_else(|| missing("createdBy"))?;
    Ok(ConversationLine { id, kind, participants, title, created_by, created_at: time(object, now)? })
}

fn parse_message(object: &Object<'_>, conversation: ConversationId, rules: &Rules, now: Wall) -> Result<MessageLine, Refusal> {
    let sender = object.id("senderId", UserId::new)?.ok_or_else(|| missing("senderId"))?;
    let mut draft = SendBody::of(object)?.into_draft(None, Vec::new(), &rules.limits)?;
    let checked = content::check(&draft.content, rules.limits.content_chars, rules.sanitize)?;
    if let std::borrow::Cow::Owned(safe) = checked {
        draft.content = safe.into();
    }
    let created_at = time(object, now)?.ok_or_else(|| missing("createdAt"))?;
    Ok(MessageLine { conversation, sender, draft, created_at })
}

/// A time after now is refused: the conversation's next message would have to be later still.
fn time(object: &Object<'_>, now: Wall) -> Result<Option<Wall>, Refusal> {
    let Some(text) = object.string("createdAt")? else { return Ok(None) };
    let at = rfc_3339(text).ok_or_else(|| bad_request("createdAt is no time of RFC 3339 since 1970"))?;
    if now < at { Err(bad_request("createdAt is in the future")) } else { Ok(Some(at)) }
}
