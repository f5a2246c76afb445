//! What is known of one client between its frames.

use slab::Slab;
use smallvec::SmallVec;

use crate::model::destination::{SubscribeTarget, UserQueue};
use crate::model::{Fault, Limits, Mono, Refusal, SessionId, UserId, Wall};
use crate::protocol::stomp::Version;
use crate::session::heartbeat::HeartBeats;
use crate::session::intent::{AckMode, SendIntent, SubscribeIntent};
use crate::session::token::Claims;
use crate::store::accounts::FamilyId;

/// Commands for which an idle session keeps room: the least that their table takes at all.
const IDLE_COMMANDS_MAX: usize = 4;

/// Whom the token named, and how long it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub admin: bool,
    /// `exp` plus the leeway.
    pub expires: Wall,
    pub family: Option<FamilyId>,
}

impl Principal {
    #[must_use]
    pub fn new(claims: &Claims, limits: &Limits) -> Self {
        Self {
            user: claims.user,
            admin: claims.roles.iter().any(|role| &**role == "admin"),
            expires: claims.expires.after(limits.token_leeway),
            family: claims.family,
        }
    }
}

/// One SUBSCRIBE in force, or on its way to be.
#[derive(Debug)]
pub struct Subscription {
    /// Unique in its session for all time: a late answer cannot meet a later subscription of the same id.
    pub serial: u32,
    pub id: Option<Box<str>>,
    pub destination: Box<str>,
    pub target: SubscribeTarget,
    pub ack: AckMode,
    /// Answers still to come before it is in force; zero: active.
    pub awaited: u16,
    pub receipt: Option<Box<str>>,
}

/// A command under way, as the session that sent it knows it.
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
    /// Why a frame of it was not taken in: it is all or nothing, so COMMIT fails with that.
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
    /// DISCONNECT came: the receipt it wants, once everything before it has been answered.
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

    /// Enters a subscription that waits for `awaited` answers and gives its serial.
    ///
    /// # Errors
    /// A fault when there are too many, or its id is taken.
    pub fn subscribe(
        &mut self,
        intent: SubscribeIntent,
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
        let SubscribeIntent { id, destination, target, ack } = intent;
        self.subscriptions.push(Subscription { serial, id, destination, target, ack, awaited, receipt });
        Ok(serial)
    }

    /// Takes a subscription out, by its id, or in STOMP 1.0 by its destination.
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

    /// An idle session must not keep the room that a burst of commands needed.
    pub fn forget_burst(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > IDLE_COMMANDS_MAX {
            self.pending = Slab::new();
        }
        if self.groups.is_empty() && self.groups.capacity() > 0 {
            self.groups = Slab::new();
        }
    }

    /// Whether anything that a receipt was asked for, or that was sent, is still under way.
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
    /// A fault when there is no such transaction, or it is full.
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
    /// A fault when there is none.
    pub fn transaction(&mut self, name: &str) -> Result<&mut Transaction, Fault> {
        self.transactions
            .iter_mut()
            .find(|known| *known.name == *name)
            .ok_or_else(|| Fault::protocol("no transaction of this name is open"))
    }

    /// COMMIT or ABORT: ends the transaction and gives what was in it.
    ///
    /// # Errors
    /// A fault when there is no such transaction.
    pub fn end_transaction(&mut self, name: &str) -> Result<Transaction, Fault> {
        self.transaction(name)?;
        let at = self.transactions.iter().position(|known| *known.name == *name).unwrap_or(0);
        Ok(self.transactions.swap_remove(at))
    }

    /// When the session must be looked at next, its token's end included.
    #[must_use]
    pub fn next_deadline(&self, now_mono: Mono, now_wall: Wall) -> Mono {
        self.beats.next_deadline().min(now_mono.after(now_wall.until(self.principal.expires)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::destination::Topic;

    fn session() -> Session {
        let user = UserId::new(1).unwrap();
        let principal = Principal { user, admin: false, expires: Wall(10), family: None };
        Session::new(SessionId(1), Version::V12, principal, HeartBeats::new(Mono(0), Duration::from_secs(25)))
    }

    fn intent(id: Option<&str>) -> SubscribeIntent {
        let target = SubscribeTarget::Topic(Topic::Named("a".into()));
        SubscribeIntent { id: id.map(Into::into), destination: "/topic/a".into(), target, ack: AckMode::Auto }
    }

    #[test]
    fn ids_of_subscriptions_are_unique() {
        let (mut session, limits) = (session(), Limits::default());
        let first = session.subscribe(intent(Some("a")), 0, None, &limits).unwrap();
        assert!(session.subscribe(intent(Some("a")), 0, None, &limits).is_err());
        assert!(session.unsubscribe(Some("a"), None).is_some());
        let second = session.subscribe(intent(Some("a")), 0, None, &limits).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let (mut session, limits) = (session(), Limits { subscriptions: 1, ..Limits::default() });
        assert!(session.subscribe(intent(Some("a")), 0, None, &limits).is_ok());
        assert!(session.subscribe(intent(Some("b")), 0, None, &limits).is_err());
    }

    #[test]
    fn without_ids_destinations_name_subscriptions() {
        let (mut session, limits) = (session(), Limits::default());
        assert!(session.subscribe(intent(None), 0, None, &limits).is_ok());
        assert!(session.subscribe(intent(None), 0, None, &limits).is_err());
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
    fn the_end_of_the_token_is_a_deadline() {
        assert_eq!(session().next_deadline(Mono(0), Wall(0)), Mono(1_000));
    }
}
