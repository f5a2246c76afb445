//! Connections come, upgrade, move to their user's shard, are written to, and end.

use std::net::IpAddr;

use bytes::Bytes;

use crate::access::token::Claims;
use crate::api;
use crate::model::{Close, ConnectionId, Mono, Redacted, ShardId};
use crate::protocol::http::{Request, Response};
use crate::protocol::sockjs;
use crate::session::endpoints::{Application, EndpointId};
use crate::session::frames::{self, Encapsulation, FrameFormat};
use crate::shard::boundary::{Effect, ListenerKind};
use crate::shard::clients::connection::{Connection, Phase};
use crate::shard::clients::framing::Framing;
use crate::shard::clients::handover::{Handover, Progress};
use crate::shard::clients::http::{self, Http, HttpCheck, HttpFlow};
use crate::shard::clients::outbox::Outbox;
use crate::shard::clients::payload::Payload;
use crate::shard::clients::socket::{Protocol, Socket};
use crate::shard::clients::stomp::{Patience, StompStream};
use crate::shard::clients::{Backlog, ClientEvent, ClientId, Clients, Gone, Timer};
use crate::shard::turn::Turn;

impl Clients {
    pub(in crate::shard) fn open(&mut self, turn: &mut Turn, id: ConnectionId, peer: Redacted<IpAddr>, kind: ListenerKind) {
        let (phase, encapsulation, until) = match kind {
            ListenerKind::Http => {
                let until = turn.after(http::http_patience(turn));
                (Phase::Http(Box::new(Http::new(turn.now.mono))), Encapsulation::WebSocket, until)
            }
            ListenerKind::Stomp => {
                let until = turn.after(turn.limits().first_frame);
                let protocol = Protocol::Stomp(StompStream::new(Encapsulation::Bare, None, until));
                (Phase::Socket(Box::new(Socket { framing: Framing::Bare, protocol })), Encapsulation::Bare, until)
            }
        };
        self.connections.insert(Connection::new(id, peer, turn.now.mono, encapsulation, phase));
        self.schedule_connection(id, until);
    }

    /// A connection that another shard began goes on here, with what was read ahead.
    pub(in crate::shard) fn adopt(&mut self, turn: &mut Turn, id: ConnectionId, handover: Handover) {
        let Handover { peer, payload, bytes, progress } = handover;
        let client = ClientId::Socket(id);
        match progress {
            Progress::Upgrade { switching, claims, endpoint, framing } => {
                self.begin_socket(turn, (id, peer), switching, Some(claims), endpoint, framing);
                if turn.draining.is_some() {
                    return self.drain_connection(turn, id);
                }
            }
            Progress::Connect { connect, claims, framing } => {
                let encapsulation = framing.encapsulation();
                let protocol = Protocol::Stomp(StompStream::new(encapsulation, None, Mono(u64::MAX)));
                let phase = Phase::Socket(Box::new(Socket { framing, protocol }));
                self.connections.insert(Connection::new(id, peer, turn.now.mono, encapsulation, phase));
                self.events.push_back(ClientEvent::Connect { client, connect, handshake: Some(Box::new(claims)), moved: true });
            }
        }
        self.backlog.push_back(Backlog { client, payload: Some(Payload::owned(payload)), bytes, request: None });
    }

    /// The peer has sent something.
    pub(in crate::shard) fn heard(&mut self, turn: &Turn, id: ConnectionId) {
        if let Some(connection) = self.connections.find_mut(id) {
            connection.io.heard = turn.now.mono;
        }
    }

    pub(in crate::shard) fn outbox(&self, id: ConnectionId) -> Option<&Outbox> {
        self.connections.find(id).map(|connection| &connection.io.outbox)
    }

    pub(in crate::shard) fn written(&mut self, turn: &mut Turn, id: ConnectionId, bytes: usize, blocked: bool) {
        let Some(Connection { io, phase }) = self.connections.find_mut(id) else { return };
        io.outbox.consume(bytes);
        if !io.outbox.is_empty() {
            if bytes > 0 {
                io.blocked_since = None;
                if let Phase::Ending { until, .. } = phase {
                    // A client that reads, however slowly, gets the last of it.
                    *until = turn.after(turn.limits().linger);
                }
            }
            if blocked && io.blocked_since.is_none() {
                io.blocked_since = Some(turn.now.mono);
                self.schedule_connection(id, turn.after(turn.limits().write_blocked));
            }
            return;
        }
        io.flushed();
        match phase {
            Phase::Ending { shut, .. } if !*shut => {
                *shut = true;
                turn.effect(Effect::Shutdown { connection: id });
            }
            Phase::Moving { .. } => self.hand_over(turn, id),
            Phase::Http(http) => {
                http.confirm_written(turn, io);
                if io.paused {
                    self.resume_http(turn, id);
                }
            }
            Phase::Socket(_) | Phase::Ending { .. } => {}
        }
    }

    /// An answer has come, or the outbox is empty: goes on with the bytes that were held.
    pub(super) fn resume_http(&mut self, turn: &mut Turn, id: ConnectionId) {
        let Some(Connection { io, phase: Phase::Http(http) }) = self.connections.find_mut(id) else { return };
        let flow = http.read(turn, io, &self.iframe_etag, &[]);
        self.follow_http(turn, id, flow);
    }

    pub(super) fn follow_http(&mut self, turn: &mut Turn, id: ConnectionId, flow: HttpFlow) {
        match flow {
            HttpFlow::Wait(check_at) => self.schedule_connection(id, check_at),
            HttpFlow::End => self.end_connection(turn, id, Gone::Lost),
            HttpFlow::Upgrade(request) => self.upgrade(turn, id, &request),
        }
    }

    /// The handshake of a WebSocket.
    fn upgrade(&mut self, turn: &mut Turn, id: ConnectionId, request: &Request) {
        let policy = turn.policy.clone();
        let Some((endpoint, _, rest)) = policy.endpoints.find(&request.path) else { return };
        let is_session = matches!(sockjs::parse(rest), Some(sockjs::Path::Session { .. }));
        let (switching, claims) = match http::shake_hands(turn, request) {
            Ok(accepted) => accepted,
            Err(refusal) => return self.respond_and_end(turn, id, &api::refuse(&refusal)),
        };
        let framing = Framing::websocket(is_session);
        let to = claims.as_ref().map_or(turn.id, |claims| turn.placement.user(claims.user));
        let Some(connection) = self.connections.find_mut(id) else { return };
        let Phase::Http(http) = &mut connection.phase else { return };
        let held = std::mem::take(&mut http.held);
        match claims {
            Some(claims) if to != turn.id => {
                let progress = Progress::Upgrade { switching, claims, endpoint, framing };
                self.begin_move(turn, id, to, progress, held);
            }
            claims => {
                connection.io.resume(turn);
                let peer = connection.io.peer.clone();
                self.begin_socket(turn, (id, peer), switching, claims, endpoint, framing);
                let client = ClientId::Socket(id);
                self.backlog.push_back(Backlog { client, payload: None, bytes: held, request: None });
            }
        }
    }

    /// The 101 goes out and the endpoint's application begins.
    pub(super) fn begin_socket(
        &mut self,
        turn: &mut Turn,
        (id, peer): (ConnectionId, Redacted<IpAddr>),
        switching: Vec<u8>,
        claims: Option<Claims>,
        endpoint: EndpointId,
        framing: Framing,
    ) {
        let encapsulation = framing.encapsulation();
        let application = turn.policy.endpoints.endpoint(endpoint).application;
        let until = turn.after(turn.limits().first_frame);
        let expires = turn.token_end(claims.as_ref());
        let protocol = match application {
            Application::Stomp => Protocol::Stomp(StompStream::new(encapsulation, claims, until)),
            Application::Plain(plain) => Protocol::Plain(encapsulation, plain),
        };
        let phase = Phase::Socket(Box::new(Socket { framing, protocol }));
        match self.connections.find_mut(id) {
            Some(connection) => (connection.phase, connection.io.encapsulation) = (phase, encapsulation),
            None => self.connections.insert(Connection::new(id, peer, turn.now.mono, encapsulation, phase)),
        }
        self.write(turn, ClientId::Socket(id), Bytes::from(switching));
        if encapsulation == Encapsulation::SockJsWebSocket {
            self.write(turn, ClientId::Socket(id), frames::sockjs_open());
        }
        match application {
            Application::Stomp => self.schedule_connection(id, until.min(turn.after(turn.now.wall.until(expires)))),
            // Its first words may end the socket again.
            Application::Plain(plain) => _ = self.react(turn, ClientId::Socket(id), encapsulation, (plain.opened)()),
        }
    }

    /// Moves a connection to the shard of its user, at once or when what is queued has gone out.
    pub(super) fn begin_move(&mut self, turn: &mut Turn, id: ConnectionId, to: ShardId, progress: Progress, bytes: Vec<u8>) {
        assert!(to != turn.id, "a connection moves to another shard");
        let Some(connection) = self.connections.find_mut(id) else { return };
        let handover = Handover { peer: connection.io.peer.clone(), payload: Vec::new(), bytes, progress };
        connection.phase = Phase::Moving { to, handover: Box::new(handover) };
        if !connection.io.outbox.is_empty() {
            connection.io.pause(turn);
        }
        // It goes when the bytes being read have been added.
        let client = ClientId::Socket(id);
        self.backlog.push_back(Backlog { client, payload: None, bytes: Vec::new(), request: None });
    }

    /// Hands a moving connection over, unless something is still queued.
    pub(super) fn hand_over(&mut self, turn: &mut Turn, id: ConnectionId) {
        if self.outbox(id).is_none_or(|outbox| !outbox.is_empty()) {
            return;
        }
        let Some(connection) = self.connections.remove(id) else { return };
        if let Phase::Moving { to, handover } = connection.phase {
            turn.effect(Effect::HandOver { connection: id, to, handover });
        }
    }

    /// The peer is gone.
    pub(in crate::shard) fn lose(&mut self, turn: &mut Turn, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.leave_phase(turn, *connection, Gone::Lost);
    }

    /// Closes the descriptor now and forgets the connection.
    pub(super) fn drop_connection(&mut self, turn: &mut Turn, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        turn.effect(Effect::Close { connection: id });
        self.leave_phase(turn, *connection, Gone::Lost);
    }

    /// Reports what is lost with a connection that was taken out.
    fn leave_phase(&mut self, turn: &mut Turn, connection: Connection, why: Gone) {
        for receiver in &connection.io.undelivered {
            receiver.lose(turn, connection.io.id);
        }
        match connection.phase {
            Phase::Socket(socket) => {
                if let Some(session) = socket.protocol.session() {
                    self.events.push_back(ClientEvent::Gone { session, why });
                }
            }
            Phase::Http(http) => http.lose_receivers(turn, &connection.io),
            Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
    }

    /// Queued bytes still go out; then the writing half closes, and after `limits.linger` the rest.
    pub(super) fn end_connection(&mut self, turn: &mut Turn, id: ConnectionId, why: Gone) {
        let until = turn.after(turn.limits().linger);
        let Some(connection) = self.connections.find_mut(id) else { return };
        let shut = connection.io.outbox.is_empty();
        match std::mem::replace(&mut connection.phase, Phase::Ending { until, shut }) {
            // Requests behind the last answer are answered no more.
            Phase::Http(http) => http.lose_receivers(turn, &connection.io),
            Phase::Socket(socket) => {
                if let Some(session) = socket.protocol.session() {
                    self.events.push_back(ClientEvent::Gone { session, why });
                }
            }
            Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
        if shut {
            turn.effect(Effect::Shutdown { connection: id });
        }
        // Input is read and discarded: closing with unread bytes would reset the connection and could take the last frames
        // with it.
        connection.io.resume(turn);
        self.schedule_connection(id, until);
    }

    /// An ERROR frame when there is one, then the close frame.
    pub(super) fn close_connection(&mut self, turn: &mut Turn, id: ConnectionId, close: Close, error: Option<Bytes>) {
        if close == Close::SendLimit
            && let Some(connection) = self.connections.find_mut(id)
            && !connection.is_ending()
        {
            // The peer does not read: only the rest of the frame that has begun may go before the close frame.
            connection.io.outbox.cut();
        }
        self.close_connection_with(turn, id, (close.code(), close.reason()), error);
    }

    pub(super) fn close_connection_with(
        &mut self,
        turn: &mut Turn,
        id: ConnectionId,
        (code, reason): (u16, &str),
        error: Option<Bytes>,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.is_ending() {
            return;
        }
        tracing::debug!(shard = turn.id.0, code, "socket closed by the server");
        let close = frames::close(connection.io.encapsulation, code, reason);
        for frame in error.into_iter().chain([close]).filter(|frame| !frame.is_empty()) {
            connection.io.write(turn, frame);
        }
        self.end_connection(turn, id, Gone::Closed(code));
    }

    /// A response outside the order of requests: the connection ends with it.
    fn respond_and_end(&mut self, turn: &mut Turn, id: ConnectionId, response: &Response) {
        let mut out = Vec::new();
        response.encode(false, false, turn.now.wall, &mut out);
        self.write(turn, ClientId::Socket(id), Bytes::from(out));
        self.end_connection(turn, id, Gone::Lost);
    }

    /// Makes sure the connection is looked at by `at`.
    pub(super) fn schedule_connection(&mut self, id: ConnectionId, at: Mono) {
        let Some(Connection { io, .. }) = self.connections.find_mut(id) else { return };
        if io.timer.is_none_or(|timer| at < timer) {
            io.timer = Some(at);
            self.timers.schedule(at, Timer::Connection(id));
        }
    }

    /// A connection's entry came up: does what is due and waits for the next.
    pub(super) fn connection_due(&mut self, turn: &mut Turn, id: ConnectionId, at: Mono) {
        let Some(Connection { io, .. }) = self.connections.find_mut(id) else { return };
        if io.timer != Some(at) {
            return;
        }
        io.timer = None;
        if let Some(next) = self.check_connection(turn, id) {
            assert!(next > turn.now.mono, "what is due has been done");
            self.schedule_connection(id, next);
        }
    }

    fn check_connection(&mut self, turn: &mut Turn, id: ConnectionId) -> Option<Mono> {
        let now = turn.now.mono;
        let Connection { io, phase } = self.connections.find(id)?;
        let blocked_until = io.blocked_since.map(|since| since.after(turn.limits().write_blocked));
        let stuck = blocked_until.is_some_and(|until| until <= now);
        let next = match phase {
            Phase::Ending { until, .. } if *until <= now => {
                self.drop_connection(turn, id);
                return None;
            }
            // Its own end is near: how long the last words have been blocked does not matter any more.
            Phase::Ending { until, .. } => return Some(*until),
            Phase::Http(_) | Phase::Moving { .. } if stuck => {
                self.drop_connection(turn, id);
                return None;
            }
            Phase::Socket(_) if stuck => {
                self.close_connection(turn, id, Close::SendLimit, None);
                return None;
            }
            Phase::Http(http) => match http.check(turn) {
                HttpCheck::Wait(until) => Some(until),
                HttpCheck::End => {
                    self.end_connection(turn, id, Gone::Lost);
                    return None;
                }
                HttpCheck::Respond(response) => {
                    self.respond_and_end(turn, id, &response);
                    return None;
                }
            },
            Phase::Socket(socket) => match &socket.protocol {
                Protocol::Stomp(stomp) => match stomp.patience(turn) {
                    Some(patience) => {
                        let format = stomp.format();
                        Some(self.check_patience(turn, ClientId::Socket(id), format, patience)?)
                    }
                    None => None,
                },
                Protocol::Plain(..) => None,
            },
            Phase::Moving { .. } => None,
        };
        next.into_iter().chain(blocked_until).min()
    }

    /// The patience for CONNECT, and the end of the handshake's token. `None`: one of them is over.
    pub(super) fn check_patience(
        &mut self,
        turn: &mut Turn,
        client: ClientId,
        format: FrameFormat,
        patience: Patience,
    ) -> Option<Mono> {
        match patience {
            Patience::Until(until) => return Some(until),
            Patience::Over(close) => {
                turn.counters.without_first_frame += 1;
                self.close(turn, client, close, None);
            }
            Patience::TokenExpired => {
                let error = frames::error(format, "the token has expired", None);
                self.close(turn, client, Close::Policy, Some(error));
            }
        }
        None
    }

    pub(super) fn drain_connection(&mut self, turn: &mut Turn, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        match &mut connection.phase {
            Phase::Http(http) => {
                if http.drain(turn) {
                    self.end_connection(turn, id, Gone::Lost);
                } else {
                    self.schedule_connection(id, turn.after(http::http_patience(turn)));
                }
            }
            Phase::Socket(socket) if socket.protocol.session().is_none() => {
                self.close_connection(turn, id, Close::Restart, None);
            }
            Phase::Socket(_) | Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
    }
}
