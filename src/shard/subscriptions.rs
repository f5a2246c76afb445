//! SUBSCRIBE and UNSUBSCRIBE, and ACK and NACK of what they bring.

use crate::model::destination::{SubscribeTarget, Topic};
use crate::model::{Close, Fault};
use crate::protocol::stomp::{Command, Frame, Version};
use crate::session::{frames, intent};
use crate::shard::mail::{Mail, SessionKey, Subscriber};
use crate::shard::{Shard, Turn};

impl Shard {
    pub(super) fn handle_subscribe(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        frame: &Frame<'_>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        let user = live.session.principal.user;
        let intent = intent::interpret_subscribe(frame, live.session.version, user)?;
        let target = intent.target.clone();
        let awaited = match &target {
            SubscribeTarget::UserQueue(_) => 0,
            SubscribeTarget::Topic(_) => 1,
            SubscribeTarget::Pattern(_) => self.shards,
        };
        let serial = live.session.subscribe(intent, awaited, receipt.map(Into::into), &self.policy.limits)?;
        let subscriber = Subscriber { session: key, serial };
        match target {
            SubscribeTarget::UserQueue(_) => self.write_receipt(turn, key, receipt),
            SubscribeTarget::Topic(topic) => self.request_topic(turn, topic, user, subscriber),
            SubscribeTarget::Pattern(pattern) => {
                for shard in self.all_shards() {
                    let pattern = pattern.clone();
                    self.mail(turn, shard, Mail::JoinPattern { pattern, user, subscriber });
                }
            }
        }
        Ok(())
    }

    /// The topic's shard has answered: the subscription is in force, or the session ends.
    pub(super) fn joined(&mut self, turn: &mut Turn<'_>, topic: Option<Topic>, subscriber: Subscriber, allowed: bool) {
        let key = subscriber.session;
        if let Some(topic) = &topic {
            self.topics.answered(topic, subscriber, allowed);
        }
        let live = self.sessions.find_mut(key);
        let format = live.as_ref().map(|live| live.format);
        let subscription = live.and_then(|live| live.session.subscription_mut(subscriber.serial));
        match (subscription, format) {
            (Some(subscription), Some(format)) if !allowed => {
                let receipt = subscription.receipt.take();
                let error = frames::error(format, "destination is not yours", receipt.as_deref());
                self.close_session(turn, key, Close::Policy, Some(error));
            }
            (Some(subscription), _) => {
                assert!(subscription.awaited > 0, "an active subscription awaits no answer");
                subscription.awaited -= 1;
                if subscription.awaited == 0 {
                    let receipt = subscription.receipt.take();
                    self.write_receipt(turn, key, receipt.as_deref());
                    self.finish_disconnect(turn, key);
                }
            }
            (None, _) => {
                if let Some(topic) = &topic {
                    self.topics.remove(topic, subscriber);
                }
            }
        }
        if let Some(topic) = topic {
            self.leave_if_unused(turn, &topic);
        }
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        frame: &Frame<'_>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        let (id, destination) = (frame.header("id"), frame.header("destination"));
        if id.is_none() && (live.session.version > Version::V10 || destination.is_none()) {
            return Err(Fault::protocol("header id is missing"));
        }
        // An unknown id is no fault: the subscription may have ended with the right to it.
        if let Some(subscription) = live.session.unsubscribe(id, destination) {
            let subscriber = Subscriber { session: key, serial: subscription.serial };
            self.end_subscription(turn, subscriber, &subscription.target);
        }
        self.write_receipt(turn, key, receipt);
        Ok(())
    }

    pub(super) fn handle_acknowledge(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        frame: &Frame<'_>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        let needed: &[&str] = match live.session.version {
            Version::V12 => &["id"],
            Version::V11 => &["message-id", "subscription"],
            Version::V10 => &["message-id"],
        };
        if let Some(missing) = needed.iter().find(|name| frame.header(name).is_none()) {
            return Err(Fault::protocol(format!("header {missing} is missing")));
        }
        if frame.command == Command::Nack && live.session.version == Version::V10 {
            return Err(Fault::protocol("STOMP 1.0 has no NACK"));
        }
        if let Some(name) = intent::name(frame, "transaction")? {
            live.session.transaction(name)?;
        }
        self.write_receipt(turn, key, receipt);
        Ok(())
    }
}
