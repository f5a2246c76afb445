//! The last step of a message: every session of every participant on this shard, and every subscriber.
//!
//! Sessions that spell their subscription alike get the very same bytes: a frame is encoded once for each spelling, not
//! for each receiver.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::Close;
use crate::model::UserId;
use crate::model::destination::{Topic, UserQueue};
use crate::model::message::Event;
use crate::session::Subscription;
use crate::session::frames::{self, Address, FrameFormat, MessageContent};
use crate::session::intent::AckMode;
use crate::shard::clients::Clients;
use crate::shard::mail::{Delivery, Notice, SessionKey, Subscriber};
use crate::shard::turn::Turn;
use crate::shard::users::Users;
use crate::shard::users::session_table::SessionEntry;

/// Spellings of one destination that are remembered during a fan-out; those beyond are encoded for themselves.
const SPELLINGS_MAX: usize = 16;

/// How a frame is addressed: everything in which two receivers' frames can differ.
#[derive(Debug, PartialEq, Eq)]
struct Spelling {
    format: FrameFormat,
    destination: Box<str>,
    subscription: Option<Box<str>>,
    acknowledged: bool,
}

/// One fan-out: the content, and the frames already encoded for it.
struct FanOut<'a> {
    content: MessageContent<'a>,
    /// The destination in frames for subscribers by pattern.
    topic: Option<&'a str>,
    frames: SmallVec<[(Spelling, Bytes); 2]>,
    /// Sessions whose outbox is over its limit: closed when the fan-out is done.
    slow: Vec<SessionKey>,
}

impl FanOut<'_> {
    fn frame(&mut self, format: FrameFormat, subscription: &Subscription, destination: Option<&str>) -> Bytes {
        let destination = destination.unwrap_or(&subscription.destination);
        let acknowledged = subscription.ack != AckMode::Auto;
        let id = subscription.id.as_deref();
        let alike = |known: &Spelling| {
            known.format == format
                && known.acknowledged == acknowledged
                && known.subscription.as_deref() == id
                && *known.destination == *destination
        };
        if let Some((_, frame)) = self.frames.iter().find(|(known, _)| alike(known)) {
            return frame.clone();
        }
        let frame = frames::message(Address { format, destination, subscription: id, acknowledged }, self.content);
        if self.frames.len() < SPELLINGS_MAX {
            let (destination, subscription) = (destination.into(), id.map(Into::into));
            self.frames.push((Spelling { format, destination, subscription, acknowledged }, frame.clone()));
        }
        frame
    }
}

impl Users {
    pub(super) fn deliver(&mut self, turn: &mut Turn, clients: &mut Clients, delivery: &Delivery) {
        let message = &delivery.message;
        let content = MessageContent {
            message_id: message.id,
            content_type: "application/json",
            headers: &message.headers,
            body: &delivery.body,
        };
        if delivery.topic || !delivery.patterns.is_empty() {
            let topic = Topic::Conversation(message.conversation);
            self.fan_out_topic(turn, clients, content, &topic, delivery.topic, &delivery.patterns);
        }
        let mut fan_out = FanOut { content, topic: None, frames: SmallVec::new(), slow: Vec::new() };
        for user in delivery.users.iter() {
            let from = delivery.from.filter(|from| !from.echo && *user == message.sender).map(|from| from.session);
            self.fan_out_user(turn, clients, &mut fan_out, *user, &UserQueue::Messages, |entry| Some(entry.session.id) != from);
        }
        self.close_slow(turn, clients, fan_out.slow);
    }

    /// An event for private queues.
    pub(super) fn notify(&mut self, turn: &mut Turn, clients: &mut Clients, notice: &Notice) {
        let content =
            MessageContent { message_id: notice.id, content_type: "application/json", headers: &[], body: &notice.body };
        let mut fan_out = FanOut { content, topic: None, frames: SmallVec::new(), slow: Vec::new() };
        for user in notice.users.iter().filter(|user| Some(**user) != notice.except) {
            self.fan_out_user(turn, clients, &mut fan_out, *user, &notice.queue, |_| true);
        }
        self.close_slow(turn, clients, fan_out.slow);
    }

    /// An event of a named topic.
    pub(super) fn broadcast(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        name: &str,
        event: &Event,
        subscribed: bool,
        patterns: &[Subscriber],
    ) {
        let content = MessageContent {
            message_id: event.id,
            content_type: &event.content_type,
            headers: &event.headers,
            body: &event.body,
        };
        self.fan_out_topic(turn, clients, content, &Topic::Named(name.into()), subscribed, patterns);
    }

    fn fan_out_topic(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        content: MessageContent<'_>,
        topic: &Topic,
        subscribed: bool,
        patterns: &[Subscriber],
    ) {
        let destination = topic.to_destination();
        let mut fan_out = FanOut { content, topic: Some(&destination), frames: SmallVec::new(), slow: Vec::new() };
        let active: Vec<Subscriber> = if subscribed { self.listeners.active(topic).collect() } else { Vec::new() };
        for subscriber in active {
            self.deliver_to(turn, clients, &mut fan_out, subscriber, false);
        }
        for subscriber in patterns {
            self.deliver_to(turn, clients, &mut fan_out, *subscriber, true);
        }
        self.close_slow(turn, clients, fan_out.slow);
    }

    fn deliver_to(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        fan_out: &mut FanOut<'_>,
        subscriber: Subscriber,
        by_pattern: bool,
    ) {
        let Some(entry) = self.sessions.find(subscriber.session) else { return };
        let Some(subscription) = entry.session.subscription(subscriber.serial) else { return };
        // A pattern is in force when every shard has answered; until then a message may not reach all of it.
        if subscription.awaited > 0 && !by_pattern {
            return;
        }
        let destination = if by_pattern { fan_out.topic } else { None };
        let frame = fan_out.frame(entry.format, subscription, destination);
        if !self.write_within_limit(turn, clients, subscriber.session, frame) {
            fan_out.slow.push(subscriber.session);
        }
    }

    fn fan_out_user(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        fan_out: &mut FanOut<'_>,
        user: UserId,
        queue: &UserQueue,
        wanted: impl Fn(&SessionEntry) -> bool,
    ) {
        let Some(known) = self.table.find(user) else { return };
        let mut frames: SmallVec<[(SessionKey, Bytes); 4]> = SmallVec::new();
        for key in &known.sessions {
            let Some(entry) = self.sessions.find(*key) else { continue };
            if !wanted(entry) {
                continue;
            }
            for subscription in entry.session.queue_subscriptions(queue) {
                frames.push((*key, fan_out.frame(entry.format, subscription, None)));
            }
        }
        for (key, frame) in frames {
            if !self.write_within_limit(turn, clients, key, frame) {
                fan_out.slow.push(key);
            }
        }
    }

    /// Writes to one session, which is closed when it reads too slowly.
    pub(super) fn write_session(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, frame: Bytes) {
        if !self.write_within_limit(turn, clients, key, frame) {
            self.close_session(turn, clients, key, Close::SendLimit, None);
        }
    }

    /// Queues a frame; false when the session's outbox would go over its limit.
    fn write_within_limit(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, frame: Bytes) -> bool {
        let Some(entry) = self.sessions.find_mut(key) else { return true };
        entry.session.beats.sent(turn.now.mono);
        clients.write_within_limit(turn, entry.client, frame)
    }

    fn close_slow(&mut self, turn: &mut Turn, clients: &mut Clients, slow: Vec<SessionKey>) {
        for key in slow {
            tracing::info!(shard = turn.id.0, "session closed: it reads too slowly");
            self.close_session(turn, clients, key, Close::SendLimit, None);
        }
    }
}
