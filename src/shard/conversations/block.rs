//! Whether a pair's conversation is blocked.
//!
//! Both of a pair may change their blocks at once, from two shards, whose mail comes in any order. So what is in force is
//! read again from the store after every change.

use crate::model::ConversationId;
use crate::model::command::Outcome;
use crate::shard::conversations::entry::{State, Waiting};
use crate::shard::conversations::{Conversations, OnReply};
use crate::shard::mail::Asker;
use crate::shard::turn::{Turn, missing, store_refusal};
use crate::store::conversations::ReadConversation;
use crate::store::{Call, Reply};

/// A read of whether a pair's conversation is blocked, under way at the store.
#[derive(Debug)]
pub(super) struct BlockRead {
    /// Askers whose changes the read will see.
    askers: Vec<Asker>,
    /// Askers whose changes it may not see.
    next: Vec<Asker>,
    /// The conversation was loaded since: what it knows is newer.
    overtaken: bool,
}

impl Conversations {
    /// A block of the pair has changed.
    pub(super) fn refresh_block(&mut self, turn: &mut Turn, id: ConversationId, asker: Asker) {
        match self.entries.find_mut(id).map(|entry| &mut entry.state) {
            Some(State::Ready(_)) => match self.block_reads.get_mut(&id) {
                // The read under way may be older than this change.
                Some(read) => read.next.push(asker),
                None => {
                    self.block_reads.insert(id, BlockRead { askers: vec![asker], next: Vec::new(), overtaken: false });
                    self.calls.ask_once(turn, ReadConversation { conversation: id }, OnReply::BlockRead(id));
                }
            },
            Some(State::Loading { waiting, stale }) => {
                *stale = true;
                waiting.push(Waiting::Block(asker));
            }
            Some(State::Unloaded) | None => turn.answer(asker, Outcome::Done),
        }
    }

    /// The conversation was loaded while a read of its block is under way.
    pub(super) fn overtake_block_read(&mut self, id: ConversationId) {
        if let Some(read) = self.block_reads.get_mut(&id) {
            read.overtaken = true;
        }
    }

    pub(super) fn block_read(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        // Without an answer too strict until the conversation is read again, never too lax.
        let (blocked, outcome) = match ReadConversation::answer(reply) {
            Ok(Some(state)) => (state.blocked, Outcome::Done),
            Ok(None) => (true, Outcome::Refused(missing())),
            Err(failure) => (true, Outcome::Refused(store_refusal(failure))),
        };
        let BlockRead { askers, next, overtaken } = self.block_reads.remove(&id).expect("a read under way is known");
        if let (false, Some(ready)) = (overtaken, self.entries.ready(id)) {
            ready.blocked = blocked;
        }
        for asker in askers {
            turn.answer(asker, outcome.clone());
        }
        for asker in next {
            self.refresh_block(turn, id, asker);
        }
    }
}
