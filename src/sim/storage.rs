//! The nodes' requests to the store: on their way there, carried out, and their replies on the way back; with what the
//! oracle sees of them.

use std::collections::VecDeque;

use crate::model::Mono;
use crate::sim::InjectedBug;
use crate::sim::database::Effected;
use crate::sim::node::ShardAddress;
use crate::sim::oracle::StoredAt;
use crate::sim::world::{Event, World};
use crate::store::{Appended, Reply, Request, Ticket};

/// A request of one shard.
#[derive(Debug)]
pub(super) struct Job {
    shard: usize,
    ticket: Ticket,
    request: Request,
}

/// A node's requests that wait for the store. Lifetime: the run's; a crash of the node empties it.
#[derive(Debug, Default)]
pub(super) struct StoreAccess {
    writes: VecDeque<Job>,
    reads: VecDeque<Job>,
    commit_due: bool,
    /// Until then the node cannot reach the store.
    pub(super) outage_until: Mono,
    /// When the last reply arrives.
    reply_last: Mono,
}

impl StoreAccess {
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }
}

impl World {
    pub(super) fn ask_store(&mut self, at: ShardAddress, ticket: Ticket, request: Request) {
        self.trace.note(self.now, format_args!("{at} asks {ticket:?} {request:?}"));
        if let Request::Append { conversation, messages, .. } = &request {
            self.oracle.append_asked(at.node, *conversation, messages);
        }
        let (is_read, pause) = (request.is_read(), self.random.micros(1, self.plan.store_us));
        let node = &mut self.nodes[at.node];
        let epoch = node.epoch;
        let job = Job { shard: at.shard, ticket, request };
        if is_read {
            node.store.reads.push_back(job);
            self.later(pause, Event::ReadStore { node: at.node, epoch });
        } else {
            node.store.writes.push_back(job);
            if !std::mem::replace(&mut node.store.commit_due, true) {
                self.later(pause, Event::Commit { node: at.node, epoch });
            }
        }
    }

    /// The store answers one of a node's reads.
    pub(super) fn read_store(&mut self, node: usize) {
        let away = self.now < self.nodes[node].store.outage_until;
        let reads = &mut self.nodes[node].store.reads;
        if reads.is_empty() {
            return;
        }
        // Reads stand beside each other: any of them may be the next.
        let Some(job) = reads.remove(self.random.below(reads.len())) else { return };
        let mut effects = Vec::new();
        let reply = self.database.read(&mut self.random, away, &job.request, &mut effects);
        self.take_effects(effects);
        if let (Request::LoadConversation { conversation }, Reply::Conversation { .. }) = (&job.request, &reply) {
            self.oracle.append_decided(node, *conversation);
        }
        self.reply(node, &job, reply);
    }

    /// The store takes in everything of a node that waits to be written, as one commit.
    pub(super) fn commit(&mut self, node: usize) {
        let away = self.now < self.nodes[node].store.outage_until;
        let epoch = self.nodes[node].epoch;
        self.nodes[node].store.commit_due = false;
        let mut done = Vec::new();
        for job in std::mem::take(&mut self.nodes[node].store.writes) {
            let mut effects = Vec::new();
            let (reply, late) = self.database.write(&mut self.random, away, (node, epoch), &job.request, &mut effects);
            done.push((job, effects, reply, late));
        }
        for (job, effects, reply, late) in done {
            if let Request::Append { conversation, messages, .. } = &job.request {
                self.oracle.append_begun(node, *conversation, messages);
            }
            self.take_effects(effects);
            if let Reply::Appended { results, .. } = &reply {
                for result in results {
                    if let Appended::Stored(message) = result {
                        self.oracle.store_answered(message);
                    }
                }
            }
            if let Some(number) = late {
                self.schedule_late(number);
                // A store that answers so is often lost for longer than a shard repeats a write.
                if self.random.percent(60) {
                    self.begin_outage(node);
                }
            }
            self.reply(node, &job, reply);
        }
    }

    fn reply(&mut self, node: usize, job: &Job, reply: Reply) {
        let pause = self.random.micros(1, 1 + self.plan.store_us / 4);
        let mut arrives = self.now.after(pause);
        let Job { shard, ticket, .. } = *job;
        let (epoch, access) = (self.nodes[node].epoch, &mut self.nodes[node].store);
        if self.plan.replies_in_order {
            arrives = arrives.max(access.reply_last);
            access.reply_last = arrives;
        }
        self.at(arrives, Event::Reply { at: ShardAddress { node, shard }, epoch, ticket, reply });
    }

    /// Some late writes take effect before the shard repeats them, some before it gives them up, and some afterwards.
    fn schedule_late(&mut self, number: u64) {
        let most = self.random.pick(&[100, 1_000, 3_000]);
        let pause = self.random.millis(1, most);
        self.later(pause, Event::LateWrite(number));
    }

    pub(super) fn late_write(&mut self, number: u64) {
        let mut effects = Vec::new();
        self.database.take_effect_late(&mut self.random, number, &mut effects);
        self.take_effects(effects);
    }

    /// A node that starts finds no late writes of its own but appends.
    pub(super) fn settle_late_writes(&mut self, node: usize) {
        let mut effects = Vec::new();
        self.database.settle_late(&mut self.random, node, &mut effects);
        self.take_effects(effects);
    }

    /// Writes have taken effect: from now on they are certain.
    fn take_effects(&mut self, effects: Vec<Effected>) {
        for Effected { request, reply, late } in effects {
            if late.is_some() {
                self.late_writes += 1;
                self.trace.note(self.now, format_args!("takes effect late: {request:?}, {reply:?}"));
            }
            let orphaned = late.is_some_and(|(node, epoch)| self.nodes[node].epoch != epoch);
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                let pause = self.random.millis(1, 50);
                self.later(pause, Event::Follow);
            } else {
                self.show_oracle(&request, &reply, orphaned);
            }
            if self.bug == Some(InjectedBug::LyingDisk) {
                let pause = self.random.millis(1, 400);
                self.later(pause, Event::Follow);
            }
        }
    }

    pub(super) fn follow(&mut self) {
        for (request, reply) in self.database.follow() {
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                self.show_oracle(&request, &reply, false);
            }
        }
    }

    fn show_oracle(&mut self, request: &Request, reply: &Reply, orphaned: bool) {
        match (request, reply) {
            (Request::Append { .. }, Reply::Appended { results, .. }) => {
                for result in results {
                    if let Appended::Stored(message) = result {
                        let stored_at = StoredAt { mono: self.now, jumps: self.jumps, orphaned };
                        self.oracle.stored(stored_at, message);
                    }
                }
            }
            (Request::PutParticipant { conversation, participant }, Reply::Done { .. }) => {
                self.oracle.participant_stored(*conversation, participant.user, true);
            }
            (Request::RemoveParticipant { conversation, user }, Reply::Done { .. }) => {
                self.oracle.participant_stored(*conversation, *user, false);
            }
            (Request::SetBlock { user, other, blocked }, Reply::BlockSet { .. }) => {
                self.oracle.block_stored(*user, *other, *blocked);
            }
            _ => {}
        }
    }

    /// A node is gone, and with it the requests that have not reached the store.
    pub(super) fn lose_requests(&mut self, node: usize) {
        let epoch = self.nodes[node].epoch;
        let access = &mut self.nodes[node].store;
        access.commit_due = false;
        access.reads.clear();
        for job in std::mem::take(&mut access.writes) {
            if let Some(number) = self.database.abandon(&mut self.random, (node, epoch), &job.request) {
                self.schedule_late(number);
            }
        }
        self.database.crash();
    }

    /// From now on the store does what it is asked.
    pub(super) fn heal_store(&mut self) {
        self.database.heal();
        for node in &mut self.nodes {
            node.store.outage_until = Mono(0);
        }
    }

    /// A node loses its way to the store for a while.
    pub(super) fn begin_outage(&mut self, node: usize) {
        let pause = self.random.millis(10, 2_000);
        self.nodes[node].store.outage_until = self.now.after(pause);
    }

    /// Compares what the store holds with what it has answered.
    pub(super) fn check_survivors(&mut self) {
        let store = self.database.survivor();
        self.oracle.survived(|message, conversation| {
            matches!(store.read(&Request::ReadMessage { conversation, message }), Reply::Message(Some(_)))
        });
    }
}
