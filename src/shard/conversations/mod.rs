//! Conversations of this shard: loading, the order of their logs, history, membership, read marks, blocks.
//!
//! Flows in: [`ConversationMail`], replies of the store, deadlines. Flows out: answers, deliveries and notices by mail, and
//! store requests. Never imports sessions or clients: it speaks in mail and store calls alone.
//!
//! Invariants: one append of a conversation is under way at a time, and one change of its participants; a message is
//! answered and delivered only after the store said that it is durable; every command is checked against the participants
//! as the store has them.

mod append;
mod block;
mod entry;
mod history;
mod in_doubt;
mod loading;
mod log;
mod marks;
mod membership;
mod recent;

use rand_chacha::rand_core::Rng;

use crate::model::command::Page;
use crate::model::map::{self, Map};
use crate::model::{ConversationId, Mono, ShardId};
use crate::shard::mail::{Asker, ConversationMail};
use crate::shard::turn::Turn;
use crate::shard::turn::store_calls::{Part, StoreCalls};
use crate::shard::turn::timers::Timers;
use crate::store::{Failure, Reply, Request};

use block::BlockRead;
use entry::Entries;
use history::PageReads;
use in_doubt::InDoubt;
use recent::RecentMessages;

/// Lifetime and owner: the shard. View: shard.
pub(super) struct Conversations {
    entries: Entries,
    calls: StoreCalls<OnReply>,
    timers: Timers<Timer>,
    /// Writes that wait to be tried again.
    retrying: usize,
    page_reads: PageReads,
    recent: RecentMessages,
    block_reads: Map<ConversationId, BlockRead>,
    in_doubt: InDoubt,
}

/// What a reply of the store is for.
#[derive(Debug)]
enum OnReply {
    Loaded(ConversationId),
    Appended(ConversationId),
    /// What became of an append in doubt.
    AppendSettled(ConversationId),
    Changed(ConversationId),
    /// A change in doubt was repeated.
    ChangeRepeated(ConversationId),
    Put(Asker, ConversationId),
    PageRead(ConversationId, Page),
    MessageRead(Asker),
    /// The message that a read mark is to be set to.
    MessageToMarkRead(Asker),
    Marked(Asker, ConversationId),
    MarksRead(Asker),
    /// Whether a pair's conversation is blocked now.
    BlockRead(ConversationId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    RetryAppend(ConversationId),
    RetryChange(ConversationId),
    /// The store is asked about writes in doubt.
    InDoubt,
}

impl Conversations {
    pub(super) fn new(turn: &mut Turn) -> Self {
        let (messages_max, bytes_max) = (turn.limits().recent_messages, turn.limits().recent_bytes);
        let shards = turn.placement;
        let mut seed = || turn.random.next_u64();
        Self {
            entries: Entries::new(seed(), shards),
            calls: StoreCalls::new(Part::Conversations),
            timers: Timers::default(),
            retrying: 0,
            page_reads: PageReads::new(seed()),
            recent: RecentMessages::new(seed(), messages_max, bytes_max),
            block_reads: map::map(seed()),
            in_doubt: InDoubt::default(),
        }
    }

    pub(super) fn handle_mail(&mut self, turn: &mut Turn, from: ShardId, mail: ConversationMail) {
        match mail {
            ConversationMail::Ask { asker, conversation, command } => self.ask(turn, conversation, asker, *command),
            ConversationMail::BlockChanged { conversation, asker } => self.refresh_block(turn, conversation, asker),
            ConversationMail::Join { conversation, user, subscriber } => self.join(turn, from, conversation, user, subscriber),
            ConversationMail::Leave { conversation } => self.entries.leave(conversation, from),
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
            OnReply::Loaded(id) => self.loaded(turn, id, reply),
            OnReply::Appended(id) => self.appended(turn, id, reply),
            OnReply::AppendSettled(id) => self.append_settled(turn, id, reply),
            OnReply::Changed(id) => self.changed(turn, id, reply),
            OnReply::ChangeRepeated(id) => self.change_repeated(turn, id, reply),
            OnReply::Put(asker, id) => self.was_put(turn, asker, id, reply),
            OnReply::PageRead(id, page) => self.page_read(turn, id, page, reply),
            OnReply::MessageRead(asker) => self.message_read(turn, asker, reply),
            OnReply::MessageToMarkRead(asker) => self.message_to_mark_read(turn, asker, reply),
            OnReply::Marked(asker, id) => self.marked(turn, asker, id, reply),
            OnReply::MarksRead(asker) => self.marks_read(turn, asker, reply),
            OnReply::BlockRead(id) => self.block_read(turn, id, reply),
        }
    }

    /// Asks the store. When too much is under way the answer comes at once: busy.
    fn ask_store(&mut self, turn: &mut Turn, request: impl Into<Request>, continuation: OnReply) {
        if let Err(continuation) = self.calls.ask(turn, request, continuation) {
            self.go_on(turn, continuation, Reply::Failed(Failure::Busy));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.timers.next_deadline().into_iter().chain(self.calls.next_deadline()).min()
    }

    pub(super) fn handle_due(&mut self, turn: &mut Turn) {
        self.calls.handle_due(turn);
        while let Some((_, timer)) = self.timers.pop_due(turn.now.mono) {
            match timer {
                Timer::RetryAppend(id) => self.retry_append(turn, id),
                Timer::RetryChange(id) => self.retry_change(turn, id),
                Timer::InDoubt => self.ask_about_doubts(turn),
            }
        }
    }

    /// The policy has changed.
    pub(super) fn follow_policy(&mut self, turn: &Turn) {
        self.recent.set_bounds(turn.limits().recent_messages, turn.limits().recent_bytes);
    }

    /// No write is under way or waits to be tried again; a write in doubt is left to readers of the history.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_idle() && self.retrying == 0
    }

    /// As after a start: no message in memory.
    #[cfg(test)]
    pub(super) fn forget_recent(&mut self, messages_max: usize, bytes_max: usize) {
        self.recent = RecentMessages::new(1, messages_max, bytes_max);
    }

    /// The parts of the state that a test expects to be gone, by name.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> [(&'static str, bool); 4] {
        [
            ("subscribers of conversations", self.entries.have_subscribers()),
            ("writes in doubt", !self.in_doubt.is_empty()),
            ("readers of pages", self.page_reads.are_awaited()),
            ("store calls of conversations", !self.is_idle()),
        ]
    }
}
