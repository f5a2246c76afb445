//! From a request to its call.

use crate::api::body;
use crate::api::page;
use crate::api::query::Query;
use crate::api::render::{method_not_allowed, nothing_here, refuse};
use crate::api::request::text_header;
use crate::api::resource::{Resource, is_open};
use crate::model::command::{AuthCommand, Command, ConversationCommand, Page, ParticipantChange, Position, UserCommand};
use crate::model::message::SenderSession;
use crate::model::{ConversationId, Limits, MessageId, Refusal, RefusalCode, SessionId, UserId};
use crate::protocol::http::{Method, Request, Response};
use crate::protocol::json::SendBody;
use crate::protocol::json::read::bad_request;

/// The action that a request asks for.
#[derive(Clone, Debug)]
pub enum Call {
    /// A command of the user passed to [`route`].
    Command(Command),
    Auth(AuthCommand),
    Health(Health),
    /// A file of the page, for servers that have it enabled.
    Page(Response),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The process answers.
    Live,
    /// It accepts work: it is not draining, and the store is reachable.
    Ready,
}

/// Whether an access token must be verified before the request is read. Unknown paths need one too, so that a
/// stranger learns nothing about them.
#[must_use]
pub fn needs_token(request: &Request) -> bool {
    !is_open(&request.path)
}

/// Finds the call of `request`. `caller` is the user of its verified token, if it has one; open paths ignore it.
///
/// # Errors
/// The response to send: 401 when the path [needs a token](needs_token) and there is no caller, 404, 405 with `Allow`,
/// 415, 426, or 400. Close the connection after a refused upgrade, as the bytes after the head were not read.
pub fn route(request: &Request, caller: Option<UserId>, limits: &Limits) -> Result<Call, Response> {
    if needs_token(request) && caller.is_none() {
        return Err(refuse(&Refusal::new(RefusalCode::Unauthorized, "an access token is needed")));
    }
    let Some(resource) = Resource::of(&request.path) else {
        return Err(nothing_here());
    };
    let method = if request.method == Method::Head { Method::Get } else { request.method };
    if !resource.methods().contains(&method) {
        return Err(method_not_allowed(resource.allow()));
    }
    let call = match caller {
        _ if request.upgrade => Err(bad_request("this path has no WebSocket, connect to /ws")),
        Some(caller) if needs_token(request) => {
            let request = Authenticated { request, caller, limits };
            request.command(resource, method).map(Call::Command)
        }
        _ => open_call(request, resource),
    };
    call.map_err(|refusal| refuse(&refusal))
}

/// Calls that need no token.
fn open_call(request: &Request, resource: Resource<'_>) -> Result<Call, Refusal> {
    Ok(match resource {
        Resource::Code => Call::Auth(body::read(request, body::request_code)?),
        Resource::Login => Call::Auth(body::read(request, body::login)?),
        Resource::Refresh => Call::Auth(AuthCommand::Refresh { token: body::read(request, body::refresh_token)? }),
        Resource::Logout => Call::Auth(AuthCommand::Logout { token: body::read(request, body::refresh_token)? }),
        Resource::Live => Call::Health(Health::Live),
        Resource::Ready => Call::Health(Health::Ready),
        Resource::Page(asset) => Call::Page(page::answer(asset, request)),
        _ => return Err(Refusal::new(RefusalCode::Unauthorized, "an access token is needed")),
    })
}

/// A request whose user is known.
struct Authenticated<'a> {
    request: &'a Request,
    caller: UserId,
    limits: &'a Limits,
}

impl Authenticated<'_> {
    /// `method` is one of the resource's.
    fn command(&self, resource: Resource<'_>, method: Method) -> Result<Command, Refusal> {
        let of = |id: &str, command| Ok(Command::Conversation(conversation(id)?, command));
        let change = |id: &str, change| of(id, ConversationCommand::ChangeParticipants(change));
        match (resource, method) {
            (Resource::Me, _) => Ok(Command::User(UserCommand::ReadMe)),
            (Resource::Blocks, _) => Ok(Command::User(UserCommand::ListBlocks)),
            (Resource::Block(user), _) => self.block(user, method == Method::Put),
            (Resource::Conversations, Method::Get) => self.list_conversations(),
            (Resource::Conversations, _) => {
                body::read(self.request, |object| body::create_conversation(object, self.caller, self.limits)).map(Command::User)
            }
            (Resource::Conversation(id), Method::Get) => of(id, ConversationCommand::Read),
            (Resource::Conversation(id), _) => {
                let id = conversation(id)?;
                let put = body::read(self.request, |object| body::put_conversation(object, self.limits))?;
                Ok(Command::Conversation(id, put))
            }
            (Resource::Participants(id), _) => {
                let id = conversation(id)?;
                let (user, role) = body::read(self.request, body::add_participant)?;
                let change = ParticipantChange::Add { user, role };
                Ok(Command::Conversation(id, ConversationCommand::ChangeParticipants(change)))
            }
            (Resource::Participant(id, participant), Method::Put) => {
                let (id, user) = (conversation(id)?, self.participant(participant)?);
                let change = ParticipantChange::SetRole { user, role: body::read(self.request, body::required_role)? };
                Ok(Command::Conversation(id, ConversationCommand::ChangeParticipants(change)))
            }
            (Resource::Participant(id, participant), _) => {
                change(id, ParticipantChange::Remove { user: self.participant(participant)? })
            }
            (Resource::Leave(id), _) => change(id, ParticipantChange::Remove { user: self.caller }),
            (Resource::Messages(id), Method::Get) => self.read_history(id),
            (Resource::Messages(id), _) => self.send(id),
            (Resource::Message(id, message_id), _) => {
                let id = conversation(id)?;
                Ok(Command::Conversation(id, ConversationCommand::ReadMessage { message: message(message_id)? }))
            }
            (Resource::Read(id, message_id), _) => self.mark_read(id, message_id),
            (Resource::ReadMarks(id), _) => of(id, ConversationCommand::ListReadMarks),
            _ => Err(Refusal::new(RefusalCode::NotFound, "there is nothing at this path")),
        }
    }

    fn block(&self, id: &str, blocked: bool) -> Result<Command, Refusal> {
        let user = user(id)?;
        if user == self.caller {
            return Err(bad_request("you cannot block yourself"));
        }
        Ok(Command::User(UserCommand::SetBlock { user, blocked }))
    }

    fn list_conversations(&self) -> Result<Command, Refusal> {
        let query = self.query();
        let after = query.value("after")?;
        let after = after.map(|after| after.parse::<ConversationId>().map_err(|_| bad_request("after is no conversation id")));
        Ok(Command::User(UserCommand::ListConversations { after: after.transpose()?, limit: self.limit(query)? }))
    }

    fn read_history(&self, id: &str) -> Result<Command, Refusal> {
        let conversation = conversation(id)?;
        let query = self.query();
        let position = |name: &str| -> Result<Option<MessageId>, Refusal> {
            let Some(text) = query.value(name)? else { return Ok(None) };
            text.parse().map(Some).map_err(|_| bad_request(format!("{name} is malformed")))
        };
        let from = match (position("cursor")?, position("after")?) {
            (None, None) => Position::Newest,
            (Some(before), None) => Position::Before(before),
            (None, Some(after)) => Position::After(after),
            (Some(_), Some(_)) => return Err(bad_request("cursor and after exclude each other")),
        };
        let page = Page { from, limit: self.limit(query)? };
        Ok(Command::Conversation(conversation, ConversationCommand::ReadHistory { page }))
    }

    fn limit(&self, query: Query<'_>) -> Result<u16, Refusal> {
        let Some(text) = query.value("limit")? else { return Ok(self.limits.page_default) };
        let max = self.limits.page_max;
        let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit) && !text.starts_with('+'));
        limit.ok_or_else(|| bad_request(format!("limit must be 1 to {max}")))
    }

    fn send(&self, id: &str) -> Result<Command, Refusal> {
        let conversation = conversation(id)?;
        body::check_media(self.request)?;
        let send = SendBody::parse(&self.request.body)?;
        if send.conversation.is_some_and(|named| named != conversation) {
            return Err(bad_request("conversationId is not the path's conversation"));
        }
        let draft = send.into_draft(text_header(self.request, "client-message-id")?, Vec::new(), self.limits)?;
        Ok(Command::Conversation(conversation, ConversationCommand::Send { draft, from: self.sender_session()? }))
    }

    /// The sender's own session, which then does not receive its own message unless it asks for it.
    fn sender_session(&self) -> Result<Option<SenderSession>, Refusal> {
        let Some(text) = text_header(self.request, "session-id")? else { return Ok(None) };
        let session: SessionId = text.parse().map_err(|_| bad_request("the header session-id is malformed"))?;
        let echo = text_header(self.request, "echo")? == Some("true");
        Ok(Some(SenderSession { session, echo }))
    }

    /// The conversation is the path's; else the body's, or the header's as over STOMP; else the store finds it.
    fn mark_read(&self, id: Option<&str>, message_id: &str) -> Result<Command, Refusal> {
        let message = message(message_id)?;
        let named = body::read_optional(self.request, |object| object.id("conversationId", ConversationId::new))?;
        let header = text_header(self.request, "conversation-id")?;
        let conversation = match id.or(header) {
            Some(id) => Some(conversation(id)?),
            None => named,
        };
        if named.is_some() && named != conversation {
            return Err(bad_request("conversationId is not the same everywhere in the request"));
        }
        Ok(match conversation {
            Some(conversation) => Command::Conversation(conversation, ConversationCommand::MarkRead { message }),
            None => Command::User(UserCommand::MarkRead { message }),
        })
    }

    fn participant(&self, id: &str) -> Result<UserId, Refusal> {
        if id == "me" { Ok(self.caller) } else { user(id) }
    }

    fn query(&self) -> Query<'_> {
        Query::new(self.request.query.as_deref())
    }
}

fn conversation(text: &str) -> Result<ConversationId, Refusal> {
    text.parse().map_err(|_| bad_request("a conversation id is a positive integer below 2^53"))
}

fn user(text: &str) -> Result<UserId, Refusal> {
    text.parse().map_err(|_| bad_request("a user id is a positive integer below 2^53"))
}

fn message(text: &str) -> Result<MessageId, Refusal> {
    text.parse().map_err(|_| bad_request("a message id is a version 1 UUID"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::request::tests::request;
    use crate::model::message::Draft;

    const ID: &str = "c232ab00-9414-11ec-b3c8-9f6bdeced846";
    const SESSION: &str = "0123456789abcdef0123456789abcdef";
    const CALLER: u64 = 1;

    fn routed(request: &Request) -> Result<Call, Response> {
        route(request, UserId::new(CALLER).ok(), &Limits::default())
    }

    /// The call of a request, as `Debug` prints it, or status and error code; the same below both prefixes.
    fn outcome(method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> String {
        let print = |target: &str| match routed(&request(method, target, headers, body)) {
            // A draft hides its content from debug output, so it is printed here.
            Ok(Call::Command(Command::Conversation(conversation, ConversationCommand::Send { draft, from }))) => {
                let Draft { content, client_id, headers } = draft;
                let draft = format!("Draft {{ content: {content:?}, client_id: {client_id:?}, headers: {headers:?} }}");
                format!("Conversation({conversation:?}, Send {{ draft: {draft}, from: {from:?} }})")
            }
            Ok(Call::Command(command)) => format!("{command:?}"),
            Ok(call) => format!("{call:?}"),
            Err(response) => {
                let body = String::from_utf8(response.body.to_vec()).unwrap();
                format!("{} {}", response.status, body.split('"').nth(3).unwrap())
            }
        };
        let direct = print(target);
        assert_eq!(direct, print(&format!("/api{target}")), "both prefixes of {target}");
        direct
    }

    fn check(method: Method, target: &str, body: &str, expect: &str) {
        assert_eq!(outcome(method, target, &[], body), expect.replace("{ID}", ID), "{method:?} {target} {body}");
    }

    fn of_user(command: &str) -> String {
        format!("User({command})")
    }

    fn of_seven(command: &str) -> String {
        format!("Conversation(ConversationId(7), {command})")
    }

    #[test]
    fn logins() {
        let auth = |call: &str| format!("Auth({call})");
        let redacted = "[redacted]";
        check(Method::Post, "/auth/otp", r#"{"phone":"+1 555 0001"}"#, &auth("RequestCode { phone: [redacted] }"));
        let login = format!("Login {{ phone: {redacted}, code: {redacted} }}");
        check(Method::Post, "/auth/login", r#"{"phone":"+15550001","otp":"123456"}"#, &auth(&login));
        check(Method::Post, "/auth/refresh", r#"{"refreshToken":"t"}"#, &auth("Refresh { token: [redacted] }"));
        check(Method::Post, "/auth/logout", r#"{"refreshToken":"t"}"#, &auth("Logout { token: [redacted] }"));
        for (path, body) in [
            ("/auth/otp", "{}"),
            ("/auth/otp", r#"{"phone":"call me"}"#),
            ("/auth/login", r#"{"phone":"+15550001"}"#),
            ("/auth/login", r#"{"phone":"+15550001","otp":123456}"#),
            ("/auth/login", r#"{"phone":"+15550001","otp":"12345678901234567"}"#),
            ("/auth/refresh", r#"{"refreshToken":""}"#),
            ("/auth/logout", ""),
        ] {
            check(Method::Post, path, body, "400 bad_request");
        }
    }

    #[test]
    fn users() {
        let check = |method, target: &str, expect: &str| check(method, target, "", &of_user(expect));
        check(Method::Get, "/users/me", "ReadMe");
        check(Method::Head, "/users/me", "ReadMe");
        check(Method::Get, "/users/me/blocks", "ListBlocks");
        check(Method::Put, "/users/2/block", "SetBlock { user: UserId(2), blocked: true }");
        check(Method::Delete, "/users/2/block", "SetBlock { user: UserId(2), blocked: false }");
        for id in ["1", "me", "0", "02", "x", "9007199254740992", "2%20"] {
            assert_eq!(outcome(Method::Put, &format!("/users/{id}/block"), &[], ""), "400 bad_request");
        }
    }

    #[test]
    fn conversations() {
        check(Method::Get, "/conversations", "", &of_user("ListConversations { after: None, limit: 20 }"));
        let expect = of_user("ListConversations { after: Some(ConversationId(7)), limit: 5 }");
        check(Method::Get, "/conversations?after=7&limit=5&x=y", "", &expect);
        check(Method::Get, "/conversations?after=x", "", "400 bad_request");
        let expect = of_user("CreateConversation { kind: Direct, participants: [UserId(2)], title: None }");
        check(Method::Post, "/conversations", r#"{"participants":[2]}"#, &expect);
        check(Method::Get, "/conversations/7", "", &of_seven("Read"));
        let expect = of_seven("Put { kind: Group, participants: [UserId(2), UserId(3)], title: Some(\"Tea\") }");
        check(Method::Put, "/conversations/7", r#"{"kind":"group","participants":[3,2,3],"title":"Tea"}"#, &expect);
        check(Method::Put, "/conversations/7", r#"{"kind":"direct","participants":[3]}"#, "400 bad_request");
        check(Method::Put, "/conversations/7", r#"{"participants":[]}"#, "400 bad_request");
        check(Method::Get, "/conversations/7/read-marks", "", &of_seven("ListReadMarks"));
        for text in ["0", "07", "-7", "x", "7%2F", "9007199254740992"] {
            check(Method::Get, &format!("/conversations/{text}"), "", "400 bad_request");
            check(Method::Post, &format!("/conversations/{text}/messages"), r#"{"content":"x"}"#, "400 bad_request");
        }
    }

    #[test]
    fn participants() {
        let change =
            |name: &str, user: u64, role: &str| of_seven(&format!("ChangeParticipants({name} {{ user: UserId({user}){role} }})"));
        let path = "/conversations/7/participants";
        check(Method::Post, path, r#"{"userId":2}"#, &change("Add", 2, ", role: Member"));
        check(Method::Post, path, r#"{"userId":2,"role":"admin"}"#, &change("Add", 2, ", role: Admin"));
        check(Method::Post, path, r#"{"userId":2,"role":"owner"}"#, "400 bad_request");
        check(Method::Post, path, r#"{"role":"admin"}"#, "400 bad_request");
        let of = |id: &str| format!("{path}/{id}");
        check(Method::Put, &of("2"), r#"{"role":"member"}"#, &change("SetRole", 2, ", role: Member"));
        check(Method::Put, &of("2"), "{}", "400 bad_request");
        check(Method::Delete, &of("2"), "", &change("Remove", 2, ""));
        check(Method::Delete, &of("me"), "", &change("Remove", CALLER, ""));
        check(Method::Post, "/conversations/7/leave", "", &change("Remove", CALLER, ""));
        check(Method::Delete, &of("Me"), "", "400 bad_request");
    }

    #[test]
    fn messages() {
        let path = "/conversations/7/messages";
        let history =
            |from: &str, limit: u16| of_seven(&format!("ReadHistory {{ page: Page {{ from: {from}, limit: {limit} }} }}"));
        check(Method::Get, path, "", &history("Newest", 20));
        check(Method::Get, &format!("{path}?cursor=&limit=100"), "", &history("Newest", 100));
        check(Method::Get, &format!("{path}?cursor={ID}&limit=1"), "", &history("Before({ID})", 1));
        check(Method::Get, &format!("{path}?after={ID}&token=x"), "", &history("After({ID})", 20));
        for query in
            ["limit=0", "limit=101", "limit=-1", "limit=%2B5", "limit=1e1", "limit=x", "cursor=5", "cursor=%zz", "after=x"]
        {
            check(Method::Get, &format!("{path}?{query}"), "", "400 bad_request");
        }
        check(Method::Get, &format!("{path}?cursor={ID}&after={ID}"), "", "400 bad_request");
        let expect = of_seven("ReadMessage { message: {ID} }");
        check(Method::Get, &format!("{path}/{ID}"), "", &expect);
        check(Method::Get, &format!("{path}/c232ab00-9414-41ec-b3c8-9f6bdeced846"), "", "400 bad_request");
        let read = format!("MarkRead {{ message: {ID} }}");
        check(Method::Post, &format!("{path}/{ID}/read"), "", &of_seven(&read));
        check(Method::Post, &format!("/messages/{ID}/read"), "", &of_user(&read));
        check(Method::Put, &format!("/messages/{ID}/read"), "{}", &of_user(&read));
        check(Method::Post, &format!("/messages/{ID}/read"), r#"{"conversationId":7}"#, &of_seven(&read));
        check(Method::Post, &format!("{path}/{ID}/read"), r#"{"conversationId":8}"#, "400 bad_request");
        check(Method::Post, "/messages/1/read", "", "400 bad_request");
        let header = outcome(Method::Post, &format!("/messages/{ID}/read"), &[("conversation-id", "7")], "");
        assert_eq!(header, of_seven(&read));
    }

    #[test]
    fn sends() {
        let path = "/conversations/7/messages";
        let send = |key: &str, from: &str| {
            let draft = format!("Draft {{ content: \"Hello\", client_id: {key}, headers: [] }}");
            of_seven(&format!("Send {{ draft: {draft}, from: {from} }}"))
        };
        check(Method::Post, path, r#"{"content":"Hello"}"#, &send("None", "None"));
        check(
            Method::Post,
            path,
            r#"{"content":"Hello","conversationId":7,"clientMessageId":"k"}"#,
            &send("Some(\"k\")", "None"),
        );
        check(Method::Post, path, r#"{"content":"Hello","conversationId":8}"#, "400 bad_request");
        check(Method::Post, path, r#"{"content":""}"#, "400 content_empty");
        check(Method::Post, path, &format!("{{\"content\":\"{}\"}}", "x".repeat(4_001)), "400 content_too_long");
        check(Method::Post, path, "Hello", "400 bad_request");
        let session = "SenderSession { session: SessionId(01234567..), echo: ";
        for (headers, expect) in [
            (&[("client-message-id", "k")][..], send("Some(\"k\")", "None")),
            (&[("session-id", SESSION)], send("None", &format!("Some({session}false }})"))),
            (&[("session-id", SESSION), ("echo", "true")], send("None", &format!("Some({session}true }})"))),
            (&[("session-id", "x")], "400 bad_request".to_owned()),
            (&[("content-type", "text/plain")], "415 unsupported_media_type".to_owned()),
        ] {
            assert_eq!(outcome(Method::Post, path, headers, r#"{"content":"Hello"}"#), expect, "{headers:?}");
        }
        let mut foreign = request(Method::Post, path, &[], r#"{"content":"\u0000"}"#);
        assert!(matches!(routed(&foreign), Ok(Call::Command(Command::Conversation(_, ConversationCommand::Send { .. })))));
        foreign.body = b"{\"content\":\"\xff\"}".to_vec().into();
        assert!(routed(&foreign).unwrap_err().body.starts_with(b"{\"code\":\"content_invalid\""));
    }

    #[test]
    fn other_methods_get_the_allowed_ones() {
        let all =
            [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options, Method::Other];
        for (path, allow) in [
            ("/auth/login", "POST"),
            ("/users/me", "GET, HEAD"),
            ("/users/2/block", "PUT, DELETE"),
            ("/conversations", "GET, HEAD, POST"),
            ("/conversations/7", "GET, HEAD, PUT"),
            ("/conversations/7/participants", "POST"),
            ("/conversations/7/participants/2", "PUT, DELETE"),
            ("/conversations/7/leave", "POST"),
            ("/conversations/7/messages", "GET, HEAD, POST"),
            ("/conversations/7/messages/x", "GET, HEAD"),
            ("/conversations/7/messages/x/read", "POST, PUT"),
            ("/messages/x/read", "POST, PUT"),
            ("/conversations/7/read-marks", "GET, HEAD"),
            ("/healthz", "GET, HEAD"),
        ] {
            for method in all {
                let name = format!("{method:?}").to_uppercase();
                let response = routed(&request(method, path, &[], "")).err().filter(|response| response.status == 405);
                assert_eq!(response.is_none(), allow.split(", ").any(|allowed| allowed == name), "{method:?} {path}");
                if let Some(response) = response {
                    assert!(response.headers.contains(&("Allow", allow.to_owned())), "{path}: {:?}", response.headers);
                }
            }
        }
    }

    #[test]
    fn a_token_comes_before_everything_else() {
        let status = |method, target: &str| {
            route(&request(method, target, &[], "{"), None, &Limits::default()).map_err(|response| response.status).err()
        };
        for target in
            ["/conversations", "/conversations/x", "/users/me", "/nothing", "/api/nothing", "/conversations/7/messages?limit=0"]
        {
            for method in [Method::Get, Method::Post, Method::Patch] {
                assert_eq!(status(method, target), Some(401), "{method:?} {target}");
            }
        }
        let refused = route(&request(Method::Get, "/users/me", &[], ""), None, &Limits::default()).unwrap_err();
        assert!(refused.headers.contains(&("WWW-Authenticate", "Bearer".to_owned())));
        assert_eq!(status(Method::Get, "/auth/nothing"), Some(404));
        assert_eq!(status(Method::Get, "/healthz"), None);
        assert_eq!(status(Method::Post, "/auth/login"), Some(400));
    }

    #[test]
    fn health_and_upgrades() {
        let check = |method, path: &str, upgrade: bool, expect: &str| {
            let mut request = request(method, path, &[], "");
            request.upgrade = upgrade;
            let found = match routed(&request) {
                Ok(call) => format!("{call:?}"),
                Err(response) => response.status.to_string(),
            };
            assert_eq!(found, expect, "{method:?} {path} {upgrade}");
        };
        check(Method::Get, "/healthz", false, "Health(Live)");
        check(Method::Get, "/readyz", false, "Health(Ready)");
        for path in ["/healthz", "/users/me", "/conversations/7/messages"] {
            check(Method::Get, path, true, "400");
        }
        check(Method::Get, "/nothing", true, "404");
    }

    proptest! {
        #[test]
        fn no_target_and_no_body_panics(
            path in "/(api/)?(conversations|messages|users|auth|ws)?(/[a-z0-9%/.-]{0,12}){0,5}",
            query in proptest::option::of("((cursor|after|limit|x)=[0-9a-f%+&=-]{0,40}){0,3}"),
            body in "[\\[\\]{}\",:\\\\a-z0-9 ]{0,60}",
            method in 0..8usize,
        ) {
            let methods =
                [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options, Method::Other];
            let mut request = request(methods[method], &path, &[], &body);
            request.query = query.map(Into::into);
            if let Err(response) = routed(&request) {
                prop_assert!((400..500).contains(&response.status));
                let coded = response.body.starts_with(b"{\"code\":");
                prop_assert!(coded);
            }
        }
    }
}
