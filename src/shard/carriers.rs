//! What carries a session's frames: a socket, or a SockJS session whose client comes to fetch them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::model::{Close, Mono, Wall};
use crate::session::endpoints::{self, Reply};
use crate::session::frames::{self, Encapsulation, FrameFormat};
use crate::session::heartbeat::Beat;
use crate::session::token::Claims;
use crate::shard::mail::SessionKey;
use crate::shard::stomp::Flow;
use crate::shard::users::Carrier;
use crate::shard::{Outbox, Shard, Turn};

impl Shard {
    pub(super) fn carry(&mut self, turn: &mut Turn<'_>, carrier: Carrier, frame: Bytes) {
        match carrier {
            Carrier::Socket(id) => self.write(turn, id, frame),
            Carrier::SockJs(key) => self.push_sockjs(key, frame),
        }
    }

    /// Bytes that wait for the client.
    pub(super) fn queued(&self, carrier: Carrier) -> usize {
        match carrier {
            Carrier::Socket(id) => self.outbox(id).map_or(0, Outbox::bytes),
            Carrier::SockJs(key) => self.sockjs.find(key).map_or(0, |session| session.channel.bytes()),
        }
    }

    /// An ERROR frame when there is something to say, then the close. The session is ended by the caller, or by the talk
    /// that the carrier holds.
    pub(super) fn close_carrier(&mut self, turn: &mut Turn<'_>, carrier: Carrier, close: Close, error: Option<Bytes>) {
        match carrier {
            Carrier::Socket(id) => self.close_socket(turn, id, close, error),
            Carrier::SockJs(key) => {
                if close == Close::SendLimit {
                    self.cut_sockjs(key);
                }
                self.close_sockjs(turn, key, (close.code(), close.reason().into()), error);
            }
        }
    }

    /// Ends what carries a session, and the session.
    pub(super) fn close_session(&mut self, turn: &mut Turn<'_>, key: SessionKey, close: Close, error: Option<Bytes>) {
        let Some(live) = self.sessions.find(key) else { return };
        let carrier = live.carrier;
        // The function that works on the carrier holds its talk, so the session is ended here.
        self.end_session(turn, key);
        self.close_carrier(turn, carrier, close, error);
    }

    /// What an application without STOMP does.
    pub(super) fn react(&mut self, turn: &mut Turn<'_>, carrier: Carrier, encapsulation: Encapsulation, reply: Reply) -> Flow {
        match reply {
            Reply::Nothing => Flow::Go,
            Reply::Send { text, bytes } => {
                let frame = frames::plain(encapsulation, endpoints::Content { text, bytes: &bytes });
                if self.policy.limits.outbox_bytes < self.queued(carrier) + frame.len() {
                    self.close_carrier(turn, carrier, Close::SendLimit, None);
                    return Flow::End;
                }
                self.carry(turn, carrier, frame);
                Flow::Go
            }
            Reply::Close { code, reason } => {
                match carrier {
                    Carrier::Socket(id) => self.close_socket_with(turn, id, (code, &reason), None),
                    Carrier::SockJs(key) => self.close_sockjs(turn, key, (code, reason), None),
                }
                Flow::End
            }
        }
    }

    /// Reads on from a client that had too much under way.
    pub(super) fn resume_carrier(&mut self, turn: &mut Turn<'_>, carrier: Carrier) {
        match carrier {
            Carrier::Socket(id) => self.resume(turn, id),
            Carrier::SockJs(key) => self.resume_sockjs(turn, key),
        }
    }

    /// The server ends: closes what has nothing under way.
    pub(super) fn drain_carrier(&mut self, turn: &mut Turn<'_>, carrier: Carrier) {
        match carrier {
            Carrier::Socket(id) => self.drain_connection(turn, id),
            Carrier::SockJs(key) => {
                let session = self.sockjs.find(key).and_then(|session| session.talk.as_ref()?.session());
                if !session.is_some_and(|session| self.is_busy(session)) {
                    let close = (Close::Restart.code(), Cow::Borrowed(Close::Restart.reason()));
                    self.close_sockjs(turn, key, close, None);
                }
            }
        }
    }

    pub(super) fn is_busy(&self, key: SessionKey) -> bool {
        self.sessions.find(key).is_some_and(|live| !live.session.pending.is_empty())
    }

    /// Makes sure the carrier is looked at by `at`.
    pub(super) fn schedule_carrier(&mut self, carrier: Carrier, at: Mono) {
        match carrier {
            Carrier::Socket(id) => self.schedule_connection(id, at),
            Carrier::SockJs(key) => self.schedule_sockjs(key, at),
        }
    }

    /// When a handshake's token ends.
    pub(super) fn token_end(&self, claims: Option<&Claims>) -> Wall {
        claims.map_or(Wall(u64::MAX), |claims| claims.expires.after(self.policy.limits.token_leeway))
    }

    /// The patience for CONNECT, and the end of the handshake's token. `None`: one of them is over.
    pub(super) fn awaiting_check(
        &mut self,
        turn: &mut Turn<'_>,
        carrier: Carrier,
        format: FrameFormat,
        (until, expires): (Mono, Wall),
    ) -> Option<Mono> {
        if until <= turn.now.mono {
            self.counters.without_first_frame += 1;
            self.close_carrier(turn, carrier, Close::NoFirstFrame, None);
            return None;
        }
        if expires <= turn.now.wall {
            let error = frames::error(format, "the token has expired", None);
            self.close_carrier(turn, carrier, Close::Policy, Some(error));
            return None;
        }
        Some(until.min(turn.now.mono.after(turn.now.wall.until(expires))))
    }

    /// Heart-beats, pings and the token's end. `None`: the session is over.
    pub(super) fn session_check(&mut self, turn: &mut Turn<'_>, carrier: Carrier, key: SessionKey) -> Option<Mono> {
        let live = self.sessions.find_mut(key)?;
        if live.session.principal.expires <= turn.now.wall {
            let error = frames::error(live.format, "the token has expired", None);
            self.close_session(turn, key, Close::Policy, Some(error));
            return None;
        }
        let encapsulation = live.format.encapsulation;
        let mut beats = Vec::new();
        while let Some(beat) = live.session.beats.due(turn.now.mono) {
            beats.push(beat);
            if beat == Beat::Silent {
                break;
            }
        }
        let next = live.session.next_deadline(turn.now.mono, turn.now.wall);
        let beaten = live.session.beats.are_sent();
        for beat in beats {
            match beat {
                Beat::Send => self.carry(turn, carrier, frames::heart_beat(encapsulation)),
                Beat::Ping => self.ping(turn, carrier, encapsulation, beaten),
                Beat::Silent => {
                    self.close_session(turn, key, Close::Silent, None);
                    return None;
                }
            }
        }
        Some(next)
    }

    /// A sign of life below STOMP. SockJS's own is left out where STOMP's beats go.
    fn ping(&mut self, turn: &mut Turn<'_>, carrier: Carrier, encapsulation: Encapsulation, beaten: bool) {
        match carrier {
            Carrier::Socket(id) => {
                if encapsulation == Encapsulation::SockJsWebSocket && !beaten {
                    self.write(turn, id, frames::sockjs_heart_beat());
                }
                self.write(turn, id, frames::ping());
            }
            Carrier::SockJs(key) if !beaten => self.beat_sockjs(key),
            Carrier::SockJs(_) => {}
        }
    }
}
