//! The store's side of the world: requests on their way to the disk, replies on their way back, and what the oracle is
//! told of them.

use crate::sim::InjectedBug;
use crate::sim::disk::Job;
use crate::sim::world::{Event, World};
use crate::store::{self, Reply, Request};

impl World {
    pub(super) fn ask_store(&mut self, seat: usize, ticket: store::Ticket, request: Request) {
        self.trace.note(self.now, format_args!("shard {seat} asks {ticket:?} {request:?}"));
        if let Request::Append { conversation, messages, .. } = &request {
            self.oracle.append_asked(*conversation, messages);
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
        if let (Request::LoadConversation { conversation }, Reply::Conversation { .. }) = (&done.job.request, &done.reply) {
            self.oracle.append_decided(*conversation);
        }
        self.reply(done.job.shard, done.job.ticket, done.reply);
    }

    pub(super) fn commit(&mut self) {
        self.commit_due = false;
        for done in self.disk.commit(&mut self.random, self.now) {
            if let Request::Append { conversation, messages, .. } = &done.job.request {
                self.oracle.append_begun(*conversation, messages);
            }
            if let Some(carried_out) = done.carried_out {
                if self.bug == Some(InjectedBug::AckBeforeDurable) {
                    let pause = self.random.millis(1, 50);
                    self.later(pause, Event::Follow);
                } else {
                    self.tell_oracle(&done.job.request, &carried_out);
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
        for (request, reply) in self.disk.follow() {
            if self.bug == Some(InjectedBug::AckBeforeDurable) {
                self.tell_oracle(&request, &reply);
            }
        }
    }

    pub(super) fn reply(&mut self, shard: usize, ticket: store::Ticket, reply: Reply) {
        let pause = self.random.micros(1, 1 + self.plan.store_us / 4);
        let mut at = self.now.after(pause);
        if self.plan.replies_in_order {
            at = at.max(self.reply_last);
            self.reply_last = at;
        }
        self.at(at, Event::Reply { epoch: self.epoch, shard, ticket, reply });
    }

    /// A write was carried out: from now on it is certain.
    fn tell_oracle(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Append { .. }, Reply::Appended { results, .. }) => {
                for result in results {
                    if let store::Appended::Stored(message) = result {
                        let moment = self.moment();
                        self.oracle.stored(moment, message);
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

    /// Compares what the store holds with what it said it did.
    pub(super) fn check_survivors(&mut self) {
        let store = self.disk.survivor();
        self.oracle.survived(|message, conversation| {
            matches!(store.read(&Request::ReadMessage { conversation, message }), Reply::Message(Some(_)))
        });
    }
}
