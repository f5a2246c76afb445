//! Pages of a conversation's history: from memory when that is certain to be what the store would say, else from the store.
//!
//! While an append is under way or in doubt only the store knows where the log ends, and while the store fails nobody is
//! told anything.
//!
//! Equal pages that are asked for at the same time are read once. A reader must see every message that was stored before
//! it asked, so it joins a read that is under way only when nothing can have been stored since that began: the log ends
//! where it ended then, and no append is under way or in doubt. Else it waits for the next read, which all that wait for
//! it share.

use std::sync::Arc;

use crate::model::command::{Command, HistoryPage, Outcome, Page, Position};
use crate::model::map::{self, Map};
use crate::model::message::{Head, Message};
use crate::model::{ConversationId, MessageId};
use crate::shard::appends::busy;
use crate::shard::conversations::not_participant;
use crate::shard::mail::{Ask, Asker};
use crate::shard::storing::{Errand, missing};
use crate::shard::{Shard, Turn};
use crate::store::log::{Messages, ReadAfter, ReadBefore};
use crate::store::{Call, Failure, Reply, Request};

/// Reads of pages under way at the store. Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct PageReads {
    under_way: Map<(ConversationId, Page), PageRead>,
    /// Everybody who waits for one.
    waiting: usize,
}

#[derive(Debug)]
struct PageRead {
    /// The end of the log when the store was asked.
    head: Head,
    /// Whom the reply answers, and who must wait for another.
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

impl Shard {
    /// A participant asks for a page.
    pub(super) fn read_history(&mut self, turn: &mut Turn<'_>, asker: Asker, id: ConversationId, page: Page) {
        let Some(ready) = self.conversations.ready(id) else { return };
        let (head, is_settled) = (ready.head, ready.is_settled());
        if let Some(outcome) = self.page_from_memory(turn, id, page) {
            return self.answer(turn, asker, outcome);
        }
        if self.page_reads.waiting >= self.policy.limits.store_inflight {
            return self.answer(turn, asker, Outcome::Refused(busy()));
        }
        self.page_reads.waiting += 1;
        match self.page_reads.under_way.get_mut(&(id, page)) {
            Some(read) if is_settled && read.head == head => read.askers.push(asker),
            Some(read) => read.next.push(asker),
            None => self.read_page(turn, (id, page), head, vec![asker]),
        }
    }

    fn page_from_memory(&mut self, turn: &Turn<'_>, id: ConversationId, page: Page) -> Option<Outcome> {
        let ready = self.conversations.ready(id)?;
        if !ready.is_settled() || self.store_failing {
            return None;
        }
        let (messages, has_more) = self.recents.page(id, ready.head, page)?;
        if let Some(retention) = self.policy.retention
            && messages.iter().any(|message| message.id.at().after(retention) <= turn.now.wall)
        {
            return None;
        }
        Some(Outcome::History(HistoryPage { messages, has_more, from: page.from }))
    }

    fn read_page(&mut self, turn: &mut Turn<'_>, (conversation, page): (ConversationId, Page), head: Head, askers: Vec<Asker>) {
        let read = PageRead { head, askers, next: Vec::new() };
        let before = self.page_reads.under_way.insert((conversation, page), read);
        assert!(before.is_none(), "a page is read once at a time");
        let limit = page.limit;
        let request: Request = match page.from {
            Position::Newest => ReadBefore { conversation, before: MessageId::MAX, limit }.into(),
            Position::Before(before) => ReadBefore { conversation, before, limit }.into(),
            Position::After(after) => ReadAfter { conversation, after, limit }.into(),
        };
        self.ask_store(turn, request, Errand::History(conversation, page));
    }

    /// A page of the log has come from the store.
    pub(super) fn history_read(&mut self, turn: &mut Turn<'_>, id: ConversationId, page: Page, reply: Reply) {
        let PageRead { mut askers, mut next, .. } =
            self.page_reads.under_way.remove(&(id, page)).expect("a read that is answered is under way");
        let read: Result<Option<Messages>, Failure> = match page.from {
            Position::Newest | Position::Before(_) => ReadBefore::answer(reply),
            Position::After(_) => ReadAfter::answer(reply),
        };
        let read = read.map_err(Self::failed).and_then(|read| read.ok_or_else(missing));
        let outcome = match read {
            Ok(Messages { messages, more }) => {
                self.keep_newest(id, page.from, &messages);
                Outcome::History(HistoryPage { messages, has_more: more, from: page.from })
            }
            Err(refusal) => {
                // A refusal is as good for who asked later, and another one would come too late.
                askers.append(&mut next);
                Outcome::Refused(refusal)
            }
        };
        self.page_reads.waiting -= askers.len();
        for asker in askers {
            self.answer(turn, asker, outcome.clone());
        }
        self.read_next(turn, (id, page), next);
    }

    /// What ends where the log is known to end is its end.
    fn keep_newest(&mut self, id: ConversationId, from: Position, messages: &[Arc<Message>]) {
        let Some(last) = self.conversations.ready(id).and_then(|ready| ready.head.last) else { return };
        let is_newest_first = !matches!(from, Position::After(_));
        if is_newest_first && messages.first().is_some_and(|newest| newest.id == last) {
            self.recents.fill(id, messages);
        }
    }

    /// Those for whom the last read began too early.
    fn read_next(&mut self, turn: &mut Turn<'_>, (id, page): (ConversationId, Page), next: Vec<Asker>) {
        let Some(head) = self.conversations.ready(id).map(|ready| ready.head) else {
            self.page_reads.waiting -= next.len();
            for asker in next {
                self.ask(turn, Ask { asker, command: Command::ReadHistory { conversation: id, page } });
            }
            return;
        };
        // Who has left since is told nothing.
        let conversation = self.conversations.loaded(id);
        let is_inside = |asker: &Asker| conversation.as_ref().is_some_and(|there| there.participant(asker.user).is_some());
        let (inside, outside): (Vec<_>, Vec<_>) = next.into_iter().partition(is_inside);
        self.page_reads.waiting -= outside.len();
        for asker in outside {
            self.answer(turn, asker, not_participant());
        }
        if inside.is_empty() {
            return;
        }
        let Some(outcome) = self.page_from_memory(turn, id, page) else {
            return self.read_page(turn, (id, page), head, inside);
        };
        self.page_reads.waiting -= inside.len();
        for asker in inside {
            self.answer(turn, asker, outcome.clone());
        }
    }
}
