//! Destinations, parsed once at the edge: past it, no invalid destination can exist.
//!
//! SEND and SUBSCRIBE have different grammars, so they have different types. Matching is by exact text:
//! no percent-decoding, no case folding, no dot segments, so that no encoding trick can name another user's queue.

use crate::model::codes::{Refusal, RefusalCode};
use crate::model::ids::{ConversationId, MessageId, UserId};

/// Longest destination in bytes.
pub const DESTINATION_BYTES_MAX: usize = 512;

/// A destination that a client may SEND to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendTarget {
    /// `/app/send`: the body names the conversation.
    Send,
    /// `/app/conversations/{id}/send`
    SendTo(ConversationId),
    /// `/app/messages/{id}/read`
    Read(MessageId),
    /// `/app/heartbeat`
    Heartbeat,
    /// `/app/auth/refresh`: a new token for the live session.
    RefreshToken,
    /// `/topic/announcements` or `/app/announcements`; role admin.
    Announcements,
}

/// A destination that a client may SUBSCRIBE to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubscribeTarget {
    /// `/user/queue/{name}` and `/user/{own id}/queue/{name}`
    UserQueue(UserQueue),
    Topic(Topic),
    /// `/topic/...` with `*` or `**` in it.
    Pattern(TopicPattern),
}

/// A private queue of one user's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UserQueue {
    Messages,
    Errors,
    Receipts,
    Presence,
    /// Acknowledgements of the session's own sends.
    Acks,
    Private,
    /// A queue whose name the server never writes to: a client of another application may subscribe to it.
    Other(Box<str>),
}

/// A broadcast destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `/topic/conversation/{id}`: participants only.
    Conversation(ConversationId),
    /// Any other name, without the leading `/topic/`.
    Named(Box<str>),
}

/// Segments after `/topic/`; `*` matches one, `**` any number, none included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Box<str>);

/// Why a SUBSCRIBE was refused: fatal for the session either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    Malformed,
    NotYours,
    Unknown,
}

impl Denied {
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Malformed => "malformed destination",
            Self::NotYours => "destination is not yours",
            Self::Unknown => "unknown destination",
        }
    }
}

/// Name of the topic that only role admin may post to.
pub const ANNOUNCEMENTS: &str = "announcements";

/// Segments of a well-formed destination below `prefix`: not empty, no dot segments, printable,
/// without characters that another layer might decode.
fn segments_below<'a>(text: &'a str, prefix: &str) -> Option<Vec<&'a str>> {
    if text.len() > DESTINATION_BYTES_MAX {
        return None;
    }
    let rest = text.strip_prefix(prefix)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let sound = |segment: &&str| {
        !segment.is_empty()
            && *segment != "."
            && *segment != ".."
            && segment.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '%' | '\\' | '?' | '#'))
    };
    segments.iter().all(sound).then_some(segments)
}

impl SendTarget {
    /// # Errors
    /// A refusal, not a fault: a refused SEND leaves the session open.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(segments) = segments_below(text, "/app/") {
            match *segments.as_slice() {
                ["send"] => return Ok(Self::Send),
                ["heartbeat"] => return Ok(Self::Heartbeat),
                ["auth", "refresh"] => return Ok(Self::RefreshToken),
                [ANNOUNCEMENTS] => return Ok(Self::Announcements),
                ["conversations", id, "send"] => {
                    return id.parse().map(Self::SendTo).map_err(|_| bad_id("conversation"));
                }
                ["messages", id, "read"] => return id.parse().map(Self::Read).map_err(|_| bad_id("message")),
                _ => {}
            }
        }
        if text == "/topic/announcements" {
            return Ok(Self::Announcements);
        }
        if ["/topic/", "/user/", "/queue/"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err(Refusal::new(RefusalCode::Forbidden, "clients may not send to this destination"));
        }
        Err(Refusal::new(RefusalCode::NotFound, "unknown destination"))
    }
}

fn bad_id(what: &str) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, format!("the destination's {what} id is not valid"))
}

impl SubscribeTarget {
    /// Parses for `user`, whose own id may appear in `/user/{id}/queue/...`.
    ///
    /// # Errors
    /// `Denied`; the session ends with an ERROR that reveals nothing about other users.
    pub fn parse(text: &str, user: UserId) -> Result<Self, Denied> {
        if text == "/user" || text.starts_with("/user/") {
            let segments = segments_below(text, "/user/").ok_or(Denied::Malformed)?;
            let name = match *segments.as_slice() {
                ["queue", name] => name,
                [id, "queue", name] if id.parse() == Ok(user) => name,
                _ => return Err(Denied::NotYours),
            };
            return UserQueue::parse(name).map(Self::UserQueue);
        }
        if let Some(rest) = text.strip_prefix("/topic/") {
            let segments = segments_below(text, "/topic/").ok_or(Denied::Malformed)?;
            if rest.contains('*') {
                let sound = segments.iter().all(|s| !s.contains('*') || *s == "*" || *s == "**");
                return if sound { Ok(Self::Pattern(TopicPattern(rest.into()))) } else { Err(Denied::Malformed) };
            }
            return Topic::parse(rest).map(Self::Topic);
        }
        Err(Denied::Unknown)
    }
}

impl UserQueue {
    fn parse(name: &str) -> Result<Self, Denied> {
        Ok(match name {
            "messages" => Self::Messages,
            "errors" => Self::Errors,
            "receipts" => Self::Receipts,
            "presence" => Self::Presence,
            "acks" => Self::Acks,
            "private" => Self::Private,
            _ if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) => Self::Other(name.into()),
            _ => return Err(Denied::NotYours),
        })
    }
}

impl Topic {
    /// `rest` is the part after `/topic/`.
    fn parse(rest: &str) -> Result<Self, Denied> {
        match rest.strip_prefix("conversation/") {
            // Other spellings of a conversation's topic must not become named topics that look like one.
            Some(id) => id.parse().map(Self::Conversation).map_err(|_| Denied::Malformed),
            None => Ok(Self::Named(rest.into())),
        }
    }

    /// The whole destination, as clients write it.
    #[must_use]
    pub fn to_destination(&self) -> String {
        match self {
            Self::Conversation(id) => format!("/topic/conversation/{id}"),
            Self::Named(name) => format!("/topic/{name}"),
        }
    }
}

impl TopicPattern {
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let destination = topic.to_destination();
        let name: Vec<&str> = destination["/topic/".len()..].split('/').collect();
        let pattern: Vec<&str> = self.0.split('/').collect();
        matches_segments(&pattern, &name)
    }
}

/// Both lists are short (a destination has at most 512 bytes) but `**` branches, so the table of reachable
/// positions is carried along instead of recursing: the cost is the product of the lengths.
fn matches_segments(pattern: &[&str], name: &[&str]) -> bool {
    let mut reachable = vec![false; name.len() + 1];
    reachable[0] = true;
    for segment in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            match *segment {
                "**" => next[at] = reachable[at] || (at > 0 && next[at - 1]),
                _ if at > 0 && reachable[at - 1] => next[at] = *segment == "*" || *segment == name[at - 1],
                _ => {}
            }
        }
        reachable = next;
    }
    reachable[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn conversation(id: u64) -> ConversationId {
        ConversationId::new(id).unwrap()
    }

    #[test]
    fn sends_of_the_guide_are_parsed() {
        assert_eq!(SendTarget::parse("/app/send"), Ok(SendTarget::Send));
        assert_eq!(SendTarget::parse("/app/conversations/7/send"), Ok(SendTarget::SendTo(conversation(7))));
        assert_eq!(SendTarget::parse("/app/heartbeat"), Ok(SendTarget::Heartbeat));
        assert!(matches!(SendTarget::parse("/app/messages/c232ab00-9414-11ec-b3c8-9f6bdeced846/read"), Ok(SendTarget::Read(_))));
    }

    #[test]
    fn other_sends_are_refused() {
        let code = |text| SendTarget::parse(text).map_err(|refusal| refusal.code);
        for text in ["/topic/x", "/topic/conversation/1", "/user/1/queue/messages", "/user/queue/errors", "/queue/x"] {
            assert_eq!(code(text), Err(RefusalCode::Forbidden), "{text}");
        }
        for text in ["", "/", "/app", "/app/", "/app//send", "/App/send", "/app/send/", "/app/./send", "/app/%73end", "app/send"]
        {
            assert_eq!(code(text), Err(RefusalCode::NotFound), "{text}");
        }
        assert_eq!(code("/app/conversations/0/send"), Err(RefusalCode::BadRequest));
        assert_eq!(code("/app/messages/1/read"), Err(RefusalCode::BadRequest));
    }

    #[test]
    fn the_own_queue_has_two_names() {
        let expect = Ok(SubscribeTarget::UserQueue(UserQueue::Messages));
        assert_eq!(SubscribeTarget::parse("/user/queue/messages", user(42)), expect);
        assert_eq!(SubscribeTarget::parse("/user/42/queue/messages", user(42)), expect);
    }

    #[test]
    fn queues_of_other_users_cannot_be_named() {
        for text in [
            "/user/42/queue/messages",
            "/user/**",
            "/user/*/queue/messages",
            "/user/queue/*",
            "/user/queue/**",
            "/user",
            "/user/",
            "//user/queue/messages",
            "/user//queue/messages",
            "/user/7/../42/queue/messages",
            "/user/042/queue/messages",
            "/user/4%32/queue/messages",
            "/user%2F42%2Fqueue%2Fmessages",
            "/USER/queue/messages",
            "/user/queue/messages/",
            "/user/7 /queue/messages",
            "/user/+7/queue/messages",
            "/user/7/queue/messages/x",
            "/user/queue/mess*",
        ] {
            assert!(SubscribeTarget::parse(text, user(7)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_conversations_topic_has_one_name() {
        let expect = Ok(SubscribeTarget::Topic(Topic::Conversation(conversation(7))));
        assert_eq!(SubscribeTarget::parse("/topic/conversation/7", user(1)), expect);
        for text in
            ["/topic/conversation/07", "/topic/conversation/", "/topic/conversation/7/", "/topic/conversation/7/x", "/topic/"]
        {
            assert!(SubscribeTarget::parse(text, user(1)).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_match_whole_segments() {
        let check = |pattern: &str, expect: [bool; 3]| {
            let Ok(SubscribeTarget::Pattern(pattern)) = SubscribeTarget::parse(pattern, user(1)) else {
                panic!("{pattern} is not a pattern");
            };
            let topics = [Topic::Conversation(conversation(7)), Topic::Named("news".into()), Topic::Named("news/eu/de".into())];
            assert_eq!(topics.map(|topic| pattern.matches(&topic)), expect, "{pattern:?}");
        };
        check("/topic/*", [false, true, false]);
        check("/topic/**", [true, true, true]);
        check("/topic/conversation/*", [true, false, false]);
        check("/topic/news/**", [false, true, true]);
        check("/topic/**/de", [false, false, true]);
        check("/topic/*/**/*", [true, false, true]);
        for text in ["/topic/a*", "/topic/***", "/topic/x/*y"] {
            assert!(SubscribeTarget::parse(text, user(1)).is_err(), "{text}");
        }
    }
}
