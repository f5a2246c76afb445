//! Messages on their way into the log of their conversation, and the store's word before anyone hears of them.
//!
//! One append of a conversation is under way at a time and takes everything that waited meanwhile: so a failed one fails
//! whole, nothing behind it can overtake it, and a busy conversation pays one store request for many messages.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::command::Outcome;
use crate::model::destination::Topic;
use crate::model::message::{Draft, Message, SenderSession};
use crate::model::{ConversationId, Mono, Refusal, RefusalCode};
use crate::protocol::json;
use crate::shard::mail::{Asker, Delivery, Mail, Subscriber};
use crate::shard::storing::{Errand, RETRY_PAUSE, is_worth_retrying, last_word, missing};
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::log::{Append, AppendAnswer, Appended, NewMessage};
use crate::store::{self, Call, Failure};

/// A message that waits for the store.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) asker: Asker,
    pub(super) from: Option<SenderSession>,
    pub(super) draft: Draft,
}

/// The append under way: what was asked, and who hears of it.
#[derive(Debug)]
pub(super) struct Appending {
    senders: Vec<(Asker, Option<SenderSession>)>,
    request: Append,
    tries: u32,
    since: Mono,
}

impl Shard {
    pub(super) fn take_in(&mut self, turn: &mut Turn<'_>, id: ConversationId, send: Send) {
        let pending_max = self.policy.limits.conversation_pending;
        let Some(ready) = self.conversations.ready(id) else { return };
        if ready.blocked {
            let refusal = Refusal::new(RefusalCode::Blocked, "one of you has blocked the other");
            return self.answer(turn, send.asker, Outcome::Refused(refusal));
        }
        if ready.queue.len() >= pending_max {
            return self.answer(turn, send.asker, Outcome::Refused(busy()));
        }
        ready.queue.push_back(send);
        self.append_next(turn, id);
    }

    /// Gives the store everything that waits, unless an append is under way or in doubt.
    pub(super) fn append_next(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let limits = &self.policy.limits;
        let Some(ready) = self.conversations.ready(id) else { return };
        if !ready.is_settled() || ready.queue.is_empty() {
            return;
        }
        if self.errands.len() >= limits.store_inflight {
            for send in std::mem::take(&mut ready.queue) {
                self.answer(turn, send.asker, Outcome::Refused(busy()));
            }
            return;
        }
        let count = ready.queue.len().min(limits.append_batch);
        let (mut messages, mut senders) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut last = ready.head.last;
        for Send { asker, from, draft } in ready.queue.drain(..count) {
            let message_id = self.message_ids.next_id(turn.now.wall, last);
            last = Some(message_id);
            messages.push(NewMessage { id: message_id, sender: asker.user, draft });
            senders.push((asker, from));
        }
        let request = Append {
            conversation: id,
            head: ready.head,
            messages,
            keys_expire: turn.now.wall.after(limits.idempotency_ttl),
            now: turn.now.wall,
        };
        ready.appending = Some(Appending { senders, request: request.clone(), tries: 0, since: turn.now.mono });
        self.ask_store(turn, request, Errand::Append(id));
    }

    /// The store has spoken: only now do the senders and the participants hear of the messages.
    pub(super) fn appended(&mut self, turn: &mut Turn<'_>, id: ConversationId, reply: store::Reply) {
        let ready = self.conversations.ready(id).expect("a conversation stays while an append is under way");
        let mut appending = ready.appending.take().expect("one append is under way");
        if is_worth_retrying(&reply, appending.tries, turn.now.mono.since(appending.since)) {
            appending.tries += 1;
            ready.appending = Some(appending);
            self.conversations.retrying += 1;
            self.timers.schedule(turn.now.mono.after(RETRY_PAUSE), Timer::Append(id));
            return;
        }
        let Appending { senders, request, tries, .. } = appending;
        match Append::answer(last_word(reply, tries)) {
            Ok(Some(AppendAnswer { results, head })) => {
                assert!(results.len() == senders.len(), "one result for each message");
                ready.head = head;
                for ((asker, from), result) in senders.into_iter().zip(results) {
                    match result {
                        Appended::Stored(message) => {
                            self.recents.push(&message);
                            self.answer(turn, asker, Outcome::Sent { message: message.clone(), replay: false });
                            self.send_out(turn, id, message, from);
                        }
                        Appended::Replay(message) => self.answer(turn, asker, Outcome::Sent { message, replay: true }),
                        Appended::KeyReused => {
                            let message = "this clientMessageId was used for another message";
                            let refusal = Refusal::new(RefusalCode::KeyReused, message);
                            self.answer(turn, asker, Outcome::Refused(refusal));
                        }
                    }
                }
                self.append_next(turn, id);
            }
            Ok(None) => self.fail_appends(turn, id, senders.into_iter().map(|(asker, _)| asker).collect(), missing()),
            Err(failure) => {
                let askers = senders.into_iter().map(|(asker, _)| asker).collect();
                self.fail_appends(turn, id, askers, Self::failed(failure));
                if failure == Failure::Unknown {
                    self.doubt_append(turn, id, request);
                }
            }
        }
    }

    /// What is behind a failed append fails with it, in order; the log's end must be read again.
    pub(super) fn fail_appends(&mut self, turn: &mut Turn<'_>, id: ConversationId, askers: Vec<Asker>, refusal: Refusal) {
        let queue = self.conversations.ready(id).map(|ready| std::mem::take(&mut ready.queue));
        for asker in askers.into_iter().chain(queue.into_iter().flatten().map(|send| send.asker)) {
            self.answer(turn, asker, Outcome::Refused(refusal.clone()));
        }
        self.conversations.unload(id);
    }

    /// The outcome of an append is not known: the same messages again, under the same ids.
    pub(super) fn retry_append(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        self.conversations.retrying -= 1;
        let Some(appending) = self.conversations.ready(id).and_then(|ready| ready.appending.as_ref()) else { return };
        let request = appending.request.clone();
        self.insist(turn, request, Errand::Append(id));
    }

    /// One crossing to each shard that has participants or subscribers.
    pub(super) fn send_out(
        &mut self,
        turn: &mut Turn<'_>,
        id: ConversationId,
        message: Arc<Message>,
        from: Option<SenderSession>,
    ) {
        let mut body = Vec::with_capacity(256 + message.content.len());
        json::message_dto(&message, &mut body);
        let body = Bytes::from(body);
        let mut patterns: Vec<Vec<Subscriber>> = Vec::new();
        if self.topics.has_patterns() {
            patterns = self.pattern_subscribers(id);
        }
        for shard in self.all_shards() {
            let Some((users, topic)) = self.conversations.receivers(id, shard) else { return };
            let patterns = patterns.get_mut(shard.index()).map(std::mem::take).unwrap_or_default();
            if topic || !users.is_empty() || !patterns.is_empty() {
                let delivery = Delivery { message: message.clone(), body: body.clone(), from, users, topic, patterns };
                self.mail(turn, shard, Mail::Deliver(Box::new(delivery)));
            }
        }
    }

    /// Subscribers by pattern, each checked against the participants before anything crosses.
    fn pattern_subscribers(&mut self, id: ConversationId) -> Vec<Vec<Subscriber>> {
        let mut by_shard = vec![Vec::new(); usize::from(self.shards)];
        let Some(conversation) = self.conversations.loaded(id) else { return by_shard };
        for interest in self.topics.matching(&Topic::Conversation(id)) {
            if conversation.participant(interest.user).is_some() {
                by_shard[interest.shard.index()].push(interest.subscriber);
            }
        }
        by_shard
    }
}

pub(super) fn busy() -> Refusal {
    Refusal::new(RefusalCode::StoreBusy, "too many messages wait for the store").retry_after(1)
}
