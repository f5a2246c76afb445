//! From an outcome to its response.

use bytes::Bytes;

use crate::api::resource::split_prefix;
use crate::model::command::{HistoryPage, LoggedIn, Outcome, Position};
use crate::model::message::Message;
use crate::model::{Refusal, RefusalCode};
use crate::protocol::http::{Request, Response};
use crate::protocol::json::values::read_mark;
use crate::protocol::json::write::{push_message_id, push_number, push_string};
use crate::protocol::json::{ObjectWriter, conversation_dto, conversation_summary, error_body, message_dto};

/// Methods of all paths. A preflight has no token, so every path gets the same response, which reveals no path.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
/// How long a browser may cache a preflight's response, in seconds: the most that any browser does.
const PREFLIGHT_SECONDS: &str = "7200";

/// Seconds in `Retry-After` when a temporary refusal names none.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The parts of a request that its response depends on: kept while the command is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The prefix under which the client found the API, so that a `Location` leads back through the same proxy.
    prefix: &'static str,
}

impl Context {
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self { prefix: split_prefix(&request.path).0 }
    }
}

/// The response to a request that was carried out or refused. It is the same for HEAD: the codec omits the body.
#[must_use]
pub fn render(context: Context, outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Sent { message, replay } => {
            let status = if *replay { 200 } else { 201 };
            let location = format!("{}/conversations/{}/messages/{}", context.prefix, message.conversation, message.id);
            json(status, |out| message_dto(message, out)).with("Location", location)
        }
        Outcome::Marked(mark) => json(200, |out| read_mark(mark, out)),
        Outcome::ReadMarks(marks) => json(200, |out| ObjectWriter::new(out).array("readMarks", marks, read_mark).end()),
        Outcome::History(page) => json(200, |out| history(page, out)),
        Outcome::Message(message) => json(200, |out| message_dto(message, out)),
        Outcome::Conversation { conversation, created: true } => {
            let location = format!("{}/conversations/{}", context.prefix, conversation.id);
            json(201, |out| conversation_dto(conversation, out)).with("Location", location)
        }
        Outcome::Conversation { conversation, created: false } => json(200, |out| conversation_dto(conversation, out)),
        Outcome::Conversations { summaries, next } => json(200, |out| {
            let object = ObjectWriter::new(out).array("conversations", summaries, conversation_summary);
            match next {
                Some(next) => object.number("nextCursor", next.value()),
                None => object.null("nextCursor"),
            }
            .end();
        }),
        Outcome::Blocks(users) => json(200, |out| {
            ObjectWriter::new(out).array("blocks", users, |user, out| push_number(user.value(), out)).end();
        }),
        Outcome::Me { user, roles, display_name } => json(200, |out| {
            let object = ObjectWriter::new(out).number("id", user.value());
            let object = object.array("roles", roles, |role, out| push_string(role, out));
            object.optional_string("displayName", display_name.as_deref()).end();
        }),
        Outcome::Done => no_store(204),
        Outcome::CodeSent { expires_in_seconds } => json(202, |out| {
            ObjectWriter::new(out).number("expiresIn", u64::from(*expires_in_seconds)).end();
        }),
        Outcome::LoggedIn(login) => json(200, |out| logged_in(login, out)),
        Outcome::Refused(refusal) => refuse(refusal),
    }
}

/// `{messages, nextCursor, hasMore}`. Backward, the cursor is null at the end; forward, it is the position of messages
/// yet to come, so it is never null.
fn history(page: &HistoryPage, out: &mut Vec<u8>) {
    let last = page.messages.last().map(|message| message.id);
    let cursor = match page.from {
        Position::After(after) => Some(last.unwrap_or(after)),
        Position::Newest | Position::Before(_) => last.filter(|_| page.has_more),
    };
    let object = ObjectWriter::new(out).array("messages", &page.messages, |message, out| message_dto(message as &Message, out));
    let object = match cursor {
        Some(id) => object.value("nextCursor", |out| push_message_id(id, out)),
        None => object.null("nextCursor"),
    };
    object.boolean("hasMore", page.has_more).end();
}

/// The members of RFC 6749 section 5.1, under the guide's names.
fn logged_in(login: &LoggedIn, out: &mut Vec<u8>) {
    ObjectWriter::new(out)
        .string("accessToken", login.access_token.expose())
        .string("refreshToken", login.refresh_token.expose())
        .string("tokenType", "Bearer")
        .number("expiresIn", u64::from(login.expires_in_seconds))
        .number("userId", login.user.value())
        .end();
}

/// A refusal as a response: its status, `{code, message}`, `Retry-After` where a retry may succeed, and
/// `WWW-Authenticate` on 401 (RFC 9110 section 11.6.1).
#[must_use]
pub fn refuse(refusal: &Refusal) -> Response {
    let response = json(refusal.code.status(), |out| error_body(refusal, None, out));
    match refusal.code {
        RefusalCode::Unauthorized => response.with("WWW-Authenticate", "Bearer".to_owned()),
        RefusalCode::RateLimited
        | RefusalCode::TooManySessions
        | RefusalCode::StoreBusy
        | RefusalCode::StoreUnavailable
        | RefusalCode::Draining => response.with("Retry-After", refusal.retry_after.unwrap_or(RETRY_AFTER_SECONDS).to_string()),
        // RFC 9110 section 15.5.22 and RFC 6455 section 4.2.2 require these two.
        RefusalCode::UpgradeRequired => {
            response.with("Upgrade", "websocket".to_owned()).with("Sec-WebSocket-Version", "13".to_owned())
        }
        _ => response,
    }
}

/// 404 for an unknown path.
#[must_use]
pub fn nothing_here() -> Response {
    refuse(&Refusal::new(RefusalCode::NotFound, "there is nothing at this path"))
}

/// 405 with the allowed methods.
pub(super) fn method_not_allowed(allow: String) -> Response {
    let message = format!("this path allows {allow}");
    refuse(&Refusal::new(RefusalCode::MethodNotAllowed, message)).with("Allow", allow)
}

/// `GET /healthz` and `/readyz`: `refusal` is the reason why the server is not ready.
#[must_use]
pub fn health(refusal: Option<&Refusal>) -> Response {
    match refusal {
        None => json(200, |out| ObjectWriter::new(out).string("status", "up").end()),
        Some(refusal) => refuse(refusal),
    }
}

/// The response to OPTIONS, which may be a preflight of a page of another origin (Fetch, section 3.3).
#[must_use]
pub fn preflight(request: &Request) -> Response {
    let response = Response::new(204).header("Allow", METHODS);
    if request.header("access-control-request-method").is_none() {
        return response;
    }
    let response = response.header("Access-Control-Allow-Methods", METHODS).header("Access-Control-Max-Age", PREFLIGHT_SECONDS);
    match request.header("access-control-request-headers") {
        Some(headers) => response.header("Access-Control-Allow-Headers", headers),
        None => response,
    }
}

/// A JSON response. All are private or change quickly: no cache may keep them, and no browser may guess another type.
fn json(status: u16, write: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut body = Vec::new();
    write(&mut body);
    let response = no_store(status);
    let response = response.with("Content-Type", "application/json".to_owned());
    Response { body: body.into(), ..response.with("X-Content-Type-Options", "nosniff".to_owned()) }
}

fn no_store(status: u16) -> Response {
    Response { status, headers: vec![("Cache-Control", "no-store".to_owned())], body: Bytes::new() }
}

trait With {
    fn with(self, name: &'static str, value: String) -> Self;
}

impl With for Response {
    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::request::tests::request;
    use crate::model::message::{Conversation, ConversationKind, ConversationSummary, ReadMark};
    use crate::model::{ConversationId, MessageId, Redacted, UserId, Wall};
    use crate::protocol::http::Method;

    const ID: &str = "c232ab00-9414-11ec-b3c8-9f6bdeced846";
    const DTO: &str = r#"{"id":"c232ab00-9414-11ec-b3c8-9f6bdeced846","conversationId":7,"senderId":42,"content":"hi","createdAt":"2022-02-22T19:22:22.000000Z"}"#;

    fn id() -> MessageId {
        ID.parse().unwrap()
    }

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn message() -> Arc<Message> {
        Arc::new(Message {
            id: id(),
            conversation: ConversationId::new(7).unwrap(),
            sender: user(42),
            content: "hi".into(),
            client_id: None,
            prev: None,
            sequence: 1,
            headers: Vec::new(),
        })
    }

    fn conversation() -> Conversation {
        Conversation {
            id: ConversationId::new(7).unwrap(),
            kind: ConversationKind::Direct,
            title: None,
            created_by: user(1),
            created_at: Wall(0),
            participants: Vec::new(),
        }
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// Renders for a request below `/api`; `DTO` in `body` stands for a message.
    fn check(outcome: &Outcome, status: u16, location: Option<&str>, body: &str) {
        let response = render(Context::of(&request(Method::Get, "/api/conversations", &[], "")), outcome);
        assert_eq!(response.status, status, "{outcome:?}");
        assert_eq!(header(&response, "Location"), location, "{outcome:?}");
        assert_eq!(std::str::from_utf8(&response.body), Ok(body.replace("DTO", DTO).as_str()));
        assert_eq!(header(&response, "Cache-Control"), Some("no-store"));
        if !body.is_empty() {
            assert_eq!(header(&response, "Content-Type"), Some("application/json"));
            assert_eq!(header(&response, "X-Content-Type-Options"), Some("nosniff"));
        }
    }

    #[test]
    fn sends_report_the_location_of_the_message() {
        let location = format!("/api/conversations/7/messages/{ID}");
        check(&Outcome::Sent { message: message(), replay: false }, 201, Some(&location), "DTO");
        check(&Outcome::Sent { message: message(), replay: true }, 200, Some(&location), "DTO");
        let plain = render(
            Context::of(&request(Method::Post, "/conversations/7/messages", &[], "")),
            &Outcome::Sent { message: message(), replay: false },
        );
        assert_eq!(header(&plain, "Location"), location.strip_prefix("/api"));
    }

    #[test]
    fn pages_continue_at_their_end() {
        let page = |from: Position, count: usize, has_more: bool| {
            Outcome::History(HistoryPage { messages: vec![message(); count], has_more, from })
        };
        let cursor = format!(r#""nextCursor":"{ID}""#);
        check(&page(Position::Newest, 0, false), 200, None, r#"{"messages":[],"nextCursor":null,"hasMore":false}"#);
        check(&page(Position::Newest, 1, false), 200, None, r#"{"messages":[DTO],"nextCursor":null,"hasMore":false}"#);
        let expect = format!(r#"{{"messages":[DTO,DTO],{cursor},"hasMore":true}}"#);
        check(&page(Position::Before(MessageId::MAX), 2, true), 200, None, &expect);
        check(&page(Position::After(MessageId::MIN), 2, true), 200, None, &expect);
        let expect = format!(r#"{{"messages":[DTO],{cursor},"hasMore":false}}"#);
        check(&page(Position::After(MessageId::MIN), 1, false), 200, None, &expect);
        let expect = format!(r#"{{"messages":[],{cursor},"hasMore":false}}"#);
        check(&page(Position::After(id()), 0, false), 200, None, &expect);
    }

    #[test]
    fn conversations_and_marks() {
        let dto = r#"{"id":7,"kind":"direct","createdBy":1,"createdAt":"1970-01-01T00:00:00.000000Z","participants":[]"#;
        let outcome = |created| Outcome::Conversation { conversation: Arc::new(conversation()), created };
        check(&outcome(true), 201, Some("/api/conversations/7"), &format!("{dto}}}"));
        check(&outcome(false), 200, None, &format!("{dto}}}"));
        let summary = ConversationSummary { conversation: conversation(), last_message: Some(message()), unread: 2 };
        let next = ConversationId::new(7).ok();
        let expect = format!(r#"{{"conversations":[{dto},"lastMessage":DTO,"unreadCount":2}}],"nextCursor":7}}"#);
        check(&Outcome::Conversations { summaries: vec![summary], next }, 200, None, &expect);
        let expect = r#"{"conversations":[],"nextCursor":null}"#;
        check(&Outcome::Conversations { summaries: Vec::new(), next: None }, 200, None, expect);
        let mark = ReadMark { user: user(42), message: id(), sequence: 9 };
        let expect = format!(r#"{{"messageId":"{ID}","userId":42}}"#);
        check(&Outcome::Marked(mark), 200, None, &expect);
        check(&Outcome::ReadMarks(vec![mark]), 200, None, &format!(r#"{{"readMarks":[{expect}]}}"#));
        check(&Outcome::Message(message()), 200, None, "DTO");
    }

    #[test]
    fn users_and_logins() {
        check(&Outcome::Blocks(vec![user(2), user(3)]), 200, None, r#"{"blocks":[2,3]}"#);
        let me = |display_name| Outcome::Me { user: user(42), roles: vec!["admin".into()], display_name };
        check(&me(None), 200, None, r#"{"id":42,"roles":["admin"]}"#);
        check(&me(Some("Ann".into())), 200, None, r#"{"id":42,"roles":["admin"],"displayName":"Ann"}"#);
        check(&Outcome::Done, 204, None, "");
        check(&Outcome::CodeSent { expires_in_seconds: 300 }, 202, None, r#"{"expiresIn":300}"#);
        let login = LoggedIn {
            user: user(42),
            access_token: Redacted::new("a.b.c".to_owned()),
            refresh_token: Redacted::new("r".to_owned()),
            expires_in_seconds: 900,
        };
        let expect = r#"{"accessToken":"a.b.c","refreshToken":"r","tokenType":"Bearer","expiresIn":900,"userId":42}"#;
        check(&Outcome::LoggedIn(login), 200, None, expect);
    }

    #[test]
    fn refusals_report_when_to_retry() {
        let refused = |refusal: Refusal| {
            let response = render(Context { prefix: "" }, &Outcome::Refused(refusal));
            (response.status, header(&response, "Retry-After").map(str::to_owned), response)
        };
        let (status, retry, response) = refused(Refusal::new(RefusalCode::RateLimited, "slow").retry_after(7));
        assert_eq!(
            (status, retry.as_deref(), &response.body[..]),
            (429, Some("7"), &br#"{"code":"rate_limited","message":"slow"}"#[..])
        );
        let (status, retry, _) = refused(Refusal::new(RefusalCode::StoreBusy, "busy"));
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
        let (status, retry, response) = refused(Refusal::new(RefusalCode::Unauthorized, "no"));
        assert_eq!((status, retry, header(&response, "WWW-Authenticate")), (401, None, Some("Bearer")));
        let (status, _, response) = refused(Refusal::new(RefusalCode::UpgradeRequired, "no"));
        assert_eq!((status, header(&response, "Upgrade")), (426, Some("websocket")));
        assert_eq!(header(&response, "Sec-WebSocket-Version"), Some("13"));
    }

    #[test]
    fn health_reports_the_fault() {
        assert_eq!(&health(None).body[..], br#"{"status":"up"}"#);
        let down = health(Some(&Refusal::new(RefusalCode::StoreUnavailable, "the store does not answer")));
        assert_eq!((down.status, header(&down, "Retry-After")), (503, Some("1")));
    }

    #[test]
    fn preflights_allow_the_requested_headers() {
        let asked = [("access-control-request-method", "PUT"), ("access-control-request-headers", "authorization, content-type")];
        let response = preflight(&request(Method::Options, "/nothing", &asked, ""));
        assert_eq!(response.status, 204);
        assert!(header(&response, "Access-Control-Allow-Methods").is_some_and(|methods| methods.contains("PUT")));
        assert_eq!(header(&response, "Access-Control-Allow-Headers"), Some(asked[1].1));
        let bare = preflight(&request(Method::Options, "/nothing", &[], ""));
        assert_eq!((header(&bare, "Access-Control-Allow-Methods"), header(&bare, "Allow")), (None, Some(METHODS)));
    }
}
