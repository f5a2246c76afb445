//! **An answer about participants and blocks is true, and holds.** When a change is answered the store has made it; from
//! then on a removed participant's messages are not stored any more, nor are those between a blocked pair.

use crate::model::{ConversationId, Mono, UserId};
use crate::sim::facts::{Block, SendNo};
use crate::sim::oracle::{Moment, Oracle, Promise};

pub(super) const PROMISE: &str = "a change of participants or blocks is made when it is answered, and holds from then on";

/// A change of a participant or a block that a node has answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Answered {
    pub(in crate::sim) node: usize,
    /// The count of requests when it was asked.
    pub(in crate::sim) version: u64,
    /// To be a participant, or to be blocked; or to be so no longer.
    pub(in crate::sim) asked: bool,
    /// The answer says that it is so now.
    pub(in crate::sim) done: bool,
}

impl Oracle {
    /// Whether the sender of a message that was just stored may have sent it.
    pub(in crate::sim) fn check_sender_allowed(&mut self, number: SendNo) {
        let send = &self.sends[number];
        let (user, conversation) = (send.user, send.conversation);
        let first = send.attempts.first().map_or(Mono(0), |attempt| attempt.at);
        if self.outside_since(conversation, user).is_some_and(|since| since < first) {
            let what = format!("send {number} was stored after the answer to its sender's removal");
            return self.break_promise(Promise::Membership, what);
        }
        if let Some(&(one, other)) = self.pairs.get(&conversation) {
            let since = |by, of| self.blocks.get(&(by, of)).and_then(|block: &Block| block.since);
            if [since(one, other), since(other, one)].into_iter().flatten().any(|since| since < first) {
                let what = format!("send {number} of a blocked pair was stored after the block's answer");
                self.break_promise(Promise::Membership, what);
            }
        }
    }

    pub(in crate::sim) fn participant_stored(&mut self, conversation: ConversationId, user: UserId, inside: bool) {
        let member = self.members.entry((conversation, user)).or_default();
        member.stored = inside;
        if inside { member.outside_since = None } else { member.inside_since = None }
    }

    pub(in crate::sim) fn version_of_member(&self, conversation: ConversationId, user: UserId) -> u64 {
        self.members.get(&(conversation, user)).map_or(0, |member| member.requests.version())
    }

    pub(in crate::sim) fn changing(&mut self, node: usize, conversation: ConversationId, user: UserId, adding: bool) {
        let member = self.members.entry((conversation, user)).or_default();
        member.requests.begin(node);
        if !adding {
            member.inside_since = None;
        }
    }

    /// A node has answered a change. `done`: the answer says that the user is now what was asked for; else it may be so or
    /// not.
    pub(in crate::sim) fn changed(&mut self, moment: Moment, answered: Answered, conversation: ConversationId, user: UserId) {
        let Answered { node, version, asked: adding, done } = answered;
        let member = self.members.entry((conversation, user)).or_default();
        let alone = member.requests.end(node, version);
        if !done || !alone {
            return;
        }
        if member.stored != adding {
            let verb = if adding { "added to" } else { "removed from" };
            let what = format!("user {user} was {verb} {conversation}, says the answer, and the store does not");
            return self.break_promise(Promise::Membership, what);
        }
        if adding {
            member.inside_since.get_or_insert(moment.mono);
        } else {
            member.outside_since.get_or_insert(moment.mono);
        }
    }

    pub(in crate::sim) fn version_of_block(&self, by: UserId, of: UserId) -> u64 {
        self.blocks.get(&(by, of)).map_or(0, |block| block.requests.version())
    }

    pub(in crate::sim) fn block_stored(&mut self, by: UserId, of: UserId, blocked: bool) {
        let block = self.blocks.entry((by, of)).or_default();
        block.stored = blocked;
        if !blocked {
            block.since = None;
        }
    }

    pub(in crate::sim) fn blocking(&mut self, node: usize, by: UserId, of: UserId, blocked: bool) {
        let block = self.blocks.entry((by, of)).or_default();
        block.requests.begin(node);
        if !blocked {
            block.since = None;
        }
    }

    pub(in crate::sim) fn blocked(&mut self, moment: Moment, answered: Answered, by: UserId, of: UserId) {
        let Answered { node, version, asked: blocked, done } = answered;
        let block = self.blocks.entry((by, of)).or_default();
        let alone = block.requests.end(node, version);
        if !done || !alone {
            return;
        }
        if block.stored != blocked {
            let what = format!("user {by} blocks {of}: {blocked}, says the answer, and the store does not");
            self.break_promise(Promise::Membership, what);
        } else if blocked {
            block.since.get_or_insert(moment.mono);
        }
    }

    /// The node is gone: nothing that was asked of it is under way.
    pub(in crate::sim) fn forget_requests(&mut self, node: usize) {
        self.members.values_mut().for_each(|member| member.requests.forget(node));
        self.blocks.values_mut().for_each(|block| block.requests.forget(node));
    }
}
