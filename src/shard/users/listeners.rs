//! The subscribers of topics on this shard. A topic's own shard knows only which shards have any.

use indexmap::IndexSet;

use crate::model::destination::Topic;
use crate::model::map::{self, Map};
use crate::shard::mail::Subscriber;

/// Keys of the set are the shard's own, no client chooses them.
type SeededState = foldhash::fast::FixedState;

/// Subscribers of one topic.
#[derive(Debug, Default)]
struct TopicListeners {
    /// Iterated by every delivery, and any of them may go at any time: a set in a row.
    active: IndexSet<Subscriber, SeededState>,
    /// Requests to the topic's shard that were not yet answered.
    requested: usize,
}

/// Owner: the users' part. View: shard.
#[derive(Debug)]
pub(super) struct Listeners {
    topics: Map<Topic, TopicListeners>,
}

impl Listeners {
    pub(super) fn new(seed: u64) -> Self {
        Self { topics: map::map(seed) }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The topic's shard is asked to send what is published from now on.
    pub(super) fn requested(&mut self, topic: &Topic) {
        self.topics.entry(topic.clone()).or_default().requested += 1;
    }

    /// The topic's shard answered a request.
    pub(super) fn answered(&mut self, topic: &Topic, subscriber: Subscriber, allowed: bool) {
        let listeners = self.topics.get_mut(topic).expect("a topic with requests under way is kept");
        assert!(listeners.requested > 0, "a request is answered once");
        listeners.requested -= 1;
        if allowed {
            listeners.active.insert(subscriber);
        }
    }

    pub(super) fn remove(&mut self, topic: &Topic, subscriber: Subscriber) {
        if let Some(listeners) = self.topics.get_mut(topic) {
            listeners.active.swap_remove(&subscriber);
        }
    }

    /// Forgets a topic without subscribers and requests. True when it did: the topic's shard need not send any more.
    pub(super) fn forget_unused(&mut self, topic: &Topic) -> bool {
        let is_unused = self.topics.get(topic).is_some_and(|known| known.active.is_empty() && known.requested == 0);
        if is_unused {
            self.topics.remove(topic);
        }
        is_unused
    }

    pub(super) fn active(&self, topic: &Topic) -> impl Iterator<Item = Subscriber> {
        self.topics.get(topic).into_iter().flat_map(|listeners| listeners.active.iter().copied())
    }
}
