//! The store's side of the world: requests on their way to the disk, replies on their way back, and what the oracle is
//! told of them.

use crate::sim::InjectedBug;
use crate::sim::disk::Job;
use crate::sim::world::{Event, World};
use crate::store::log::{Append, Appended, ReadMessage};
use crate::store::{Call, Read, Reply, Request, Ticket, Write, conversations, log};

impl World {
    pub(super) fn ask_store(&mut self, seat: usize, ticket: Ticket, request: Request) {
        self.trace.note(self.now, format_args!("shard {seat} asks {ticket:?} {request:?}"));
        if let Request::Write(Write::Log(log::Write::Append(append))) = &request {
            self.oracle.append_asked(append.conversation, &append.messages);
        }
        let (is_read, pause) = (request.is_read(), self.random.micros(1, self.plan.store_us));
        self.disk.submit(Job { shard: seat, ticket, request });
        if is_read {
            self.later(pause, Event::ReadStore { epoch: self.epoch });
        } else if !self.commit_due {
            self.commit_due = true;
            self.later(pause, Event::Commit { epoch: self.epoch });
        }
    }

    pub(super) fn read_store(&mut self) {
        let Some(done) = self.disk.next_read(&mut self.random, self.now) else { return };
        if let Read::Conversations(conversations::Read::LoadConversation(load)) = &done.job.request
            && let Reply::Conversations(conversations::Reply::LoadConversation(Some(_))) = &done.reply
        {
            self.oracle.append_decided(load.conversation);
        }
        self.reply(done.job.shard, done.job.ticket, done.reply);
    }

    pub(super) fn commit(&mut self) {
        self.commit_due = false;
        for done in self.disk.commit(&mut self.random, self.now) {
            if let Write::Log(log::Write::Append(append)) = &done.job.request {
                self.oracle.append_begun(append.conversation, &append.messages);
            }
            if let Some(carried_out) = done.carried_out {
                if self.bug == Some(InjectedBug::AckBeforeDurable) {
                    let pause = self.random.millis(1, 50);
                    self.later(pause, Event::Follow);
                } else {
                    self.tell_oracle(&done.job.request, carried_out);
                }
                if self.bug == Some(InjectedBug::LyingDisk) {
                    let pause = self.random.millis(1, 400);
                    self.later(pause, Event::Follow);
                }
            }
            self.reply(done.job.shard, done.job.ticket, done.reply);
        }
    }

    pub(super) fn follow(&mut self) {
        for (write, reply) in self.disk.follow() {
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                self.tell_oracle(&write, reply);
            }
        }
    }

    pub(super) fn reply(&mut self, shard: usize, ticket: Ticket, reply: Reply) {
        let pause = self.random.micros(1, 1 + self.plan.store_us / 4);
        let mut at = self.now.after(pause);
        if self.plan.replies_in_order {
            at = at.max(self.reply_last);
            self.reply_last = at;
        }
        self.at(at, Event::Reply { epoch: self.epoch, shard, ticket, reply });
    }

    /// A write was carried out: from now on it is certain.
    fn tell_oracle(&mut self, write: &Write, reply: Reply) {
        use conversations::{PutParticipant, RemoveParticipant, SetBlock, Write as Conversations};
        match write {
            Write::Log(log::Write::Append(_)) => {
                let Ok(Some(answer)) = Append::answer(reply) else { return };
                for result in answer.results {
                    if let Appended::Stored(message) = result {
                        let moment = self.moment();
                        self.oracle.stored(moment, &message);
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

    /// Compares what the store holds with what it said it did.
    pub(super) fn check_survivors(&mut self) {
        let store = self.disk.survivor();
        self.oracle.survived(|message, conversation| {
            let read = ReadMessage { conversation, message };
            matches!(ReadMessage::answer(store.read(&read.into())), Ok(Some(_)))
        });
    }
}
