//! Users of this shard and their sessions: what they ask for, what they subscribe to, what is delivered to them.
//!
//! Flows in: events of clients, [`UserMail`], replies of the store, deadlines. Flows out: frames and decisions for clients,
//! commands and subscriptions by mail, store requests. Never imports the insides of connections. It is the only part that
//! ends a session.
//!
//! Invariants: a command gets exactly one answer; a receipt says only what is true when it is written; a session's
//! subscriptions end with it, here and on every other shard.

mod accounts;
mod commands;
mod connect;
mod delivery;
mod listeners;
mod session_table;
mod subscriptions;

use bytes::Bytes;
use rand_chacha::rand_core::Rng;

use crate::access::Principal;
use crate::model::{Close, MessageId, Mono, UserId};
use crate::session::frames;
use crate::session::heartbeat::Beat;
use crate::shard::clients::{ClientEvent, Clients, Received};
use crate::shard::mail::{Asker, SessionKey, Subscriber, UserMail};
use crate::shard::turn::Turn;
use crate::shard::turn::store_calls::{Part, StoreCalls};
use crate::shard::turn::timers::Timers;
use crate::store::{Failure, Reply, Request};

use accounts::Creation;
use listeners::Listeners;
use session_table::{Sessions, UserTable};

/// Lifetime and owner: the shard. View: shard.
pub(super) struct Users {
    sessions: Sessions,
    table: UserTable,
    listeners: Listeners,
    calls: StoreCalls<OnReply>,
    timers: Timers<Timer>,
}

/// What a reply of the store is for.
#[derive(Debug)]
enum OnReply {
    /// Which conversation a message is in, for a read mark that did not say.
    MessageFound(Asker, MessageId),
    Created(Box<Creation>),
    ConversationsRead(Asker),
    BlockSet(Asker),
    BlocksRead(Asker),
    AccountRead(Asker),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Heart-beats, pings and the token's end.
    Session(SessionKey),
    /// The budget is full again: without sessions, nothing of the user need be kept.
    User(UserId),
}

impl Users {
    pub(super) fn new(turn: &mut Turn) -> Self {
        let mut seed = || turn.random.next_u64();
        Self {
            sessions: Sessions::default(),
            table: UserTable::new(seed()),
            listeners: Listeners::new(seed()),
            calls: StoreCalls::new(Part::Users),
            timers: Timers::default(),
        }
    }

    /// What a client did. `received` are the bytes that are being read from it.
    pub(super) fn handle_event(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        event: ClientEvent,
        received: &mut Received<'_>,
    ) {
        match event {
            ClientEvent::Connect { client, connect, handshake, moved } => {
                self.connect(turn, clients, received, client, connect, handshake, moved);
            }
            ClientEvent::Frame { session, frame } => self.handle_frame(turn, clients, session, frame),
            ClientEvent::Gone { session, why } => {
                tracing::debug!(shard = turn.id.0, ?why, "client gone");
                self.end_session(turn, session);
            }
        }
    }

    pub(super) fn handle_mail(&mut self, turn: &mut Turn, clients: &mut Clients, mail: UserMail) {
        match mail {
            UserMail::Submit { asker, command } => self.submit(turn, asker, *command),
            UserMail::Answer { session, number, outcome } => self.answered(turn, clients, session, number, &outcome),
            UserMail::Deliver(delivery) => self.deliver(turn, clients, &delivery),
            UserMail::Notify(notice) => self.notify(turn, clients, &notice),
            UserMail::Broadcast { name, event, topic, patterns } => {
                self.broadcast(turn, clients, &name, &event, topic, &patterns);
            }
            UserMail::Joined { topic, subscriber, allowed } => self.joined(turn, clients, topic, subscriber, allowed),
            UserMail::Expel { conversation, user } => self.expel(turn, conversation, user),
            UserMail::Revoked { user, family } => {
                self.end_sessions(turn, clients, user, "the token has been revoked", |principal| {
                    principal.family == Some(family)
                });
            }
        }
    }

    /// The store replied to one of this part's requests.
    pub(super) fn handle_reply(&mut self, turn: &mut Turn, key: usize, reply: Reply) {
        if let Some((continuation, reply)) = self.calls.replied(turn, key, reply) {
            self.go_on(turn, continuation, reply);
        }
    }

    fn go_on(&mut self, turn: &mut Turn, continuation: OnReply, reply: Reply) {
        match continuation {
            OnReply::MessageFound(asker, message) => self.message_found(turn, asker, message, reply),
            OnReply::Created(creation) => self.created(turn, *creation, reply),
            OnReply::ConversationsRead(asker) => self.conversations_read(turn, asker, reply),
            OnReply::BlockSet(asker) => self.block_set(turn, asker, reply),
            OnReply::BlocksRead(asker) => self.blocks_read(turn, asker, reply),
            OnReply::AccountRead(asker) => self.account_read(turn, asker, reply),
        }
    }

    /// Asks the store. When too much is under way the answer comes at once: busy.
    fn ask_store(&mut self, turn: &mut Turn, request: impl Into<Request>, continuation: OnReply) {
        if let Err(continuation) = self.calls.ask(turn, request, continuation) {
            self.go_on(turn, continuation, Reply::Failed(Failure::Busy));
        }
    }

    // ---- Time ----

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.timers.next_deadline().into_iter().chain(self.calls.next_deadline()).min()
    }

    pub(super) fn handle_due(&mut self, turn: &mut Turn, clients: &mut Clients) {
        self.calls.handle_due(turn);
        while let Some((at, timer)) = self.timers.pop_due(turn.now.mono) {
            match timer {
                Timer::Session(key) => self.session_due(turn, clients, key, at),
                Timer::User(user) => {
                    let next = self.table.look(user, turn.now.mono);
                    self.watch(user, next);
                }
            }
        }
    }

    /// Looks at a user again at `next`, if that is given.
    fn watch(&mut self, user: UserId, next: Option<Mono>) {
        if let Some(at) = next {
            self.timers.schedule(at, Timer::User(user));
        }
    }

    /// Makes sure the session is looked at by `at`.
    fn schedule_session(&mut self, key: SessionKey, at: Mono) {
        let Some(entry) = self.sessions.find_mut(key) else { return };
        if entry.timer.is_none_or(|timer| at < timer) {
            entry.timer = Some(at);
            self.timers.schedule(at, Timer::Session(key));
        }
    }

    /// A session's entry came up: does what is due and waits for the next.
    fn session_due(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, at: Mono) {
        let Some(entry) = self.sessions.find_mut(key).filter(|entry| entry.timer == Some(at)) else { return };
        entry.timer = None;
        if let Some(next) = self.check_session(turn, clients, key) {
            assert!(next > turn.now.mono, "what is due has been done");
            self.schedule_session(key, next);
        }
    }

    /// Heart-beats, pings and the token's end. `None`: the session is over.
    fn check_session(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey) -> Option<Mono> {
        let entry = self.sessions.find_mut(key)?;
        if entry.session.principal.expires <= turn.now.wall {
            let error = frames::error(entry.format, "the token has expired", None);
            self.close_session(turn, clients, key, Close::Policy, Some(error));
            return None;
        }
        let (client, encapsulation) = (entry.client, entry.format.encapsulation);
        if let Some((heard, delivered)) = clients.signs_of_life(client) {
            entry.session.beats.heard(heard);
            if let Some(delivered) = delivered {
                entry.session.beats.delivered(delivered);
            }
        }
        let stomp_beats = entry.session.beats.are_sent();
        while let Some(beat) = entry.session.beats.due(turn.now.mono) {
            match beat {
                Beat::Send => clients.write(turn, client, frames::heart_beat(encapsulation)),
                Beat::Ping => clients.ping(turn, client, stomp_beats),
                Beat::Silent => {
                    self.close_session(turn, clients, key, Close::Silent, None);
                    return None;
                }
            }
        }
        Some(entry.session.next_deadline(turn.now.mono, turn.now.wall))
    }

    // ---- The end of sessions ----

    /// The session is over: nothing of it is left on this shard, or registered on another.
    fn end_session(&mut self, turn: &mut Turn, key: SessionKey) {
        let Some(entry) = self.sessions.remove(key) else { return };
        let user = entry.session.principal.user;
        for subscription in &entry.session.subscriptions {
            let subscriber = Subscriber { session: key, serial: subscription.serial };
            self.end_subscription(turn, subscriber, &subscription.target);
        }
        let next = self.table.leave(user, key, turn.now.mono);
        self.watch(user, next);
    }

    /// Ends a session and closes its client.
    fn close_session(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, close: Close, error: Option<Bytes>) {
        let Some(entry) = self.sessions.find(key) else { return };
        let client = entry.client;
        self.end_session(turn, key);
        clients.close(turn, client, close, error);
    }

    /// Ends those sessions of a user whose principal is `concerned`.
    fn end_sessions(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        user: UserId,
        message: &'static str,
        concerned: impl Fn(&Principal) -> bool,
    ) {
        let Some(known) = self.table.find(user) else { return };
        for key in known.sessions.clone() {
            let Some(entry) = self.sessions.find(key) else { continue };
            if concerned(&entry.session.principal) {
                let error = frames::error(entry.format, message, None);
                self.close_session(turn, clients, key, Close::Policy, Some(error));
            }
        }
    }

    /// The server ends: closes sessions that have nothing under way, and stops reading from the others.
    pub(super) fn drain(&mut self, turn: &mut Turn, clients: &mut Clients) {
        for key in self.sessions.keys() {
            let Some(entry) = self.sessions.find(key) else { continue };
            if entry.session.pending.is_empty() {
                self.close_session(turn, clients, key, Close::Restart, None);
            } else {
                clients.pause(turn, entry.client);
            }
        }
    }

    /// No request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_idle()
    }

    /// The parts of the state that a test expects to be gone, by name.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> [(&'static str, bool); 4] {
        [
            ("sessions", !self.sessions.is_empty()),
            ("users", !self.table.is_empty()),
            ("listeners of topics", !self.listeners.is_empty()),
            ("store calls of users", !self.is_idle()),
        ]
    }

    /// Commands for which the sessions keep room.
    #[cfg(test)]
    pub(super) fn pending_capacity(&self) -> usize {
        let keys = self.sessions.keys();
        keys.iter().filter_map(|key| self.sessions.find(*key)).map(|entry| entry.session.pending.capacity()).sum()
    }
}

/// Heap sizes of what an idle session keeps, by name.
#[cfg(test)]
pub(super) fn sizes() -> [(&'static str, usize); 2] {
    [
        ("SessionEntry, with the Session and its first Subscription", size_of::<session_table::SessionEntry>()),
        ("User, in its map", size_of::<session_table::User>() * 2),
    ]
}
