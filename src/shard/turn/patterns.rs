//! Subscriptions by pattern. A pattern may match topics of any shard, so every shard has all of them.

use crate::model::destination::{Topic, TopicPattern};
use crate::model::{ShardId, UserId};
use crate::shard::mail::Subscriber;

/// A subscription by pattern.
#[derive(Clone, Debug)]
pub(in crate::shard) struct PatternSubscriber {
    pub(in crate::shard) pattern: TopicPattern,
    pub(in crate::shard) user: UserId,
    /// Where its session lives.
    pub(in crate::shard) shard: ShardId,
    pub(in crate::shard) subscriber: Subscriber,
}

/// Written by the topics part alone. Owner: the shard. View: node.
#[derive(Debug, Default)]
pub(in crate::shard) struct Patterns {
    /// In the order in which they subscribed.
    subscribers: Vec<PatternSubscriber>,
}

impl Patterns {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    pub(in crate::shard) fn insert(&mut self, subscriber: PatternSubscriber) {
        self.subscribers.push(subscriber);
    }

    pub(in crate::shard) fn remove(&mut self, shard: ShardId, subscriber: Subscriber) {
        self.subscribers.retain(|known| known.shard != shard || known.subscriber != subscriber);
    }

    /// The subscribers whose pattern matches a topic, in the order in which they subscribed.
    pub(in crate::shard) fn matching<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = &'a PatternSubscriber> {
        self.subscribers.iter().filter(|known| known.pattern.matches(topic))
    }
}
