//! The resource of a path, and its methods.

use smallvec::SmallVec;

use crate::api::page::{self, Asset};
use crate::protocol::http::Method;

/// One of the server's resources. Ids are taken from the path unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    /// `/auth/otp`
    Code,
    /// `/auth/login`
    Login,
    /// `/auth/refresh`
    Refresh,
    /// `/auth/logout`
    Logout,
    /// `/users/me`
    Me,
    /// `/users/me/blocks`
    Blocks,
    /// `/users/{id}/block`
    Block(&'a str),
    /// `/conversations`
    Conversations,
    /// `/conversations/{id}`
    Conversation(&'a str),
    /// `/conversations/{id}/participants`
    Participants(&'a str),
    /// `/conversations/{id}/participants/{id or me}`
    Participant(&'a str, &'a str),
    /// `/conversations/{id}/leave`
    Leave(&'a str),
    /// `/conversations/{id}/messages`
    Messages(&'a str),
    /// `/conversations/{id}/messages/{id}`
    Message(&'a str, &'a str),
    /// `/conversations/{id}/messages/{id}/read`, and `/messages/{id}/read` without the conversation
    Read(Option<&'a str>, &'a str),
    /// `/conversations/{id}/read-marks`
    ReadMarks(&'a str),
    /// `/healthz`
    Live,
    /// `/readyz`
    Ready,
    /// `/` and the files that it loads
    Page(&'static Asset),
}

/// Segments of the longest path, and one more.
const SEGMENTS_MAX: usize = 6;

/// `/api` when the path is below it, else an empty prefix; and the rest.
pub(super) fn split_prefix(path: &str) -> (&'static str, &str) {
    match path.strip_prefix("/api") {
        Some(rest) if rest.starts_with('/') => ("/api", rest),
        _ => ("", path),
    }
}

impl<'a> Resource<'a> {
    /// `path` begins with `/` and is undecoded.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        if let Some(asset) = page::find(path) {
            return Some(Self::Page(asset));
        }
        let (_, rest) = split_prefix(path);
        let segments: SmallVec<[&str; SEGMENTS_MAX]> = rest.strip_prefix('/')?.split('/').take(SEGMENTS_MAX).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        Some(match *segments.as_slice() {
            ["auth", "otp"] => Self::Code,
            ["auth", "login"] => Self::Login,
            ["auth", "refresh"] => Self::Refresh,
            ["auth", "logout"] => Self::Logout,
            ["users", "me"] => Self::Me,
            ["users", "me", "blocks"] => Self::Blocks,
            ["users", user, "block"] => Self::Block(user),
            ["conversations"] => Self::Conversations,
            ["conversations", id] => Self::Conversation(id),
            ["conversations", id, "participants"] => Self::Participants(id),
            ["conversations", id, "participants", user] => Self::Participant(id, user),
            ["conversations", id, "leave"] => Self::Leave(id),
            ["conversations", id, "messages"] => Self::Messages(id),
            ["conversations", id, "messages", message] => Self::Message(id, message),
            ["conversations", id, "messages", message, "read"] => Self::Read(Some(id), message),
            ["conversations", id, "read-marks"] => Self::ReadMarks(id),
            ["messages", message, "read"] => Self::Read(None, message),
            ["healthz"] => Self::Live,
            ["readyz"] => Self::Ready,
            _ => return None,
        })
    }

    /// GET implies HEAD.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Self::Code | Self::Login | Self::Refresh | Self::Logout | Self::Participants(_) | Self::Leave(_) => &[Method::Post],
            Self::Me | Self::Blocks | Self::Message(..) | Self::ReadMarks(_) | Self::Live | Self::Ready | Self::Page(_) => {
                &[Method::Get]
            }
            Self::Block(_) | Self::Participant(..) => &[Method::Put, Method::Delete],
            Self::Conversations | Self::Messages(_) => &[Method::Get, Method::Post],
            Self::Conversation(_) => &[Method::Get, Method::Put],
            Self::Read(..) => &[Method::Post, Method::Put],
        }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    pub(super) fn allow(self) -> String {
        let mut names = Vec::new();
        for method in self.methods() {
            names.extend_from_slice(match method {
                Method::Get => &["GET", "HEAD"][..],
                Method::Post => &["POST"],
                Method::Put => &["PUT"],
                Method::Delete => &["DELETE"],
                Method::Head | Method::Patch | Method::Options | Method::Other => &[],
            });
        }
        names.join(", ")
    }
}

/// Paths that are answered without a token, whether or not they exist: all other paths require a token before they
/// reveal anything.
pub(super) fn is_open(path: &str) -> bool {
    let (prefix, rest) = split_prefix(path);
    let open_below = |root: &str| rest.strip_prefix(root).is_some_and(|below| below.is_empty() || below.starts_with('/'));
    open_below("/auth") || matches!(rest, "/healthz" | "/readyz") || (prefix.is_empty() && (open_below("/page") || rest == "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_two_paths() {
        for (path, expect) in [
            ("/auth/otp", Resource::Code),
            ("/users/me", Resource::Me),
            ("/users/me/blocks", Resource::Blocks),
            ("/users/7/block", Resource::Block("7")),
            ("/conversations/7/participants/me", Resource::Participant("7", "me")),
            ("/conversations/7/messages/x/read", Resource::Read(Some("7"), "x")),
            ("/messages/x/read", Resource::Read(None, "x")),
            ("/healthz", Resource::Live),
        ] {
            assert_eq!(Resource::of(path), Some(expect));
            assert_eq!(Resource::of(&format!("/api{path}")), Some(expect));
        }
    }

    #[test]
    fn other_spellings_are_unknown() {
        for path in [
            "//",
            "/api",
            "/api/",
            "/api/api/users/me",
            "/conversations/",
            "//conversations",
            "/conversations//messages",
            "/Conversations",
            "/conversations/7/messages/x/read/y",
            "/conversations/7/messages/x/read/y/z",
            "/api/ws",
            "/api/ws/websocket",
            "/ws/websocket/",
            "/users",
            "/users/7",
            "/messages/x",
            "/%63onversations",
            "/conversations/7%2Fmessages/x/y",
            "/apiconversations",
            "*",
            "",
        ] {
            assert_eq!(Resource::of(path), None, "{path}");
        }
        // An encoded slash stays part of an id, which is then not a number.
        assert_eq!(Resource::of("/conversations/7%2Fmessages"), Some(Resource::Conversation("7%2Fmessages")));
    }

    #[test]
    fn open_paths_need_no_token() {
        for path in ["/auth/login", "/api/auth/nothing", "/healthz", "/api/readyz", "/", "/page/x"] {
            assert!(is_open(path), "{path}");
        }
        for path in [
            "/conversations",
            "/wsx",
            "/authx",
            "/api/ws",
            "/healthz/x",
            "/users/me",
            "/nothing",
            "/api/",
            "/api/page/x",
            "/pages",
            "*",
            "/%61uth/login",
        ] {
            assert!(!is_open(path), "{path}");
        }
    }
}
