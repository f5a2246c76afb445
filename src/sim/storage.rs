//! The nodes' requests to the store: on their way there, carried out, and their replies on the way back; with what the
//! oracle sees of them.

use crate::model::Mono;
use crate::sim::InjectedBug;
use crate::sim::database::Effected;
use crate::sim::network::ShardAddress;
use crate::sim::node::Job;
use crate::sim::oracle::StoredAt;
use crate::sim::world::{Event, World};
use crate::store::log::{Append, Appended, ReadMessage};
use crate::store::{Call, Read, Reply, Request, Ticket, Write, conversations, log};

impl World {
    pub(super) fn ask_store(&mut self, at: ShardAddress, ticket: Ticket, request: Request) {
        self.trace.note(self.now, format_args!("{at} asks {ticket:?} {request:?}"));
        let pause = self.random.micros(1, self.plan.store_us);
        let ShardAddress { node, shard } = at;
        let (epoch, access) = (self.nodes[node].epoch, &mut self.nodes[node].store);
        match request {
            Request::Read(request) => {
                access.reads.push_back(Job { shard, ticket, request });
                self.later(pause, Event::ReadStore { node, epoch });
            }
            Request::Write(request) => {
                if let Write::Log(log::Write::Append(append)) = &request {
                    self.oracle.append_asked(node, append.conversation, &append.messages);
                }
                access.writes.push_back(Job { shard, ticket, request });
                if !std::mem::replace(&mut access.commit_due, true) {
                    self.later(pause, Event::Commit { node, epoch });
                }
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
        let Some(Job { shard, ticket, request }) = reads.remove(self.random.below(reads.len())) else { return };
        let mut effects = Vec::new();
        let reply = self.database.read(&mut self.random, away, &request, &mut effects);
        self.take_effects(effects);
        if let Read::Conversations(conversations::Read::LoadConversation(load)) = &request
            && let Reply::Conversations(conversations::Reply::LoadConversation(Some(_))) = &reply
        {
            self.oracle.append_decided(node, load.conversation);
        }
        self.reply(ShardAddress { node, shard }, ticket, reply);
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
        for (Job { shard, ticket, request }, effects, reply, late) in done {
            if let Write::Log(log::Write::Append(append)) = &request {
                self.oracle.append_begun(node, append.conversation, &append.messages);
            }
            self.take_effects(effects);
            if let Reply::Log(log::Reply::Append(Some(answer))) = &reply {
                for result in &answer.results {
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
            self.reply(ShardAddress { node, shard }, ticket, reply);
        }
    }

    fn reply(&mut self, at: ShardAddress, ticket: Ticket, reply: Reply) {
        let pause = self.random.micros(1, 1 + self.plan.store_us / 4);
        let mut arrives = self.now.after(pause);
        let (epoch, access) = (self.nodes[at.node].epoch, &mut self.nodes[at.node].store);
        if self.plan.replies_in_order {
            arrives = arrives.max(access.reply_last);
            access.reply_last = arrives;
        }
        self.at(arrives, Event::Reply { at, epoch, ticket, reply });
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
        for Effected { write, reply, late } in effects {
            if late.is_some() {
                self.late_writes += 1;
                self.trace.note(self.now, format_args!("takes effect late: {write:?}, {reply:?}"));
            }
            let orphaned = late.is_some_and(|(node, epoch)| self.nodes[node].epoch != epoch);
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                let pause = self.random.millis(1, 50);
                self.later(pause, Event::Follow);
            } else {
                self.show_oracle(&write, reply, orphaned);
            }
            if self.bug == Some(InjectedBug::LyingDisk) {
                let pause = self.random.millis(1, 400);
                self.later(pause, Event::Follow);
            }
        }
    }

    pub(super) fn follow(&mut self) {
        for (write, reply) in self.database.follow() {
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                self.show_oracle(&write, reply, false);
            }
        }
    }

    /// Shows the oracle a write that was carried out, and what the store answers to it.
    fn show_oracle(&mut self, write: &Write, reply: Reply, orphaned: bool) {
        use conversations::{PutParticipant, RemoveParticipant, SetBlock, Write as Conversations};
        match write {
            Write::Log(log::Write::Append(_)) => {
                let Ok(Some(answer)) = Append::answer(reply) else { return };
                for result in answer.results {
                    if let Appended::Stored(message) = result {
                        let stored_at = StoredAt { mono: self.now, jumps: self.jumps, orphaned };
                        self.oracle.stored(stored_at, &message);
                    }
                }
            }
            Write::Conversations(Conversations::PutParticipant(put)) => {
                if let Ok(Some(_)) = PutParticipant::answer(reply) {
                    self.oracle.participant_stored(put.conversation, put.participant.user, true);
                }
            }
            Write::Conversations(Conversations::RemoveParticipant(remove)) => {
                if let Ok(Some(_)) = RemoveParticipant::answer(reply) {
                    self.oracle.participant_stored(remove.conversation, remove.user, false);
                }
            }
            Write::Conversations(Conversations::SetBlock(set)) => {
                if SetBlock::answer(reply).is_ok() {
                    self.oracle.block_stored(set.user, set.other, set.blocked);
                }
            }
            // The oracle does not follow these.
            Write::Log(log::Write::SetReadMark(_))
            | Write::Conversations(Conversations::CreateConversation(_))
            | Write::Accounts(_)
            | Write::Erasure(_) => {}
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
            let read = ReadMessage { conversation, message };
            matches!(ReadMessage::answer(store.read(&read.into())), Ok(Some(_)))
        });
    }
}
