//! Pages of a conversation's history: from memory when that is certain to be what the store would return, else from the
//! store.
//!
//! While an append is under way or in doubt only the store knows where the log ends, and while the store fails no page is
//! served from memory.
//!
//! Equal pages that are asked for at the same time are read once. A reader must see every message that was stored before
//! it asked, so it joins a read under way only when nothing can have been stored since that read began: the log ends where
//! it ended then, and no append is under way or in doubt. Otherwise it waits for the next read, and shares that with all
//! others that wait.

use std::sync::Arc;

use crate::access::Action;
use crate::model::command::{ConversationCommand, HistoryPage, Outcome, Page, Position};
use crate::model::map::{self, Map};
use crate::model::message::{Head, Message};
use crate::model::{ConversationId, MessageId};
use crate::shard::conversations::{Conversations, OnReply};
use crate::shard::mail::Asker;
use crate::shard::turn::{Turn, busy, missing, store_refusal};
use crate::store::log::{Messages, ReadAfter, ReadBefore};
use crate::store::{Call, Reply, Request};

/// Reads of pages under way at the store. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct PageReads {
    under_way: Map<(ConversationId, Page), PageRead>,
    /// All askers that wait for one.
    waiting: usize,
}

#[derive(Debug)]
struct PageRead {
    /// The end of the log when the store was asked.
    head: Head,
    /// Those that the reply answers, and those that must wait for another.
    askers: Vec<Asker>,
    next: Vec<Asker>,
}

impl PageReads {
    pub(super) fn new(seed: u64) -> Self {
        Self { under_way: map::map(seed), waiting: 0 }
    }

    #[cfg(test)]
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting > 0 || !self.under_way.is_empty()
    }
}

impl Conversations {
    /// Answers a participant's request for a page.
    pub(super) fn read_history(&mut self, turn: &mut Turn, asker: Asker, id: ConversationId, page: Page) {
        let Some(entry) = self.entries.find_mut(id) else { return };
        let is_settled = entry.log.is_settled();
        let Some(head) = entry.ready().map(|ready| ready.head) else { return };
        if let Some(outcome) = self.page_from_memory(turn, id, page) {
            return turn.answer(asker, outcome);
        }
        if self.page_reads.waiting >= turn.limits().store_inflight {
            return turn.refuse(asker, busy());
        }
        self.page_reads.waiting += 1;
        match self.page_reads.under_way.get_mut(&(id, page)) {
            Some(read) if is_settled && read.head == head => read.askers.push(asker),
            Some(read) => read.next.push(asker),
            None => self.read_page(turn, (id, page), head, vec![asker]),
        }
    }

    fn page_from_memory(&mut self, turn: &Turn, id: ConversationId, page: Page) -> Option<Outcome> {
        let entry = self.entries.find_mut(id)?;
        if !entry.log.is_settled() || turn.store.failing {
            return None;
        }
        let (messages, has_more) = self.recent.page(id, entry.ready()?.head, page)?;
        if let Some(retention) = turn.policy.retention
            && messages.iter().any(|message| message.id.at().after(retention) <= turn.now.wall)
        {
            return None;
        }
        Some(Outcome::History(HistoryPage { messages, has_more, from: page.from }))
    }

    fn read_page(&mut self, turn: &mut Turn, (conversation, page): (ConversationId, Page), head: Head, askers: Vec<Asker>) {
        let read = PageRead { head, askers, next: Vec::new() };
        let before = self.page_reads.under_way.insert((conversation, page), read);
        assert!(before.is_none(), "a page is read once at a time");
        let limit = page.limit;
        let request: Request = match page.from {
            Position::Newest => ReadBefore { conversation, before: MessageId::MAX, limit }.into(),
            Position::Before(before) => ReadBefore { conversation, before, limit }.into(),
            Position::After(after) => ReadAfter { conversation, after, limit }.into(),
        };
        self.ask_store(turn, request, OnReply::PageRead(conversation, page));
    }

    /// The store returned a page of the log.
    pub(super) fn page_read(&mut self, turn: &mut Turn, id: ConversationId, page: Page, reply: Reply) {
        let PageRead { mut askers, mut next, .. } =
            self.page_reads.under_way.remove(&(id, page)).expect("a read that is answered is under way");
        let answer = match page.from {
            Position::Newest | Position::Before(_) => ReadBefore::answer(reply),
            Position::After(_) => ReadAfter::answer(reply),
        };
        let outcome = match answer.map_err(store_refusal).and_then(|page| page.ok_or_else(missing)) {
            Ok(Messages { messages, more }) => {
                self.keep_newest(id, page.from, &messages);
                Outcome::History(HistoryPage { messages, has_more: more, from: page.from })
            }
            Err(refusal) => {
                // A refusal holds for later askers too, and another one would come too late.
                askers.append(&mut next);
                Outcome::Refused(refusal)
            }
        };
        self.page_reads.waiting -= askers.len();
        for asker in askers {
            turn.answer(asker, outcome.clone());
        }
        self.read_next(turn, (id, page), next);
    }

    /// A page that ends where the log is known to end is kept: it is the log's end.
    fn keep_newest(&mut self, id: ConversationId, from: Position, messages: &[Arc<Message>]) {
        let Some(last) = self.entries.ready(id).and_then(|ready| ready.head.last) else { return };
        let is_newest_first = !matches!(from, Position::After(_));
        if is_newest_first && messages.first().is_some_and(|newest| newest.id == last) {
            self.recent.fill(id, messages);
        }
    }

    /// Answers the readers for whom the last read began too early.
    fn read_next(&mut self, turn: &mut Turn, (id, page): (ConversationId, Page), next: Vec<Asker>) {
        self.page_reads.waiting -= next.len();
        let Some(ready) = self.entries.ready(id) else {
            for asker in next {
                self.ask(turn, id, asker, ConversationCommand::ReadHistory { page });
            }
            return;
        };
        let head = ready.head;
        // A participant who has left since sees nothing.
        let allowed = next.into_iter().filter(|asker| match ready.check(asker.caller, Action::Read) {
            Ok(()) => true,
            Err(refusal) => {
                turn.refuse(*asker, refusal);
                false
            }
        });
        let askers: Vec<Asker> = allowed.collect();
        if askers.is_empty() {
            return;
        }
        let Some(outcome) = self.page_from_memory(turn, id, page) else {
            self.page_reads.waiting += askers.len();
            return self.read_page(turn, (id, page), head, askers);
        };
        for asker in askers {
            turn.answer(asker, outcome.clone());
        }
    }
}
