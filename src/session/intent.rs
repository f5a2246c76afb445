//! Client frames interpreted: headers become an intent. This changes no state.

use crate::model::destination::SendTarget;
use crate::model::message::{Draft, PassedHeaders};
use crate::model::{ConversationId, Fault, Limits, MessageId, Redacted, Refusal, RefusalCode};
use crate::protocol::json::{Reader, SendBody};
use crate::protocol::stomp::{self, Command, Frame, Version};
use crate::session::frames::UNSUPPORTED_VERSION;

/// An interpreted CONNECT, not yet authenticated.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    pub version: Version,
    /// (the client can send every, wants every), in milliseconds.
    pub heart_beat: (u32, u32),
    pub token: Option<Redacted<Box<str>>>,
    pub receipt: Option<Box<str>>,
}

/// An interpreted frame of a connected client. Nothing is decided yet.
#[derive(Debug)]
pub struct ClientFrame {
    pub receipt: Option<Box<str>>,
    /// A fault when a client may not send such a frame.
    pub intent: Result<Intent, Fault>,
}

/// The intent of a frame.
#[derive(Debug)]
pub enum Intent {
    /// A refused SEND leaves the session open.
    Send {
        transaction: Option<Box<str>>,
        send: Result<SendIntent, Refusal>,
    },
    Subscribe(SubscribeIntent),
    /// The id is absent only in STOMP 1.0, which then names the destination.
    Unsubscribe {
        id: Option<Box<str>>,
        destination: Option<Box<str>>,
    },
    /// ACK or NACK.
    Acknowledge {
        transaction: Option<Box<str>>,
    },
    Begin {
        transaction: Box<str>,
    },
    Commit {
        transaction: Box<str>,
    },
    Abort {
        transaction: Box<str>,
    },
    Disconnect,
}

/// A SEND to one of the application's destinations.
#[derive(Debug)]
pub enum SendIntent {
    Message {
        conversation: ConversationId,
        draft: Draft,
        /// The sending session wants its own copy.
        echo: bool,
    },
    MarkRead {
        conversation: Option<ConversationId>,
        message: MessageId,
    },
    Announce(Announcement),
    RefreshToken(Redacted<Box<str>>),
    /// Any frame is a sign of life; this one is only that.
    HeartBeat,
}

/// A broadcast to `/topic/announcements`, which is not stored: the body is passed on unchanged.
#[derive(Debug)]
pub struct Announcement {
    pub content_type: Box<str>,
    pub body: Vec<u8>,
    pub headers: PassedHeaders,
}

/// How deliveries of a subscription are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    Auto,
    Client,
    ClientIndividual,
}

/// A SUBSCRIBE, before its destination is checked against the user.
#[derive(Debug)]
pub struct SubscribeIntent {
    /// Absent only in STOMP 1.0.
    pub id: Option<Box<str>>,
    pub destination: Box<str>,
    pub ack: AckMode,
}

/// Longest id of a subscription, transaction or receipt, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// # Errors
/// A fault when no version is common or a header is malformed: ERROR, close.
pub fn interpret_connect(frame: &Frame<'_>) -> Result<ConnectRequest, Fault> {
    let version = stomp::negotiate(frame.header("accept-version")).map_err(|_| Fault::protocol(UNSUPPORTED_VERSION))?;
    let heart_beat = stomp::parse_heart_beat(frame.header("heart-beat"))
        .map_err(|_| Fault::protocol("malformed header heart-beat, two numbers of milliseconds are expected"))?;
    // STOMP libraries write header names as the application spelled them; Spring's clients write `Authorization`.
    let authorization = frame.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let token = match authorization {
        None => None,
        Some((_, value)) => match bearer(value) {
            Some(token) => Some(Redacted::new(token.into())),
            None => return Err(Fault::policy("malformed header Authorization, Bearer and a token are expected")),
        },
    };
    Ok(ConnectRequest { version, heart_beat, token, receipt: name(frame, "receipt")?.map(Into::into) })
}

/// The token of `Bearer X`; the scheme in any case (RFC 9110 section 11.1).
#[must_use]
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A header that holds a name: a receipt, a transaction, a subscription.
///
/// # Errors
/// A fault when it is longer than [`NAME_BYTES_MAX`].
pub fn name<'a>(frame: &'a Frame<'_>, header: &'static str) -> Result<Option<&'a str>, Fault> {
    match frame.header(header) {
        Some(value) if value.len() > NAME_BYTES_MAX => {
            Err(Fault::protocol(format!("header {header} is longer than {NAME_BYTES_MAX} bytes")))
        }
        other => Ok(other),
    }
}

/// Interprets a frame of a client that speaks `version`.
pub fn interpret(frame: &Frame<'_>, version: Version, limits: &Limits, reader: &mut Reader) -> ClientFrame {
    let receipt = frame.header("receipt").map(Into::into);
    let intent = name(frame, "receipt").and_then(|_| interpret_command(frame, version, limits, reader));
    ClientFrame { receipt, intent }
}

fn interpret_command(frame: &Frame<'_>, version: Version, limits: &Limits, reader: &mut Reader) -> Result<Intent, Fault> {
    match frame.command {
        Command::Send => {
            let transaction = name(frame, "transaction")?.map(Into::into);
            if frame.header("destination").is_none() {
                return Err(Fault::protocol("header destination is missing"));
            }
            Ok(Intent::Send { transaction, send: interpret_send(frame, limits, reader) })
        }
        Command::Subscribe => interpret_subscribe(frame, version).map(Intent::Subscribe),
        Command::Unsubscribe => {
            let (id, destination) = (frame.header("id"), frame.header("destination"));
            if id.is_none() && (version > Version::V10 || destination.is_none()) {
                return Err(Fault::protocol("header id is missing"));
            }
            Ok(Intent::Unsubscribe { id: id.map(Into::into), destination: destination.map(Into::into) })
        }
        Command::Ack | Command::Nack => interpret_acknowledge(frame, version),
        Command::Begin => transaction(frame).map(|transaction| Intent::Begin { transaction }),
        Command::Commit => transaction(frame).map(|transaction| Intent::Commit { transaction }),
        Command::Abort => transaction(frame).map(|transaction| Intent::Abort { transaction }),
        Command::Disconnect => Ok(Intent::Disconnect),
        Command::Connect => Err(Fault::protocol("the session is connected already")),
        Command::Connected | Command::Message | Command::Receipt | Command::Error => {
            Err(Fault::protocol("a client may not send a server's frame"))
        }
    }
}

/// # Errors
/// A refusal: the session stays open.
fn interpret_send(frame: &Frame<'_>, limits: &Limits, reader: &mut Reader) -> Result<SendIntent, Refusal> {
    let Some(destination) = frame.header("destination") else {
        return Err(Refusal::new(RefusalCode::BadRequest, "header destination is missing"));
    };
    match SendTarget::parse(destination)? {
        SendTarget::Heartbeat => Ok(SendIntent::HeartBeat),
        SendTarget::Send => interpret_message(frame, None, limits, reader),
        SendTarget::SendTo(conversation) => interpret_message(frame, Some(conversation), limits, reader),
        SendTarget::Read(message) => {
            let conversation = match frame.header("conversation-id") {
                None => None,
                Some(text) => {
                    Some(text.parse().map_err(|_| Refusal::new(RefusalCode::BadRequest, "header conversation-id is not valid"))?)
                }
            };
            Ok(SendIntent::MarkRead { conversation, message })
        }
        SendTarget::RefreshToken => interpret_refresh(frame),
        SendTarget::Announcements => Ok(SendIntent::Announce(Announcement {
            content_type: frame.header("content-type").unwrap_or("text/plain").into(),
            body: frame.body.to_vec(),
            headers: passed_headers(frame, limits)?,
        })),
    }
}

fn interpret_message(
    frame: &Frame<'_>,
    destination: Option<ConversationId>,
    limits: &Limits,
    reader: &mut Reader,
) -> Result<SendIntent, Refusal> {
    let body = SendBody::read(reader, frame.body)?;
    let conversation = match (destination, body.conversation) {
        (Some(named), Some(other)) if named != other => {
            return Err(Refusal::new(RefusalCode::BadRequest, "destination and body name different conversations"));
        }
        (Some(named), _) | (None, Some(named)) => named,
        (None, None) => return Err(Refusal::new(RefusalCode::BadRequest, "conversationId is missing")),
    };
    let headers = passed_headers(frame, limits)?;
    let draft = body.into_draft(frame.header("client-message-id"), headers, limits)?;
    let echo = frame.header("echo").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(SendIntent::Message { conversation, draft, echo })
}

/// The client's own headers, passed on to receivers; reserved ones are left out, so that clients cannot forge them.
fn passed_headers(frame: &Frame<'_>, limits: &Limits) -> Result<PassedHeaders, Refusal> {
    let mut passed = PassedHeaders::new();
    let mut bytes = 0;
    for (name, value) in &frame.headers {
        if stomp::is_reserved(name) || passed.iter().any(|(known, _)| **known == **name) {
            continue;
        }
        bytes += name.len() + value.len();
        if bytes > limits.passed_header_bytes {
            let message = format!("headers of your own may have {} bytes together", limits.passed_header_bytes);
            return Err(Refusal::new(RefusalCode::TooLarge, message));
        }
        passed.push((name.as_ref().into(), value.as_ref().into()));
    }
    Ok(passed)
}

/// `/app/auth/refresh`: the new token is in the body, or in an `Authorization` header.
fn interpret_refresh(frame: &Frame<'_>) -> Result<SendIntent, Refusal> {
    let header = frame.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let token = match header {
        Some((_, value)) => bearer(value).map(str::to_owned),
        None => Reader::new().read(frame.body, |body| body.required_string("token").map(str::to_owned)).ok(),
    };
    match token {
        Some(token) => Ok(SendIntent::RefreshToken(Redacted::new(token.into_boxed_str()))),
        None => Err(Refusal::new(RefusalCode::BadRequest, "a token is expected: {\"token\":\"...\"} or Authorization")),
    }
}

/// The caller, which knows the user, checks that the destination is the user's.
fn interpret_subscribe(frame: &Frame<'_>, version: Version) -> Result<SubscribeIntent, Fault> {
    let Some(destination) = frame.header("destination") else {
        return Err(Fault::protocol("header destination is missing"));
    };
    let id = name(frame, "id")?;
    if id.is_none() && version > Version::V10 {
        return Err(Fault::protocol("header id is missing"));
    }
    let ack = match frame.header("ack") {
        None | Some("auto") => AckMode::Auto,
        Some("client") => AckMode::Client,
        Some("client-individual") if version > Version::V10 => AckMode::ClientIndividual,
        Some(_) => return Err(Fault::protocol("header ack must be auto, client or client-individual")),
    };
    Ok(SubscribeIntent { id: id.map(Into::into), destination: destination.into(), ack })
}

fn interpret_acknowledge(frame: &Frame<'_>, version: Version) -> Result<Intent, Fault> {
    let needed: &[&str] = match version {
        Version::V12 => &["id"],
        Version::V11 => &["message-id", "subscription"],
        Version::V10 => &["message-id"],
    };
    if let Some(missing) = needed.iter().find(|name| frame.header(name).is_none()) {
        return Err(Fault::protocol(format!("header {missing} is missing")));
    }
    if frame.command == Command::Nack && version == Version::V10 {
        return Err(Fault::protocol("STOMP 1.0 has no NACK"));
    }
    Ok(Intent::Acknowledge { transaction: name(frame, "transaction")?.map(Into::into) })
}

/// The transaction that BEGIN, COMMIT and ABORT must name.
fn transaction(frame: &Frame<'_>) -> Result<Box<str>, Fault> {
    name(frame, "transaction")?.map(Into::into).ok_or_else(|| Fault::protocol("header transaction is missing"))
}
