//! Bytes of clients, understood one event at a time.

use crate::model::{Close, ConnectionId};
use crate::session::endpoints::{Plain, PlainMessage, PlainReply};
use crate::session::frames::{self, Encapsulation};
use crate::shard::clients::connection::{Connection, Phase};
use crate::shard::clients::payload::Payload;
use crate::shard::clients::socket::{Protocol, Read};
use crate::shard::clients::sockjs::SockJsKey;
use crate::shard::clients::stomp::StompItem;
use crate::shard::clients::{ClientEvent, ClientId, Clients, Gone, Received};
use crate::shard::turn::Turn;

impl Clients {
    pub(super) fn read_connection(
        &mut self,
        turn: &mut Turn,
        id: ConnectionId,
        received: &mut Received<'_>,
    ) -> Option<ClientEvent> {
        loop {
            let connection = self.connections.find_mut(id)?;
            match &mut connection.phase {
                Phase::Ending { .. } => return None,
                Phase::Moving { handover, .. } => {
                    if let Some(payload) = received.payload.take() {
                        handover.payload.extend_from_slice(payload.rest());
                    }
                    handover.bytes.extend_from_slice(received.bytes);
                    received.bytes = &mut [];
                    self.hand_over(turn, id);
                    return None;
                }
                Phase::Http(http) => {
                    let bytes = std::mem::take(&mut received.bytes);
                    let flow = http.read(turn, &mut connection.io, &self.iframe_etag, bytes);
                    self.follow_http(turn, id, flow);
                    return None;
                }
                Phase::Socket(_) => {
                    if let Some(read) = self.read_socket(turn, id, received) {
                        return read;
                    }
                }
            }
        }
    }

    /// One step of reading a socket: `None` when there is more to do.
    fn read_socket(&mut self, turn: &mut Turn, id: ConnectionId, received: &mut Received<'_>) -> Option<Option<ClientEvent>> {
        let Some(Connection { io, phase: Phase::Socket(socket) }) = self.connections.find_mut(id) else { return Some(None) };
        match (&mut socket.protocol, &mut received.payload) {
            (_, None) => {}
            (Protocol::Stomp(stomp), Some(payload)) => {
                if let Some(item) = stomp.next(turn, payload, &mut self.reader) {
                    return Some(self.follow_stomp(turn, received.client, item));
                }
                received.payload = None;
            }
            (Protocol::Plain(encapsulation, plain), Some(_)) => {
                let (encapsulation, plain, payload) = (*encapsulation, *plain, received.payload.take());
                self.react_to_messages(turn, received.client, encapsulation, plain, payload);
                return None;
            }
        }
        match socket.next_payload(turn, io, &mut received.bytes) {
            Read::Payload(payload) => {
                received.payload = Some(payload);
                None
            }
            Read::Nothing => Some(None),
            Read::Close(close) => {
                self.close_connection(turn, id, close, None);
                Some(None)
            }
            Read::Closed => {
                self.end_connection(turn, id, Gone::Lost);
                Some(None)
            }
        }
    }

    pub(super) fn read_sockjs(&mut self, turn: &mut Turn, key: SockJsKey, received: &mut Received<'_>) -> Option<ClientEvent> {
        let protocol = self.sockjs.find_mut(key).and_then(|session| session.protocol.as_mut());
        match (protocol, &mut received.payload) {
            (Some(Protocol::Stomp(stomp)), Some(payload)) => {
                if let Some(item) = stomp.next(turn, payload, &mut self.reader) {
                    return self.follow_stomp(turn, received.client, item);
                }
            }
            (Some(Protocol::Plain(encapsulation, plain)), Some(_)) => {
                let (encapsulation, plain, payload) = (*encapsulation, *plain, received.payload.take());
                self.react_to_messages(turn, received.client, encapsulation, plain, payload);
            }
            (None, _) | (_, None) => {}
        }
        if let Some(request) = received.request.take() {
            self.sockjs_sent(turn, key, request);
        }
        None
    }

    fn follow_stomp(&mut self, turn: &mut Turn, client: ClientId, item: StompItem) -> Option<ClientEvent> {
        match item {
            StompItem::Connect { connect, handshake } => Some(ClientEvent::Connect { client, connect, handshake, moved: false }),
            StompItem::Frame { session, frame } => Some(ClientEvent::Frame { session, frame }),
            StompItem::Fault { fault, receipt } => {
                let error = frames::error(self.format(client)?, &fault.message, receipt.as_deref());
                self.close(turn, client, fault.close, Some(error));
                None
            }
        }
    }

    fn react_to_messages(
        &mut self,
        turn: &mut Turn,
        client: ClientId,
        encapsulation: Encapsulation,
        plain: Plain,
        payload: Option<Payload<'_>>,
    ) {
        if let Some(payload) = payload {
            payload.each_message(|content| self.react(turn, client, encapsulation, (plain.message)(content)));
        }
    }

    /// Does what an application without STOMP wants. False when it ended.
    pub(super) fn react(&mut self, turn: &mut Turn, client: ClientId, encapsulation: Encapsulation, reply: PlainReply) -> bool {
        match reply {
            PlainReply::Nothing => true,
            PlainReply::Send { text, bytes } => {
                let frame = frames::plain(encapsulation, PlainMessage { text, bytes: &bytes });
                if turn.limits().outbox_bytes < self.queued(client) + frame.len() {
                    self.close(turn, client, Close::SendLimit, None);
                    return false;
                }
                self.write(turn, client, frame);
                true
            }
            PlainReply::Close { code, reason } => {
                match client {
                    ClientId::Socket(id) => self.close_connection_with(turn, id, (code, &reason), None),
                    ClientId::SockJs(key) => self.close_sockjs(turn, key, (code, reason), None),
                }
                false
            }
        }
    }
}
