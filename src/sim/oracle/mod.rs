//! The promises of the server, one file each, checked whenever something is seen and once more when all has come to rest.
//!
//! Flows in: what clients send and see, and each write at the moment the store carries it out. Flows out: the first broken
//! [`Promise`]. The oracle knows nothing of the shards. Where a client does not know an outcome the oracle demands nothing,
//! and it forgets nothing that is certain.

mod boundary;
mod delivery;
mod durable;
mod echo;
mod history;
mod log;
mod membership;
mod order;
mod privacy;
mod receipts;
mod refusals;
mod settled;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::message::Message;
use crate::model::{ConversationId, MessageId, Mono, UserId, Wall};
use crate::sim::facts::{Attempt, Block, Dto, Entry, Kind, LoginNo, Member, Send, SendNo, SessionFact, SessionNo, Sub};

pub(super) use history::Asked;
pub(super) use log::StoredAt;
pub(super) use membership::Answered;

/// When something was seen: both clocks, and how often a wall clock has jumped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) mono: Mono,
    pub(super) wall: Wall,
    pub(super) jumps: u32,
}

/// What the server promises; each has a file of its own here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    Boundary,
    Delivery,
    Durable,
    Echo,
    History,
    Log,
    Membership,
    Order,
    Privacy,
    /// A client is sent well-formed frames, packets and responses, and each answers something that it asked.
    Protocol,
    Receipts,
    Refusals,
    Settled,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boundary => boundary::PROMISE,
            Self::Delivery => delivery::PROMISE,
            Self::Durable => durable::PROMISE,
            Self::Echo => echo::PROMISE,
            Self::History => history::PROMISE,
            Self::Log => log::PROMISE,
            Self::Membership => membership::PROMISE,
            Self::Order => order::PROMISE,
            Self::Privacy => privacy::PROMISE,
            Self::Protocol => "a client is sent well-formed answers to what it asked",
            Self::Receipts => receipts::PROMISE,
            Self::Refusals => refusals::PROMISE,
            Self::Settled => settled::PROMISE,
        })
    }
}

/// A promise that was broken, and how.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) promise: Promise,
    pub(super) what: String,
}

/// Lifetime: the run's.
#[derive(Default)]
pub(super) struct Oracle {
    /// The first promise that was broken.
    broken: Option<Broken>,
    pub(super) sends: Vec<Send>,
    by_content: BTreeMap<String, SendNo>,
    pub(super) log: BTreeMap<ConversationId, Vec<Entry>>,
    index: BTreeMap<MessageId, (ConversationId, usize)>,
    keys: log::Keys,
    decisions: refusals::Decisions,
    pub(super) members: BTreeMap<(ConversationId, UserId), Member>,
    pub(super) pairs: BTreeMap<ConversationId, (UserId, UserId)>,
    pub(super) blocks: BTreeMap<(UserId, UserId), Block>,
    pub(super) sessions: Vec<SessionFact>,
    /// When each login's logout was answered.
    pub(super) logins: Vec<Option<Mono>>,
    pub(super) delivered: u64,
    pub(super) acknowledged: u64,
}

impl Oracle {
    /// Only the first counts: what follows from it is no news.
    pub(super) fn break_promise(&mut self, promise: Promise, what: String) {
        self.broken.get_or_insert(Broken { promise, what });
    }

    /// A client was sent something that no client can make sense of.
    pub(super) fn violate(&mut self, what: String) {
        self.break_promise(Promise::Protocol, what);
    }

    pub(super) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// A device wants to send. `words` makes the content longer.
    pub(super) fn intend(
        &mut self,
        device: usize,
        user: UserId,
        conversation: ConversationId,
        keyed: bool,
        words: usize,
    ) -> SendNo {
        let number = self.sends.len();
        let content = format!("m{number}{}", " and more".repeat(words));
        self.by_content.insert(content.clone(), number);
        let key = keyed.then(|| format!("k{number}"));
        let attempts = Vec::new();
        self.sends.push(Send {
            user,
            device,
            conversation,
            content,
            key,
            attempts,
            stored: None,
            acknowledged: false,
            refused: 0,
        });
        number
    }

    pub(super) fn attempt(&mut self, number: SendNo, attempt: Attempt) {
        let send = &mut self.sends[number];
        if let (true, Some(session)) = (send.attempts.is_empty(), attempt.session) {
            self.sessions[session].sends.push(number);
        }
        send.attempts.push(attempt);
    }

    /// The store has made a message durable.
    pub(super) fn stored(&mut self, stored_at: StoredAt, message: &Arc<Message>) {
        let Some(number) = self.enter_into_log(stored_at, message) else { return };
        self.check_stored_once(number, message);
        self.check_sender_allowed(number);
        self.check_refused(number);
    }

    pub(super) fn begin_session(&mut self, user: UserId, login: Option<LoginNo>, expires: Wall, jumps: u32) -> SessionNo {
        let (subs, sends) = (BTreeMap::new(), Vec::new());
        self.sessions.push(SessionFact { user, login, expires, jumps, live: true, subs, sends });
        self.sessions.len() - 1
    }

    pub(super) fn end_session(&mut self, session: SessionNo) {
        self.sessions[session].live = false;
    }

    pub(super) fn subscribe(&mut self, moment: Moment, session: SessionNo, id: &str, kind: Kind, destination: String) {
        let subs = &mut self.sessions[session].subs;
        let before = subs.remove(id).filter(|sub| sub.kind == kind);
        let (seen, last) = before.map(|sub| (sub.seen, sub.last)).unwrap_or_default();
        subs.insert(
            id.to_owned(),
            Sub { kind, destination, asked_at: moment.mono, active_since: None, ended: false, seen, last },
        );
    }

    pub(super) fn subscribed(&mut self, moment: Moment, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.active_since = Some(moment.mono);
        }
    }

    pub(super) fn unsubscribing(&mut self, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.active_since = None;
        }
    }

    pub(super) fn unsubscribed(&mut self, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.ended = true;
        }
    }

    /// A MESSAGE with a stored message has come. Returns which one.
    pub(super) fn deliver(
        &mut self,
        moment: Moment,
        session: SessionNo,
        (subscription, destination, id): (&str, &str, &str),
        dto: &Dto,
    ) -> Option<(ConversationId, MessageId)> {
        self.delivered += 1;
        let delivered = self.check_delivered_is_durable(session, id, dto)?;
        let (conversation, at) = delivered;
        let message = self.log[&conversation][at].message.clone();
        let user = self.sessions[session].user;
        let what = format!("session {session} of user {user}, subscription {subscription}, {message:?}");
        if let Some(fault) = self.privacy_fault(moment, session, delivered) {
            self.break_promise(Promise::Privacy, format!("{what}: {fault}"));
        }
        if let Some(fault) = self.echo_fault(session, subscription, delivered) {
            self.break_promise(Promise::Echo, format!("{what}: {fault}"));
        }
        if let Some(fault) = self.address_fault(session, subscription, destination, conversation) {
            self.break_promise(Promise::Delivery, format!("{what}: {fault}"));
            return Some((conversation, message.id));
        }
        self.check_order(session, subscription, &message, &what);
        self.check_nothing_missed(session, subscription, delivered, &what);
        Some((conversation, message.id))
    }

    /// Since when a user is certainly a participant without interruption.
    fn inside_since(&self, conversation: ConversationId, user: UserId) -> Option<Mono> {
        match self.pairs.get(&conversation) {
            Some(pair) => (pair.0 == user || pair.1 == user).then_some(Mono(0)),
            None => self.members.get(&(conversation, user)).and_then(|member| member.inside_since),
        }
    }

    /// Since when a user is certainly not a participant of a group.
    fn outside_since(&self, conversation: ConversationId, user: UserId) -> Option<Mono> {
        self.members.get(&(conversation, user)).and_then(|member| member.outside_since)
    }

    /// All has come to rest: nothing is under way any more.
    pub(super) fn finish(&mut self) {
        for session in 0..self.sessions.len() {
            self.finish_order(session);
            if self.sessions[session].live {
                self.finish_delivery(session);
            }
        }
    }
}
