//! Pages of a conversation's log, over its buckets of time.
//!
//! A page is put together from several reads while others write, and still has no gap: a bucket in which something may
//! yet be written is read after the newer ones when the page goes back, and once more after the next one when it goes
//! forward. A bucket behind one that holds messages never changes, as the ids of a conversation ascend.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;
use scylla::serialize::row::SerializeRow;

use crate::model::ids::{ConversationId, MessageId};
use crate::model::message::Message;
use crate::store::log::{Messages, ReadAfter, ReadBefore, ReadMessage};

use super::known::Buckets;
use super::statements::Statement;
use super::values::{MessageRow, bigint, timeuuid};
use super::{Fault, Work};

/// Lines of the directory in one read.
const BUCKETS_READ: i32 = 64;
/// Buckets read at once, at most: a page of a conversation with a message a month is spread over many.
const WINDOW_MAX: usize = 16;

/// Messages of a page, in its order, one more than fits when there are more.
struct Page {
    conversation: ConversationId,
    buckets: Buckets,
    messages: Vec<Arc<Message>>,
    wanted: usize,
}

impl Page {
    fn new(conversation: ConversationId, buckets: Buckets, limit: u16) -> Self {
        Self { conversation, buckets, messages: Vec::new(), wanted: usize::from(limit) + 1 }
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.wanted
    }

    fn missing(&self) -> i32 {
        i32::try_from(self.wanted.saturating_sub(self.messages.len())).unwrap_or(i32::MAX)
    }

    fn take(&mut self, mut found: Vec<Arc<Message>>) {
        if self.messages.is_empty() {
            found.truncate(self.wanted);
            self.messages = found;
            return;
        }
        let room = self.wanted - self.messages.len();
        self.messages.extend(found.into_iter().take(room));
    }

    fn finish(mut self) -> Messages {
        let more = self.is_full();
        self.messages.truncate(self.wanted - 1);
        Messages { messages: self.messages, more }
    }
}

impl Work<'_> {
    pub(super) async fn read_before(&self, read: &ReadBefore) -> Result<Option<Messages>, Fault> {
        let ReadBefore { conversation: id, before, limit } = *read;
        let Some(buckets) = self.buckets(id).await? else { return Ok(None) };
        let mut page = Page::new(id, buckets, limit);
        self.fill_before(&mut page, before).await?;
        Ok(Some(page.finish()))
    }

    /// The newest message.
    pub(super) async fn last_message(&self, id: ConversationId, buckets: Buckets) -> Result<Option<Arc<Message>>, Fault> {
        let mut page = Page::new(id, buckets, 0);
        self.fill_before(&mut page, MessageId::MAX).await?;
        Ok(page.messages.pop())
    }

    /// The sequence of the oldest message.
    pub(super) async fn first_sequence(&self, id: ConversationId, buckets: Buckets) -> Result<Option<u64>, Fault> {
        let mut page = Page::new(id, buckets, 0);
        self.fill_after(&mut page, MessageId::MIN).await?;
        Ok(page.messages.pop().map(|message| message.sequence))
    }

    async fn fill_before(&self, page: &mut Page, before: MessageId) -> Result<(), Fault> {
        let statements = &self.connected.statements;
        // Where the page most likely begins, read beside the directory.
        let likely = self.likely_bucket(page, before);
        let guess = async {
            match likely {
                Some(bucket) => self.bucket_before(page, bucket, before).await,
                None => Ok(Vec::new()),
            }
        };
        let list = (bigint(page.conversation.value()), page.buckets.of(before), BUCKETS_READ);
        let (listed, guessed) = tokio::try_join!(self.rows::<(i32,)>(&statements.buckets_down, list), guess)?;
        let mut listed: VecDeque<i32> = listed.into_iter().map(|(bucket,)| bucket).collect();
        if likely.is_some() && listed.front() == likely.as_ref() {
            listed.pop_front();
            page.take(guessed);
        }
        let mut window = if page.messages.is_empty() { 1 } else { 2 };
        while !page.is_full() {
            let Some(last) = listed.back().copied() else { return Ok(()) };
            while !page.is_full() && !listed.is_empty() {
                let (now, wanted) = (window.min(listed.len()), &*page);
                let parts = listed.drain(..now).map(|bucket| self.bucket_before(wanted, bucket, before));
                for part in try_join_all(parts).await? {
                    page.take(part);
                }
                // Once a newer bucket is known to hold messages, the older ones stay as they are and are read together.
                window = if page.messages.is_empty() { 1 } else { (window * 2).min(WINDOW_MAX) };
            }
            let list = (bigint(page.conversation.value()), last - 1, BUCKETS_READ);
            let older = self.rows::<(i32,)>(&statements.buckets_down, list).await?;
            listed = older.into_iter().map(|(bucket,)| bucket).collect();
        }
        Ok(())
    }

    fn likely_bucket(&self, page: &Page, before: MessageId) -> Option<i32> {
        let head = self.store.conversations.borrow_mut().log(page.conversation)?.head.last?;
        Some(page.buckets.of(before.min(head)))
    }

    async fn bucket_before(&self, page: &Page, bucket: i32, before: MessageId) -> Result<Vec<Arc<Message>>, Fault> {
        let values = (bigint(page.conversation.value()), bucket, timeuuid(before), page.missing());
        self.messages(&self.connected.statements.page_before, page, values).await
    }

    pub(super) async fn read_after(&self, read: &ReadAfter) -> Result<Option<Messages>, Fault> {
        let ReadAfter { conversation: id, after, limit } = *read;
        let Some(buckets) = self.buckets(id).await? else { return Ok(None) };
        let mut page = Page::new(id, buckets, limit);
        self.fill_after(&mut page, after).await?;
        Ok(Some(page.finish()))
    }

    async fn fill_after(&self, page: &mut Page, after: MessageId) -> Result<(), Fault> {
        let mut from = page.buckets.of(after);
        // Buckets before the one with the last known message stay as they are.
        let settled = self.likely_bucket(page, MessageId::MAX).unwrap_or(0);
        // Buckets in which something may have been written since they were read, and where in them the reading ended.
        let mut behind: Vec<(i32, MessageId)> = Vec::new();
        while !page.is_full() {
            let list = (bigint(page.conversation.value()), from, BUCKETS_READ);
            let listed: Vec<(i32,)> = self.rows(&self.connected.statements.buckets_up, list).await?;
            let Some((last,)) = listed.last().copied() else { break };
            for (bucket,) in listed {
                let found = self.bucket_after(page, bucket, after).await?;
                let end = found.last().map_or(after, |message| message.id);
                if !found.is_empty() {
                    for (earlier, end) in behind.drain(..) {
                        let late = self.bucket_after(page, earlier, end).await?;
                        page.take(late);
                    }
                    page.take(found);
                }
                if page.is_full() {
                    break;
                }
                if settled <= bucket {
                    behind.push((bucket, end));
                }
            }
            from = last.saturating_add(1);
        }
        Ok(())
    }

    async fn bucket_after(&self, page: &Page, bucket: i32, after: MessageId) -> Result<Vec<Arc<Message>>, Fault> {
        let values = (bigint(page.conversation.value()), bucket, timeuuid(after), page.missing());
        self.messages(&self.connected.statements.page_after, page, values).await
    }

    /// Messages made of their rows as these come out of the frame.
    async fn messages(&self, statement: &Statement, page: &Page, values: impl SerializeRow) -> Result<Vec<Arc<Message>>, Fault> {
        let result = self.result(statement, values).await?;
        let rows = result.rows::<MessageRow>().map_err(|_| Fault::Corrupt)?;
        let mut messages = Vec::with_capacity(result.rows_num());
        for row in rows {
            messages.push(row.map_err(|_| Fault::Corrupt)?.message(page.conversation)?);
        }
        Ok(messages)
    }

    pub(super) async fn read_message(&self, read: &ReadMessage) -> Result<Option<Arc<Message>>, Fault> {
        let Some(buckets) = self.buckets(read.conversation).await? else { return Ok(None) };
        self.message(read.conversation, buckets, read.message).await
    }

    pub(super) async fn message(
        &self,
        id: ConversationId,
        buckets: Buckets,
        message: MessageId,
    ) -> Result<Option<Arc<Message>>, Fault> {
        let values = (bigint(id.value()), buckets.of(message), timeuuid(message));
        let row: Option<MessageRow> = self.first(&self.connected.statements.read_message, values).await?;
        row.map(|row| row.message(id)).transpose()
    }
}
