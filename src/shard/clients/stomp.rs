//! STOMP from one client: frames of whatever its messages travel in.

use crate::access::token::Claims;
use crate::model::{Close, Fault, Mono, Wall};
use crate::protocol::json::Reader;
use crate::protocol::stomp::{Command, Decoder, Frame, Item, Side, Version};
use crate::session::frames::{Encapsulation, FrameFormat};
use crate::session::intent::{self, ClientFrame, ConnectRequest};
use crate::shard::clients::payload::Payload;
use crate::shard::mail::SessionKey;
use crate::shard::turn::Turn;

/// Lifetime: the connection's, or the SockJS session's.
#[derive(Debug)]
pub(super) struct StompStream {
    encapsulation: Encapsulation,
    decoder: Decoder,
    state: State,
}

#[derive(Debug)]
enum State {
    /// CONNECT has not come, or was not answered yet. `claims`: of the handshake's token, if there was one.
    AwaitingConnect {
        claims: Option<Box<Claims>>,
        until: Mono,
    },
    Connected(SessionKey),
}

/// A frame, or the end.
pub(super) enum StompItem {
    Connect {
        connect: ConnectRequest,
        handshake: Option<Box<Claims>>,
    },
    Frame {
        session: SessionKey,
        frame: ClientFrame,
    },
    /// ERROR with this, then close.
    Fault {
        fault: Fault,
        receipt: Option<Box<str>>,
    },
}

/// How long a client may be waited for before it has sent CONNECT.
pub(super) enum Patience {
    Until(Mono),
    Over(Close),
    TokenExpired,
}

impl StompStream {
    pub(super) fn new(encapsulation: Encapsulation, claims: Option<Claims>, until: Mono) -> Self {
        let state = State::AwaitingConnect { claims: claims.map(Box::new), until };
        Self { encapsulation, decoder: Decoder::new(Side::Server), state }
    }

    /// CONNECT was accepted: the session, and the version of all frames from here on.
    pub(super) fn connected(&mut self, session: SessionKey, version: Version) {
        self.decoder.set_version(version);
        self.state = State::Connected(session);
    }

    pub(super) fn session(&self) -> Option<SessionKey> {
        match self.state {
            State::Connected(session) => Some(session),
            State::AwaitingConnect { .. } => None,
        }
    }

    /// How frames are written to this client; before a version was agreed on, as STOMP 1.2 has them.
    pub(super) fn format(&self) -> FrameFormat {
        let version = match self.state {
            State::Connected(_) => self.decoder.version(),
            State::AwaitingConnect { .. } => Version::V12,
        };
        FrameFormat { encapsulation: self.encapsulation, version }
    }

    /// Takes the next frame off the payload. `None`: all of it was read.
    pub(super) fn next(&mut self, turn: &Turn, payload: &mut Payload<'_>, reader: &mut Reader) -> Option<StompItem> {
        let limits = turn.limits();
        let version = self.decoder.version();
        loop {
            let mut rest = payload.rest();
            let before = rest.len();
            let item = match self.decoder.next(&mut rest, limits) {
                Ok(None) => None,
                Ok(Some(Item::HeartBeat)) => Some(None),
                Ok(Some(Item::Frame(frame))) => Some(Some(match &mut self.state {
                    State::Connected(session) => {
                        StompItem::Frame { session: *session, frame: intent::interpret(&frame, version, limits, reader) }
                    }
                    State::AwaitingConnect { claims, .. } => first_frame(&frame, claims),
                })),
                Err(fault) => Some(Some(StompItem::Fault { fault, receipt: None })),
            };
            let taken = before - rest.len();
            payload.advance(taken);
            match item {
                None => return None,
                Some(None) => {}
                Some(Some(StompItem::Fault { fault, receipt })) => {
                    let receipt = receipt.or_else(|| self.decoder.faulty_receipt().map(Into::into));
                    return Some(StompItem::Fault { fault, receipt });
                }
                Some(item) => return item,
            }
        }
    }

    /// Whether a client without a session has used up its time.
    pub(super) fn patience(&self, turn: &Turn) -> Option<Patience> {
        let State::AwaitingConnect { claims, until } = &self.state else { return None };
        let expires: Wall = turn.token_end(claims.as_deref());
        Some(if *until <= turn.now.mono {
            Patience::Over(Close::NoFirstFrame)
        } else if expires <= turn.now.wall {
            Patience::TokenExpired
        } else {
            Patience::Until((*until).min(turn.after(turn.now.wall.until(expires))))
        })
    }
}

fn first_frame(frame: &Frame<'_>, claims: &mut Option<Box<Claims>>) -> StompItem {
    let fault = |fault| StompItem::Fault { fault, receipt: frame.header("receipt").map(Into::into) };
    if frame.command != Command::Connect {
        return fault(Fault::protocol("the first frame must be CONNECT or STOMP"));
    }
    match intent::interpret_connect(frame) {
        Ok(connect) => StompItem::Connect { connect, handshake: claims.take() },
        Err(error) => fault(error),
    }
}
