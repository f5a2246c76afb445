//! One shard: the sessions of its users, the order of its conversations, and nothing of the world outside.
//!
//! Flows in: [`Input`]. Flows out: [`Effect`]. Never imports a socket, a file, a clock, a task, glommio, or another
//! shard's memory.
//!
//! A user belongs to one shard and so do all of that user's sessions; a conversation belongs to one shard, which gives
//! its messages their order. The way of a message through the files here:
//! `sockets` or `sockjs` (bytes) -> `stomp` -> `commands` (frames) -> `conversations` (who may) -> `appends` (order, store)
//! -> `delivery` (sessions) -> `outbox`. What the store has left open on the way: `doubts`.
//!
//! Invariants: every handler ends with its effects in the caller's buffer; a command gets exactly one answer;
//! a message is answered and delivered only after the store said that it is durable; nothing depends on the
//! iteration order of a hash map.

mod appends;
mod auth;
mod boundary;
mod carriers;
mod commands;
mod connection;
mod connections;
mod conversations;
mod delivery;
mod doubts;
mod handover;
mod history;
mod mail;
mod membership;
mod outbox;
mod receivers;
mod recent;
mod requests;
mod sockets;
mod sockjs;
mod stomp;
mod storing;
mod subscriptions;
mod timers;
mod topics;
mod users;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use slab::Slab;

use crate::model::ids::MessageIds;
use crate::model::{ConnectionId, Mono, Now, ShardId};
use crate::protocol::json::Reader;
use crate::session::Policy;

pub use boundary::{Counters, Effect, Input, ListenerKind};
pub use handover::Handover;
pub use mail::Mail;
pub use outbox::Outbox;

use auth::Logins;
use connection::Connections;
use conversations::Conversations;
use doubts::Doubts;
use history::PageReads;
use membership::Changes;
use recent::Recents;
use sockjs::SockJs;
use storing::{Errand, Write};
use timers::{Timer, Timers};
use topics::Topics;
use users::{Sessions, Users};

/// What a shard is told at its start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub id: ShardId,
    /// Number of shards of this node.
    pub shards: u16,
    /// This node's number in the cluster.
    pub node: u16,
    /// Grows at every start of the node.
    pub epoch: u64,
    /// From a secure source; the simulator gives its own.
    pub seed: [u8; 32],
    pub policy: Arc<Policy>,
}

/// One executor's worth of the server. Lifetime: the node's. Owner: its executor. View: shard.
pub struct Shard {
    id: ShardId,
    shards: u16,
    policy: Arc<Policy>,
    random: ChaCha20Rng,
    message_ids: MessageIds,
    connections: Connections,
    sockjs: SockJs,
    sessions: Sessions,
    users: Users,
    topics: Topics,
    conversations: Conversations,
    page_reads: PageReads,
    recents: Recents,
    changes: Changes,
    doubts: Doubts,
    logins: Logins,
    /// What each request under way at the store is for; the key is its ticket.
    errands: Slab<Errand>,
    /// Writes of unknown outcome, until they are tried again.
    repeats: Slab<Box<Write>>,
    timers: Timers,
    /// Buffers in which the bodies of SENDs are read.
    reader: Reader,
    /// Mail of this shard to itself, handled before the turn ends.
    local: VecDeque<Mail>,
    /// Names the version of the page for frames of other origins.
    iframe_etag: Box<str>,
    counters: Counters,
    /// The store's last reply was a failure, or it cannot be reached.
    store_failing: bool,
    /// As far as whoever watches the store has told.
    store_reachable: bool,
    started: bool,
    draining: Option<Mono>,
    drained: bool,
}

/// One call of [`Shard::handle`]: when it is, and where its effects go.
struct Turn<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

impl Shard {
    #[must_use]
    pub fn new(settings: ShardSettings) -> Self {
        let ShardSettings { id, shards, node, epoch, seed, policy } = settings;
        assert!(id.0 < shards, "a shard's id lies below the number of shards");
        let mut random = ChaCha20Rng::from_seed(seed);
        let mut map_seed = || random.next_u64();
        let (users, topics) = (Users::new(map_seed()), Topics::new(map_seed()));
        let changes = Changes::new(map_seed());
        let sockjs = SockJs::new(map_seed());
        let page_reads = PageReads::new(map_seed());
        let recents = Recents::new(map_seed(), policy.limits.recent_messages, policy.limits.recent_bytes);
        let iframe_etag = receivers::iframe_etag(&policy.endpoints);
        let (conversations, logins) = (Conversations::new(map_seed(), shards), Logins::new(map_seed()));
        Self {
            id,
            shards,
            policy,
            random,
            message_ids: MessageIds::new(id, node, epoch),
            connections: Connections::default(),
            sockjs,
            sessions: Sessions::default(),
            users,
            topics,
            conversations,
            page_reads,
            recents,
            changes,
            doubts: Doubts::default(),
            logins,
            errands: Slab::new(),
            repeats: Slab::new(),
            timers: Timers::default(),
            reader: Reader::new(),
            local: VecDeque::new(),
            iframe_etag,
            counters: Counters::default(),
            store_failing: false,
            store_reachable: true,
            started: false,
            draining: None,
            drained: false,
        }
    }

    /// Carries out one input at `now`; what is wanted of the world is appended to `effects`.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        let mut turn = Turn { now, effects };
        let turn = &mut turn;
        if !self.started {
            self.started = true;
            self.load_revoked(turn);
        }
        match input {
            Input::Opened { connection, peer, kind } => self.open(turn, connection, peer, kind),
            Input::Adopted { connection, handover } => self.adopt(turn, connection, *handover),
            Input::Received { connection, bytes } => self.receive(turn, connection, bytes),
            Input::Written { connection, bytes, blocked } => self.written(turn, connection, bytes, blocked),
            Input::Lost { connection } => self.lose(turn, connection),
            Input::Mail { from, mail } => self.handle_mail(turn, from, mail),
            Input::Stored { ticket, reply } => self.stored(turn, ticket, reply),
            Input::StoreReachable { up } => (self.store_reachable, self.store_failing) = (up, !up),
            Input::Deadline => self.handle_deadlines(turn),
            Input::Drain => self.drain(turn),
        }
        loop {
            while let Some(mail) = self.local.pop_front() {
                self.handle_mail(turn, self.id, mail);
            }
            // Once all that happened has been said: what is said to one SockJS client then goes in one packet.
            self.flush_sockjs(turn);
            if self.local.is_empty() {
                break;
            }
        }
        self.report_drained(turn);
    }

    /// When `Input::Deadline` is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.started { self.timers.next_deadline() } else { Some(Mono(0)) }
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What waits to be written to a connection; `None` when the shard does not know it.
    #[must_use]
    pub fn outbox(&self, connection: ConnectionId) -> Option<&Outbox> {
        self.connections.find(connection).map(|connection| &connection.outbox)
    }

    /// Sends to any shard, this one included: to itself when the handler has finished.
    fn mail(&mut self, turn: &mut Turn<'_>, to: ShardId, mail: Mail) {
        if to == self.id {
            self.local.push_back(mail);
        } else {
            turn.effects.push(Effect::Mail { to, mail });
        }
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    fn handle_mail(&mut self, turn: &mut Turn<'_>, from: ShardId, mail: Mail) {
        match mail {
            Mail::Submit(ask) => self.submit(turn, *ask),
            Mail::Ask(ask) => self.ask(turn, *ask),
            Mail::Answer { asked, outcome } => self.answered(turn, asked, *outcome),
            Mail::Authenticate { shard, asked, peer, command } => self.authenticate(turn, (shard, asked), &peer, *command),
            Mail::Deliver(delivery) => self.deliver(turn, &delivery),
            Mail::Notify(notice) => self.notify(turn, &notice),
            Mail::Publish { name, event } => self.publish(turn, &name, &event),
            Mail::Broadcast { name, event, topic, patterns } => self.broadcast(turn, &name, &event, topic, &patterns),
            Mail::Join { topic, user, subscriber } => self.join(turn, from, topic, user, subscriber),
            Mail::Joined { topic, subscriber, allowed } => self.joined(turn, topic, subscriber, allowed),
            Mail::Leave { topic } => self.leave(from, &topic),
            Mail::JoinPattern { pattern, user, subscriber } => self.join_pattern(turn, from, pattern, user, subscriber),
            Mail::LeavePattern { subscriber } => self.leave_pattern(from, subscriber),
            Mail::Expel { conversation, user } => self.expel(turn, conversation, user),
            Mail::BlockChanged { conversation, asker } => self.refresh_block(turn, conversation, asker),
            Mail::SockJs(ask) => self.ask_sockjs(turn, *ask),
            Mail::SockJsAnswer { connection, number, answer } => self.receiver_answered(turn, connection, number, *answer),
            Mail::SockJsWritten { session, place } => self.sockjs_written(turn, session, place),
            Mail::SockJsLost { session, place } => self.sockjs_lost(turn, session, place),
            Mail::SockJsMove(moved) => self.adopt_sockjs(turn, from, *moved),
            Mail::SockJsGone { session, serial } => self.sockjs_gone(&session, serial),
            Mail::Revoked { user, family } => self.revoked(turn, user, family),
        }
    }

    fn handle_deadlines(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, timer)) = self.timers.pop_due(turn.now.mono) {
            match timer {
                Timer::Connection(connection) => self.connection_due(turn, connection, at),
                Timer::SockJs(key) => self.sockjs_due(turn, key, at),
                Timer::Append(conversation) => self.retry_append(turn, conversation),
                Timer::Doubts => self.look_into_doubts(turn),
                Timer::User(user) => {
                    let next = self.users.look(user, turn.now.mono);
                    self.watch_user(user, next);
                }
                Timer::Repeat(key) => self.repeat_write(turn, key),
                Timer::Revoked => self.load_revoked(turn),
                Timer::Sweep => self.sweep_logins(turn),
                // What is to be done follows every input.
                Timer::Drain => {}
            }
        }
    }
}
