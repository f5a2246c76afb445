//! The one table of refusals, faults and close codes: the texts for clients, and whether to reconnect.

use std::borrow::Cow;
use std::fmt;

/// Why a command was refused. The session or the HTTP connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    BadRequest,
    Unauthorized,
    NotParticipant,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Timeout,
    Conflict,
    KeyReused,
    TooLarge,
    UriTooLong,
    UnsupportedMedia,
    ExpectationFailed,
    ContentTooLong,
    ContentEmpty,
    ContentInvalid,
    Blocked,
    RateLimited,
    UpgradeRequired,
    HeadersTooLarge,
    Internal,
    NotImplemented,
    TooManySessions,
    StoreBusy,
    StoreUnavailable,
    Draining,
    VersionNotSupported,
}

impl RefusalCode {
    /// The `code` of an error body, the HTTP status that belongs to it, and whether the same request may succeed later.
    #[must_use]
    pub const fn row(self) -> (&'static str, u16, bool) {
        match self {
            Self::BadRequest => ("bad_request", 400, false),
            Self::ContentEmpty => ("content_empty", 400, false),
            Self::ContentInvalid => ("content_invalid", 400, false),
            Self::ContentTooLong => ("content_too_long", 400, false),
            Self::Unauthorized => ("unauthorized", 401, false),
            Self::NotParticipant => ("not_participant", 403, false),
            Self::Forbidden => ("forbidden", 403, false),
            Self::Blocked => ("blocked", 403, false),
            Self::NotFound => ("not_found", 404, false),
            Self::MethodNotAllowed => ("method_not_allowed", 405, false),
            Self::Timeout => ("timeout", 408, true),
            Self::Conflict => ("conflict", 409, false),
            Self::KeyReused => ("client_message_id_reused", 409, false),
            Self::TooLarge => ("too_large", 413, false),
            Self::UriTooLong => ("uri_too_long", 414, false),
            Self::UnsupportedMedia => ("unsupported_media_type", 415, false),
            Self::ExpectationFailed => ("expectation_failed", 417, false),
            Self::UpgradeRequired => ("upgrade_required", 426, false),
            Self::RateLimited => ("rate_limited", 429, true),
            Self::HeadersTooLarge => ("headers_too_large", 431, false),
            Self::Internal => ("internal", 500, true),
            Self::NotImplemented => ("not_implemented", 501, false),
            Self::TooManySessions => ("too_many_sessions", 503, true),
            Self::StoreBusy => ("store_busy", 503, true),
            Self::StoreUnavailable => ("store_unavailable", 503, true),
            Self::Draining => ("draining", 503, true),
            Self::VersionNotSupported => ("version_not_supported", 505, false),
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }
}

/// A refusal with its message: `{code, message}` over REST, `{code, message, receipt}` on `/user/queue/errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: Cow<'static, str>,
    /// Seconds after which the same command may succeed: `Retry-After`, or the header `retry-after`.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub fn new(code: RefusalCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

/// Why a connection is closed, with its WebSocket close code (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// DISCONNECT, or the client's own close.
    Normal,
    /// The server is going away: reconnect after a jittered delay.
    Restart,
    /// A fault in the WebSocket or STOMP framing.
    Protocol,
    /// Text that is not UTF-8 (RFC 6455 section 8.1).
    InvalidText,
    /// A bad, expired or revoked token, or a destination of another user.
    Policy,
    /// A frame or message over its limit.
    TooBig,
    /// The client stopped sending heart-beats.
    Silent,
    /// No first STOMP frame in time.
    NoFirstFrame,
    /// A slow reader: over `limits.outbox_bytes`, or a write blocked for longer than `limits.write_blocked`.
    SendLimit,
    /// The store cannot say yet whether the token's login was revoked.
    TryLater,
}

impl Close {
    /// The code, the reason in the close frame (at most 123 bytes), and whether the client should reconnect.
    #[must_use]
    pub const fn row(self) -> (u16, &'static str, bool) {
        match self {
            Self::Normal => (1000, "", false),
            Self::Restart => (1012, "Service restart", true),
            Self::Protocol => (1002, "Protocol error", false),
            Self::InvalidText => (1007, "Invalid UTF-8", false),
            Self::Policy => (1008, "Policy violation", false),
            Self::TooBig => (1009, "Message too big", false),
            Self::TryLater => (1013, "Try again later", true),
            Self::Silent => (4408, "No heart-beat", true),
            Self::NoFirstFrame => (4409, "No STOMP frame in time", true),
            Self::SendLimit => (4500, "Failed to send message within the configured send limit", true),
        }
    }

    #[must_use]
    pub const fn code(self) -> u16 {
        self.row().0
    }

    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.row().1
    }
}

/// A fault that ends the session: an ERROR frame with `message`, then `close`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub close: Close,
    /// The `message` header of the ERROR frame: one line.
    pub message: Cow<'static, str>,
}

impl Fault {
    pub fn new(close: Close, message: impl Into<Cow<'static, str>>) -> Self {
        Self { close, message: message.into() }
    }

    /// A fault in the framing: ERROR, close 1002.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Close::Protocol, message)
    }

    /// A frame that this client may not send: ERROR, close 1008.
    pub fn policy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Close::Policy, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSES: [Close; 10] = [
        Close::Normal,
        Close::Protocol,
        Close::InvalidText,
        Close::Policy,
        Close::TooBig,
        Close::Restart,
        Close::TryLater,
        Close::Silent,
        Close::NoFirstFrame,
        Close::SendLimit,
    ];

    const REFUSALS: [RefusalCode; 27] = [
        RefusalCode::BadRequest,
        RefusalCode::ContentEmpty,
        RefusalCode::ContentTooLong,
        RefusalCode::ContentInvalid,
        RefusalCode::Unauthorized,
        RefusalCode::NotParticipant,
        RefusalCode::Forbidden,
        RefusalCode::Blocked,
        RefusalCode::NotFound,
        RefusalCode::MethodNotAllowed,
        RefusalCode::Timeout,
        RefusalCode::Conflict,
        RefusalCode::KeyReused,
        RefusalCode::TooLarge,
        RefusalCode::UriTooLong,
        RefusalCode::UnsupportedMedia,
        RefusalCode::ExpectationFailed,
        RefusalCode::UpgradeRequired,
        RefusalCode::RateLimited,
        RefusalCode::HeadersTooLarge,
        RefusalCode::Internal,
        RefusalCode::NotImplemented,
        RefusalCode::TooManySessions,
        RefusalCode::StoreBusy,
        RefusalCode::StoreUnavailable,
        RefusalCode::Draining,
        RefusalCode::VersionNotSupported,
    ];

    // The lists above are whole as long as these variants are the last of their enums.
    const _: () = assert!(CLOSES.len() == Close::TryLater as usize + 1);
    const _: () = assert!(REFUSALS.len() == RefusalCode::VersionNotSupported as usize + 1);

    /// The cells of each row of the table under a heading of docs/protocol.md.
    fn rows(heading: &str) -> Vec<Vec<&'static str>> {
        let page = include_str!("../../docs/protocol.md");
        let (_, section) = page.split_once(heading).unwrap();
        let lines = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        lines.take_while(|line| line.starts_with('|')).map(|line| line.split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn close_reasons_fit_a_control_frame() {
        for close in CLOSES {
            assert!(close.reason().len() <= 123);
        }
    }

    #[test]
    fn the_protocol_page_has_every_refusal() {
        let documented: Vec<_> = rows("\n### Error codes\n")
            .iter()
            .map(|cells| (cells[2].trim_matches('`'), cells[1].parse().unwrap(), cells[4] == "yes"))
            .collect();
        assert_eq!(documented, REFUSALS.map(RefusalCode::row));
    }

    #[test]
    fn the_protocol_page_has_every_close_code() {
        let documented: Vec<_> = rows("\n## Close codes\n")
            .iter()
            // A connection that is lost has none.
            .filter(|cells| cells[1] != "none")
            .map(|cells| (cells[1].parse().unwrap(), cells[2], cells[5].starts_with("yes")))
            .collect();
        assert_eq!(documented, CLOSES.map(Close::row));
    }
}
