//! SUBSCRIBE and UNSUBSCRIBE: a subscription is refused, requested from its topic's shard, in force, and over.

use crate::model::destination::{SubscribeTarget, Topic};
use crate::model::{Close, ConversationId, Fault, UserId};
use crate::session::frames;
use crate::session::intent::SubscribeIntent;
use crate::shard::clients::Clients;
use crate::shard::mail::{ConversationMail, SessionKey, Subscriber, TopicMail};
use crate::shard::turn::Turn;
use crate::shard::users::Users;

impl Users {
    /// # Errors
    /// A fault, which ends the session: the destination is not the user's, there are too many subscriptions, or the id is
    /// taken.
    pub(super) fn handle_subscribe(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        key: SessionKey,
        intent: SubscribeIntent,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(entry) = self.sessions.find_mut(key) else { return Ok(()) };
        let user = entry.session.principal.user;
        let target = SubscribeTarget::parse(&intent.destination, user).map_err(|denied| Fault::policy(denied.message()))?;
        let awaited = match &target {
            SubscribeTarget::UserQueue(_) => 0,
            SubscribeTarget::Topic(_) => 1,
            SubscribeTarget::Pattern(_) => turn.placement.shards(),
        };
        let serial = entry.session.subscribe(intent, target.clone(), awaited, receipt.map(Into::into), turn.limits())?;
        let subscriber = Subscriber { session: key, serial };
        match target {
            SubscribeTarget::UserQueue(_) => self.write_receipt(turn, clients, key, receipt),
            SubscribeTarget::Topic(topic) => {
                self.listeners.requested(&topic);
                request_topic(turn, topic, user, subscriber);
            }
            SubscribeTarget::Pattern(pattern) => {
                for shard in turn.placement.all() {
                    let pattern = pattern.clone();
                    turn.mail(shard, TopicMail::JoinPattern { pattern, user, subscriber });
                }
            }
        }
        Ok(())
    }

    /// The topic's shard has answered: the subscription is in force, or the session ends.
    pub(super) fn joined(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        topic: Option<Topic>,
        subscriber: Subscriber,
        allowed: bool,
    ) {
        let key = subscriber.session;
        if let Some(topic) = &topic {
            self.listeners.answered(topic, subscriber, allowed);
        }
        let entry = self.sessions.find_mut(key);
        let format = entry.as_ref().map(|entry| entry.format);
        let subscription = entry.and_then(|entry| entry.session.subscription_mut(subscriber.serial));
        match (subscription, format) {
            (Some(subscription), Some(format)) if !allowed => {
                let receipt = subscription.receipt.take();
                let error = frames::error(format, "destination is not yours", receipt.as_deref());
                self.close_session(turn, clients, key, Close::Policy, Some(error));
            }
            (Some(subscription), _) => {
                assert!(subscription.awaited > 0, "an active subscription awaits no answer");
                subscription.awaited -= 1;
                if subscription.awaited == 0 {
                    let receipt = subscription.receipt.take();
                    self.write_receipt(turn, clients, key, receipt.as_deref());
                    self.finish_disconnect(turn, clients, key);
                }
            }
            (None, _) => {
                if let Some(topic) = &topic {
                    self.listeners.remove(topic, subscriber);
                }
            }
        }
        if let Some(topic) = topic {
            self.leave_if_unused(turn, &topic);
        }
    }

    /// An unknown id is no fault: the subscription may have ended with the right to it.
    pub(super) fn handle_unsubscribe(&mut self, turn: &mut Turn, key: SessionKey, id: Option<&str>, destination: Option<&str>) {
        let subscription = self.sessions.find_mut(key).and_then(|entry| entry.session.unsubscribe(id, destination));
        if let Some(subscription) = subscription {
            let subscriber = Subscriber { session: key, serial: subscription.serial };
            self.end_subscription(turn, subscriber, &subscription.target);
        }
    }

    /// A subscription is over, by UNSUBSCRIBE or with its session.
    pub(super) fn end_subscription(&mut self, turn: &mut Turn, subscriber: Subscriber, target: &SubscribeTarget) {
        match target {
            SubscribeTarget::UserQueue(_) => {}
            SubscribeTarget::Topic(topic) => {
                self.listeners.remove(topic, subscriber);
                self.leave_if_unused(turn, topic);
            }
            SubscribeTarget::Pattern(_) => {
                for shard in turn.placement.all() {
                    turn.mail(shard, TopicMail::LeavePattern { subscriber });
                }
            }
        }
    }

    /// The last subscriber of a topic on this shard is gone: the topic's shard need not send any more.
    fn leave_if_unused(&mut self, turn: &mut Turn, topic: &Topic) {
        if self.listeners.forget_unused(topic) {
            let to = turn.placement.topic(topic);
            match topic.clone() {
                Topic::Conversation(conversation) => turn.mail(to, ConversationMail::Leave { conversation }),
                Topic::Named(name) => turn.mail(to, TopicMail::Leave { name }),
            }
        }
    }

    /// A user is no longer a participant: their sessions receive nothing more of the conversation.
    pub(super) fn expel(&mut self, turn: &mut Turn, conversation: ConversationId, user: UserId) {
        let topic = Topic::Conversation(conversation);
        let Some(known) = self.table.find(user) else { return };
        for key in &known.sessions {
            let Some(entry) = self.sessions.find(*key) else { continue };
            for subscription in &entry.session.subscriptions {
                self.listeners.remove(&topic, Subscriber { session: *key, serial: subscription.serial });
            }
        }
        self.leave_if_unused(turn, &topic);
    }
}

/// Asks the topic's shard to send what is published from now on.
fn request_topic(turn: &mut Turn, topic: Topic, user: UserId, subscriber: Subscriber) {
    let to = turn.placement.topic(&topic);
    match topic {
        Topic::Conversation(conversation) => turn.mail(to, ConversationMail::Join { conversation, user, subscriber }),
        Topic::Named(name) => turn.mail(to, TopicMail::Join { name, subscriber }),
    }
}
