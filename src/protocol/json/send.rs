//! The body of a message to send, the same over STOMP and REST.

use crate::model::message::Draft;
use crate::model::{ConversationId, Limits, Refusal, RefusalCode};
use crate::protocol::json::read::{Object, Reader, bad_request};

/// `{"conversationId":1,"content":"..","clientMessageId":".."}`; other members are ignored.
#[derive(Clone, PartialEq, Eq)]
pub struct SendBody {
    /// Required where neither destination nor path names the conversation.
    pub conversation: Option<ConversationId>,
    pub content: String,
    pub client_message_id: Option<String>,
}

/// Hides the content, which must not reach a log.
impl std::fmt::Debug for SendBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBody").field("conversation", &self.conversation).finish_non_exhaustive()
    }
}

impl SendBody {
    /// Reads a body with buffers of its own; for many bodies, [`read`](Self::read) saves their allocation.
    ///
    /// # Errors
    /// `content_invalid` when it is not UTF-8; `bad_request`, naming the member, for everything else.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        Self::read(&mut Reader::new(), body)
    }

    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn read(reader: &mut Reader, body: &[u8]) -> Result<Self, Refusal> {
        reader.read(body, Self::of)
    }

    /// Reads these members from an object that also has others.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of(object: &Object<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            conversation: object.id("conversationId", ConversationId::new)?,
            content: object.required_string("content")?.to_owned(),
            client_message_id: object.string("clientMessageId")?.map(str::to_owned),
        })
    }

    /// The draft to store, once its lengths are within bounds. `header_key` is the header `client-message-id`, `headers`
    /// are those that are passed on to receivers.
    ///
    /// # Errors
    /// `content_empty`, `content_too_long`, or `bad_request` for a client message id that is empty, too long, or not the
    /// same in header and body.
    pub fn into_draft(
        self,
        header_key: Option<&str>,
        headers: Vec<(Box<str>, Box<str>)>,
        limits: &Limits,
    ) -> Result<Draft, Refusal> {
        check_content(&self.content, limits)?;
        let client_id = match (self.client_message_id.as_deref(), header_key) {
            (Some(body), Some(header)) if body != header => {
                return Err(bad_request("clientMessageId and the header client-message-id differ"));
            }
            (body, header) => body.or(header),
        };
        if let Some(id) = client_id {
            check_client_id(id, limits)?;
        }
        let client_id = client_id.map(Into::into);
        Ok(Draft { content: self.content.into_boxed_str(), client_id, headers })
    }
}

fn check_content(content: &str, limits: &Limits) -> Result<(), Refusal> {
    if content.is_empty() {
        return Err(Refusal::new(RefusalCode::ContentEmpty, "content is empty"));
    }
    // A text never has more characters than bytes, so a short text need not be counted.
    if content.len() > limits.content_chars && content.chars().count() > limits.content_chars {
        let message = format!("content is longer than {} characters", limits.content_chars);
        return Err(Refusal::new(RefusalCode::ContentTooLong, message));
    }
    Ok(())
}

fn check_client_id(id: &str, limits: &Limits) -> Result<(), Refusal> {
    if id.is_empty() || id.len() > limits.client_message_id_bytes {
        let bytes = limits.client_message_id_bytes;
        return Err(bad_request(format!("a client message id has 1 to {bytes} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(body: &str, header: Option<&str>) -> Result<Draft, RefusalCode> {
        let limits = Limits { content_chars: 4, client_message_id_bytes: 3, ..Limits::default() };
        SendBody::parse(body.as_bytes())
            .and_then(|body| body.into_draft(header, Vec::new(), &limits))
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn bodies_of_the_guide_are_read() {
        let check = |body: &str, conversation: Option<u64>, content: &str, key: Option<&str>| {
            let conversation = conversation.map(|id| ConversationId::new(id).unwrap());
            let expect = SendBody { conversation, content: content.to_owned(), client_message_id: key.map(str::to_owned) };
            assert_eq!(SendBody::parse(body.as_bytes()), Ok(expect), "{body}");
        };
        check(r#"{"content":"Hello"}"#, None, "Hello", None);
        check(r#"{"conversationId":1,"content":"Test message"}"#, Some(1), "Test message", None);
        check(r#"{"conversationId":"1","content":"","clientMessageId":"k","echo":true}"#, Some(1), "", Some("k"));
    }

    #[test]
    fn a_refusal_names_the_fault() {
        let check = |body: &[u8], code: RefusalCode, message: &str| {
            assert_eq!(SendBody::parse(body), Err(Refusal::new(code, message.to_owned())));
        };
        check(b"", RefusalCode::BadRequest, "the body is empty, a JSON object is expected");
        check(b"Hello", RefusalCode::BadRequest, "the body is not valid JSON");
        check(b"{}", RefusalCode::BadRequest, "content is missing");
        check(b"{\"content\":null}", RefusalCode::BadRequest, "content is missing");
        check(b"{\"content\":1}", RefusalCode::BadRequest, "content must be a string");
        check(b"{\"content\":\"\xff\"}", RefusalCode::ContentInvalid, "the body is not valid UTF-8");
        let expect = "conversationId must be a positive integer below 2^53";
        check(br#"{"content":"x","conversationId":-1}"#, RefusalCode::BadRequest, expect);
    }

    #[test]
    fn lengths_are_checked_in_characters_and_bytes() {
        let content = |body| draft(body, None).map(|draft| draft.content.into_string());
        assert_eq!(content(r#"{"content":""}"#), Err(RefusalCode::ContentEmpty));
        assert_eq!(content(r#"{"content":"ééé"}"#), Ok("ééé".to_owned()));
        assert_eq!(content(r#"{"content":"éééé"}"#), Ok("éééé".to_owned()));
        assert_eq!(content(r#"{"content":"ééééé"}"#), Err(RefusalCode::ContentTooLong));
        let key = |body, header| draft(body, header).map(|draft| draft.client_id.map(String::from));
        assert_eq!(key(r#"{"content":"x"}"#, None), Ok(None));
        assert_eq!(key(r#"{"content":"x"}"#, Some("abc")), Ok(Some("abc".to_owned())));
        assert_eq!(key(r#"{"content":"x","clientMessageId":"abc"}"#, Some("abc")), Ok(Some("abc".to_owned())));
        assert_eq!(key(r#"{"content":"x","clientMessageId":"abc"}"#, Some("abd")), Err(RefusalCode::BadRequest));
        assert_eq!(key(r#"{"content":"x","clientMessageId":"abcd"}"#, None), Err(RefusalCode::BadRequest));
        assert_eq!(key(r#"{"content":"x","clientMessageId":""}"#, None), Err(RefusalCode::BadRequest));
        assert_eq!(key(r#"{"content":"x"}"#, Some("")), Err(RefusalCode::BadRequest));
    }

    #[test]
    fn content_is_never_printed() {
        let body = SendBody::parse(br#"{"content":"hunter2","clientMessageId":"hunter3"}"#).unwrap();
        assert!(!format!("{body:?}").contains("hunter"));
    }
}
