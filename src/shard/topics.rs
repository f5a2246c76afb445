//! Who listens to what. A user's shard knows its sessions; a topic's shard knows only which shards have subscribers.

use std::sync::Arc;

use indexmap::IndexSet;

use crate::model::destination::{SubscribeTarget, Topic, TopicPattern};
use crate::model::map::{self, Map};
use crate::model::message::Event;
use crate::model::{ConversationId, ShardId, UserId};
use crate::shard::mail::{Mail, Subscriber};
use crate::shard::{Shard, Turn};

/// Keys of the set are the shard's own, no client chooses them.
type SeededState = foldhash::fast::FixedState;

/// Subscribers of one topic on this shard.
#[derive(Debug, Default)]
struct Listeners {
    /// Iterated by every delivery, and any of them may go at any time: a set in a row.
    active: IndexSet<Subscriber, SeededState>,
    /// Requests to the topic's shard that were not yet answered.
    requested: usize,
}

/// A subscription by pattern, as every shard knows it.
#[derive(Clone, Debug)]
pub(super) struct PatternInterest {
    pub(super) pattern: TopicPattern,
    pub(super) user: UserId,
    pub(super) shard: ShardId,
    pub(super) subscriber: Subscriber,
}

/// Owner: the shard. View: shard, for both sides of its topics.
#[derive(Debug)]
pub(super) struct Topics {
    listeners: Map<Topic, Listeners>,
    /// As the shard of named topics: the shards with subscribers, ascending.
    interest: Map<Box<str>, Vec<ShardId>>,
    patterns: Vec<PatternInterest>,
}

impl Topics {
    pub(super) fn new(seed: u64) -> Self {
        Self { listeners: map::map(seed), interest: map::map(seed), patterns: Vec::new() }
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, topic: &Topic, subscriber: Subscriber, allowed: bool) {
        let listeners = self.listeners.get_mut(topic).expect("a topic with requests under way is kept");
        assert!(listeners.requested > 0, "a request is answered once");
        listeners.requested -= 1;
        if allowed {
            listeners.active.insert(subscriber);
        }
    }

    pub(super) fn remove(&mut self, topic: &Topic, subscriber: Subscriber) {
        if let Some(listeners) = self.listeners.get_mut(topic) {
            listeners.active.swap_remove(&subscriber);
        }
    }

    pub(super) fn active(&self, topic: &Topic) -> impl Iterator<Item = Subscriber> {
        self.listeners.get(topic).into_iter().flat_map(|listeners| listeners.active.iter().copied())
    }

    /// Patterns that match a topic, in the order of their subscription.
    pub(super) fn matching<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = &'a PatternInterest> {
        self.patterns.iter().filter(|interest| interest.pattern.matches(topic))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.interest.is_empty() && self.patterns.is_empty()
    }

    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }
}

impl Shard {
    /// The shard of a named topic: the same for all shards of a node, whatever its name.
    pub(super) fn topic_shard(&self, name: &str) -> ShardId {
        // FNV-1a: the choice must be the same everywhere, and need not withstand an attacker.
        let hash =
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        ShardId::of(hash, self.shards)
    }

    fn shard_of(&self, topic: &Topic) -> ShardId {
        match topic {
            Topic::Conversation(conversation) => ShardId::of(conversation.value(), self.shards),
            Topic::Named(name) => self.topic_shard(name),
        }
    }

    /// Asks the topic's shard to send what is published from now on.
    pub(super) fn request_topic(&mut self, turn: &mut Turn<'_>, topic: Topic, user: UserId, subscriber: Subscriber) {
        self.topics.listeners.entry(topic.clone()).or_default().requested += 1;
        self.mail(turn, self.shard_of(&topic), Mail::Join { topic, user, subscriber });
    }

    /// As the topic's shard: a named topic is open to everyone, a conversation's to its participants.
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, from: ShardId, topic: Topic, user: UserId, subscriber: Subscriber) {
        match topic {
            Topic::Conversation(conversation) => self.join_conversation(turn, from, conversation, user, subscriber),
            Topic::Named(name) => {
                let shards = self.topics.interest.entry(name.clone()).or_default();
                if let Err(at) = shards.binary_search(&from) {
                    shards.insert(at, from);
                }
                let topic = Some(Topic::Named(name));
                self.mail(turn, from, Mail::Joined { topic, subscriber, allowed: true });
            }
        }
    }

    pub(super) fn leave(&mut self, from: ShardId, topic: &Topic) {
        match topic {
            Topic::Conversation(conversation) => self.conversations.leave(*conversation, from),
            Topic::Named(name) => {
                if let Some(shards) = self.topics.interest.get_mut(name) {
                    shards.retain(|known| *known != from);
                    if shards.is_empty() {
                        self.topics.interest.remove(name);
                    }
                }
            }
        }
    }

    pub(super) fn join_pattern(
        &mut self,
        turn: &mut Turn<'_>,
        from: ShardId,
        pattern: TopicPattern,
        user: UserId,
        subscriber: Subscriber,
    ) {
        self.topics.patterns.push(PatternInterest { pattern, user, shard: from, subscriber });
        self.mail(turn, from, Mail::Joined { topic: None, subscriber, allowed: true });
    }

    pub(super) fn leave_pattern(&mut self, from: ShardId, subscriber: Subscriber) {
        self.topics.patterns.retain(|known| known.shard != from || known.subscriber != subscriber);
    }

    /// A subscription is over, by UNSUBSCRIBE or with its session.
    pub(super) fn end_subscription(&mut self, turn: &mut Turn<'_>, subscriber: Subscriber, target: &SubscribeTarget) {
        match target {
            SubscribeTarget::UserQueue(_) => {}
            SubscribeTarget::Topic(topic) => {
                self.topics.remove(topic, subscriber);
                self.leave_if_unused(turn, topic);
            }
            SubscribeTarget::Pattern(_) => {
                for shard in self.all_shards() {
                    self.mail(turn, shard, Mail::LeavePattern { subscriber });
                }
            }
        }
    }

    /// The last subscriber of a topic on this shard is gone: its shard need not send any more.
    pub(super) fn leave_if_unused(&mut self, turn: &mut Turn<'_>, topic: &Topic) {
        let unused =
            self.topics.listeners.get(topic).is_some_and(|listeners| listeners.active.is_empty() && listeners.requested == 0);
        if unused {
            self.topics.listeners.remove(topic);
            self.mail(turn, self.shard_of(topic), Mail::Leave { topic: topic.clone() });
        }
    }

    /// A user is no longer a participant: its sessions hear nothing more of the conversation.
    pub(super) fn expel(&mut self, turn: &mut Turn<'_>, conversation: ConversationId, user: UserId) {
        let topic = Topic::Conversation(conversation);
        let Some(known) = self.users.find(user) else { return };
        for key in known.sessions.clone() {
            let Some(live) = self.sessions.find(key) else { continue };
            for subscription in &live.session.subscriptions {
                self.topics.remove(&topic, Subscriber { session: key, serial: subscription.serial });
            }
        }
        self.leave_if_unused(turn, &topic);
    }

    /// As a named topic's shard: to every shard with subscribers, by name or by pattern.
    pub(super) fn publish(&mut self, turn: &mut Turn<'_>, name: &str, event: &Arc<Event>) {
        let topic = Topic::Named(name.into());
        for shard in self.all_shards() {
            let has_topic = self.topics.interest.get(name).is_some_and(|shards| shards.binary_search(&shard).is_ok());
            let patterns: Vec<Subscriber> = self
                .topics
                .matching(&topic)
                .filter(|interest| interest.shard == shard)
                .map(|interest| interest.subscriber)
                .collect();
            if has_topic || !patterns.is_empty() {
                let mail = Mail::Broadcast { name: name.into(), event: event.clone(), topic: has_topic, patterns };
                self.mail(turn, shard, mail);
            }
        }
    }
}
