//! SockJS sessions over HTTP at their home: what clients bring is taken in, what is for them waits until they fetch it.
//!
//! A session whose URL has a token is at home on its user's shard. One without begins where its name says and goes to its
//! user's shard after CONNECT; the old home then passes on what still comes there.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use slab::Slab;

use crate::model::map::{self, Map};
use crate::model::{Mono, Refusal, RefusalCode, ShardId};
use crate::protocol::sockjs;
use crate::session::endpoints::Application;
use crate::session::frames::Encapsulation;
use crate::session::sockjs::{Batch, Channel, RequestAddress};
use crate::session::token::Claims;
use crate::shard::connection::{Stage, Stomp, Talk};
use crate::shard::mail::{Mail, SockJsAnswer, SockJsAsk, SockJsId, SockJsMove, SockJsWant};
use crate::shard::stomp::{Flow, Moved};
use crate::shard::timers::Timer;
use crate::shard::users::Carrier;
use crate::shard::{Shard, Turn};

/// A SockJS session on its shard. The generation tells a slot's later tenants from its earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SockJsKey {
    index: u32,
    generation: u32,
}

/// Lifetime: from the first request for messages until nobody has asked for too long, or a receiver was lost. Owner: the
/// shard. View: one client.
#[derive(Debug)]
pub(super) struct SockJsSession {
    generation: u32,
    id: SockJsId,
    /// Where the session began, and where requests that do not name its user still go; and which of the moves from there
    /// it was.
    came_from: Option<(ShardId, u32)>,
    pub(super) channel: Channel,
    /// `None` once the session is closed, and in the hands of the function that works on it.
    pub(super) talk: Option<Talk>,
    /// When a session of an application without heart-beats gets a sign of life.
    ping_at: Mono,
    /// How long a closed session waits for its receiver to take the close.
    closed_until: Option<Mono>,
    /// Requests that brought more than may be under way: answered when there is room.
    held: Vec<RequestAddress>,
    timer: Option<Mono>,
    /// In the list of those that may have something to send.
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

/// Sessions by name. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct SockJs {
    homes: Map<SockJsId, Home>,
    slab: Slab<Box<SockJsSession>>,
    next_generation: u32,
    next_serial: u32,
    /// Sessions that may have something to send, in the order in which they got it.
    stirred: VecDeque<SockJsKey>,
}

impl SockJs {
    pub(super) fn new(seed: u64) -> Self {
        Self { homes: map::map(seed), slab: Slab::new(), next_generation: 0, next_serial: 0, stirred: VecDeque::new() }
    }

    pub(super) fn find(&self, key: SockJsKey) -> Option<&SockJsSession> {
        self.slab.get(key.index as usize).map(|session| &**session).filter(|session| session.generation == key.generation)
    }

    fn find_mut(&mut self, key: SockJsKey) -> Option<&mut SockJsSession> {
        let session = self.slab.get_mut(key.index as usize).map(|session| &mut **session)?;
        (session.generation == key.generation).then_some(session)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
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

    fn insert(&mut self, id: SockJsId, came_from: Option<(ShardId, u32)>, channel: Channel, talk: Option<Talk>) -> SockJsKey {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let (held, timer, stirred, closed_until, ping_at) = (Vec::new(), None, false, None, Mono(0));
        let session =
            SockJsSession { generation, id: id.clone(), came_from, channel, talk, ping_at, closed_until, held, timer, stirred };
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

    /// Makes sure that the session is looked at before the turn ends.
    fn stir(&mut self, key: SockJsKey) -> Option<&mut SockJsSession> {
        if !std::mem::replace(&mut self.find_mut(key)?.stirred, true) {
            self.stirred.push_back(key);
        }
        self.find_mut(key)
    }
}

impl Shard {
    /// Where a session is at home before it is known whose it is.
    pub(super) fn sockjs_home(&self, id: &SockJsId) -> ShardId {
        let key = id.user.map_or_else(
            || {
                let digest = Sha256::digest(id.name.as_bytes());
                u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
            },
            |user| user.value(),
        );
        ShardId::of(key, self.shards)
    }

    /// A request has come to its session's home.
    pub(super) fn ask_sockjs(&mut self, turn: &mut Turn<'_>, ask: SockJsAsk) {
        let SockJsAsk { session, from, want, passed_on } = ask;
        match (self.sockjs.homes.get(&session).copied(), passed_on) {
            (Some(Home::Moved { to, serial }), _) => {
                let passed_on = Some((self.id, serial));
                self.mail(turn, to, Mail::SockJs(Box::new(SockJsAsk { session, from, want, passed_on })));
            }
            (Some(Home::Here(key)), _) => match want {
                SockJsWant::Receive { stream, .. } => self.receive_sockjs(turn, key, from, stream),
                SockJsWant::Send { body } => self.send_sockjs(turn, key, from, &body),
            },
            // It ended here before the old home heard of it. That is the name's home again, and decides.
            (None, Some((home, serial))) => {
                self.mail(turn, home, Mail::SockJsGone { session: session.clone(), serial });
                self.mail(turn, home, Mail::SockJs(Box::new(SockJsAsk { session, from, want, passed_on: None })));
            }
            (None, None) => match want {
                SockJsWant::Receive { stream, claims } => match self.open_sockjs(turn, session, claims) {
                    Ok(key) => self.receive_sockjs(turn, key, from, stream),
                    Err(refusal) => self.answer_sockjs(turn, from, SockJsAnswer::Refused(refusal)),
                },
                SockJsWant::Send { .. } => self.answer_sockjs(turn, from, SockJsAnswer::NoSession),
            },
        }
    }

    fn answer_sockjs(&mut self, turn: &mut Turn<'_>, to: RequestAddress, answer: SockJsAnswer) {
        let RequestAddress { shard, connection, number } = to;
        self.mail(turn, shard, Mail::SockJsAnswer { connection, number, answer: Box::new(answer) });
    }

    fn send_batch(&mut self, turn: &mut Turn<'_>, batch: Batch) {
        let Batch { to, packets, last } = batch;
        self.answer_sockjs(turn, to, SockJsAnswer::Packets { packets, last });
    }

    fn open_sockjs(
        &mut self,
        turn: &mut Turn<'_>,
        id: SockJsId,
        claims: Result<Option<Box<Claims>>, Refusal>,
    ) -> Result<SockJsKey, Refusal> {
        let claims = claims?.map(|claims| *claims);
        let policy = self.policy.clone();
        if self.draining.is_some() {
            return Err(Refusal::new(RefusalCode::Draining, "the server is ending").retry_after(1));
        }
        if policy.limits.sockjs_sessions <= self.sockjs.slab.len() {
            return Err(Refusal::new(RefusalCode::StoreBusy, "there are too many SockJS sessions").retry_after(1));
        }
        let until = turn.now.mono.after(policy.limits.first_frame);
        let channel = Channel::new(turn.now.mono);
        match policy.endpoints.endpoint(id.endpoint).application {
            Application::Stomp => {
                let expires = self.token_end(claims.as_ref());
                let talk = Talk::Stomp(Stomp::new(Encapsulation::SockJs, claims, until));
                let key = self.sockjs.insert(id, None, channel, Some(talk));
                self.schedule_sockjs(key, until.min(turn.now.mono.after(turn.now.wall.until(expires))));
                Ok(key)
            }
            Application::Plain(plain) => {
                let key = self.sockjs.insert(id, None, channel, Some(Talk::Plain(Encapsulation::SockJs, plain)));
                let ping_at = turn.now.mono.after(policy.limits.ping);
                if let Some(session) = self.sockjs.find_mut(key) {
                    session.ping_at = ping_at;
                }
                self.schedule_sockjs(key, ping_at);
                let _flow = self.react(turn, Carrier::SockJs(key), Encapsulation::SockJs, (plain.opened)());
                Ok(key)
            }
        }
    }

    fn receive_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey, from: RequestAddress, stream: bool) {
        self.heard_sockjs(turn, key);
        let Some(session) = self.sockjs.stir(key) else { return };
        if let Err(refused) = session.channel.attach(from, stream) {
            self.send_batch(turn, refused);
        }
    }

    fn heard_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey) {
        let carried = self.sockjs.find(key).and_then(|session| session.talk.as_ref()?.session());
        if let Some(live) = carried.and_then(|key| self.sessions.find_mut(key)) {
            live.session.beats.heard(turn.now.mono);
        }
    }

    /// What a client brought. It is answered when it has been taken in, so that a client that sends faster than its commands
    /// are carried out waits.
    fn send_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey, from: RequestAddress, body: &[u8]) {
        self.heard_sockjs(turn, key);
        if body.is_empty() {
            return self.answer_sockjs(turn, from, SockJsAnswer::Broken("Payload expected."));
        }
        let Ok(messages) = sockjs::messages(body) else {
            return self.answer_sockjs(turn, from, SockJsAnswer::Broken("Broken JSON encoding."));
        };
        let Some(session) = self.sockjs.find_mut(key) else { return };
        if !session.held.is_empty() {
            let refusal = Refusal::new(RefusalCode::StoreBusy, "too much of this session is under way").retry_after(1);
            return self.answer_sockjs(turn, from, SockJsAnswer::Refused(refusal));
        }
        // What a closed session is sent goes nowhere; it hears why with the next packet.
        let Some(mut talk) = session.talk.take() else { return self.answer_sockjs(turn, from, SockJsAnswer::Taken) };
        let flow = self.feed_messages(turn, Carrier::SockJs(key), &mut talk, &messages);
        self.flowed(turn, key, talk, flow);
        let full = self.sockjs.find(key).and_then(|session| session.talk.as_ref()).is_some_and(|talk| self.is_full(talk));
        match self.sockjs.find_mut(key) {
            Some(session) if full => session.held.push(from),
            _ => self.answer_sockjs(turn, from, SockJsAnswer::Taken),
        }
    }

    /// Gives the talk back, unless what was said has ended or moved it.
    fn flowed(&mut self, turn: &mut Turn<'_>, key: SockJsKey, talk: Talk, flow: Flow) {
        match flow {
            Flow::Go => {
                if let Some(session) = self.sockjs.find_mut(key)
                    && !session.channel.is_closed()
                {
                    session.talk = Some(talk);
                }
            }
            Flow::End => self.end_talk(turn, &talk),
            Flow::Move(moved) => self.move_sockjs(turn, key, *moved),
        }
    }

    /// The session's commands have been answered: who was kept waiting brings more.
    pub(super) fn resume_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        for place in std::mem::take(&mut session.held) {
            self.answer_sockjs(turn, place, SockJsAnswer::Taken);
        }
    }

    fn move_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey, moved: Moved) {
        let Some(session) = self.sockjs.remove(key) else { return };
        let Moved { to, connect, claims, payload } = moved;
        let serial = self.sockjs.next_serial;
        self.sockjs.next_serial = serial.wrapping_add(1);
        self.sockjs.homes.insert(session.id.clone(), Home::Moved { to, serial });
        let moved = SockJsMove { session: session.id, channel: session.channel, serial, connect, claims, payload };
        self.mail(turn, to, Mail::SockJsMove(Box::new(moved)));
    }

    /// A session goes on here, at its user's shard.
    pub(super) fn adopt_sockjs(&mut self, turn: &mut Turn<'_>, from: ShardId, moved: SockJsMove) {
        let SockJsMove { session, channel, serial, connect, claims, payload } = moved;
        let mut stomp = Stomp::new(Encapsulation::SockJs, None, turn.now.mono);
        // The name is only its old home's to give away: nobody else has it here.
        let key = self.sockjs.insert(session, Some((from, serial)), channel, None);
        self.begin_session(turn, Carrier::SockJs(key), &mut stomp, &connect, &claims);
        let begun = matches!(stomp.stage, Stage::Connected(_));
        let mut talk = Talk::Stomp(stomp);
        let flow = match begun {
            true if payload.is_empty() => Flow::Go,
            true => self.feed_talk(turn, Carrier::SockJs(key), &mut talk, true, &payload),
            false => Flow::End,
        };
        self.flowed(turn, key, talk, flow);
        self.schedule_sockjs(key, turn.now.mono.after(self.policy.limits.sockjs_disconnect));
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

    /// The key of a session that is here; what is for one that has moved is passed on.
    fn at_home(&mut self, turn: &mut Turn<'_>, session: &SockJsId, pass_on: impl FnOnce(SockJsId) -> Mail) -> Option<SockJsKey> {
        match self.sockjs.homes.get(session)? {
            Home::Here(key) => Some(*key),
            Home::Moved { to, .. } => {
                let to = *to;
                self.mail(turn, to, pass_on(session.clone()));
                None
            }
        }
    }

    /// What a receiver was given is out: it gets what has gathered since.
    pub(super) fn sockjs_written(&mut self, turn: &mut Turn<'_>, session: SockJsId, place: RequestAddress) {
        let pass_on = |session| Mail::SockJsWritten { session, place };
        let Some(key) = self.at_home(turn, &session, pass_on) else { return };
        let Some(session) = self.sockjs.stir(key) else { return };
        session.channel.written(place);
        let carried = session.talk.as_ref().and_then(Talk::session);
        if let Some(live) = carried.and_then(|key| self.sessions.find_mut(key)) {
            live.session.beats.delivered(turn.now.mono);
        }
    }

    pub(super) fn sockjs_lost(&mut self, turn: &mut Turn<'_>, session: SockJsId, place: RequestAddress) {
        let pass_on = |session| Mail::SockJsLost { session, place };
        let Some(key) = self.at_home(turn, &session, pass_on) else { return };
        if self.sockjs.find(key).is_some_and(|session| session.channel.lost(place)) {
            self.end_sockjs(turn, key);
        }
    }

    pub(super) fn push_sockjs(&mut self, key: SockJsKey, element: Bytes) {
        if let Some(session) = self.sockjs.stir(key) {
            session.channel.push(element);
        }
    }

    pub(super) fn beat_sockjs(&mut self, key: SockJsKey) {
        if let Some(session) = self.sockjs.stir(key) {
            session.channel.beat();
        }
    }

    /// A session without heart-beats of its own: a sign of life now, and the time of the next.
    fn ping_sockjs(&mut self, turn: &Turn<'_>, key: SockJsKey) -> Mono {
        let next = turn.now.mono.after(self.policy.limits.ping);
        if let Some(session) = self.sockjs.stir(key) {
            session.channel.beat();
            session.ping_at = next;
        }
        next
    }

    pub(super) fn cut_sockjs(&mut self, key: SockJsKey) {
        if let Some(session) = self.sockjs.find_mut(key) {
            session.channel.cut();
        }
    }

    /// Says the last of it; the close is told to whoever asks, for as long as the session is remembered.
    pub(super) fn close_sockjs(
        &mut self,
        turn: &mut Turn<'_>,
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
        let until = turn.now.mono.after(self.policy.limits.write_blocked + self.policy.limits.linger);
        session.closed_until = Some(until);
        tracing::debug!(shard = self.id.0, code, "SockJS session closed by the server");
        if let Some(talk) = self.sockjs.find_mut(key).and_then(|session| session.talk.take()) {
            self.end_talk(turn, &talk);
        }
        self.schedule_sockjs(key, until);
        self.resume_sockjs(turn, key);
    }

    /// Forgets a session.
    pub(super) fn end_sockjs(&mut self, turn: &mut Turn<'_>, key: SockJsKey) {
        let Some(mut session) = self.sockjs.remove(key) else { return };
        if let Some(batch) = session.channel.end() {
            self.send_batch(turn, batch);
        }
        match session.talk {
            Some(talk) => self.end_talk(turn, &talk),
            // Only a contained panic leaves a talk taken; whose session it was, only its carrier tells.
            None => {
                if let Some(live) = self.sessions.carried_by(Carrier::SockJs(key)) {
                    self.end_session(turn, live);
                }
            }
        }
        for place in session.held {
            self.answer_sockjs(turn, place, SockJsAnswer::NoSession);
        }
        if let Some((home, serial)) = session.came_from {
            self.mail(turn, home, Mail::SockJsGone { session: session.id, serial });
        }
    }

    /// Gives receivers what has gathered for them.
    pub(super) fn flush_sockjs(&mut self, turn: &mut Turn<'_>) {
        let stream_bytes = self.policy.limits.sockjs_stream_bytes;
        while let Some(key) = self.sockjs.stirred.pop_front() {
            let Some(session) = self.sockjs.find_mut(key) else { continue };
            session.stirred = false;
            if let Some(batch) = session.channel.next(turn.now.mono, stream_bytes) {
                self.send_batch(turn, batch);
            }
            let Some(session) = self.sockjs.find(key) else { continue };
            if let Some(since) = session.channel.alone_since() {
                if self.draining.is_some() && session.channel.is_closed() {
                    // Nobody new can come to be told.
                    self.end_sockjs(turn, key);
                    continue;
                }
                let at = since.after(self.policy.limits.sockjs_disconnect);
                self.schedule_sockjs(key, at);
            }
        }
    }

    pub(super) fn schedule_sockjs(&mut self, key: SockJsKey, at: Mono) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        if session.timer.is_none_or(|timer| at < timer) {
            session.timer = Some(at);
            self.timers.schedule(at, Timer::SockJs(key));
        }
    }

    /// A session's entry came up: does what is due and waits for the next.
    pub(super) fn sockjs_due(&mut self, turn: &mut Turn<'_>, key: SockJsKey, at: Mono) {
        let Some(session) = self.sockjs.find_mut(key) else { return };
        if session.timer != Some(at) {
            return;
        }
        session.timer = None;
        let Some(session) = self.sockjs.find(key) else { return };
        let alone_until = session.channel.alone_since().map(|since| since.after(self.policy.limits.sockjs_disconnect));
        let ends = alone_until.into_iter().chain(session.closed_until).min();
        if ends.is_some_and(|until| until <= turn.now.mono) {
            return self.end_sockjs(turn, key);
        }
        let carrier = Carrier::SockJs(key);
        let next = match &session.talk {
            Some(Talk::Stomp(stomp)) => match &stomp.stage {
                Stage::AwaitingConnect { claims, until } => {
                    let (until, format) = (*until, stomp.first_format());
                    let expires = self.token_end(claims.as_deref());
                    self.awaiting_check(turn, carrier, format, (until, expires))
                }
                Stage::Connected(session) => {
                    let session = *session;
                    self.session_check(turn, carrier, session)
                }
            },
            // Only a contained panic leaves the talk of an open session taken.
            None if !session.channel.is_closed() => return self.end_sockjs(turn, key),
            Some(Talk::Plain(..)) => {
                let ping_at = session.ping_at;
                Some(if ping_at <= turn.now.mono { self.ping_sockjs(turn, key) } else { ping_at })
            }
            None => None,
        };
        if let Some(next) = next.into_iter().chain(ends).min() {
            self.schedule_sockjs(key, next);
        }
    }
}
