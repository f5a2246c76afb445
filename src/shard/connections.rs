//! Connections come, move, are written to, and end.

use std::net::IpAddr;

use bytes::Bytes;

use crate::model::{Close, ConnectionId, Mono, Redacted, ShardId};
use crate::protocol::http;
use crate::session::endpoints::{Application, EndpointId};
use crate::session::frames::{self, Encapsulation};
use crate::session::token::Claims;
use crate::shard::boundary::{Effect, ListenerKind};
use crate::shard::connection::{Connection, Framing, Http, Phase, Socket, Stage, Stomp, Talk};
use crate::shard::handover::{self, Handover};
use crate::shard::timers::Timer;
use crate::shard::users::Carrier;
use crate::shard::{Shard, Turn};

/// After `Drain`, how long commands under way may hold their connections.
const DRAIN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Shard {
    pub(super) fn open(&mut self, turn: &mut Turn<'_>, id: ConnectionId, peer: Redacted<IpAddr>, kind: ListenerKind) {
        let (phase, until) = match kind {
            ListenerKind::Http => (Phase::Http(Box::new(Http::new(turn.now.mono))), turn.now.mono.after(self.http_patience())),
            ListenerKind::Stomp => {
                let until = turn.now.mono.after(self.policy.limits.first_frame);
                let talk = Talk::Stomp(Stomp::new(Encapsulation::Bare, None, until));
                (Phase::Socket(Box::new(Socket { framing: Framing::Bare, talk })), until)
            }
        };
        let mut connection = Connection::new(id, peer, phase);
        connection.encapsulation = if kind == ListenerKind::Stomp { Encapsulation::Bare } else { Encapsulation::WebSocket };
        self.connections.insert(connection);
        self.schedule_connection(id, until);
    }

    /// A connection that another shard began goes on here, with what was read ahead.
    pub(super) fn adopt(&mut self, turn: &mut Turn<'_>, id: ConnectionId, handover: Handover) {
        let Handover { peer, mut bytes, stage } = handover;
        self.connections.insert(Connection::new(id, peer, Phase::Taken));
        match stage {
            handover::Stage::Upgrade { switching, claims, endpoint, framing } => {
                self.begin_socket(turn, id, switching, Some(claims), endpoint, framing);
                if self.draining.is_some() {
                    return self.drain_connection(turn, id);
                }
                self.receive(turn, id, &mut bytes);
            }
            handover::Stage::Connect { connect, claims, framing, payload } => {
                let encapsulation = framing.encapsulation();
                if let Some(connection) = self.connections.find_mut(id) {
                    connection.encapsulation = encapsulation;
                }
                let mut stomp = Stomp::new(encapsulation, None, turn.now.mono);
                self.begin_session(turn, Carrier::Socket(id), &mut stomp, &connect, &claims);
                if let Stage::Connected(_) = stomp.stage {
                    let socket = Box::new(Socket { framing, talk: Talk::Stomp(stomp) });
                    self.feed_socket(turn, id, socket, &payload, &mut bytes);
                }
            }
        }
    }

    pub(super) fn receive(&mut self, turn: &mut Turn<'_>, id: ConnectionId, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(connection) = self.connections.find_mut(id) else { return };
        match &mut connection.phase {
            Phase::Moving { handover, .. } => handover.bytes.extend_from_slice(bytes),
            Phase::Ending { .. } | Phase::Taken => {}
            Phase::Http(_) | Phase::Socket(_) => match std::mem::replace(&mut connection.phase, Phase::Taken) {
                Phase::Http(http) => self.feed_http(turn, id, http, bytes),
                Phase::Socket(socket) => self.feed_socket(turn, id, socket, &[], bytes),
                Phase::Moving { .. } | Phase::Ending { .. } | Phase::Taken => unreachable!("matched above"),
            },
        }
    }

    /// Gives a connection's phase back after work on it, unless the work ended it.
    pub(super) fn restore(&mut self, id: ConnectionId, phase: Phase) {
        match self.connections.find_mut(id) {
            Some(connection) if matches!(connection.phase, Phase::Taken) => connection.phase = phase,
            _ => {}
        }
    }

    /// Queues bytes for a connection. They leave after the batch.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>, id: ConnectionId, bytes: Bytes) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.outbox.push(bytes);
        if !connection.flushing {
            connection.flushing = true;
            turn.effects.push(Effect::Flush { connection: id });
        }
    }

    pub(super) fn written(&mut self, turn: &mut Turn<'_>, id: ConnectionId, bytes: usize, blocked: bool) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.outbox.consume(bytes);
        if !connection.outbox.is_empty() {
            if bytes > 0 {
                connection.blocked_since = None;
                if let Phase::Ending { until, .. } = &mut connection.phase {
                    // Who reads, however slowly, gets the last of it.
                    *until = turn.now.mono.after(self.policy.limits.linger);
                }
            }
            if blocked && connection.blocked_since.is_none() {
                connection.blocked_since = Some(turn.now.mono);
                let at = turn.now.mono.after(self.policy.limits.write_blocked);
                self.schedule_connection(id, at);
            }
            return;
        }
        connection.flushing = false;
        connection.blocked_since = None;
        connection.undelivered = Vec::new();
        let paused = connection.paused;
        match &mut connection.phase {
            Phase::Ending { shut, .. } if !*shut => {
                *shut = true;
                turn.effects.push(Effect::Shutdown { connection: id });
            }
            Phase::Moving { .. } => self.hand_over(turn, id),
            Phase::Http(http) => {
                let confirmed = http.written();
                if paused {
                    self.resume_http(turn, id);
                }
                self.confirm(turn, id, confirmed);
            }
            Phase::Socket(_) | Phase::Ending { .. } | Phase::Taken => {}
        }
    }

    /// Moves a connection to the shard of its user, at once or when what is queued has gone out.
    pub(super) fn move_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId, to: ShardId, handover: Handover) {
        assert!(to != self.id, "a connection moves to another shard");
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.phase = Phase::Moving { to, handover: Box::new(handover) };
        if connection.outbox.is_empty() {
            self.hand_over(turn, id);
        } else {
            self.pause(turn, id);
        }
    }

    fn hand_over(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        assert!(connection.outbox.is_empty(), "a connection moves with nothing queued");
        if let Phase::Moving { to, handover } = connection.phase {
            turn.effects.push(Effect::HandOver { connection: id, to, handover });
        }
    }

    /// The peer is gone.
    pub(super) fn lose(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.lose_receivers(turn, id, &connection.undelivered);
        self.end_phase(turn, id, connection.phase);
    }

    /// Ends the session of a connection that was taken out.
    fn end_phase(&mut self, turn: &mut Turn<'_>, id: ConnectionId, phase: Phase) {
        match phase {
            Phase::Socket(socket) => self.end_talk(turn, &socket.talk),
            Phase::Http(http) => self.lose_receivers(turn, id, http.slots.iter().filter_map(|slot| slot.receiving.as_deref())),
            // Between inputs only a contained panic leaves a phase taken; whose session it was, only its carrier tells.
            Phase::Taken => {
                if let Some(session) = self.sessions.carried_by(Carrier::Socket(id)) {
                    self.end_session(turn, session);
                }
            }
            Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
    }

    pub(super) fn end_talk(&mut self, turn: &mut Turn<'_>, talk: &Talk) {
        if let Some(session) = talk.session() {
            self.end_session(turn, session);
        }
    }

    /// Everything queued still goes out; then the writing half closes, and after `limits.linger` the rest.
    /// The session, if there was one, must have been ended by the caller.
    pub(super) fn end_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let until = turn.now.mono.after(self.policy.limits.linger);
        let Some(connection) = self.connections.find_mut(id) else { return };
        let shut = connection.outbox.is_empty();
        if let Phase::Http(http) = std::mem::replace(&mut connection.phase, Phase::Ending { until, shut }) {
            // Requests behind the last answer are answered no more.
            self.lose_receivers(turn, id, http.slots.iter().filter_map(|slot| slot.receiving.as_deref()));
        }
        if shut {
            turn.effects.push(Effect::Shutdown { connection: id });
        }
        // What the peer still sends is read and thrown away: closing with unread bytes would reset the connection and
        // could take the last frames with it.
        self.resume(turn, id);
        self.schedule_connection(id, until);
    }

    /// Ends a socket: an ERROR frame when there is something to say, then the close frame.
    pub(super) fn close_socket(&mut self, turn: &mut Turn<'_>, id: ConnectionId, close: Close, error: Option<Bytes>) {
        if close == Close::SendLimit
            && let Some(connection) = self.connections.find_mut(id)
            && !matches!(connection.phase, Phase::Ending { .. })
        {
            // The peer does not read: only the rest of the frame that has begun may go before the close frame.
            connection.outbox.cut();
        }
        self.close_socket_with(turn, id, (close.code(), close.reason()), error);
    }

    /// Ends a socket with any code and reason.
    pub(super) fn close_socket_with(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        (code, reason): (u16, &str),
        error: Option<Bytes>,
    ) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if matches!(connection.phase, Phase::Ending { .. }) {
            return;
        }
        let encapsulation = connection.encapsulation;
        if let Phase::Socket(socket) = std::mem::replace(&mut connection.phase, Phase::Taken) {
            self.end_talk(turn, &socket.talk);
        }
        tracing::debug!(shard = self.id.0, code, "socket closed by the server");
        for frame in error.into_iter().chain([frames::close(encapsulation, code, reason)]).filter(|frame| !frame.is_empty()) {
            self.write(turn, id, frame);
        }
        self.end_connection(turn, id);
    }

    pub(super) fn pause(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if !connection.paused {
            connection.paused = true;
            turn.effects.push(Effect::Pause { connection: id });
        }
    }

    pub(super) fn resume(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.paused {
            connection.paused = false;
            turn.effects.push(Effect::Resume { connection: id });
        }
    }

    /// Makes sure the connection is looked at by `at`.
    pub(super) fn schedule_connection(&mut self, id: ConnectionId, at: Mono) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.timer.is_none_or(|timer| at < timer) {
            connection.timer = Some(at);
            self.timers.schedule(at, Timer::Connection(id));
        }
    }

    /// A connection's entry came up: does what is due and waits for the next.
    pub(super) fn connection_due(&mut self, turn: &mut Turn<'_>, id: ConnectionId, at: Mono) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.timer != Some(at) {
            return;
        }
        connection.timer = None;
        if let Some(next) = self.connection_check(turn, id) {
            assert!(next > turn.now.mono, "what is due has been done");
            self.schedule_connection(id, next);
        }
    }

    fn connection_check(&mut self, turn: &mut Turn<'_>, id: ConnectionId) -> Option<Mono> {
        let now = turn.now.mono;
        let connection = self.connections.find(id)?;
        let blocked_until = connection.blocked_since.map(|since| since.after(self.policy.limits.write_blocked));
        let stuck = blocked_until.is_some_and(|until| until <= now);
        let next = match &connection.phase {
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
                self.close_socket(turn, id, Close::SendLimit, None);
                return None;
            }
            Phase::Http(_) => self.http_check(turn, id)?,
            Phase::Socket(socket) => match &socket.talk {
                Talk::Stomp(stomp) => match &stomp.stage {
                    Stage::AwaitingConnect { claims, until } => {
                        let deadline = (*until, self.token_end(claims.as_deref()));
                        let format = stomp.first_format();
                        self.awaiting_check(turn, Carrier::Socket(id), format, deadline)?
                    }
                    Stage::Connected(session) => {
                        let session = *session;
                        self.session_check(turn, Carrier::Socket(id), session)?
                    }
                },
                Talk::Plain(..) => blocked_until?,
            },
            Phase::Moving { .. } => blocked_until?,
            Phase::Taken => {
                self.drop_connection(turn, id);
                return None;
            }
        };
        Some(blocked_until.map_or(next, |until| until.min(next)))
    }

    /// Closes the descriptor now and forgets the connection.
    pub(super) fn drop_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        turn.effects.push(Effect::Close { connection: id });
        self.lose_receivers(turn, id, &connection.undelivered);
        self.end_phase(turn, id, connection.phase);
    }

    /// The 101 goes out and the endpoint's application begins.
    pub(super) fn begin_socket(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        switching: Vec<u8>,
        claims: Option<Claims>,
        endpoint: EndpointId,
        framing: Framing,
    ) {
        let policy = self.policy.clone();
        let encapsulation = framing.encapsulation();
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.encapsulation = encapsulation;
        self.write(turn, id, Bytes::from(switching));
        if encapsulation == Encapsulation::SockJsWebSocket {
            self.write(turn, id, frames::sockjs_open());
        }
        match policy.endpoints.endpoint(endpoint).application {
            Application::Stomp => {
                let until = turn.now.mono.after(policy.limits.first_frame);
                let expires = self.token_end(claims.as_ref());
                let talk = Talk::Stomp(Stomp::new(encapsulation, claims, until));
                self.restore(id, Phase::Socket(Box::new(Socket { framing, talk })));
                self.schedule_connection(id, until.min(turn.now.mono.after(turn.now.wall.until(expires))));
            }
            Application::Plain(plain) => {
                let talk = Talk::Plain(encapsulation, plain);
                self.restore(id, Phase::Socket(Box::new(Socket { framing, talk })));
                // What it does at once may have ended the socket again.
                let _flow = self.react(turn, Carrier::Socket(id), encapsulation, (plain.opened)());
            }
        }
    }

    /// The server ends: nothing new, what is under way is finished, every client is told to come back.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        if self.draining.is_some() {
            return;
        }
        let until = turn.now.mono.after(DRAIN_PATIENCE);
        self.draining = Some(until);
        self.timers.schedule(until, Timer::Drain);
        for id in self.connections.ids() {
            self.drain_connection(turn, id);
        }
        for key in self.sockjs.keys() {
            self.drain_carrier(turn, Carrier::SockJs(key));
        }
    }

    /// Ends a connection whose commands have all been answered.
    pub(super) fn drain_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        match &mut connection.phase {
            Phase::Http(http) => {
                if let Some(slot) = http.slots.back_mut() {
                    slot.keep_alive = false;
                    http.last = true;
                } else if http.is_idle() && http.next_number > 0 && http.upgrade.is_none() {
                    self.end_connection(turn, id);
                } else {
                    // Its first request may be on the way; it is answered, if it comes soon.
                    http.since = turn.now.mono;
                    let check_at = turn.now.mono.after(self.http_patience());
                    self.schedule_connection(id, check_at);
                }
            }
            Phase::Socket(socket) => {
                let session = socket.talk.session();
                if session.is_some_and(|key| self.is_busy(key)) {
                    self.pause(turn, id);
                } else {
                    self.close_socket(turn, id, Close::Restart, None);
                }
            }
            Phase::Moving { .. } | Phase::Ending { .. } | Phase::Taken => {}
        }
    }

    pub(super) fn report_drained(&mut self, turn: &mut Turn<'_>) {
        let Some(until) = self.draining else { return };
        if until <= turn.now.mono {
            for id in self.connections.ids() {
                self.drop_connection(turn, id);
            }
            for key in self.sockjs.keys() {
                self.end_sockjs(turn, key);
            }
        }
        let repeating = self.conversations.are_retrying() || !self.repeats.is_empty();
        if !self.drained && self.connections.is_empty() && self.sockjs.is_empty() && self.errands.is_empty() && !repeating {
            self.drained = true;
            turn.effects.push(Effect::Drained);
        }
    }

    /// A response outside the order of requests: the connection ends with it.
    pub(super) fn respond_and_end(&mut self, turn: &mut Turn<'_>, id: ConnectionId, response: &http::Response) {
        let mut out = Vec::new();
        response.encode(false, false, turn.now.wall, &mut out);
        self.write(turn, id, Bytes::from(out));
        self.end_connection(turn, id);
    }
}
