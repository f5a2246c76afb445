//! Connections come, move, are written to, and end.

use std::net::IpAddr;

use bytes::Bytes;

use crate::model::{Close, ConnectionId, Mono, Redacted, ShardId, Wall};
use crate::protocol::stomp::Version;
use crate::protocol::{http, stomp, websocket};
use crate::session::frames;
use crate::session::heartbeat::Beat;
use crate::shard::connection::{Connection, Http, Phase, Socket, SocketStage};
use crate::shard::handover::{Handover, Stage};
use crate::shard::mail::SessionKey;
use crate::shard::seam::Effect;
use crate::shard::timers::Timer;
use crate::shard::users::Carrier;
use crate::shard::{Shard, Turn};

/// After `Drain`, how long commands under way may hold their connections.
const DRAIN_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

impl Shard {
    pub(super) fn open(&mut self, turn: &mut Turn<'_>, id: ConnectionId, peer: Redacted<IpAddr>) {
        self.connections.insert(Connection::new(id, peer, Phase::Http(Box::new(Http::new(turn.now.mono)))));
        self.schedule_connection(id, turn.now.mono.after(self.http_patience()));
    }

    /// A connection that another shard began goes on here, with what was read ahead.
    pub(super) fn adopt(&mut self, turn: &mut Turn<'_>, id: ConnectionId, handover: Handover) {
        let Handover { peer, mut bytes, stage } = handover;
        self.connections.insert(Connection::new(id, peer, Phase::Taken));
        match stage {
            Stage::Upgrade { switching, claims } => {
                self.begin_socket(turn, id, switching, Some(claims));
                if self.draining.is_some() {
                    return self.drain_connection(turn, id);
                }
                self.receive(turn, id, &mut bytes);
            }
            Stage::Connect { connect, claims, websocket, payload } => {
                let mut socket = Box::new(Socket {
                    websocket,
                    stomp: stomp::Decoder::new(stomp::Side::Server),
                    stage: SocketStage::AwaitingConnect { claims: None, until: turn.now.mono },
                });
                socket.stomp.set_version(connect.version);
                self.begin_session(turn, id, &mut socket, &connect, &claims);
                if let SocketStage::Connected(_) = socket.stage {
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
        let paused = connection.paused;
        match &mut connection.phase {
            Phase::Ending { shut, .. } if !*shut => {
                *shut = true;
                turn.effects.push(Effect::Shutdown { connection: id });
            }
            Phase::Moving { .. } => self.hand_over(turn, id),
            Phase::Http(_) if paused => self.resume_http(turn, id),
            Phase::Http(_) | Phase::Socket(_) | Phase::Ending { .. } | Phase::Taken => {}
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
        self.end_phase(turn, id, connection.phase);
    }

    /// Ends the session of a connection that was taken out.
    fn end_phase(&mut self, turn: &mut Turn<'_>, id: ConnectionId, phase: Phase) {
        match phase {
            Phase::Socket(socket) => self.end_stage(turn, &socket.stage),
            // Between inputs only a contained panic leaves a phase taken; whose session it was, only its carrier tells.
            Phase::Taken => {
                if let Some(session) = self.sessions.carried_by(Carrier::Socket(id)) {
                    self.end_session(turn, session);
                }
            }
            Phase::Http(_) | Phase::Moving { .. } | Phase::Ending { .. } => {}
        }
    }

    pub(super) fn end_stage(&mut self, turn: &mut Turn<'_>, stage: &SocketStage) {
        if let SocketStage::Connected(session) = stage {
            self.end_session(turn, *session);
        }
    }

    /// Everything queued still goes out; then the writing half closes, and after `limits.linger` the rest.
    /// The session, if there was one, must have been ended by the caller.
    pub(super) fn end_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let until = turn.now.mono.after(self.policy.limits.linger);
        let Some(connection) = self.connections.find_mut(id) else { return };
        let shut = connection.outbox.is_empty();
        connection.phase = Phase::Ending { until, shut };
        if shut {
            turn.effects.push(Effect::Shutdown { connection: id });
        }
        // What the peer still sends is read and thrown away: closing with unread bytes would reset the connection and
        // could take the last frames with it.
        self.resume(turn, id);
        self.schedule_connection(id, until);
    }

    /// Ends a WebSocket: an ERROR frame when there is something to say, then the close frame.
    pub(super) fn close_socket(&mut self, turn: &mut Turn<'_>, id: ConnectionId, close: Close, error: Option<Bytes>) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if matches!(connection.phase, Phase::Ending { .. }) {
            return;
        }
        let phase = std::mem::replace(&mut connection.phase, Phase::Taken);
        if close == Close::SendLimit {
            // The peer does not read: only the rest of the frame that has begun may go before the close frame.
            connection.outbox.cut();
        }
        if let Phase::Socket(socket) = phase {
            self.end_stage(turn, &socket.stage);
        }
        tracing::debug!(shard = self.id.0, code = close.code(), "socket closed by the server");
        if let Some(error) = error {
            self.write(turn, id, error);
        }
        self.write(turn, id, frames::close(close));
        self.end_connection(turn, id);
    }

    /// Ends the connection that carries a session.
    pub(super) fn close_session(&mut self, turn: &mut Turn<'_>, key: SessionKey, close: Close, error: Option<Bytes>) {
        let Some(live) = self.sessions.find(key) else { return };
        let Carrier::Socket(connection) = live.carrier;
        // The function that works on the socket holds its phase, so the session is ended here.
        self.end_session(turn, key);
        self.close_socket(turn, connection, close, error);
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
        let connection = self.connections.find_mut(id)?;
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
            Phase::Socket(socket) => match socket.stage {
                SocketStage::AwaitingConnect { .. } => self.awaiting_check(turn, id)?,
                SocketStage::Connected(session) => self.session_check(turn, id, session)?,
            },
            Phase::Moving { .. } => blocked_until?,
            Phase::Taken => {
                self.drop_connection(turn, id);
                return None;
            }
        };
        Some(blocked_until.map_or(next, |until| until.min(next)))
    }

    /// The patience for CONNECT, and the end of the handshake's token.
    fn awaiting_check(&mut self, turn: &mut Turn<'_>, id: ConnectionId) -> Option<Mono> {
        let leeway = self.policy.limits.token_leeway;
        let Phase::Socket(socket) = &self.connections.find(id)?.phase else { return None };
        let SocketStage::AwaitingConnect { claims, until } = &socket.stage else { return None };
        let expires = claims.as_ref().map_or(Wall(u64::MAX), |claims| claims.expires.after(leeway));
        let until = *until;
        if until <= turn.now.mono {
            self.close_socket(turn, id, Close::NoFirstFrame, None);
            return None;
        }
        if expires <= turn.now.wall {
            let error = frames::error(Version::V12, "the token has expired", None);
            self.close_socket(turn, id, Close::Policy, Some(error));
            return None;
        }
        Some(until.min(turn.now.mono.after(turn.now.wall.until(expires))))
    }

    /// Heart-beats, pings and the token's end.
    fn session_check(&mut self, turn: &mut Turn<'_>, id: ConnectionId, key: SessionKey) -> Option<Mono> {
        let live = self.sessions.find_mut(key)?;
        if live.session.principal.expires <= turn.now.wall {
            let error = frames::error(live.session.version, "the token has expired", None);
            self.close_session(turn, key, Close::Policy, Some(error));
            return None;
        }
        let mut beats = Vec::new();
        while let Some(beat) = live.session.beats.due(turn.now.mono) {
            beats.push(beat);
            if beat == Beat::Silent {
                break;
            }
        }
        let next = live.session.next_deadline(turn.now.mono, turn.now.wall);
        for beat in beats {
            match beat {
                Beat::Send => self.write(turn, id, frames::heart_beat()),
                Beat::Ping => self.write(turn, id, frames::ping()),
                Beat::Silent => {
                    self.close_session(turn, key, Close::Silent, None);
                    return None;
                }
            }
        }
        Some(next)
    }

    /// Closes the descriptor now and forgets the connection.
    pub(super) fn drop_connection(&mut self, turn: &mut Turn<'_>, id: ConnectionId) {
        let Some(connection) = self.connections.remove(id) else { return };
        turn.effects.push(Effect::Close { connection: id });
        self.end_phase(turn, id, connection.phase);
    }

    /// The 101 goes out and STOMP begins.
    pub(super) fn begin_socket(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        switching: Vec<u8>,
        claims: Option<crate::session::token::Claims>,
    ) {
        let until = turn.now.mono.after(self.policy.limits.first_frame);
        let leeway = self.policy.limits.token_leeway;
        let expires = claims.as_ref().map_or(Wall(u64::MAX), |claims| claims.expires.after(leeway));
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.phase = Phase::Socket(Box::new(Socket {
            websocket: Box::new(websocket::Decoder::server()),
            stomp: stomp::Decoder::new(stomp::Side::Server),
            stage: SocketStage::AwaitingConnect { claims: claims.map(Box::new), until },
        }));
        self.write(turn, id, Bytes::from(switching));
        self.schedule_connection(id, until.min(turn.now.mono.after(turn.now.wall.until(expires))));
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
                let busy = match socket.stage {
                    SocketStage::AwaitingConnect { .. } => false,
                    SocketStage::Connected(key) => self.sessions.find(key).is_some_and(|live| !live.session.pending.is_empty()),
                };
                if busy {
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
        }
        let repeating = self.conversations.are_retrying() || !self.repeats.is_empty();
        if !self.drained && self.connections.is_empty() && self.errands.is_empty() && !repeating {
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
