//! Facts about the conversations in use, kept in memory, so that an append to one of them reads nothing.
//!
//! Only facts that stay right while one node writes to a conversation: its existence, the span of its buckets, the end of its
//! log, which buckets are listed, and how often its users have left. The end may be behind if another node wrote meanwhile. The
//! shard that takes the conversation over loads it first, which updates this.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use crate::model::generations::Generations;
use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Head, Message};
use crate::model::time::Wall;
use crate::store::log::NewMessage;

use super::values::{Member, bigint, message_id, timeuuid};
use super::{Fault, Work};

/// How the messages of a conversation are parted: never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buckets {
    seconds: u32,
}

impl Buckets {
    /// # Errors
    /// When it was never written like that.
    pub(super) fn new(seconds: i32) -> Result<Self, Fault> {
        match u32::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Ok(Self { seconds }),
            _ => Err(Fault::Corrupt),
        }
    }

    /// The bucket that holds a message.
    pub(super) fn of(self, id: MessageId) -> i32 {
        i32::try_from(id.at().unix_seconds() / u64::from(self.seconds)).unwrap_or(i32::MAX)
    }

    /// When it holds no later message.
    pub(super) fn end(self, bucket: i32) -> Wall {
        let seconds = u64::try_from(bucket).unwrap_or(0).saturating_add(1).saturating_mul(u64::from(self.seconds));
        Wall::from_unix_seconds(seconds)
    }
}

/// The facts that an append needs.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) head: Head,
    /// The last bucket that is known to be listed for as long as its messages are kept: by an append since this is known.
    pub(super) listed: Option<i32>,
    /// How often users have left; those who never did are not among them.
    pub(super) departures: BTreeMap<UserId, i32>,
}

impl Log {
    pub(super) fn departures(&self, user: UserId) -> i32 {
        self.departures.get(&user).copied().unwrap_or(0)
    }
}

/// The end of a log whose newest message is `last`. If all messages are gone, the read marks show the end, as a sender has read
/// its own message. A mark at `before` or later does not count: its message may not be stored.
pub(super) fn head(last: Option<&Message>, members: &[Member], before: MessageId) -> Head {
    match last {
        Some(message) => Head { last: Some(message.id), sequence: message.sequence },
        None => {
            let marks = members.iter().filter_map(|member| member.furthest).filter(|mark| mark.last < Some(before));
            marks.max_by_key(|mark| mark.sequence).unwrap_or_default()
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    buckets: Buckets,
    log: Option<Log>,
}

/// A message of which it is not known whether it is stored, and the key it claimed.
#[derive(Clone, Debug)]
struct Doubt {
    id: MessageId,
    key: Option<(UserId, Box<str>)>,
    /// A look-up did not find it, and it is being removed: it does not count even if it appears meanwhile.
    condemned: bool,
}

/// Lifetime and owner: the store's.
#[derive(Debug)]
pub(super) struct Conversations {
    known: Generations<ConversationId, Known>,
    /// One entry for each conversation whose append failed, until the conversation is loaded again.
    doubts: BTreeMap<ConversationId, Vec<Doubt>>,
}

impl Conversations {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { known: Generations::new(entries_max), doubts: BTreeMap::new() }
    }

    pub(super) fn buckets(&mut self, id: ConversationId) -> Option<Buckets> {
        self.known.find(id).map(|known| known.buckets)
    }

    pub(super) fn put_buckets(&mut self, id: ConversationId, buckets: Buckets) {
        if self.known.find(id).is_none() {
            self.known.put(id, Known { buckets, log: None }, 1);
        }
    }

    pub(super) fn log(&mut self, id: ConversationId) -> Option<&mut Log> {
        self.known.find(id)?.log.as_mut()
    }

    /// Remembers a log that was read or written. A head never moves back: an append may have overtaken the read.
    pub(super) fn put_log(&mut self, id: ConversationId, mut log: Log) {
        let Some(known) = self.known.find(id) else { return };
        if let Some(there) = &known.log {
            log.listed = there.listed.max(log.listed);
            if log.head.last < there.head.last {
                log.head = there.head;
            }
        }
        known.log = Some(log);
    }

    /// These messages may or may not be stored: the log must be read again.
    pub(super) fn doubt(&mut self, id: ConversationId, messages: &[NewMessage]) {
        if let Some(known) = self.known.find(id) {
            known.log = None;
        }
        let doubts = self.doubts.entry(id).or_default();
        for message in messages {
            if doubts.iter().all(|doubt| doubt.id != message.id) {
                let key = message.draft.client_id.clone().map(|client_id| (message.sender, client_id));
                doubts.push(Doubt { id: message.id, key, condemned: false });
            }
        }
    }

    /// None of these is stored, from `first` on.
    pub(super) fn condemn(&mut self, id: ConversationId, first: MessageId) {
        let doubts = self.doubts.get_mut(&id).into_iter().flatten();
        doubts.filter(|doubt| first <= doubt.id).for_each(|doubt| doubt.condemned = true);
    }

    /// These messages are not in doubt any more.
    fn settled(&mut self, id: ConversationId, known: impl Fn(MessageId) -> bool) {
        if let Some(doubts) = self.doubts.get_mut(&id) {
            doubts.retain(|doubt| !known(doubt.id));
            if doubts.is_empty() {
                self.doubts.remove(&id);
            }
        }
    }

    pub(super) fn believe(&mut self, id: ConversationId, messages: &[NewMessage]) {
        self.settled(id, |doubtful| messages.iter().any(|message| message.id == doubtful));
    }

    fn doubts(&self, id: ConversationId, but: &[NewMessage]) -> Vec<Doubt> {
        let doubts = self.doubts.get(&id).into_iter().flatten();
        doubts.filter(|doubt| but.iter().all(|message| message.id != doubt.id)).cloned().collect()
    }
}

impl Work<'_> {
    /// The buckets of a conversation; `None` when it does not exist.
    pub(super) async fn buckets(&self, id: ConversationId) -> Result<Option<Buckets>, Fault> {
        if let Some(buckets) = self.store.conversations.borrow_mut().buckets(id) {
            return Ok(Some(buckets));
        }
        Ok(self.conversation(id).await?.map(|(_, buckets, _)| buckets))
    }

    /// The end of the log before an append of `messages`, and the other facts that it needs; `None` when the conversation does
    /// not exist. `hint` is the head that the shard knows, which may be ahead of the remembered one.
    pub(super) async fn log(
        &self,
        id: ConversationId,
        hint: Head,
        messages: &[NewMessage],
    ) -> Result<Option<(Buckets, Log)>, Fault> {
        let Some(buckets) = self.buckets(id).await? else { return Ok(None) };
        let known = self.store.conversations.borrow_mut().log(id).map(|log| log.clone());
        let mut log = match known {
            Some(log) => log,
            None => {
                self.settle(id, buckets, messages).await?;
                let before = messages.first().map_or(MessageId::MAX, |message| message.id);
                self.read_log(id, buckets, before).await?
            }
        };
        if log.head.last < hint.last {
            log.head = hint;
        }
        Ok(Some((buckets, log)))
    }

    /// `before`: the first message that may be on its way.
    async fn read_log(&self, id: ConversationId, buckets: Buckets, before: MessageId) -> Result<Log, Fault> {
        let (members, last) = tokio::try_join!(self.members(id), self.last_message(id, buckets))?;
        let left = members.iter().filter(|member| member.departures > 0);
        let log = Log {
            head: head(last.as_deref(), &members, before),
            listed: None,
            departures: left.map(|member| (member.user, member.departures)).collect(),
        };
        self.store.conversations.borrow_mut().put_log(id, log.clone());
        Ok(log)
    }

    /// Settles the messages whose append was given up. A stored one belongs to the log. A missing one must not appear later, when
    /// others have been numbered after it, so it is removed. The stored messages of an append are always its beginning. Returns
    /// the removed messages.
    pub(super) async fn settle(&self, id: ConversationId, buckets: Buckets, but: &[NewMessage]) -> Result<Vec<MessageId>, Fault> {
        let conversations = &self.store.conversations;
        let doubts = conversations.borrow().doubts(id, but);
        let is_gone = async |doubt: &Doubt| Ok(doubt.condemned || self.message(id, buckets, doubt.id).await?.is_none());
        let are_gone: Vec<bool> = try_join_all(doubts.iter().map(is_gone)).await?;
        let (stored, gone) = doubts.split_at(are_gone.iter().position(|is_gone| *is_gone).unwrap_or(doubts.len()));
        conversations.borrow_mut().settled(id, |message| stored.iter().any(|doubt| doubt.id == message));
        let Some(first) = gone.first() else { return Ok(Vec::new()) };
        // Before the first is removed: a removal without an answer may yet be carried out.
        conversations.borrow_mut().condemn(id, first.id);
        try_join_all(gone.iter().map(|doubt| self.remove(id, buckets, doubt))).await?;
        let gone: Vec<MessageId> = gone.iter().map(|doubt| doubt.id).collect();
        conversations.borrow_mut().settled(id, |message| gone.contains(&message));
        Ok(gone)
    }

    async fn remove(&self, id: ConversationId, buckets: Buckets, doubt: &Doubt) -> Result<(), Fault> {
        self.bury(id, buckets, doubt.id).await?;
        if let Some((sender, client_id)) = &doubt.key {
            let key = (bigint(id.value()), bigint(sender.value()), &**client_id, timeuuid(doubt.id));
            self.decide(&self.connected.statements.release_key, key).await?;
        }
        Ok(())
    }

    /// Makes sure that a message which is not stored never will be: of two writes with one time, the removal counts.
    pub(super) async fn bury(&self, id: ConversationId, buckets: Buckets, message: MessageId) -> Result<(), Fault> {
        let row = (super::values::write_time(message), bigint(id.value()), buckets.of(message), timeuuid(message));
        self.prepare(&self.connected.statements.bury_message, row).await
    }

    pub(super) async fn find_index(&self, message: MessageId) -> Result<Option<ConversationId>, Fault> {
        let row: Option<(i64,)> = self.first(&self.connected.statements.read_index, (timeuuid(message),)).await?;
        row.map(|(id,)| super::values::conversation_id(id)).transpose()
    }

    /// The key's message and expiry, if anybody has claimed it.
    pub(super) async fn key(
        &self,
        id: ConversationId,
        sender: UserId,
        client_id: &str,
    ) -> Result<Option<(MessageId, Wall)>, Fault> {
        let key = (bigint(id.value()), bigint(sender.value()), client_id);
        let row: Option<(scylla::value::CqlTimeuuid, i64)> = self.first(&self.connected.statements.read_key, key).await?;
        row.map(|(message, expires)| Ok((message_id(message)?, super::values::wall(expires)?))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Wall;

    fn id(value: u64) -> ConversationId {
        ConversationId::new(value).unwrap()
    }

    fn log(sequence: u64) -> Log {
        let last = Some(MessageId::from_parts(Wall(sequence), 0, 0));
        Log { head: Head { last, sequence }, listed: None, departures: BTreeMap::new() }
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut conversations = Conversations::new(100);
        let buckets = Buckets::new(10).unwrap();
        for value in 1..=1_000 {
            conversations.put_buckets(id(value), buckets);
            assert_eq!(conversations.buckets(id(1)), Some(buckets));
            assert!(conversations.known.count() <= 100);
        }
        assert_eq!(conversations.buckets(id(500)), None);
    }

    #[test]
    fn a_head_never_goes_back() {
        let mut conversations = Conversations::new(10);
        conversations.put_buckets(id(1), Buckets::new(10).unwrap());
        for (put, expect) in [(5, 5), (4, 5), (6, 6)] {
            conversations.put_log(id(1), log(put));
            assert_eq!(conversations.log(id(1)).unwrap().head.sequence, expect);
        }
        conversations.doubt(id(1), &[]);
        assert!(conversations.log(id(1)).is_none());
    }

    #[test]
    fn buckets_are_whole_and_last_to_the_end_of_time() {
        let buckets = Buckets::new(60).unwrap();
        let at = |seconds| MessageId::from_parts(Wall::from_unix_seconds(seconds), 0, 0);
        assert_eq!([0, 59, 60, 120].map(|seconds| buckets.of(at(seconds))), [0, 0, 1, 2]);
        assert!(buckets.of(MessageId::MIN) == 0 && buckets.of(MessageId::MAX) > buckets.of(at(4_000_000_000)));
        assert!(Buckets::new(0).is_err() && Buckets::new(-1).is_err());
    }
}
