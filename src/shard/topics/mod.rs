//! Which shards listen to what: named topics of this shard, and subscriptions by pattern.
//!
//! Flows in: [`TopicMail`]. Flows out: mail to the shards that have subscribers. Never imports sessions: it knows shards.
//! A conversation's topic is the conversations' own matter, because only participants may subscribe to it.
//!
//! Invariants: a shard is listed for a topic from its first subscription until it leaves; every shard knows every pattern.

use std::sync::Arc;

use rand_chacha::rand_core::Rng;

use crate::model::ShardId;
use crate::model::destination::Topic;
use crate::model::map::{self, Map};
use crate::model::message::Event;
use crate::shard::mail::{Subscriber, TopicMail, UserMail};
use crate::shard::turn::Turn;
use crate::shard::turn::patterns::PatternSubscriber;

/// Lifetime and owner: the shard. View: node, for the topics that live on this shard.
#[derive(Debug)]
pub(super) struct Topics {
    /// The shards with subscribers, ascending.
    interest: Map<Box<str>, Vec<ShardId>>,
}

impl Topics {
    pub(super) fn new(turn: &mut Turn) -> Self {
        Self { interest: map::map(turn.random.next_u64()) }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.interest.is_empty()
    }

    pub(super) fn handle_mail(&mut self, turn: &mut Turn, from: ShardId, mail: TopicMail) {
        match mail {
            TopicMail::Join { name, subscriber } => self.join(turn, from, name, subscriber),
            TopicMail::Leave { name } => self.leave(from, &name),
            TopicMail::JoinPattern { pattern, user, subscriber } => {
                turn.patterns.insert(PatternSubscriber { pattern, user, shard: from, subscriber });
                turn.mail(from, UserMail::Joined { topic: None, subscriber, allowed: true });
            }
            TopicMail::LeavePattern { subscriber } => turn.patterns.remove(from, subscriber),
            TopicMail::Publish { name, event } => self.publish(turn, &name, &event),
        }
    }

    /// A named topic is open to everyone.
    fn join(&mut self, turn: &mut Turn, from: ShardId, name: Box<str>, subscriber: Subscriber) {
        let shards = self.interest.entry(name.clone()).or_default();
        if let Err(at) = shards.binary_search(&from) {
            shards.insert(at, from);
        }
        turn.mail(from, UserMail::Joined { topic: Some(Topic::Named(name)), subscriber, allowed: true });
    }

    fn leave(&mut self, from: ShardId, name: &str) {
        if let Some(shards) = self.interest.get_mut(name) {
            shards.retain(|known| *known != from);
            if shards.is_empty() {
                self.interest.remove(name);
            }
        }
    }

    /// To every shard with subscribers, by name or by pattern.
    fn publish(&mut self, turn: &mut Turn, name: &str, event: &Arc<Event>) {
        let topic = Topic::Named(name.into());
        for shard in turn.placement.all() {
            let by_name = self.interest.get(name).is_some_and(|shards| shards.binary_search(&shard).is_ok());
            let matching = turn.patterns.matching(&topic).filter(|known| known.shard == shard);
            let patterns: Vec<Subscriber> = matching.map(|known| known.subscriber).collect();
            if by_name || !patterns.is_empty() {
                turn.mail(shard, UserMail::Broadcast { name: name.into(), event: event.clone(), topic: by_name, patterns });
            }
        }
    }
}
