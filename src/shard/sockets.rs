//! WebSocket bytes to STOMP frames, and CONNECT to a session on its user's shard.

use crate::model::{Close, ConnectionId, Fault, Refusal, RefusalCode, SessionId, ShardId};
use crate::protocol::stomp::{self, Command, Frame, Item, Version};
use crate::protocol::websocket::{self, Packet};
use crate::session::heartbeat::HeartBeats;
use crate::session::intent::{self, ConnectRequest};
use crate::session::token::Claims;
use crate::session::{Principal, Session, frames};
use crate::shard::connection::{Phase, Socket, SocketStage};
use crate::shard::handover::{Handover, Stage};
use crate::shard::users::Carrier;
use crate::shard::{Outbox, Shard, Turn};

use rand_chacha::rand_core::Rng;

/// How a piece of input left the socket.
enum Flow {
    /// All of it was taken in.
    Go,
    /// The socket ended; the rest is nobody's.
    End,
    /// CONNECT named a user of another shard; the STOMP bytes behind it go along.
    Move { to: ShardId, connect: ConnectRequest, claims: Claims, payload: Vec<u8> },
}

impl Shard {
    /// Feeds STOMP bytes that were already unwrapped, then bytes from the socket. Takes the socket, and gives it back
    /// to its connection unless it ended or moves.
    pub(super) fn feed_socket(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        mut socket: Box<Socket>,
        payload: &[u8],
        bytes: &mut [u8],
    ) {
        let session = match socket.stage {
            SocketStage::Connected(key) => self.sessions.find_mut(key),
            SocketStage::AwaitingConnect { .. } => None,
        };
        if let Some(live) = session {
            live.session.beats.heard(turn.now.mono);
        }
        let mut flow = Flow::Go;
        if !payload.is_empty() {
            flow = self.feed_stomp(turn, id, &mut socket.stomp, &mut socket.stage, payload);
        }
        let mut rest = bytes;
        if let Flow::Go = flow {
            flow = self.feed_websocket(turn, id, &mut socket, &mut rest);
        }
        match flow {
            Flow::Go => {
                let stage = &socket.stage;
                let full = match stage {
                    SocketStage::Connected(key) => self
                        .sessions
                        .find(*key)
                        .is_some_and(|live| live.session.pending.len() >= self.policy.limits.session_inflight),
                    SocketStage::AwaitingConnect { .. } => false,
                };
                self.restore(id, Phase::Socket(socket));
                if full {
                    self.pause(turn, id);
                }
            }
            Flow::End => self.end_stage(turn, &socket.stage),
            Flow::Move { to, connect, claims, payload } => {
                let Some(connection) = self.connections.find(id) else { return };
                let peer = connection.peer.clone();
                let stage = Stage::Connect { connect, claims, websocket: socket.websocket, payload };
                self.move_connection(turn, id, to, Handover { peer, bytes: rest.to_vec(), stage });
            }
        }
    }

    fn feed_websocket(&mut self, turn: &mut Turn<'_>, id: ConnectionId, socket: &mut Socket, bytes: &mut &mut [u8]) -> Flow {
        let Socket { websocket, stomp, stage } = socket;
        let limits = &self.policy.limits;
        let limits = websocket::MessageLimits { message_bytes: limits.message_bytes, fragments: limits.message_fragments };
        loop {
            match websocket.next(bytes, limits) {
                Ok(None) => return Flow::Go,
                Ok(Some(Packet::Data { bytes, .. })) => {
                    let flow = self.feed_stomp(turn, id, stomp, stage, bytes);
                    if !matches!(flow, Flow::Go) {
                        return flow;
                    }
                }
                Ok(Some(Packet::Ping(payload))) => {
                    let pong = frames::pong(payload);
                    let queued = self.outbox(id).map_or(0, Outbox::bytes);
                    if queued + pong.len() > self.policy.limits.outbox_bytes {
                        self.close_socket(turn, id, Close::SendLimit, None);
                        return Flow::End;
                    }
                    self.write(turn, id, pong);
                }
                Ok(Some(Packet::Pong(_))) => {}
                Ok(Some(Packet::Close { code, .. })) => {
                    self.close_echo(turn, id, code);
                    return Flow::End;
                }
                Err(violation) => {
                    tracing::debug!(shard = self.id.0, what = violation.what, "WebSocket violation");
                    self.close_socket(turn, id, violation.close, None);
                    return Flow::End;
                }
            }
        }
    }

    /// RFC 6455 section 5.5.1: a close frame is answered with its own code.
    fn close_echo(&mut self, turn: &mut Turn<'_>, id: ConnectionId, code: Option<u16>) {
        let mut out = Vec::with_capacity(8);
        match code {
            Some(code) => websocket::close(code, "", &mut out),
            None => websocket::frame(websocket::Kind::Close, &[], &mut out),
        }
        self.write(turn, id, out.into());
        self.end_connection(turn, id);
    }

    fn feed_stomp(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        stomp: &mut stomp::Decoder,
        stage: &mut SocketStage,
        payload: &[u8],
    ) -> Flow {
        let policy = self.policy.clone();
        let mut input = payload;
        loop {
            let item = match stomp.next(&mut input, &policy.limits) {
                Ok(None) => return Flow::Go,
                Ok(Some(Item::HeartBeat)) => continue,
                Ok(Some(Item::Frame(frame))) => self.handle_frame(turn, id, stage, &frame),
                Err(fault) => Err((fault, None)),
            };
            match item {
                Ok(FrameFlow::Go) => {}
                Ok(FrameFlow::Connect(version)) => stomp.set_version(version),
                Ok(FrameFlow::End) => return Flow::End,
                Ok(FrameFlow::Move { to, connect, claims }) => {
                    return Flow::Move { to, connect, claims, payload: input.to_vec() };
                }
                Err((fault, receipt)) => {
                    let receipt = receipt.as_deref().or_else(|| stomp.faulty_receipt());
                    self.fault(turn, id, stage, &fault, receipt);
                    return Flow::End;
                }
            }
        }
    }

    fn handle_frame(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        stage: &mut SocketStage,
        frame: &Frame<'_>,
    ) -> Result<FrameFlow, (Fault, Option<Box<str>>)> {
        let with_receipt = |fault| (fault, frame.header("receipt").map(Into::into));
        match stage {
            SocketStage::Connected(key) => {
                let key = *key;
                self.handle_client_frame(turn, key, frame).map_err(with_receipt)?;
                // The frame may have ended the session, or the session the frame.
                Ok(if self.sessions.find(key).is_some() { FrameFlow::Go } else { FrameFlow::End })
            }
            SocketStage::AwaitingConnect { claims, .. } => {
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
                Ok(match self.enter_session(turn, id, &connect, &claims).map_err(with_receipt)? {
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
        id: ConnectionId,
        socket: &mut Socket,
        connect: &ConnectRequest,
        claims: &Claims,
    ) {
        match self.enter_session(turn, id, connect, claims) {
            Ok(Some(stage)) => socket.stage = stage,
            Ok(None) => {}
            Err(fault) => self.fault(turn, id, &socket.stage, &fault, connect.receipt.as_deref()),
        }
    }

    /// Registers the session and answers CONNECTED. `None`: the connection ended meanwhile.
    fn enter_session(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        connect: &ConnectRequest,
        claims: &Claims,
    ) -> Result<Option<SocketStage>, Fault> {
        let limits = &self.policy.limits;
        if self.draining.is_some() {
            self.close_socket(turn, id, Close::Restart, None);
            return Ok(None);
        }
        // The token may have been revoked on the way from the shard that read it.
        self.logins.check(claims.family).map_err(disbelief)?;
        let user = self.users.enter(claims.user, turn.now.mono);
        if user.sessions.len() >= limits.sessions_per_user {
            return Err(Fault::policy(format!("more than {} sessions of one user", limits.sessions_per_user)));
        }
        let mut beats = HeartBeats::new(turn.now.mono, limits.ping);
        let heart_beat = beats.negotiate(connect.heart_beat, limits);
        let session_id = SessionId(u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64()));
        let session = Session::new(session_id, connect.version, Principal::new(claims, limits), beats);
        let deadline = session.next_deadline(turn.now.mono, turn.now.wall);
        let key = self.sessions.insert(session, Carrier::Socket(id));
        self.users.enter(claims.user, turn.now.mono).sessions.push(key);
        self.write(turn, id, frames::connected(connect.version, session_id, claims.user, heart_beat));
        if let Some(receipt) = &connect.receipt {
            self.write(turn, id, frames::receipt(connect.version, receipt));
        }
        self.schedule_connection(id, deadline);
        Ok(Some(SocketStage::Connected(key)))
    }

    /// ERROR, then the close that goes with the fault.
    fn fault(&mut self, turn: &mut Turn<'_>, id: ConnectionId, stage: &SocketStage, fault: &Fault, receipt: Option<&str>) {
        let version = match stage {
            SocketStage::Connected(key) => self.sessions.find(*key).map_or(Version::V12, |live| live.session.version),
            SocketStage::AwaitingConnect { .. } => Version::V12,
        };
        self.end_stage(turn, stage);
        let error = frames::error(version, &fault.message, receipt);
        self.close_socket(turn, id, fault.close, Some(error));
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
