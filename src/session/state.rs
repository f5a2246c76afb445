//! The state of one client between its frames.

use slab::Slab;
use smallvec::SmallVec;

use crate::access::Principal;
use crate::model::destination::{SubscribeTarget, UserQueue};
use crate::model::{Fault, Limits, Mono, Refusal, SessionId, Wall};
use crate::protocol::stomp::Version;
use crate::session::heartbeat::HeartBeats;
use crate::session::intent::{AckMode, SendIntent, SubscribeIntent};

/// Commands that an idle session keeps capacity for: the least that their table allocates.
const IDLE_COMMANDS_MAX: usize = 4;

/// One SUBSCRIBE, active or still pending.
#[derive(Debug)]
pub struct Subscription {
    /// Unique in its session for all time: a late reply cannot meet a later subscription of the same id.
    pub serial: u32,
    pub id: Option<Box<str>>,
    pub destination: Box<str>,
    pub target: SubscribeTarget,
    pub ack: AckMode,
    /// Replies still missing before it is active; zero: active.
    pub awaited: u16,
    pub receipt: Option<Box<str>>,
}

/// A command in flight, as its session knows it.
#[derive(Debug)]
pub struct Pending {
    pub receipt: Option<Box<str>>,
    /// The transaction whose COMMIT this command belongs to.
    pub group: Option<usize>,
}

/// The commands of one COMMIT.
#[derive(Debug)]
pub struct Group {
    pub left: usize,
    pub receipt: Option<Box<str>>,
    pub failed: bool,
}

/// Frames between BEGIN and COMMIT, in their order.
#[derive(Debug)]
pub struct Transaction {
    pub name: Box<str>,
    pub sends: Vec<SendIntent>,
    /// Why one of its frames was refused. A transaction is all or nothing, so COMMIT fails with this.
    pub refused: Option<Refusal>,
}

/// An authenticated client. Lifetime: from CONNECT to its end. Owner: its user's shard. View: one session.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub version: Version,
    pub principal: Principal,
    pub subscriptions: SmallVec<[Subscription; 1]>,
    pub beats: HeartBeats,
    pub pending: Slab<Pending>,
    pub groups: Slab<Group>,
    transactions: Vec<Transaction>,
    next_serial: u32,
    /// DISCONNECT arrived: the receipt to send once everything before it has been answered.
    pub disconnecting: Option<Option<Box<str>>>,
}

impl Session {
    #[must_use]
    pub fn new(id: SessionId, version: Version, principal: Principal, beats: HeartBeats) -> Self {
        Self {
            id,
            version,
            principal,
            subscriptions: SmallVec::new(),
            beats,
            pending: Slab::new(),
            groups: Slab::new(),
            transactions: Vec::new(),
            next_serial: 0,
            disconnecting: None,
        }
    }

    /// Adds a subscription that waits for `awaited` replies, and returns its serial.
    ///
    /// # Errors
    /// A fault when the session has too many, or the id is taken.
    pub fn subscribe(
        &mut self,
        intent: SubscribeIntent,
        target: SubscribeTarget,
        awaited: u16,
        receipt: Option<Box<str>>,
        limits: &Limits,
    ) -> Result<u32, Fault> {
        if self.subscriptions.len() >= limits.subscriptions {
            return Err(Fault::policy(format!("more than {} subscriptions", limits.subscriptions)));
        }
        let taken = |known: &Subscription| match (&known.id, &intent.id) {
            (None, None) => known.destination == intent.destination,
            (known, new) => known == new,
        };
        if self.subscriptions.iter().any(taken) {
            return Err(Fault::protocol("a subscription of this id exists"));
        }
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        let SubscribeIntent { id, destination, ack } = intent;
        self.subscriptions.push(Subscription { serial, id, destination, target, ack, awaited, receipt });
        Ok(serial)
    }

    /// Removes a subscription, by its id, or in STOMP 1.0 by its destination.
    pub fn unsubscribe(&mut self, id: Option<&str>, destination: Option<&str>) -> Option<Subscription> {
        let named = |known: &Subscription| match (id, destination) {
            (Some(id), _) => known.id.as_deref() == Some(id),
            (None, Some(destination)) => known.id.is_none() && *known.destination == *destination,
            (None, None) => false,
        };
        let at = self.subscriptions.iter().position(named)?;
        Some(self.subscriptions.remove(at))
    }

    #[must_use]
    pub fn subscription(&self, serial: u32) -> Option<&Subscription> {
        self.subscriptions.iter().find(|known| known.serial == serial)
    }

    pub fn subscription_mut(&mut self, serial: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|known| known.serial == serial)
    }

    /// An idle session must not keep the memory that a burst of commands needed.
    pub fn forget_burst(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > IDLE_COMMANDS_MAX {
            self.pending = Slab::new();
        }
        if self.groups.is_empty() && self.groups.capacity() > 0 {
            self.groups = Slab::new();
        }
    }

    /// Whether a send, or a frame with a receipt, is still in flight.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        !self.pending.is_empty() || self.subscriptions.iter().any(|s| s.awaited > 0 && s.receipt.is_some())
    }

    /// Active subscriptions to one of the user's own queues.
    pub fn queue_subscriptions<'a>(&'a self, queue: &'a UserQueue) -> impl Iterator<Item = &'a Subscription> {
        self.subscriptions
            .iter()
            .filter(move |s| s.awaited == 0 && matches!(&s.target, SubscribeTarget::UserQueue(own) if own == queue))
    }

    /// BEGIN.
    ///
    /// # Errors
    /// A fault when the name is in use or too many are open.
    pub fn begin(&mut self, name: &str, limits: &Limits) -> Result<(), Fault> {
        if self.transactions.iter().any(|known| *known.name == *name) {
            return Err(Fault::protocol("a transaction of this name is open"));
        }
        if self.transactions.len() >= limits.transactions {
            return Err(Fault::policy(format!("more than {} open transactions", limits.transactions)));
        }
        self.transactions.push(Transaction { name: name.into(), sends: Vec::new(), refused: None });
        Ok(())
    }

    /// A SEND inside a transaction waits for its COMMIT.
    ///
    /// # Errors
    /// A fault when the transaction does not exist, or is full.
    pub fn enlist(&mut self, name: &str, send: SendIntent, limits: &Limits) -> Result<(), Fault> {
        let transaction = self.transaction(name)?;
        if transaction.sends.len() >= limits.transaction_frames {
            return Err(Fault::policy(format!("more than {} frames in a transaction", limits.transaction_frames)));
        }
        transaction.sends.push(send);
        Ok(())
    }

    /// The open transaction of this name.
    ///
    /// # Errors
    /// A fault when it does not exist.
    pub fn transaction(&mut self, name: &str) -> Result<&mut Transaction, Fault> {
        self.transactions
            .iter_mut()
            .find(|known| *known.name == *name)
            .ok_or_else(|| Fault::protocol("no transaction of this name is open"))
    }

    /// COMMIT or ABORT: ends the transaction and returns its frames.
    ///
    /// # Errors
    /// A fault when the transaction does not exist.
    pub fn end_transaction(&mut self, name: &str) -> Result<Transaction, Fault> {
        self.transaction(name)?;
        let at = self.transactions.iter().position(|known| *known.name == *name).unwrap_or(0);
        Ok(self.transactions.swap_remove(at))
    }

    /// The session's next deadline, including the expiry of its token.
    #[must_use]
    pub fn next_deadline(&self, now_mono: Mono, now_wall: Wall) -> Mono {
        self.beats.next_deadline().min(now_mono.after(now_wall.until(self.principal.expires)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::UserId;
    use crate::model::destination::Topic;

    fn session() -> Session {
        let user = UserId::new(1).unwrap();
        let principal = Principal { user, admin: false, expires: Wall(10), family: None };
        Session::new(SessionId(1), Version::V12, principal, HeartBeats::new(Mono(0), Duration::from_secs(25)))
    }

    fn intent(id: Option<&str>) -> SubscribeIntent {
        SubscribeIntent { id: id.map(Into::into), destination: "/topic/a".into(), ack: AckMode::Auto }
    }

    fn target() -> SubscribeTarget {
        SubscribeTarget::Topic(Topic::Named("a".into()))
    }

    #[test]
    fn ids_of_subscriptions_are_unique() {
        let (mut session, limits) = (session(), Limits::default());
        let first = session.subscribe(intent(Some("a")), target(), 0, None, &limits).unwrap();
        assert!(session.subscribe(intent(Some("a")), target(), 0, None, &limits).is_err());
        assert!(session.unsubscribe(Some("a"), None).is_some());
        let second = session.subscribe(intent(Some("a")), target(), 0, None, &limits).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let (mut session, limits) = (session(), Limits { subscriptions: 1, ..Limits::default() });
        assert!(session.subscribe(intent(Some("a")), target(), 0, None, &limits).is_ok());
        assert!(session.subscribe(intent(Some("b")), target(), 0, None, &limits).is_err());
    }

    #[test]
    fn subscriptions_without_ids_go_by_destination() {
        let (mut session, limits) = (session(), Limits::default());
        assert!(session.subscribe(intent(None), target(), 0, None, &limits).is_ok());
        assert!(session.subscribe(intent(None), target(), 0, None, &limits).is_err());
        assert!(session.unsubscribe(None, Some("/topic/b")).is_none());
        assert!(session.unsubscribe(None, Some("/topic/a")).is_some());
    }

    #[test]
    fn transactions_are_bounded_and_end_once() {
        let limits = Limits { transactions: 1, transaction_frames: 1, ..Limits::default() };
        let mut session = session();
        assert!(session.enlist("t", SendIntent::HeartBeat, &limits).is_err());
        assert!(session.begin("t", &limits).is_ok());
        assert!(session.begin("t", &limits).is_err());
        assert!(session.begin("u", &limits).is_err());
        assert!(session.enlist("t", SendIntent::HeartBeat, &limits).is_ok());
        assert!(session.enlist("t", SendIntent::HeartBeat, &limits).is_err());
        assert_eq!(session.end_transaction("t").map(|transaction| transaction.sends.len()), Ok(1));
        assert!(session.end_transaction("t").is_err());
    }

    #[test]
    fn the_expiry_of_the_token_is_a_deadline() {
        assert_eq!(session().next_deadline(Mono(0), Wall(0)), Mono(1_000));
    }
}
