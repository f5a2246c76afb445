//! Bytes of a socket to messages: WebSocket frames, SockJS packets in them, or nothing around.

use crate::model::{Close, ConnectionId};
use crate::protocol::sockjs;
use crate::protocol::websocket::{self, Packet};
use crate::session::frames;
use crate::shard::connection::{Framing, Phase, Socket, Talk, WebSocket};
use crate::shard::handover::{Handover, Stage};
use crate::shard::stomp::Flow;
use crate::shard::users::Carrier;
use crate::shard::{Outbox, Shard, Turn};

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
        self.heard(turn, &socket.talk);
        let carrier = Carrier::Socket(id);
        let mut flow = Flow::Go;
        if !payload.is_empty() {
            flow = self.feed_talk(turn, carrier, &mut socket.talk, true, payload);
        }
        let mut rest = bytes;
        if let Flow::Go = flow {
            flow = match &mut socket.framing {
                Framing::Bare => {
                    let all = std::mem::take(&mut rest);
                    self.feed_talk(turn, carrier, &mut socket.talk, false, all)
                }
                Framing::WebSocket(websocket) => self.feed_websocket(turn, id, websocket, &mut socket.talk, &mut rest),
            };
        }
        match flow {
            Flow::Go => {
                let full = self.is_full(&socket.talk);
                self.restore(id, Phase::Socket(socket));
                if full {
                    self.pause(turn, id);
                }
            }
            Flow::End => self.end_talk(turn, &socket.talk),
            Flow::Move(moved) => {
                let Some(connection) = self.connections.find(id) else { return };
                let peer = connection.peer.clone();
                let stage = Stage::Connect {
                    connect: moved.connect,
                    claims: moved.claims,
                    framing: socket.framing,
                    payload: moved.payload,
                };
                self.move_connection(turn, id, moved.to, Handover { peer, bytes: rest.to_vec(), stage });
            }
        }
    }

    /// Whether more of a session's commands are under way than may be.
    pub(super) fn is_full(&self, talk: &Talk) -> bool {
        let live = talk.session().and_then(|key| self.sessions.find(key));
        live.is_some_and(|live| live.session.pending.len() >= self.policy.limits.session_inflight)
    }

    /// Something came from the client.
    pub(super) fn heard(&mut self, turn: &Turn<'_>, talk: &Talk) {
        if let Some(live) = talk.session().and_then(|key| self.sessions.find_mut(key)) {
            live.session.beats.heard(turn.now.mono);
        }
    }

    fn feed_websocket(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        websocket: &mut WebSocket,
        talk: &mut Talk,
        bytes: &mut &mut [u8],
    ) -> Flow {
        let WebSocket { decoder, sockjs, message } = websocket;
        let limits = &self.policy.limits;
        let limits = websocket::MessageLimits { message_bytes: limits.message_bytes, fragments: limits.message_fragments };
        // STOMP does not care where messages begin and end; everybody else does.
        let whole = *sockjs || matches!(talk, Talk::Plain(..));
        loop {
            let flow = match decoder.next(bytes, limits) {
                Ok(None) => return Flow::Go,
                Ok(Some(Packet::Data { text, bytes, end_of_message })) => {
                    if !whole || (end_of_message && message.is_empty()) {
                        self.feed_message(turn, id, *sockjs, talk, text, bytes)
                    } else {
                        message.extend_from_slice(bytes);
                        if !end_of_message {
                            continue;
                        }
                        let message = std::mem::take(message);
                        self.feed_message(turn, id, *sockjs, talk, text, &message)
                    }
                }
                Ok(Some(Packet::Ping(payload))) => self.answer_ping(turn, id, payload),
                Ok(Some(Packet::Pong(_))) => Flow::Go,
                Ok(Some(Packet::Close { code, .. })) => {
                    self.close_echo(turn, id, code);
                    return Flow::End;
                }
                Err(violation) => {
                    tracing::debug!(shard = self.id.0, what = violation.what, "WebSocket violation");
                    self.close_socket(turn, id, violation.close, None);
                    return Flow::End;
                }
            };
            if !matches!(flow, Flow::Go) {
                return flow;
            }
        }
    }

    fn feed_message(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConnectionId,
        sockjs: bool,
        talk: &mut Talk,
        text: bool,
        bytes: &[u8],
    ) -> Flow {
        let carrier = Carrier::Socket(id);
        if !sockjs {
            return self.feed_talk(turn, carrier, talk, text, bytes);
        }
        if bytes.is_empty() {
            return Flow::Go;
        }
        match sockjs::messages(bytes) {
            Ok(messages) => self.feed_messages(turn, carrier, talk, &messages),
            Err(sockjs::BrokenJson) => {
                self.close_socket(turn, id, Close::Protocol, None);
                Flow::End
            }
        }
    }

    fn answer_ping(&mut self, turn: &mut Turn<'_>, id: ConnectionId, payload: &[u8]) -> Flow {
        let pong = frames::pong(payload);
        let queued = self.outbox(id).map_or(0, Outbox::bytes);
        if queued + pong.len() > self.policy.limits.outbox_bytes {
            self.close_socket(turn, id, Close::SendLimit, None);
            return Flow::End;
        }
        self.write(turn, id, pong);
        Flow::Go
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
}
