//! What the five parts share: the time of the call, effects, mail, calls to the store, timers, placement, ids, policy.
//!
//! Flows in: the time and the caller's buffer, at the start of each call. Flows out: the buffer, with what the parts want
//! of the world, and mail of the shard to itself.
//!
//! Never imports a part: it knows what they share and not what they do.
//!
//! Invariants: effects leave in the order in which the parts asked for them; mail of a shard to itself is handled before
//! the call ends.

pub(super) mod patterns;
pub(super) mod pipeline;
pub(super) mod revocations;
pub(super) mod store_calls;
pub(super) mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::access::token::Claims;
use crate::model::command::Outcome;
use crate::model::ids::{ID_MAX, MessageIds};
use crate::model::{Limits, MessageId, Mono, Now, Placement, Redacted, Refusal, RefusalCode, ShardId, Wall};
use crate::session::Policy;
use crate::shard::boundary::{Counters, Effect, ShardSettings};
use crate::shard::mail::{Asker, ClientMail, Mail, ReplyTo, UserMail};
use crate::store::{Call, Failure, Reply};

use patterns::Patterns;
use revocations::Revocations;

/// What the store was last known to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreHealth {
    /// The last reply was a failure, or the store cannot be reached.
    pub(super) failing: bool,
    /// As last reported by the watcher of the store.
    pub(super) reachable: bool,
}

/// Lifetime and owner: the shard. View: shard. `now` and the effects are those of the call under way.
pub(super) struct Turn {
    pub(super) now: Now,
    effects: Vec<Effect>,
    /// Mail of this shard to itself.
    local: VecDeque<Mail>,
    pub(super) id: ShardId,
    pub(super) placement: Placement,
    pub(super) policy: Arc<Policy>,
    pub(super) random: ChaCha20Rng,
    message_ids: MessageIds,
    pub(super) revocations: Revocations,
    /// Subscriptions by pattern of every shard: each knows all of them.
    pub(super) patterns: Patterns,
    pub(super) store: StoreHealth,
    /// Requests of all parts that the store has not answered.
    pub(super) store_inflight: usize,
    /// Since the shard was asked to end: until when commands under way may hold their connections.
    pub(super) draining: Option<Mono>,
    pub(super) counters: Counters,
}

impl Turn {
    pub(super) fn new(settings: ShardSettings) -> Self {
        let ShardSettings { id, shards, node, epoch, seed, policy } = settings;
        assert!(id.0 < shards, "a shard's id lies below the number of shards");
        let mut random = ChaCha20Rng::from_seed(seed);
        Self {
            now: Now { mono: Mono(0), wall: Wall(0) },
            effects: Vec::new(),
            local: VecDeque::new(),
            id,
            placement: Placement::new(shards),
            policy,
            revocations: Revocations::new(random.next_u64()),
            patterns: Patterns::default(),
            random,
            message_ids: MessageIds::new(id, node, epoch),
            store: StoreHealth { failing: false, reachable: true },
            store_inflight: 0,
            draining: None,
            counters: Counters::default(),
        }
    }

    /// Takes the caller's buffer for the time of a call.
    #[inline]
    pub(super) fn begin(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.now = now;
        if self.effects.is_empty() {
            std::mem::swap(&mut self.effects, effects);
        } else {
            // A contained panic ended the call before: its effects must not be lost, mail least of all.
            self.effects.append(effects);
        }
    }

    /// Gives the buffer back.
    #[inline]
    pub(super) fn end(&mut self, effects: &mut Vec<Effect>) {
        debug_assert!(effects.is_empty() && self.local.is_empty(), "a call ends with all of its mail handled");
        std::mem::swap(&mut self.effects, effects);
    }

    /// The store replied: notes whether it works.
    pub(super) fn store_replied(&mut self, reply: &Reply) {
        self.store.failing = matches!(reply, Reply::Failed(Failure::Unavailable | Failure::Unknown));
    }

    /// As many requests are under way as may be.
    pub(super) fn store_is_full(&self) -> bool {
        self.store_inflight >= self.limits().store_inflight
    }

    #[inline]
    pub(super) fn limits(&self) -> &Limits {
        &self.policy.limits
    }

    /// The time of the monotonic clock after `duration` from now.
    pub(super) fn after(&self, duration: Duration) -> Mono {
        self.now.mono.after(duration)
    }

    #[inline]
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Sends to any shard, this one included: that mail is handled before the call ends.
    pub(super) fn mail(&mut self, to: ShardId, mail: impl Into<Mail>) {
        let mail = mail.into();
        if to == self.id {
            self.local.push_back(mail);
        } else {
            self.effects.push(Effect::Mail { to, mail });
        }
    }

    pub(super) fn next_local(&mut self) -> Option<Mail> {
        self.local.pop_front()
    }

    #[inline]
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    /// Sends the outcome of a command to its session or request.
    pub(super) fn answer(&mut self, asker: Asker, outcome: Outcome) {
        self.reply(asker.shard, asker.reply_to, outcome);
    }

    pub(super) fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.answer(asker, Outcome::Refused(refusal));
    }

    /// Answers a command from the store's reply to a `C`: with its outcome, or with the refusal for the failure.
    pub(super) fn answer_from<C: Call>(&mut self, asker: Asker, reply: Reply, outcome: impl FnOnce(C::Answer) -> Outcome) {
        let outcome = C::answer(reply).map_or_else(|failure| Outcome::Refused(store_refusal(failure)), outcome);
        self.answer(asker, outcome);
    }

    pub(super) fn reply(&mut self, shard: ShardId, to: ReplyTo, outcome: Outcome) {
        let outcome = Box::new(outcome);
        match to {
            ReplyTo::Session { session, number } => self.mail(shard, UserMail::Answer { session, number, outcome }),
            ReplyTo::Request { connection, number } => self.mail(shard, ClientMail::Answer { connection, number, outcome }),
        }
    }

    pub(super) fn send_otp(&mut self, phone: Redacted<Box<str>>, code: Redacted<Box<str>>) {
        self.effects.push(Effect::SendOtp { phone, code });
    }

    /// The next message id of this shard; later than `last` if there is one.
    pub(super) fn message_id(&mut self, last: Option<MessageId>) -> MessageId {
        self.message_ids.next_id(self.now.wall, last)
    }

    /// 52 random bits, never zero: ids of users and conversations reveal nothing about each other.
    pub(super) fn random_id(&mut self) -> u64 {
        loop {
            let id = self.random.next_u64() & (ID_MAX >> 1);
            if id > 0 {
                return id;
            }
        }
    }

    /// Believes an access token.
    ///
    /// # Errors
    /// A refusal: the token is wrong, out of date or revoked, or whether it was revoked is not known yet.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = self
            .policy
            .keys
            .verify(token, self.now.wall, self.limits().token_leeway)
            .map_err(|fault| Refusal::new(RefusalCode::Unauthorized, fault.to_string()))?;
        self.revocations.check(claims.family)?;
        Ok(claims)
    }

    /// When a handshake's token ends; far off without one.
    pub(super) fn token_end(&self, claims: Option<&Claims>) -> Wall {
        claims.map_or(Wall(u64::MAX), |claims| claims.expires.after(self.limits().token_leeway))
    }
}

/// The refusal for a request that the store could not carry out.
pub(super) fn store_refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Busy => Refusal::new(RefusalCode::StoreBusy, "too many requests wait for the store").retry_after(1),
        Failure::Unavailable | Failure::Unknown => {
            Refusal::new(RefusalCode::StoreUnavailable, "the store cannot be reached").retry_after(2)
        }
    }
}

/// The refusal for a request about a conversation that does not exist.
pub(super) fn missing() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "there is no such thing")
}

/// The refusal when too many messages of a conversation wait for the store.
pub(super) fn busy() -> Refusal {
    Refusal::new(RefusalCode::StoreBusy, "too many messages wait for the store").retry_after(1)
}
