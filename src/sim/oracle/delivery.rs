//! **A message comes to every session that may see it, and none is missed while connected.** From the RECEIPT of a SUBSCRIBE
//! on, every message that the store makes durable reaches the subscription, with its destination, while its user is a
//! participant.
//!
//! One message is excepted: the store made it durable after the node was gone that had asked for it. No shard knows of it,
//! so clients find it in the history, or by the `prev` of the next message.

use crate::model::{ConversationId, MessageId};
use crate::sim::facts::{Entry, Kind, SessionNo, Sub};
use crate::sim::oracle::{Oracle, Promise};

pub(super) const PROMISE: &str = "a message comes to every session that may see it, and none is missed while connected";

impl Oracle {
    /// Why a message of the conversation may not come to this subscription under this destination.
    pub(in crate::sim) fn address_fault(
        &self,
        session: SessionNo,
        subscription: &str,
        destination: &str,
        conversation: ConversationId,
    ) -> Option<String> {
        let fact = &self.sessions[session];
        let topic = Kind::Topic(conversation).destination(fact.user, false);
        let Some(sub) = fact.subs.get(subscription).filter(|sub| !sub.ended) else {
            return Some("there is no such subscription".to_owned());
        };
        let expect = match sub.kind {
            Kind::Messages => &sub.destination,
            Kind::Topic(of) if of == conversation => &sub.destination,
            Kind::All | Kind::Conversations => &topic,
            _ => return Some("the subscription is for something else".to_owned()),
        };
        (expect != destination).then(|| format!("destination {destination} instead of {expect}"))
    }

    /// A message has come to a subscription: all before it must have come too.
    pub(in crate::sim) fn check_nothing_missed(
        &mut self,
        session: SessionNo,
        subscription: &str,
        (conversation, at): (ConversationId, usize),
        what: &str,
    ) {
        if let Some(lost) = self.missing(session, subscription, conversation, at) {
            let sub = &self.sessions[session].subs[subscription];
            let kind = (sub.kind, sub.active_since);
            self.break_promise(Promise::Delivery, format!("{what}: and {lost} never came to {kind:?}"));
        }
    }

    /// All has come to rest, and the session is connected.
    pub(in crate::sim) fn finish_delivery(&mut self, session: SessionNo) {
        let fact = &self.sessions[session];
        for (subscription, sub) in &fact.subs {
            let lost = self.log.iter().find_map(|(id, log)| self.missing(session, subscription, *id, log.len()));
            if let Some(lost) = lost {
                let kind = (sub.kind, sub.active_since);
                let what = format!("session {session} of user {}, subscription {subscription} to {kind:?}", fact.user);
                return self.break_promise(Promise::Delivery, format!("{what}: {lost} never came"));
            }
        }
    }

    /// A message before position `end` of the log that should have reached the subscription, and did not.
    fn missing(&self, session: SessionNo, subscription: &str, conversation: ConversationId, end: usize) -> Option<MessageId> {
        let sub = self.sessions[session].subs.get(subscription)?;
        let since = sub.active_since?;
        let log = self.log.get(&conversation)?;
        let entries = log[..end.min(log.len())].iter().rev().take_while(|entry| since < entry.at);
        let mut lost = entries.filter(|entry| self.is_due(session, sub, entry) && !sub.seen.contains(&entry.message.id));
        lost.next().map(|entry| entry.message.id)
    }

    /// Whether the session has sent the message and not asked for it.
    fn is_own(&self, session: SessionNo, entry: &Entry) -> bool {
        self.sends[entry.send].attempts.iter().any(|attempt| attempt.session == Some(session) && !attempt.echo)
    }

    /// Whether a message must reach a subscription for certain.
    fn is_due(&self, session: SessionNo, sub: &Sub, entry: &Entry) -> bool {
        let conversation = entry.message.conversation;
        let inside = self.inside_since(conversation, self.sessions[session].user);
        let (Some(inside), Some(active)) = (inside, sub.active_since) else { return false };
        if entry.at <= inside || entry.at <= active || entry.orphaned {
            return false;
        }
        match sub.kind {
            Kind::Messages => !(self.is_own(session, entry) && entry.answered),
            // A removal ends the subscription for good.
            Kind::Topic(of) => of == conversation && inside <= sub.asked_at,
            Kind::All | Kind::Conversations => true,
            Kind::Errors | Kind::Acks => false,
        }
    }
}
