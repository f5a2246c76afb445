//! One shard: the sessions of its users, the order of its conversations, and nothing of the world outside.
//!
//! Flows in: [`Input`]. Flows out: [`Effect`]. Never imports a socket, a file, a clock, a task, glommio, or another
//! shard's memory.
//!
//! A user belongs to one shard and so do all of that user's sessions; a conversation belongs to one shard, which gives
//! its messages their order. Five parts share the work: `clients` (bytes to events), `users` (sessions, subscriptions,
//! delivery), `conversations` (order, history, membership), `topics` (which shards listen) and `logins`. They reach each
//! other by `mail` alone, but for `users`, which drives `clients`. What all of them need travels in the `turn`.
//! This file routes, and decides nothing.
//!
//! Invariants: every handler ends with its effects in the caller's buffer; a command gets exactly one answer;
//! a message is answered and delivered only after the store said that it is durable; nothing depends on the
//! iteration order of a hash map.

mod boundary;
mod clients;
mod conversations;
mod logins;
mod mail;
mod topics;
mod turn;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::{ConnectionId, Mono, Now, ShardId};
use crate::session::Policy;
use crate::store::{Reply, Ticket};

pub use boundary::{Counters, Effect, Input, ListenerKind, ShardSettings};
pub use clients::{Handover, Outbox};
pub use mail::{ClientMail, ConversationMail, LoginMail, Mail, TopicMail, UserMail};

use clients::{Clients, Received};
use conversations::Conversations;
use logins::Logins;
use topics::Topics;
use turn::Turn;
use turn::store_calls::Part;
use users::Users;

/// One executor's worth of the server. Lifetime: the node's. Owner: its executor. View: shard.
pub struct Shard {
    turn: Turn,
    clients: Clients,
    users: Users,
    conversations: Conversations,
    topics: Topics,
    logins: Logins,
    drained: bool,
}

impl Shard {
    /// # Panics
    /// When the shard's id is not below the number of shards.
    #[must_use]
    pub fn new(settings: ShardSettings) -> Self {
        let mut turn = Turn::new(settings);
        Self {
            clients: Clients::new(&mut turn),
            users: Users::new(&mut turn),
            conversations: Conversations::new(&mut turn),
            topics: Topics::new(&mut turn),
            logins: Logins::new(&mut turn),
            turn,
            drained: false,
        }
    }

    /// Carries out one input at `now`; what is wanted of the world is appended to `effects`.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        self.turn.begin(now, effects);
        let turn = &mut self.turn;
        self.logins.start(turn);
        match input {
            Input::Opened { connection, peer, kind } => self.clients.open(turn, connection, peer, kind),
            Input::Adopted { connection, handover } => self.clients.adopt(turn, connection, *handover),
            Input::Received { connection, bytes } => {
                self.clients.heard(turn, connection);
                self.read(&mut Received::new(connection, bytes));
            }
            Input::Written { connection, bytes, blocked } => self.clients.written(turn, connection, bytes, blocked),
            Input::Lost { connection } => self.clients.lose(turn, connection),
            Input::Mail { from, mail } => self.handle_mail(from, mail),
            Input::Stored { ticket, reply } => self.handle_reply(ticket, reply),
            Input::StoreReachable { up } => (turn.store.reachable, turn.store.failing) = (up, !up),
            Input::Policy(policy) => self.follow_policy(policy),
            Input::Deadline => self.handle_due(),
            Input::Drain => self.drain(),
        }
        self.settle();
        self.report_drained();
        self.turn.end(effects);
    }

    /// When `Input::Deadline` is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let parts = [
            self.clients.next_deadline(),
            self.users.next_deadline(),
            self.conversations.next_deadline(),
            self.logins.next_deadline(),
        ];
        parts.into_iter().flatten().min()
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.turn.counters
    }

    /// What waits to be written to a connection; `None` when the shard does not know it.
    #[must_use]
    pub fn outbox(&self, connection: ConnectionId) -> Option<&Outbox> {
        self.clients.outbox(connection)
    }

    /// Hands the events in a client's bytes to its user.
    fn read(&mut self, received: &mut Received<'_>) {
        while let Some(event) = self.clients.next(&mut self.turn, received) {
            self.users.handle_event(&mut self.turn, &mut self.clients, event, received);
        }
    }

    /// Handles events of clients and mail of this shard to itself until none is left.
    fn settle(&mut self) {
        loop {
            if self.clients.has_events() {
                self.settle_clients();
            }
            if self.turn.has_local() {
                if let Some(mail) = self.turn.next_local() {
                    self.handle_mail(self.turn.id, mail);
                }
                continue;
            }
            if !self.clients.must_flush() {
                return;
            }
            // Once everything has been said: what is said to one SockJS client then goes in one packet.
            self.clients.flush(&mut self.turn);
        }
    }

    fn settle_clients(&mut self) {
        loop {
            while let Some(event) = self.clients.next_event() {
                let nothing = &mut Received::nothing();
                self.users.handle_event(&mut self.turn, &mut self.clients, event, nothing);
            }
            let Some(mut backlog) = self.clients.next_backlog() else { return };
            self.read(&mut backlog.received());
        }
    }

    fn handle_mail(&mut self, from: ShardId, mail: Mail) {
        let turn = &mut self.turn;
        match mail {
            Mail::Clients(mail) => self.clients.handle_mail(turn, from, mail),
            Mail::Users(mail) => self.users.handle_mail(turn, &mut self.clients, mail),
            Mail::Conversations(mail) => self.conversations.handle_mail(turn, from, mail),
            Mail::Topics(mail) => self.topics.handle_mail(turn, from, mail),
            Mail::Logins(mail) => self.logins.handle_mail(turn, mail),
        }
    }

    fn handle_reply(&mut self, ticket: Ticket, reply: Reply) {
        let turn = &mut self.turn;
        turn.store_replied(&reply);
        let (part, key) = Part::of(ticket);
        match part {
            Part::Users => self.users.handle_reply(turn, key, reply),
            Part::Conversations => self.conversations.handle_reply(turn, key, reply),
            Part::Logins => self.logins.handle_reply(turn, key, reply),
        }
    }

    fn handle_due(&mut self) {
        let turn = &mut self.turn;
        self.clients.handle_due(turn);
        self.users.handle_due(turn, &mut self.clients);
        self.conversations.handle_due(turn);
        self.logins.handle_due(turn);
    }

    fn follow_policy(&mut self, policy: Arc<Policy>) {
        self.turn.policy = policy;
        self.clients.follow_policy(&self.turn);
        self.conversations.follow_policy(&self.turn);
    }

    /// The server ends: takes nothing new, finishes what is under way, and asks every client to reconnect.
    fn drain(&mut self) {
        if self.turn.draining.is_none() {
            self.clients.drain(&mut self.turn);
            self.users.drain(&mut self.turn, &mut self.clients);
        }
    }

    fn report_drained(&mut self) {
        let Some(until) = self.turn.draining else { return };
        if until <= self.turn.now.mono && !self.clients.are_none() {
            self.clients.drop_all(&mut self.turn);
            self.settle();
        }
        let is_idle = self.users.is_idle() && self.conversations.is_idle() && self.logins.is_idle();
        if !self.drained && self.clients.are_none() && is_idle {
            self.drained = true;
            self.turn.effect(Effect::Drained);
        }
    }

    /// The parts of the state that a test expects to be gone, by name.
    #[cfg(test)]
    fn leftovers(&self) -> Vec<(&'static str, bool)> {
        let (clients, users, conversations) = (self.clients.leftovers(), self.users.leftovers(), self.conversations.leftovers());
        let rest = [
            ("topics", !self.topics.is_empty() || !self.turn.patterns.is_empty()),
            ("store calls of logins", !self.logins.is_idle()),
            ("store calls", self.turn.store_inflight > 0),
            ("mail", self.turn.has_local()),
        ];
        clients.into_iter().chain(users).chain(conversations).chain(rest).collect()
    }

    /// Whether nothing of these kinds is left.
    #[cfg(test)]
    fn leaves_none(&self, kinds: &[&str]) -> bool {
        self.leftovers().iter().all(|(kind, is_left)| !is_left || !kinds.contains(kind))
    }
}
