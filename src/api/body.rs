//! Bodies of REST requests: JSON objects to commands.

use crate::api::phone::parse_phone;
use crate::api::request::text_header;
use crate::model::command::{AuthCommand, ConversationCommand, UserCommand};
use crate::model::message::{ConversationKind, ParticipantRole};
use crate::model::{Limits, Redacted, Refusal, RefusalCode, UserId};
use crate::protocol::http::Request;
use crate::protocol::json::read::{Object, Reader, bad_request, missing};
use crate::protocol::json::values::{kind_name, role_name};

/// Longest one-time code, in bytes.
const CODE_BYTES_MAX: usize = 16;

/// Reads the body of a request that needs one.
pub(super) fn read<T>(request: &Request, members: impl FnOnce(&Object<'_>) -> Result<T, Refusal>) -> Result<T, Refusal> {
    check_media(request)?;
    Reader::new().read(&request.body, members)
}

/// Reads the body of a request that may have one.
pub(super) fn read_optional<T: Default>(
    request: &Request,
    members: impl FnOnce(&Object<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if request.body.is_empty() { Ok(T::default()) } else { read(request, members) }
}

/// JSON, or a type that builds on it (RFC 6839 section 3.1), or no type; and not compressed.
pub(super) fn check_media(request: &Request) -> Result<(), Refusal> {
    let unsupported = |message: &'static str| Err(Refusal::new(RefusalCode::UnsupportedMedia, message));
    if let Some(media) = text_header(request, "content-type")? {
        let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
        if !json && !essence.is_empty() {
            return unsupported("the body must be application/json");
        }
    }
    match text_header(request, "content-encoding")? {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => unsupported("the body must not be compressed"),
        _ => Ok(()),
    }
}

/// `{phone}`
pub(super) fn request_code(object: &Object<'_>) -> Result<AuthCommand, Refusal> {
    Ok(AuthCommand::RequestCode { phone: phone(object)? })
}

/// `{phone, otp}`
pub(super) fn login(object: &Object<'_>) -> Result<AuthCommand, Refusal> {
    let code = object.required_string("otp")?;
    if code.is_empty() || code.len() > CODE_BYTES_MAX {
        return Err(bad_request(format!("otp has 1 to {CODE_BYTES_MAX} characters")));
    }
    Ok(AuthCommand::Login { phone: phone(object)?, code: Redacted::new(code.into()) })
}

fn phone(object: &Object<'_>) -> Result<Redacted<Box<str>>, Refusal> {
    parse_phone(object.required_string("phone")?).map(Redacted::new)
}

/// `{refreshToken}`
pub(super) fn refresh_token(object: &Object<'_>) -> Result<Redacted<Box<str>>, Refusal> {
    let token = object.required_string("refreshToken")?;
    if token.is_empty() { Err(bad_request("refreshToken is empty")) } else { Ok(Redacted::new(token.into())) }
}

/// `{kind?, participants, title?}`: `participants` may name the caller, who takes part anyway; the command lists the others.
/// Without a kind, one other participant makes a direct conversation, and more make a group.
pub(super) fn create_conversation(object: &Object<'_>, caller: UserId, limits: &Limits) -> Result<UserCommand, Refusal> {
    let mut others = participants(object, limits)?;
    others.retain(|user| *user != caller);
    if others.is_empty() {
        return Err(bad_request("participants must name someone beside you"));
    }
    if others.len() >= limits.participants {
        return Err(too_many(limits));
    }
    let kind = kind(object)?.unwrap_or(if others.len() == 1 { ConversationKind::Direct } else { ConversationKind::Group });
    if kind == ConversationKind::Direct && others.len() != 1 {
        return Err(bad_request("a direct conversation has one participant beside you"));
    }
    Ok(UserCommand::CreateConversation { kind, participants: others, title: title(object, limits)? })
}

/// `{kind?, participants, title?}`: names all participants. Without a kind, two make a direct conversation.
pub(super) fn put_conversation(object: &Object<'_>, limits: &Limits) -> Result<ConversationCommand, Refusal> {
    let Named { kind, participants, title } = named(object, limits)?;
    Ok(ConversationCommand::Put { kind, participants, title })
}

/// A conversation with all its participants named.
pub(crate) struct Named {
    pub(crate) kind: ConversationKind,
    /// Ascending, no user twice.
    pub(crate) participants: Vec<UserId>,
    pub(crate) title: Option<Box<str>>,
}

/// # Errors
/// `bad_request`, naming the member.
pub(crate) fn named(object: &Object<'_>, limits: &Limits) -> Result<Named, Refusal> {
    let participants = participants(object, limits)?;
    if participants.is_empty() {
        return Err(bad_request("participants is empty"));
    }
    let kind = kind(object)?.unwrap_or(if participants.len() == 2 { ConversationKind::Direct } else { ConversationKind::Group });
    if kind == ConversationKind::Direct && participants.len() != 2 {
        return Err(bad_request("a direct conversation has two participants"));
    }
    Ok(Named { kind, participants, title: title(object, limits)? })
}

/// Ascending, no user twice.
fn participants(object: &Object<'_>, limits: &Limits) -> Result<Vec<UserId>, Refusal> {
    // The list may name the caller and repeat others. The remaining users count, but the list is bounded first.
    let listed_max = limits.participants.saturating_mul(2);
    let mut users = object.users("participants", listed_max)?.ok_or_else(|| missing("participants"))?;
    users.sort_unstable();
    users.dedup();
    if users.len() > limits.participants { Err(too_many(limits)) } else { Ok(users) }
}

fn too_many(limits: &Limits) -> Refusal {
    bad_request(format!("a conversation has at most {} participants", limits.participants))
}

fn kind(object: &Object<'_>) -> Result<Option<ConversationKind>, Refusal> {
    let Some(word) = object.string("kind")? else { return Ok(None) };
    let kind = [ConversationKind::Direct, ConversationKind::Group].into_iter().find(|kind| kind_name(*kind) == word);
    kind.map(Some).ok_or_else(|| bad_request("kind must be direct or group"))
}

fn title(object: &Object<'_>, limits: &Limits) -> Result<Option<Box<str>>, Refusal> {
    let Some(title) = object.string("title")? else { return Ok(None) };
    let length = title.chars().count();
    if length == 0 || length > limits.title_chars || title.chars().any(char::is_control) {
        return Err(bad_request(format!("title has 1 to {} characters, none of them a control character", limits.title_chars)));
    }
    Ok(Some(title.into()))
}

/// `{userId, role?}`
pub(super) fn add_participant(object: &Object<'_>) -> Result<(UserId, ParticipantRole), Refusal> {
    let user = object.id("userId", UserId::new)?.ok_or_else(|| missing("userId"))?;
    Ok((user, role(object)?.unwrap_or(ParticipantRole::Member)))
}

/// `{role}`
pub(super) fn required_role(object: &Object<'_>) -> Result<ParticipantRole, Refusal> {
    role(object)?.ok_or_else(|| missing("role"))
}

fn role(object: &Object<'_>) -> Result<Option<ParticipantRole>, Refusal> {
    let Some(word) = object.string("role")? else { return Ok(None) };
    let role = [ParticipantRole::Member, ParticipantRole::Admin].into_iter().find(|role| role_name(*role) == word);
    role.map(Some).ok_or_else(|| bad_request("role must be member or admin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::tests::request;
    use crate::protocol::http::Method;

    #[test]
    fn json_is_the_only_media_type() {
        let check = |headers: &[(&str, &str)], expect: Result<(), RefusalCode>| {
            let request = request(Method::Post, "/", headers, "{}");
            assert_eq!(check_media(&request).map_err(|refusal| refusal.code), expect, "{headers:?}");
        };
        check(&[], Ok(()));
        check(&[("content-type", "application/json")], Ok(()));
        check(&[("content-type", "Application/JSON ; charset=utf-8")], Ok(()));
        check(&[("content-type", "application/vnd.chat+json")], Ok(()));
        check(&[("content-type", "")], Ok(()));
        check(&[("content-encoding", "identity")], Ok(()));
        for media in ["text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonx", "multipart/form-data"]
        {
            check(&[("content-type", media)], Err(RefusalCode::UnsupportedMedia));
        }
        check(&[("content-encoding", "gzip")], Err(RefusalCode::UnsupportedMedia));
    }

    fn created(body: &str) -> Result<(ConversationKind, Vec<u64>), String> {
        let limits = Limits { participants: 4, title_chars: 3, ..Limits::default() };
        let caller = UserId::new(1).unwrap();
        let command = Reader::new().read(body.as_bytes(), |object| create_conversation(object, caller, &limits));
        match command.map_err(|refusal| refusal.message.into_owned())? {
            UserCommand::CreateConversation { kind, participants, .. } => {
                Ok((kind, participants.into_iter().map(UserId::value).collect()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_conversation_with_one_other_user_and_no_kind_is_direct() {
        let check = |body: &str, kind, others: &[u64]| assert_eq!(created(body), Ok((kind, others.to_vec())), "{body}");
        check(r#"{"participants":[2]}"#, ConversationKind::Direct, &[2]);
        check(r#"{"participants":[2,1,2]}"#, ConversationKind::Direct, &[2]);
        check(r#"{"participants":[2],"kind":"group"}"#, ConversationKind::Group, &[2]);
        check(r#"{"participants":[3,2],"title":"Tea"}"#, ConversationKind::Group, &[2, 3]);
        check(r#"{"participants":[4,3,2,1]}"#, ConversationKind::Group, &[2, 3, 4]);
    }

    #[test]
    fn an_impossible_conversation_is_refused() {
        let check = |body: &str, expect: &str| assert_eq!(created(body), Err(expect.to_owned()), "{body}");
        check("{}", "participants is missing");
        check(r#"{"participants":[]}"#, "participants must name someone beside you");
        check(r#"{"participants":[1]}"#, "participants must name someone beside you");
        check(r#"{"participants":[2,3],"kind":"direct"}"#, "a direct conversation has one participant beside you");
        check(r#"{"participants":[2],"kind":"Group"}"#, "kind must be direct or group");
        check(r#"{"participants":[2,3,4,5]}"#, "a conversation has at most 4 participants");
        check(r#"{"participants":[1,2,3,4,5]}"#, "a conversation has at most 4 participants");
        check(r#"{"participants":[2,2,2,2,2,2,2,2,2]}"#, "participants has more than 8 entries");
        for title in ["", "Teas", "a\\nb"] {
            let expect = "title has 1 to 3 characters, none of them a control character";
            check(&format!(r#"{{"participants":[2],"title":"{title}"}}"#), expect);
        }
    }
}
