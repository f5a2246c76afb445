//! SockJS sessions over HTTP at their home: messages of clients are taken in, messages for them wait until they are fetched.
//!
//! A session whose URL has a token is at home on its user's shard. One without begins where its name says and goes to its
//! user's shard after CONNECT; the old home then passes on requests that still come there.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use slab::Slab;

use crate::access::token::Claims;
use crate::model::map::{self, Map};
use crate::model::{Close, Mono, Refusal, RefusalCode, ShardId};
use crate::protocol::sockjs;
use crate::session::endpoints::Application;
use crate::session::frames::Encapsulation;
use crate::session::intent::ConnectRequest;
use crate::session::sockjs::{Batch, Channel, RequestAddress};
use crate::shard::clients::http::ending;
use crate::shard::clients::payload::Payload;
use crate::shard::clients::socket::Protocol;
use crate::shard::clients::stomp::StompStream;
use crate::shard::clients::{Backlog, ClientEvent, ClientId, Clients, Gone, Timer};
use crate::shard::mail::{ClientMail, SockJsAnswer, SockJsId, SockJsMove, SockJsRequest, SockJsWant};
use crate::shard::turn::Turn;

/// A SockJS session on its shard. The generation distinguishes the later tenants of a slot from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) struct SockJsKey {
    index: u32,
    generation: u32,
}

/// Lifetime: from the first request for messages until no request has come for too long, or a receiver was lost. Owner: the
/// clients' part. View: one client.
#[derive(Debug)]
pub(super) struct SockJsSession {
    generation: u32,
    id: SockJsId,
    /// Where the session began, and where requests that do not name its user still go; and which of the moves from there
    /// it was.
    came_from: Option<(ShardId, u32)>,
    pub(super) channel: Channel,
    /// `None` once the session is closed.
    pub(super) protocol: Option<Protocol>,
    /// When the client last sent anything.
    pub(super) heard: Mono,
    /// When packets for the client last went out.
    pub(super) delivered: Mono,
    /// When a session of an application without heart-beats gets a sign of life.
    ping_at: Mono,
    /// How long a closed session waits for its receiver to take the close.
    closed_until: Option<Mono>,
    /// As many commands are under way as may be.
    paused: bool,
    /// Requests that brought more than may be under way: answered when there is room.
    held: Vec<RequestAddress>,
    timer: Option<Mono>,
    /// In the list of sessions that may have something to send.
    stirred: bool,
}

#[derive(Clone, Copy, Debug)]
enum Home {
    Here(SockJsKey),
    /// It has gone on to its user's shard.
    Moved {
        to: ShardId,
        serial: u32,
    },
}

/// Sessions by name. Owner: the clients' part. View: shard.
#[derive(Debug)]
pub(super) struct SockJsSessions {
    homes: Map<SockJsId, Home>,
    slab: Slab<Box<SockJsSession>>,
    next_generation: u32,
    next_serial: u32,
    /// Sessions that may have something to send, in the order in which they got it.
    stirred: VecDeque<SockJsKey>,
}

impl SockJsSessions {
    pub(super) fn new(seed: u64) -> Self {
        Self { homes: map::map(seed), slab: Slab::new(), next_generation: 0, next_serial: 0, stirred: VecDeque::new() }
    }

    pub(super) fn find(&self, key: SockJsKey) -> Option<&SockJsSession> {
        self.slab.get(key.index as usize).map(|session| &**session).filter(|session| session.generation == key.generation)
    }

    pub(super) fn find_mut(&mut self, key: SockJsKey) -> Option<&mut SockJsSession> {
        let session = self.slab.get_mut(key.index as usize).map(|session| &mut **session)?;
        (session.generation == key.generation).then_some(session)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    #[inline]
    pub(super) fn must_flush(&self) -> bool {
        !self.stirred.is_empty()
    }

    /// Nothing is left, not even of sessions that moved away.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.slab.is_empty() && self.homes.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<SockJsKey> {
        let key = |index: usize, generation| SockJsKey { index: u32::try_from(index).unwrap_or(u32::MAX), generation };
        self.slab.iter().map(|(index, session)| key(index, session.generation)).collect()
    }

    fn insert(
        &mut self,
        now: Mono,
        id: SockJsId,
        came_from: Option<(ShardId, u32)>,
        channel: Channel,
        protocol: Protocol,
    ) -> SockJsKey {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let session = SockJsSession {
            generation,
            id: id.clone(),
            came_from,
            channel,
            protocol: Some(protocol),
            heard: now,
            delivered: now,
            ping_at: Mono(0),
            closed_until: None,
            paused: false,
            held: Vec::new(),
            timer: None,
            stirred: false,
        };
        let index = u32::try_from(self.slab.insert(Box::new(session))).expect("sessions are bounded far below 2^32");
        let key = SockJsKey { index, generation };
        self.homes.insert(id, Home::Here(key));
        key
    }

    fn remove(&mut self, key: SockJsKey) -> Option<Box<SockJsSession>> {
        self.find(key)?;
        let session = self.slab.try_remove(key.index as usize)?;
        if let Some(Home::Here(known)) = self.homes.get(&session.id)
            && *known == key
        {
            self.homes.remove(&session.id);
        }
        Some(session)
    }

    /// Makes sure that the session is looked at before the call ends.
    pub(super) fn stir(&mut self, key: SockJsKey) -> Option<&mut SockJsSession> {
        if !std::mem::replace(&mut self.find_mut(key)?.stirred, true) {
            self.stirred.push_back(key);
        }
        self.find_mut(key)
    }
}

fn answer(turn: &mut Turn, to: RequestAddress, answer: SockJsAnswer) {
    let RequestAddress { shard, connection, number } = to;
    turn.mail(shard, ClientMail::SockJsAnswer { connection, number, answer: Box::new(answer) });
}

fn send_batch(turn: &mut Turn, batch: Batch) {
    let Batch { to, packets, last } = batch;
    answer(turn, to, SockJsAnswer::Packets { packets, last });
}

impl Clients {
    /// A request has come to its session's home.
    pub(super) fn sockjs_requested(&mut self, turn: &mut Turn, request: SockJsRequest) {
        let SockJsRequest { session, from, want, passed_on } = request;
        match (self.sockjs.homes.get(&session).copied(), passed_on) {
            (Some(Home::Moved { to, serial }), _) => {
                let passed_on = Some((turn.id, serial));
                turn.mail(to, ClientMail::SockJs(Box::new(SockJsRequest { session, from, want, passed_on })));
            }
            (Some(Home::Here(key)), _) => match want {
                SockJsWant::Receive { stream, .. } => self.sockjs_receive(turn, key, from, stream),
                SockJsWant::Send { body } => self.sockjs_send(turn, key, from, &body),
            },
            // It ended here before the old home heard of it. That is the name's home again, and decides.
            (None, Some((home, serial))) => {
                turn.mail(home, ClientMail::SockJsGone { session: session.clone(), serial });
                turn.mail(home, ClientMail::SockJs(Box::new(SockJsRequest { session, from, want, passed_on: None })));
            }
            (None, None) => match want {
                SockJsWant::Receive { stream, claims } => match self.sockjs_open(turn, session, claims) {
                    Ok(key) => self.sockjs_receive(turn, key, from, stream),
                    Err(refusal) => answer(turn, from, SockJsAnswer::Refused(refusal)),
                },
                SockJsWant::Send { .. } => answer(turn, from, SockJsAnswer::NoSession),
            },
        }
    }

    fn sockjs_open(
        &mut self,
        turn: &mut Turn,
        id: SockJsId,
        claims: Result<Option<Box<Claims>>, Refusal>,
    ) -> Result<SockJsKey, Refusal> {
        let claims = claims?.map(|claims| *claims);
        if turn.draining.is_some() {
            return Err(ending());
        }
        if turn.limits().sockjs_sessions <= self.sockjs.slab.len() {
            return Err(Refusal::new(RefusalCode::TooManySessions, "there are too many SockJS sessions").retry_after(1));
        }
        let now = turn.now.mono;
        let channel = Channel::new(now);
        match turn.policy.endpoints.endpoint(id.endpoint).application {
            Application::Stomp => {
                let until = turn.after(turn.limits().first_frame);
                let expires = turn.token_end(claims.as_ref());
                let protocol = Protocol::Stomp(StompStream::new(Encapsulation::SockJs, claims, until));
                let key = self.sockjs.insert(now, id, None, channel, protocol);
                self.schedule_sockjs(key, until.min(turn.after(turn.now.wall.until(expires))));
                Ok(key)
            }
            Application::Plain(plain) => {
                let protocol = Protocol::Plain(Encapsulation::SockJs, plain);
                let key = self.sockjs.insert(now, id, None, channel, protocol);
                let ping_at = turn.after(turn.limits().ping);
                if let Some(session) = self.sockjs.find_mut(key) {
                    session.ping_at = ping_at;
                }
                self.schedule_sockjs(key, ping_at);
                self.react(turn, ClientId::SockJs(key), Encapsulation::SockJs, (plain.opened)());
                Ok(key)
            }
        }
    }

    fn sockjs_receive(&mut self, turn: &mut Turn, key: SockJsKey, from: RequestAddress, stream: bool) {
        let Some(session) = self.sockjs.stir(key) else { return };
        session.heard = turn.now.mono;
        if let Err(refused) = session.channel.attach(from, stream) {
            send_batch(turn, refused);
        }
    }

    /// Takes in a client's messages. The request is answered when they have been read, so that a client that sends faster
    /// than its commands are carried out waits.
    fn sockjs_send(&mut self, turn: &mut Turn, key: SockJsKey, from: RequestAddress, body: &[u8]) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        session.heard = turn.now.mono;
        if body.is_empty() {
            return answer(turn, from, SockJsAnswer::Broken("Payload expected."));
        }
        let Ok(messages) = sockjs::messages(body) else {
            return answer(turn, from, SockJsAnswer::Broken("Broken JSON encoding."));
        };
        if !session.held.is_empty() {
            let refusal = Refusal::new(RefusalCode::StoreBusy, "too much of this session is under way").retry_after(1);
            return answer(turn, from, SockJsAnswer::Refused(refusal));
        }
        // Messages to a closed session go nowhere; the client hears why with the next packet.
        if session.protocol.is_none() {
            return answer(turn, from, SockJsAnswer::Taken);
        }
        self.backlog.push_back(Backlog {
            client: ClientId::SockJs(key),
            payload: Some(Payload::messages(messages)),
            bytes: Vec::new(),
            request: Some(from),
        });
    }

    /// The messages of a request have been read.
    pub(super) fn sockjs_sent(&mut self, turn: &mut Turn, key: SockJsKey, from: RequestAddress) {
        match self.sockjs.find_mut(key) {
            Some(session) if session.paused => session.held.push(from),
            _ => answer(turn, from, SockJsAnswer::Taken),
        }
    }

    pub(super) fn pause_sockjs(&mut self, key: SockJsKey) {
        if let Some(session) = self.sockjs.find_mut(key) {
            session.paused = true;
        }
    }

    /// There is room for more of the session's commands: requests that waited are answered, and the client sends more.
    pub(super) fn resume_sockjs(&mut self, turn: &mut Turn, key: SockJsKey) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        session.paused = false;
        for request in std::mem::take(&mut session.held) {
            answer(turn, request, SockJsAnswer::Taken);
        }
    }

    /// The session goes on at its user's shard, with the bytes behind CONNECT.
    pub(super) fn move_sockjs(
        &mut self,
        turn: &mut Turn,
        key: SockJsKey,
        to: ShardId,
        connect: ConnectRequest,
        claims: Claims,
        payload: Vec<u8>,
    ) {
        let Some(session) = self.sockjs.remove(key) else { return };
        let serial = self.sockjs.next_serial;
        self.sockjs.next_serial = serial.wrapping_add(1);
        self.sockjs.homes.insert(session.id.clone(), Home::Moved { to, serial });
        let moved = SockJsMove { session: session.id, channel: session.channel, serial, connect, claims, payload };
        turn.mail(to, ClientMail::SockJsMove(Box::new(moved)));
    }

    /// A session goes on here, at its user's shard.
    pub(super) fn adopt_sockjs(&mut self, turn: &mut Turn, from: ShardId, moved: SockJsMove) {
        let SockJsMove { session, channel, serial, connect, claims, payload } = moved;
        let protocol = Protocol::Stomp(StompStream::new(Encapsulation::SockJs, None, Mono(u64::MAX)));
        // Only its old home gives the name away, so no other session has it here.
        let key = self.sockjs.insert(turn.now.mono, session, Some((from, serial)), channel, protocol);
        let client = ClientId::SockJs(key);
        self.events.push_back(ClientEvent::Connect { client, connect, handshake: Some(Box::new(claims)), moved: true });
        self.backlog.push_back(Backlog { client, payload: Some(Payload::owned(payload)), bytes: Vec::new(), request: None });
        self.schedule_sockjs(key, turn.after(turn.limits().sockjs_disconnect));
        self.sockjs.stir(key);
    }

    /// A session that moved away is over; one of the same name may have moved since.
    pub(super) fn sockjs_gone(&mut self, session: &SockJsId, gone: u32) {
        if let Some(Home::Moved { serial, .. }) = self.sockjs.homes.get(session)
            && *serial == gone
        {
            self.sockjs.homes.remove(session);
        }
    }

    /// The key of a session that is here; mail for one that has moved is passed on.
    fn at_home(&self, turn: &mut Turn, session: &SockJsId, pass_on: impl FnOnce(SockJsId) -> ClientMail) -> Option<SockJsKey> {
        match *self.sockjs.homes.get(session)? {
            Home::Here(key) => Some(key),
            Home::Moved { to, .. } => {
                turn.mail(to, pass_on(session.clone()));
                None
            }
        }
    }

    /// The packets of a receiver are out: it gets what has gathered since.
    pub(super) fn sockjs_written(&mut self, turn: &mut Turn, session: &SockJsId, receiver: RequestAddress) {
        let pass_on = |session| ClientMail::SockJsWritten { session, receiver };
        let Some(key) = self.at_home(turn, session, pass_on) else { return };
        let Some(session) = self.sockjs.stir(key) else { return };
        session.channel.written(receiver);
        session.delivered = turn.now.mono;
    }

    pub(super) fn sockjs_lost(&mut self, turn: &mut Turn, session: &SockJsId, receiver: RequestAddress) {
        let pass_on = |session| ClientMail::SockJsLost { session, receiver };
        let Some(key) = self.at_home(turn, session, pass_on) else { return };
        if self.sockjs.find(key).is_some_and(|session| session.channel.lost(receiver)) {
            self.end_sockjs(turn, key);
        }
    }

    /// Queues the last packets. The close is repeated to every request, for as long as the session is remembered.
    pub(super) fn close_sockjs(
        &mut self,
        turn: &mut Turn,
        key: SockJsKey,
        (code, reason): (u16, Cow<'static, str>),
        error: Option<Bytes>,
    ) {
        let Some(session) = self.sockjs.stir(key) else { return };
        if session.channel.is_closed() {
            return;
        }
        if let Some(error) = error {
            session.channel.push(error);
        }
        session.channel.close(code, reason);
        let until = turn.after(turn.limits().write_blocked + turn.limits().linger);
        session.closed_until = Some(until);
        tracing::debug!(shard = turn.id.0, code, "SockJS session closed by the server");
        if let Some(session) = session.protocol.take().and_then(|protocol| protocol.session()) {
            self.events.push_back(ClientEvent::Gone { session, why: Gone::Closed(code) });
        }
        self.schedule_sockjs(key, until);
        self.resume_sockjs(turn, key);
    }

    /// Forgets a session.
    pub(super) fn end_sockjs(&mut self, turn: &mut Turn, key: SockJsKey) {
        let Some(mut session) = self.sockjs.remove(key) else { return };
        if let Some(batch) = session.channel.end() {
            send_batch(turn, batch);
        }
        if let Some(session) = session.protocol.and_then(|protocol| protocol.session()) {
            self.events.push_back(ClientEvent::Gone { session, why: Gone::Lost });
        }
        for request in session.held {
            answer(turn, request, SockJsAnswer::NoSession);
        }
        if let Some((home, serial)) = session.came_from {
            turn.mail(home, ClientMail::SockJsGone { session: session.id, serial });
        }
    }

    /// Gives receivers what has gathered for them.
    pub(super) fn flush_sockjs(&mut self, turn: &mut Turn) {
        let stream_bytes = turn.limits().sockjs_stream_bytes;
        while let Some(key) = self.sockjs.stirred.pop_front() {
            let Some(session) = self.sockjs.find_mut(key) else { continue };
            session.stirred = false;
            if let Some(batch) = session.channel.next(turn.now.mono, stream_bytes) {
                send_batch(turn, batch);
            }
            if let Some(since) = session.channel.alone_since() {
                if turn.draining.is_some() && session.channel.is_closed() {
                    // No new request can come for the close.
                    self.end_sockjs(turn, key);
                    continue;
                }
                self.schedule_sockjs(key, since.after(turn.limits().sockjs_disconnect));
            }
        }
    }

    fn schedule_sockjs(&mut self, key: SockJsKey, at: Mono) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        if session.timer.is_none_or(|timer| at < timer) {
            session.timer = Some(at);
            self.timers.schedule(at, Timer::SockJs(key));
        }
    }

    /// A session's entry came up: does what is due and waits for the next.
    pub(super) fn sockjs_due(&mut self, turn: &mut Turn, key: SockJsKey, at: Mono) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        if session.timer != Some(at) {
            return;
        }
        session.timer = None;
        let alone_until = session.channel.alone_since().map(|since| since.after(turn.limits().sockjs_disconnect));
        let ends = alone_until.into_iter().chain(session.closed_until).min();
        if ends.is_some_and(|until| until <= turn.now.mono) {
            return self.end_sockjs(turn, key);
        }
        let next = match &session.protocol {
            Some(Protocol::Stomp(stomp)) => match stomp.patience(turn) {
                Some(patience) => {
                    let format = stomp.format();
                    self.check_patience(turn, ClientId::SockJs(key), format, patience)
                }
                None => None,
            },
            Some(Protocol::Plain(..)) if session.ping_at <= turn.now.mono => {
                let next = turn.after(turn.limits().ping);
                if let Some(session) = self.sockjs.stir(key) {
                    session.channel.beat();
                    session.ping_at = next;
                }
                Some(next)
            }
            Some(Protocol::Plain(..)) => Some(session.ping_at),
            None => None,
        };
        if let Some(next) = next.into_iter().chain(ends).min() {
            self.schedule_sockjs(key, next);
        }
    }

    /// The server ends: closes a session that has nothing under way.
    pub(super) fn drain_sockjs(&mut self, turn: &mut Turn, key: SockJsKey) {
        self.close_sockjs(turn, key, (Close::Restart.code(), Close::Restart.reason().into()), None);
    }
}
