//! Messages on their way into the log of their conversation, and out to the participants once they are durable.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::{Action, Caller};
use crate::model::command::Outcome;
use crate::model::destination::Topic;
use crate::model::message::{Message, SenderSession};
use crate::model::{ConversationId, Refusal, RefusalCode};
use crate::protocol::json;
use crate::shard::conversations::entry::State;
use crate::shard::conversations::log::{Appending, Send};
use crate::shard::conversations::{Conversations, OnReply, Timer};
use crate::shard::mail::{Asker, Delivery, Subscriber, UserMail};
use crate::shard::turn::pipeline;
use crate::shard::turn::store_calls::RETRY_PAUSE;
use crate::shard::turn::{Turn, busy, missing, store_refusal};
use crate::store::log::{Append, AppendAnswer, Appended, NewMessage};
use crate::store::{Call, Failure, Reply};

impl Conversations {
    pub(super) fn send(&mut self, turn: &mut Turn, id: ConversationId, send: Send) {
        let pending_max = turn.limits().conversation_pending;
        let log = &mut self.entries.enter(id).log;
        if log.waiting() >= pending_max {
            return turn.refuse(send.asker, busy());
        }
        log.push(send);
        self.append_next(turn, id);
    }

    /// Gives the store everything that waits, unless an append is under way or in doubt.
    pub(super) fn append_next(&mut self, turn: &mut Turn, id: ConversationId) {
        let Some(entry) = self.entries.find_mut(id) else { return };
        if !entry.log.is_settled() || entry.log.waiting() == 0 {
            return;
        }
        if turn.store_is_full() {
            for send in entry.log.take_waiting() {
                turn.refuse(send.asker, busy());
            }
            return;
        }
        let Some(head) = entry.ready().map(|ready| ready.head) else { return };
        let sends = entry.log.take(turn.limits().append_batch);
        let (mut messages, mut senders) = (Vec::with_capacity(sends.len()), Vec::with_capacity(sends.len()));
        let mut last = head.last;
        for Send { asker, from, draft } in sends {
            let message_id = turn.message_id(last);
            last = Some(message_id);
            messages.push(NewMessage { id: message_id, sender: asker.caller.user, draft });
            senders.push((asker, from));
        }
        let now = turn.now.wall;
        let keys_expire = now.after(turn.limits().idempotency_ttl);
        let request = Append { conversation: id, head, messages, keys_expire, now };
        entry.log.begin(Box::new(Appending { senders, request: request.clone() }), turn.now.mono);
        self.calls.ask_once(turn, request, OnReply::Appended(id));
    }

    /// The store replied: only now do the senders and the participants hear of the messages.
    pub(super) fn appended(&mut self, turn: &mut Turn, id: ConversationId, reply: Reply) {
        let entry = self.entries.find_mut(id).expect("a conversation stays while an append is under way");
        let appending = match entry.log.replied(&reply, turn.now.mono, |appending| appending.doubt()) {
            pipeline::Outcome::Certain(appending) => *appending,
            pipeline::Outcome::Retry => {
                self.retrying += 1;
                return self.timers.schedule(turn.after(RETRY_PAUSE), Timer::RetryAppend(id));
            }
            pipeline::Outcome::InDoubt(appending) => {
                self.fail_appends(turn, id, appending.askers(), &store_refusal(Failure::Unknown));
                return self.doubt(turn, id);
            }
        };
        match Append::answer(reply) {
            Ok(Some(AppendAnswer { results, head })) => {
                assert!(results.len() == appending.senders.len(), "one result for each message");
                let ready = entry.ready().expect("a conversation stays loaded while an append is under way");
                ready.head = head;
                for (sender, result) in appending.senders.into_iter().zip(results) {
                    self.message_appended(turn, id, sender, result);
                }
                self.append_next(turn, id);
            }
            Ok(None) => self.fail_appends(turn, id, appending.askers(), &missing()),
            Err(failure) => self.fail_appends(turn, id, appending.askers(), &store_refusal(failure)),
        }
    }

    fn message_appended(
        &mut self,
        turn: &mut Turn,
        id: ConversationId,
        (asker, from): (Asker, Option<SenderSession>),
        result: Appended,
    ) {
        match result {
            Appended::Stored(message) => {
                self.recent.push(&message);
                turn.answer(asker, Outcome::Sent { message: message.clone(), replay: false });
                self.deliver(turn, id, message, from);
            }
            Appended::Replay(message) => turn.answer(asker, Outcome::Sent { message, replay: true }),
            Appended::KeyReused => {
                let message = "this clientMessageId was used for another message";
                turn.refuse(asker, Refusal::new(RefusalCode::KeyReused, message));
            }
        }
    }

    /// What waits behind a failed append fails with it, in order; the log's end must be read again.
    pub(super) fn fail_appends(
        &mut self,
        turn: &mut Turn,
        id: ConversationId,
        askers: impl IntoIterator<Item = Asker>,
        refusal: &Refusal,
    ) {
        let entry = self.entries.enter(id);
        for asker in askers.into_iter().chain(entry.log.take_waiting().into_iter().map(|send| send.asker)) {
            turn.refuse(asker, refusal.clone());
        }
        entry.state = State::Unloaded;
    }

    /// The same messages again, under the same ids.
    pub(super) fn retry_append(&mut self, turn: &mut Turn, id: ConversationId) {
        self.retrying -= 1;
        let Some(appending) = self.entries.find(id).and_then(|entry| entry.log.under_way()) else { return };
        let request = appending.request.clone();
        self.calls.ask_once(turn, request, OnReply::Appended(id));
    }

    /// One crossing to each shard that has participants or subscribers.
    pub(super) fn deliver(&mut self, turn: &mut Turn, id: ConversationId, message: Arc<Message>, from: Option<SenderSession>) {
        let mut body = Vec::with_capacity(256 + message.content.len());
        json::message_dto(&message, &mut body);
        let body = Bytes::from(body);
        let mut patterns: Vec<Vec<Subscriber>> = Vec::new();
        if !turn.patterns.is_empty() {
            patterns = self.pattern_subscribers(turn, id);
        }
        for shard in turn.placement.all() {
            let Some((users, topic)) = self.entries.receivers(id, shard) else { return };
            let patterns = patterns.get_mut(shard.index()).map(std::mem::take).unwrap_or_default();
            if topic || !users.is_empty() || !patterns.is_empty() {
                let delivery = Delivery { message: message.clone(), body: body.clone(), from, users, topic, patterns };
                turn.mail(shard, UserMail::Deliver(Box::new(delivery)));
            }
        }
    }

    /// Subscribers by pattern and by shard, each checked against the participants before anything crosses.
    fn pattern_subscribers(&mut self, turn: &Turn, id: ConversationId) -> Vec<Vec<Subscriber>> {
        let mut by_shard = vec![Vec::new(); usize::from(turn.placement.shards())];
        let Some(ready) = self.entries.ready(id) else { return by_shard };
        for known in turn.patterns.matching(&Topic::Conversation(id)) {
            let caller = Caller { user: known.user, admin: false };
            if ready.check(caller, Action::Read).is_ok() {
                by_shard[known.shard.index()].push(known.subscriber);
            }
        }
        by_shard
    }
}
