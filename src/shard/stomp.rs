//! STOMP frames of whatever carries them, and CONNECT to a session on its user's shard.

use std::time::Duration;

use crate::model::{Close, Fault, Refusal, RefusalCode, SessionId, ShardId};
use crate::protocol::sockjs;
use crate::protocol::stomp::{Command, Frame, Item, Version};
use crate::session::endpoints::Content;
use crate::session::frames::{Encapsulation, FrameFormat};
use crate::session::heartbeat::HeartBeats;
use crate::session::intent::{self, ConnectRequest};
use crate::session::token::Claims;
use crate::session::{Principal, Session, frames};
use crate::shard::connection::{Stage, Stomp, Talk};
use crate::shard::users::Carrier;
use crate::shard::{Shard, Turn};

use rand_chacha::rand_core::Rng;

/// How a piece of input left what carries it.
pub(super) enum Flow {
    /// All of it was taken in.
    Go,
    /// It ended; the rest is nobody's.
    End,
    Move(Box<Moved>),
}

/// CONNECT named a user of another shard; the STOMP bytes behind it go along.
pub(super) struct Moved {
    pub(super) to: ShardId,
    pub(super) connect: ConnectRequest,
    pub(super) claims: Claims,
    pub(super) payload: Vec<u8>,
}

impl Shard {
    /// Messages of a SockJS packet, in their order.
    pub(super) fn feed_messages(
        &mut self,
        turn: &mut Turn<'_>,
        carrier: Carrier,
        talk: &mut Talk,
        messages: &sockjs::Messages,
    ) -> Flow {
        match talk {
            Talk::Stomp(stomp) => self.feed_stomp(turn, carrier, stomp, messages.bytes()),
            Talk::Plain(..) => {
                for message in messages.iter() {
                    let flow = self.feed_talk(turn, carrier, talk, true, message);
                    if !matches!(flow, Flow::Go) {
                        return flow;
                    }
                }
                Flow::Go
            }
        }
    }

    /// A piece of STOMP, or a whole message for others.
    pub(super) fn feed_talk(&mut self, turn: &mut Turn<'_>, carrier: Carrier, talk: &mut Talk, text: bool, bytes: &[u8]) -> Flow {
        match talk {
            Talk::Stomp(stomp) => self.feed_stomp(turn, carrier, stomp, bytes),
            Talk::Plain(encapsulation, plain) => {
                let reply = (plain.message)(Content { text, bytes });
                self.react(turn, carrier, *encapsulation, reply)
            }
        }
    }

    fn feed_stomp(&mut self, turn: &mut Turn<'_>, carrier: Carrier, stomp: &mut Stomp, payload: &[u8]) -> Flow {
        let policy = self.policy.clone();
        let mut input = payload;
        loop {
            let item = match stomp.decoder.next(&mut input, &policy.limits) {
                Ok(None) => return Flow::Go,
                Ok(Some(Item::HeartBeat)) => continue,
                Ok(Some(Item::Frame(frame))) => self.handle_frame(turn, carrier, stomp.encapsulation, &mut stomp.stage, &frame),
                Err(fault) => Err((fault, None)),
            };
            match item {
                Ok(FrameFlow::Go) => {}
                Ok(FrameFlow::Connect(version)) => stomp.decoder.set_version(version),
                Ok(FrameFlow::End) => return Flow::End,
                Ok(FrameFlow::Move { to, connect, claims }) => {
                    return Flow::Move(Box::new(Moved { to, connect, claims, payload: input.to_vec() }));
                }
                Err((fault, receipt)) => {
                    let receipt = receipt.as_deref().or_else(|| stomp.decoder.faulty_receipt());
                    self.fault(turn, carrier, stomp, &fault, receipt);
                    return Flow::End;
                }
            }
        }
    }

    fn handle_frame(
        &mut self,
        turn: &mut Turn<'_>,
        carrier: Carrier,
        encapsulation: Encapsulation,
        stage: &mut Stage,
        frame: &Frame<'_>,
    ) -> Result<FrameFlow, (Fault, Option<Box<str>>)> {
        let with_receipt = |fault| (fault, frame.header("receipt").map(Into::into));
        match stage {
            Stage::Connected(key) => {
                let key = *key;
                self.handle_client_frame(turn, key, frame).map_err(with_receipt)?;
                // The frame may have ended the session, or the session the frame.
                Ok(if self.sessions.find(key).is_some() { FrameFlow::Go } else { FrameFlow::End })
            }
            Stage::AwaitingConnect { claims, .. } => {
                if frame.command != Command::Connect {
                    return Err(with_receipt(Fault::protocol("the first frame must be CONNECT or STOMP")));
                }
                let connect = intent::interpret_connect(frame).map_err(with_receipt)?;
                let claims = self.believe(turn, claims.as_deref(), &connect).map_err(with_receipt)?;
                let to = ShardId::of(claims.user.value(), self.shards);
                if to != self.id {
                    return Ok(FrameFlow::Move { to, connect, claims });
                }
                let version = connect.version;
                Ok(match self.enter_session(turn, carrier, encapsulation, &connect, &claims).map_err(with_receipt)? {
                    Some(entered) => {
                        *stage = entered;
                        FrameFlow::Connect(version)
                    }
                    None => FrameFlow::End,
                })
            }
        }
    }

    /// Whom a CONNECT names: its own token, the handshake's, or both when they name the same user.
    fn believe(&self, turn: &Turn<'_>, handshake: Option<&Claims>, connect: &ConnectRequest) -> Result<Claims, Fault> {
        let own = match &connect.token {
            None => None,
            Some(token) => {
                let claims = self.verify(turn, token.expose()).map_err(disbelief)?;
                Some(claims)
            }
        };
        match (own, handshake) {
            (None, None) => Err(Fault::policy("a token is needed, in the header Authorization or in the query of the URL")),
            (Some(own), Some(handshake)) if own.user != handshake.user => {
                Err(Fault::policy("the tokens of handshake and CONNECT name different users"))
            }
            (Some(own), _) => Ok(own),
            (None, Some(handshake)) if handshake.expires.after(self.policy.limits.token_leeway) <= turn.now.wall => {
                Err(Fault::policy("the token has expired"))
            }
            (None, Some(handshake)) => Ok(handshake.clone()),
        }
    }

    /// After a hand-over: the session begins, or ends at once.
    pub(super) fn begin_session(
        &mut self,
        turn: &mut Turn<'_>,
        carrier: Carrier,
        stomp: &mut Stomp,
        connect: &ConnectRequest,
        claims: &Claims,
    ) {
        stomp.decoder.set_version(connect.version);
        match self.enter_session(turn, carrier, stomp.encapsulation, connect, claims) {
            Ok(Some(stage)) => stomp.stage = stage,
            Ok(None) => {}
            Err(fault) => self.fault(turn, carrier, stomp, &fault, connect.receipt.as_deref()),
        }
    }

    /// Registers the session and answers CONNECTED. `None`: what carries it ended meanwhile.
    fn enter_session(
        &mut self,
        turn: &mut Turn<'_>,
        carrier: Carrier,
        encapsulation: Encapsulation,
        connect: &ConnectRequest,
        claims: &Claims,
    ) -> Result<Option<Stage>, Fault> {
        let limits = &self.policy.limits;
        if self.draining.is_some() {
            self.close_carrier(turn, carrier, Close::Restart, None);
            return Ok(None);
        }
        // The token may have been revoked on the way from the shard that read it.
        self.logins.check(claims.family).map_err(disbelief)?;
        let user = self.users.enter(claims.user, turn.now.mono);
        if user.sessions.len() >= limits.sessions_per_user {
            return Err(Fault::policy(format!("more than {} sessions of one user", limits.sessions_per_user)));
        }
        // What has nothing around it has no pings either.
        let ping = if encapsulation == Encapsulation::Bare { Duration::ZERO } else { limits.ping };
        let mut beats = HeartBeats::new(turn.now.mono, ping);
        let heart_beat = beats.negotiate(connect.heart_beat, limits);
        let session_id = SessionId(u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64()));
        let session = Session::new(session_id, connect.version, Principal::new(claims, limits), beats);
        let deadline = session.next_deadline(turn.now.mono, turn.now.wall);
        let key = self.sessions.insert(session, carrier, encapsulation);
        self.users.enter(claims.user, turn.now.mono).sessions.push(key);
        let format = FrameFormat { encapsulation, version: connect.version };
        self.carry(turn, carrier, frames::connected(format, session_id, claims.user, heart_beat));
        if let Some(receipt) = &connect.receipt {
            self.carry(turn, carrier, frames::receipt(format, receipt));
        }
        self.schedule_carrier(carrier, deadline);
        Ok(Some(Stage::Connected(key)))
    }

    /// ERROR, then the close that goes with the fault.
    fn fault(&mut self, turn: &mut Turn<'_>, carrier: Carrier, stomp: &Stomp, fault: &Fault, receipt: Option<&str>) {
        let mut format = stomp.first_format();
        if let Stage::Connected(key) = stomp.stage {
            format = self.sessions.find(key).map_or(format, |live| live.format);
            self.end_session(turn, key);
        }
        let error = frames::error(format, &fault.message, receipt);
        self.close_carrier(turn, carrier, fault.close, Some(error));
    }
}

/// The fault for a token that is not believed: for good, or for now.
fn disbelief(refusal: Refusal) -> Fault {
    let close = if refusal.code == RefusalCode::StoreUnavailable { Close::TryLater } else { Close::Policy };
    Fault::new(close, refusal.message)
}

/// How a frame left the session.
enum FrameFlow {
    Go,
    /// CONNECT was accepted: the version from here on.
    Connect(Version),
    End,
    Move {
        to: ShardId,
        connect: ConnectRequest,
        claims: Claims,
    },
}
