//! Header names that a client cannot pass on to receivers.
//!
//! STOMP asks that the MESSAGE repeat the headers of its SEND (STOMP 1.2, "SEND"). It does not repeat headers that the server
//! writes or reads as instructions: a client that could set them would forge what receivers believe came from the server,
//! or show them a secret.

/// Grouped by the party that gives them their meaning.
const RESERVED: &[&str] = &[
    // The server writes them in the frames it sends.
    "subscription",
    "message-id",
    "message",
    "ack",
    "receipt-id",
    "session",
    "server",
    "version",
    "heart-beat",
    "user-name",
    "conversation-id",
    "sender-id",
    "created-at",
    "redelivered",
    "retry-after",
    // Each hop writes its own.
    "content-length",
    // The server keeps the sender's content-type, and writes it once, with the MESSAGE.
    "content-type",
    // Instructions to the server, meant for it alone.
    "destination",
    "receipt",
    "transaction",
    "id",
    "selector",
    "accept-version",
    "host",
    "echo",
    "session-id",
    "resume-from",
    "client-message-id",
    // Secrets.
    "login",
    "passcode",
    "authorization",
    "token",
    "cookie",
];

/// Whether a header of this name is the server's, so that a SEND's must not be passed on.
///
/// Names are compared without case and without whitespace, colons and controls around them: STOMP's names are
/// case-sensitive and not trimmed, but receivers exist that fold or trim them.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let name = name.trim_matches(|c: char| c == ':' || c == '\u{feff}' || c.is_whitespace() || c.is_control());
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_seen_through_disguises() {
        for name in ["message-id", "Message-ID", " message-id", "message-id\t", "\rsubscription", ":ack", "\u{feff}receipt-id"] {
            assert!(is_reserved(name), "{name:?}");
        }
        assert!(RESERVED.iter().all(|name| is_reserved(name) && name.bytes().all(|b| b == b'-' || b.is_ascii_lowercase())));
    }

    #[test]
    fn clients_own_names_pass() {
        for name in ["x-trace", "message-ids", "my message-id", "priority", "correlation-id", "", "acks"] {
            assert!(!is_reserved(name), "{name:?}");
        }
    }
}
