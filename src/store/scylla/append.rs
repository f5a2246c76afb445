//! Appending messages.
//!
//! In two steps, each of which writes side by side:
//!
//! 1. the keys of client message ids (light-weight transactions), the index from message to conversation, and the
//!    bucket's line in the directory, when it is the first;
//! 2. the messages, all of one bucket in one mutation, and the senders' read marks.
//!
//! Nobody sees the rows of step 1 without the message: a key without one is taken over or released, an index row is followed
//! to the message, and an empty bucket is an empty page. A crash within step 2 leaves a message whose sender has an older mark,
//! or a mark without its message. The repetition repairs both, and the sender's next message repairs the mark too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::{CqlTimeuuid, MaybeUnset};

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Head, Message, ReadMark};
use crate::model::time::Wall;
use crate::store::log::{Append, AppendAnswer, Appended, NewMessage};

use super::known::{Buckets, Log};
use super::statements::Kind;
use super::values::{bigint, message_seconds, seconds_to_live, timeuuid, write_time};
use super::{Fault, Work, fault};

/// A key without its message was claimed by an append that is still under way or was interrupted. After this long it was
/// interrupted: no request lasts a third of it.
const CLAIM_PATIENCE: Duration = Duration::from_secs(3);

/// Tries to get hold of a key that others take and lose at the same time.
const CLAIM_TRIES: u32 = 4;

/// The result of looking a message up before it is stored.
enum Found {
    /// Stored under its own id: this is a repetition.
    Itself(Arc<Message>),
    /// Its key has this message.
    Earlier(Arc<Message>),
    Nothing,
}

impl Work<'_> {
    pub(super) async fn append(&self, append: &Append) -> Result<Option<AppendAnswer>, Fault> {
        let Append { conversation, head, ref messages, keys_expire, now } = *append;
        let Some((buckets, mut log)) = self.log(conversation, head, messages).await? else { return Ok(None) };
        let target = Target { conversation, buckets, keys_expire, now, retention: self.store.options.retention };
        let (found, listed) =
            tokio::try_join!(self.append_look_up(&target, log.head, messages), self.append_announce(&target, &log, messages))?;
        let (results, stored) = decide(conversation, &mut log.head, messages, found).ok_or(Fault::NotNew)?;
        self.append_store(&target, &log, &results, &stored).await?;
        log.listed = log.listed.max(listed);
        let head = log.head;
        let mut conversations = self.store.conversations.borrow_mut();
        conversations.put_log(conversation, log);
        conversations.believe(conversation, messages);
        Ok(Some(AppendAnswer { results, head }))
    }

    /// Looks each message up, and claims the keys of those that are new.
    async fn append_look_up(&self, target: &Target, head: Head, messages: &[NewMessage]) -> Result<Vec<Found>, Fault> {
        if let [new] = messages {
            return Ok(vec![self.look_up(target, head, new, &[]).await?]);
        }
        let look_ups = messages.iter().enumerate().map(|(at, new)| self.look_up(target, head, new, &messages[..at]));
        // Every look-up runs to its end: the outcome of a claim that is dropped half-way would be unknown.
        join_all(look_ups).await.into_iter().collect()
    }

    async fn look_up(&self, target: &Target, head: Head, new: &NewMessage, earlier: &[NewMessage]) -> Result<Found, Fault> {
        let is_new = head.last.is_none_or(|last| last < new.id);
        if !is_new && let Some(message) = self.message(target.conversation, target.buckets, new.id).await? {
            return Ok(Found::Itself(message));
        }
        let same_key = |other: &NewMessage| other.sender == new.sender && other.draft.client_id == new.draft.client_id;
        match &new.draft.client_id {
            Some(client_id) if !earlier.iter().any(same_key) => self.claim(target, new, client_id, is_new).await,
            // Without a key, or with that of an earlier message of the same request.
            _ => Ok(Found::Nothing),
        }
    }

    async fn claim(&self, target: &Target, new: &NewMessage, client_id: &str, is_new: bool) -> Result<Found, Fault> {
        let statements = &self.connected.statements;
        let (conversation, sender) = (bigint(target.conversation.value()), bigint(new.sender.value()));
        let (id, expires) = (timeuuid(new.id), bigint(target.keys_expire.0));
        let seconds = seconds_to_live(target.now, target.keys_expire);
        for _ in 0..CLAIM_TRIES {
            if is_new && self.decide(&statements.claim_key, (conversation, sender, client_id, id, expires, seconds)).await? {
                return Ok(Found::Nothing);
            }
            let holder = match self.key(target.conversation, new.sender, client_id).await? {
                Some((holder, _)) if holder == new.id => return Ok(Found::Nothing),
                // A key that a later message has taken over says nothing of an earlier message that was decided before.
                Some((holder, _)) if !is_new && new.id < holder => return Ok(Found::Nothing),
                Some((holder, until)) if target.now < until => {
                    if let Some(message) = self.message(target.conversation, target.buckets, holder).await? {
                        return Ok(Found::Earlier(message));
                    }
                    if target.now < holder.at().after(CLAIM_PATIENCE) {
                        return Err(Fault::Unknown("a send with the same client message id is under way".into()));
                    }
                    self.bury(target.conversation, target.buckets, holder).await?;
                    holder
                }
                Some((holder, _)) => holder,
                None if is_new => continue,
                None => return Ok(Found::Nothing),
            };
            if !is_new {
                return Ok(Found::Nothing);
            }
            let take = (seconds, id, expires, conversation, sender, client_id, timeuuid(holder));
            if self.decide(&statements.take_key, take).await? {
                return Ok(Found::Nothing);
            }
        }
        Err(Fault::Contended)
    }

    /// The index of the messages that may be new, and the directory's lines of their buckets. Returns the last bucket
    /// that is listed now.
    async fn append_announce(&self, target: &Target, log: &Log, messages: &[NewMessage]) -> Result<Option<i32>, Fault> {
        let statements = &self.connected.statements;
        let conversation = bigint(target.conversation.value());
        let new = || messages.iter().filter(|new| log.head.last.is_none_or(|last| last < new.id));
        let mut buckets: Vec<i32> = new().map(|new| target.buckets.of(new.id)).collect();
        buckets.retain(|bucket| log.listed.is_none_or(|listed| listed < *bucket));
        buckets.dedup();
        let index = new().map(|new| {
            let seconds = message_seconds(target.now, new.id.at(), target.retention);
            self.prepare(&statements.put_index, (timeuuid(new.id), conversation, seconds))
        });
        let list = buckets.iter().map(|bucket| {
            // As long as the last message that may come into it.
            let seconds = message_seconds(target.now, target.buckets.end(*bucket), target.retention);
            self.prepare(&statements.put_bucket, (conversation, *bucket, seconds))
        });
        tokio::try_join!(try_all(index), try_all(list))?;
        Ok(buckets.into_iter().max())
    }

    /// The messages, older buckets first: the stored ones are always the beginning of the request.
    async fn append_store(&self, target: &Target, log: &Log, results: &[Appended], stored: &[Arc<Message>]) -> Result<(), Fault> {
        let parts: Vec<_> = stored.chunk_by(|a, b| target.buckets.of(a.id) == target.buckets.of(b.id)).collect();
        let (last, before) = match parts.split_last() {
            Some((last, before)) => (*last, before),
            None => (&[][..], &[][..]),
        };
        for part in before {
            self.put_messages(target, part).await?;
        }
        // Also for messages that an earlier try has stored, whose mark may be missing.
        let mut marks: Vec<ReadMark> = Vec::with_capacity(1);
        for result in results.iter().rev() {
            if let Appended::Stored(message) = result
                && marks.iter().all(|mark| mark.user != message.sender)
            {
                marks.push(ReadMark { user: message.sender, message: message.id, sequence: message.sequence });
            }
        }
        let marks = marks.into_iter().map(|mark| self.put_mark(target.conversation, log.departures(mark.user), mark));
        // Both run to their end: the outcome of a write that is dropped would be unknown.
        let (messages, marks) = tokio::join!(self.put_messages(target, last), try_all(marks));
        messages.and(marks)
    }

    /// Messages of one bucket, in one mutation of one partition.
    async fn put_messages(&self, target: &Target, messages: &[Arc<Message>]) -> Result<(), Fault> {
        let statement = &self.connected.statements.put_message;
        match messages {
            [] => Ok(()),
            [message] => self.write(statement, row(target, message)).await,
            messages => {
                let rows: Vec<_> = messages.iter().map(|message| row(target, message)).collect();
                let statements = (0..rows.len()).map(|_| statement.prepared.clone().into()).collect();
                let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
                batch.set_is_idempotent(true);
                batch.set_execution_profile_handle(statement.prepared.get_execution_profile_handle().cloned());
                batch.set_request_timeout(statement.prepared.get_request_timeout());
                let began = tokio::time::Instant::now();
                let outcome = Box::pin(self.connected.session.batch(&batch, rows)).await;
                statement.latency.record(began.elapsed(), outcome.is_err());
                self.note(outcome.map(drop).map_err(|error| fault(error, Kind::Write)))
            }
        }
    }

    pub(super) async fn put_mark(&self, conversation: ConversationId, stay: i32, mark: ReadMark) -> Result<(), Fault> {
        let value = (bigint(mark.sequence), timeuuid(mark.message));
        let row = (write_time(mark.message), stay, value, bigint(conversation.value()), bigint(mark.user.value()));
        self.write(&self.connected.statements.put_mark, row).await
    }
}

/// All at once. One alone, as most are, needs no list.
async fn try_all<F: Future<Output = Result<(), Fault>>>(mut all: impl Iterator<Item = F>) -> Result<(), Fault> {
    let Some(first) = all.next() else { return Ok(()) };
    match all.next() {
        None => first.await,
        Some(second) => try_join_all([first, second].into_iter().chain(all)).await.map(drop),
    }
}

/// Where an append goes, and what holds for all its messages.
struct Target {
    conversation: ConversationId,
    buckets: Buckets,
    keys_expire: Wall,
    now: Wall,
    retention: Option<Duration>,
}

type Row<'a> = (
    i64,
    i32,
    CqlTimeuuid,
    i64,
    i64,
    MaybeUnset<CqlTimeuuid>,
    MaybeUnset<&'a str>,
    MaybeUnset<Vec<(&'a str, &'a str)>>,
    &'a str,
    i64,
    i32,
);

/// Absent values are unset: a null would be a tombstone.
fn row<'a>(target: &Target, message: &'a Message) -> Row<'a> {
    let headers = message.headers.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>();
    (
        bigint(message.conversation.value()),
        target.buckets.of(message.id),
        timeuuid(message.id),
        bigint(message.sender.value()),
        bigint(message.sequence),
        MaybeUnset::from_option(message.prev.map(timeuuid)),
        MaybeUnset::from_option(message.client_id.as_deref()),
        if headers.is_empty() { MaybeUnset::Unset } else { MaybeUnset::Set(headers) },
        &message.content,
        write_time(message.id),
        message_seconds(target.now, message.id.at(), target.retention),
    )
}

/// Returns the result for each message and the messages to store, and moves the head on. `None`: one id is neither new nor
/// stored.
fn decide(
    conversation: ConversationId,
    head: &mut Head,
    messages: &[NewMessage],
    found: Vec<Found>,
) -> Option<(Vec<Appended>, Vec<Arc<Message>>)> {
    let mut keys: BTreeMap<(UserId, &str), Arc<Message>> = BTreeMap::new();
    let (mut results, mut stored) = (Vec::with_capacity(messages.len()), Vec::new());
    let is_same = |new: &NewMessage, first: &Arc<Message>| {
        if first.content == new.draft.content { Appended::Replay(Arc::clone(first)) } else { Appended::KeyReused }
    };
    for (at, (new, found)) in messages.iter().zip(found).enumerate() {
        let key = new.draft.client_id.as_deref().map(|client_id| (new.sender, client_id));
        let is_new = head.last.is_none_or(|last| last < new.id);
        let (result, first) = match found {
            Found::Itself(message) => (Appended::Stored(Arc::clone(&message)), message),
            Found::Earlier(first) => (is_same(new, &first), first),
            Found::Nothing => match key.as_ref().and_then(|key| keys.get(key)).filter(|first| is_new || first.id < new.id) {
                Some(first) => (is_same(new, first), Arc::clone(first)),
                None if !is_new => return None,
                None => {
                    let message = Arc::new(new.link(conversation, *head));
                    *head = Head { last: Some(message.id), sequence: message.sequence };
                    stored.push(Arc::clone(&message));
                    (Appended::Stored(Arc::clone(&message)), message)
                }
            },
        };
        // For the messages behind it.
        if let Some(key) = key
            && at + 1 < messages.len()
        {
            keys.entry(key).or_insert(first);
        }
        results.push(result);
    }
    Some((results, stored))
}

impl Work<'_> {
    pub(super) async fn find_message(&self, message: MessageId) -> Result<Option<ConversationId>, Fault> {
        let Some(conversation) = self.find_index(message).await? else { return Ok(None) };
        // The index is written first: only the message itself shows that it is stored.
        let Some(buckets) = self.buckets(conversation).await? else { return Ok(None) };
        Ok(self.message(conversation, buckets, message).await?.map(|_| conversation))
    }
}
