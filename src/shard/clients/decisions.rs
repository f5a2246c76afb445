//! What the caller decides about a client: frames to write, a close, a move.

use std::borrow::Cow;

use bytes::Bytes;

use crate::access::token::Claims;
use crate::model::{Close, Mono, ShardId};
use crate::protocol::stomp::Version;
use crate::session::frames::{self, Encapsulation, FrameFormat};
use crate::session::intent::ConnectRequest;
use crate::shard::clients::connection::{Connection, Phase};
use crate::shard::clients::handover::Progress;
use crate::shard::clients::outbox::Outbox;
use crate::shard::clients::socket::Protocol;
use crate::shard::clients::{ClientId, Clients, Received};
use crate::shard::mail::SessionKey;
use crate::shard::turn::Turn;

impl Clients {
    /// Queues a frame.
    pub(in crate::shard) fn write(&mut self, turn: &mut Turn, client: ClientId, frame: Bytes) {
        match client {
            ClientId::Socket(id) => {
                if let Some(connection) = self.connections.find_mut(id) {
                    connection.io.write(turn, frame);
                }
            }
            ClientId::SockJs(key) => {
                if let Some(session) = self.sockjs.stir(key) {
                    session.channel.push(frame);
                }
            }
        }
    }

    /// Queues a frame, unless the client's queue would go over `limits.outbox_bytes`: then false, and nothing is queued.
    #[inline]
    pub(in crate::shard) fn write_within_limit(&mut self, turn: &mut Turn, client: ClientId, frame: Bytes) -> bool {
        let bytes_max = turn.limits().outbox_bytes;
        match client {
            ClientId::Socket(id) => {
                let Some(connection) = self.connections.find_mut(id) else { return true };
                if connection.io.outbox.bytes() + frame.len() > bytes_max {
                    return false;
                }
                connection.io.write(turn, frame);
            }
            ClientId::SockJs(key) => {
                let Some(session) = self.sockjs.stir(key) else { return true };
                if session.channel.bytes() + frame.len() > bytes_max {
                    return false;
                }
                session.channel.push(frame);
            }
        }
        true
    }

    /// Bytes that wait for the client.
    pub(in crate::shard) fn queued(&self, client: ClientId) -> usize {
        match client {
            ClientId::Socket(id) => self.outbox(id).map_or(0, Outbox::bytes),
            ClientId::SockJs(key) => self.sockjs.find(key).map_or(0, |session| session.channel.bytes()),
        }
    }

    /// How frames are written to the client; `None` once it is gone.
    pub(in crate::shard) fn format(&self, client: ClientId) -> Option<FrameFormat> {
        match self.protocol(client)? {
            Protocol::Stomp(stomp) => Some(stomp.format()),
            Protocol::Plain(..) => None,
        }
    }

    pub(super) fn protocol(&self, client: ClientId) -> Option<&Protocol> {
        match client {
            ClientId::Socket(id) => match &self.connections.find(id)?.phase {
                Phase::Socket(socket) => Some(&socket.protocol),
                Phase::Http(_) | Phase::Moving { .. } | Phase::Ending { .. } => None,
            },
            ClientId::SockJs(key) => self.sockjs.find(key)?.protocol.as_ref(),
        }
    }

    /// The client's CONNECT was accepted: its frames are reported for this session from now on.
    pub(in crate::shard) fn connected(&mut self, client: ClientId, session: SessionKey, version: Version) {
        let protocol = match client {
            ClientId::Socket(id) => match self.connections.find_mut(id).map(|connection| &mut connection.phase) {
                Some(Phase::Socket(socket)) => Some(&mut socket.protocol),
                _ => None,
            },
            ClientId::SockJs(key) => self.sockjs.find_mut(key).and_then(|session| session.protocol.as_mut()),
        };
        if let Some(Protocol::Stomp(stomp)) = protocol {
            stomp.connected(session, version);
        }
    }

    /// The client's CONNECT named a user of another shard: it goes there, with everything that follows.
    pub(in crate::shard) fn move_to(
        &mut self,
        turn: &mut Turn,
        client: ClientId,
        to: ShardId,
        (connect, claims): (ConnectRequest, Claims),
        received: &mut Received<'_>,
    ) {
        match client {
            ClientId::Socket(id) => {
                let Some(connection) = self.connections.find_mut(id) else { return };
                let ending = Phase::Ending { until: Mono(0), shut: false };
                match std::mem::replace(&mut connection.phase, ending) {
                    Phase::Socket(socket) => {
                        let progress = Progress::Connect { connect, claims, framing: socket.framing };
                        self.begin_move(turn, id, to, progress, Vec::new());
                    }
                    other => connection.phase = other,
                }
            }
            ClientId::SockJs(key) => {
                let payload = received.payload.take().map(|payload| payload.rest().to_vec()).unwrap_or_default();
                self.move_sockjs(turn, key, to, connect, claims, payload);
            }
        }
    }

    /// An ERROR frame when there is one, then the close. A session of the client is reported as gone.
    pub(in crate::shard) fn close(&mut self, turn: &mut Turn, client: ClientId, close: Close, error: Option<Bytes>) {
        match client {
            ClientId::Socket(id) => self.close_connection(turn, id, close, error),
            ClientId::SockJs(key) => {
                if close == Close::SendLimit
                    && let Some(session) = self.sockjs.find_mut(key)
                {
                    session.channel.cut();
                }
                self.close_sockjs(turn, key, (close.code(), Cow::Borrowed(close.reason())), error);
            }
        }
    }

    /// Stops reading from a client that has too much under way.
    pub(in crate::shard) fn pause(&mut self, turn: &mut Turn, client: ClientId) {
        match client {
            ClientId::Socket(id) => {
                if let Some(connection) = self.connections.find_mut(id) {
                    connection.io.pause(turn);
                }
            }
            ClientId::SockJs(key) => self.pause_sockjs(key),
        }
    }

    pub(in crate::shard) fn resume(&mut self, turn: &mut Turn, client: ClientId) {
        match client {
            ClientId::Socket(id) => {
                if let Some(connection) = self.connections.find_mut(id) {
                    connection.io.resume(turn);
                }
            }
            ClientId::SockJs(key) => self.resume_sockjs(turn, key),
        }
    }

    /// When the client last sent anything, and when packets for it last went out where that shows that it is there.
    pub(in crate::shard) fn signs_of_life(&self, client: ClientId) -> Option<(Mono, Option<Mono>)> {
        match client {
            ClientId::Socket(id) => self.connections.find(id).map(|connection| (connection.io.heard, None)),
            ClientId::SockJs(key) => self.sockjs.find(key).map(|session| (session.heard, Some(session.delivered))),
        }
    }

    /// A sign of life below STOMP. SockJS's own is left out where STOMP's heart-beats go.
    pub(in crate::shard) fn ping(&mut self, turn: &mut Turn, client: ClientId, stomp_beats: bool) {
        match client {
            ClientId::Socket(id) => {
                let Some(Connection { io, .. }) = self.connections.find_mut(id) else { return };
                if io.encapsulation == Encapsulation::SockJsWebSocket && !stomp_beats {
                    io.write(turn, frames::sockjs_heart_beat());
                }
                io.write(turn, frames::ping());
            }
            ClientId::SockJs(_) if stomp_beats => {}
            ClientId::SockJs(key) => {
                if let Some(session) = self.sockjs.stir(key) {
                    session.channel.beat();
                }
            }
        }
    }
}
