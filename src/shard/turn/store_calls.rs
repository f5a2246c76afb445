//! A part's requests under way at the store, each with the part's own note of what the reply is for.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use crate::model::Mono;
use crate::shard::boundary::Effect;
use crate::shard::turn::Turn;
use crate::store::{Failure, Reply, Request, Ticket};

/// Pause before a write of unknown outcome is tried again.
pub(in crate::shard) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// After this long a write is given up, if it was tried twice: its caller hears within a second that the store is lost.
const PATIENCE: Duration = Duration::from_millis(700);

/// The part that a reply belongs to. Its number is the upper half of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Part {
    Users = 0,
    Conversations = 1,
    Logins = 2,
}

impl Part {
    /// The part and its key of a ticket.
    pub(in crate::shard) fn of(ticket: Ticket) -> (Self, usize) {
        let part = match ticket.0 >> 32 {
            0 => Self::Users,
            1 => Self::Conversations,
            2 => Self::Logins,
            _ => panic!("a ticket is of this shard"),
        };
        (part, usize::try_from(ticket.0 & u64::from(u32::MAX)).expect("a key has 32 bits"))
    }
}

/// How often a write was tried, and since when.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Attempts {
    retries: u32,
    since: Mono,
}

/// What a reply means for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Verdict {
    /// The reply says what became of the write.
    Certain,
    /// The same request once more, after [`RETRY_PAUSE`].
    Retry,
    /// Given up: the write may or may not have been carried out, now or later.
    InDoubt,
}

impl Attempts {
    pub(in crate::shard) fn new(now: Mono) -> Self {
        Self { retries: 0, since: now }
    }

    /// Judges a reply. After one unknown outcome no later failure is certain any more: the first try may have been
    /// carried out.
    pub(in crate::shard) fn judge(&mut self, reply: &Reply, now: Mono) -> Verdict {
        match reply {
            Reply::Failed(failure) if *failure == Failure::Unknown || self.retries > 0 => {
                if self.retries > 0 && now.since(self.since) >= PATIENCE {
                    return Verdict::InDoubt;
                }
                self.retries += 1;
                Verdict::Retry
            }
            Reply::Failed(_) | Reply::Log(_) | Reply::Conversations(_) | Reply::Accounts(_) | Reply::Erasure(_) => {
                Verdict::Certain
            }
        }
    }
}

/// Lifetime and owner: the part. View: shard. `C` is the part's own enum of what a reply is for.
#[derive(Debug)]
pub(in crate::shard) struct StoreCalls<C> {
    part: Part,
    /// The key is the lower half of the ticket.
    calls: Slab<StoreCall<C>>,
    /// Writes of unknown outcome, in the order in which they are tried again.
    retries: VecDeque<(Mono, Write, C)>,
}

#[derive(Debug)]
struct StoreCall<C> {
    continuation: C,
    /// What is needed to ask for a write again.
    write: Option<Write>,
}

#[derive(Debug)]
struct Write {
    request: Box<Request>,
    attempts: Attempts,
}

impl<C> StoreCalls<C> {
    pub(in crate::shard) fn new(part: Part) -> Self {
        Self { part, calls: Slab::new(), retries: VecDeque::new() }
    }

    /// Nothing is under way, and nothing will be tried again.
    pub(in crate::shard) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.retries.is_empty()
    }

    /// Asks the store; a write of unknown outcome is tried again by itself.
    ///
    /// # Errors
    /// Gives the continuation back when `limits.store_inflight` requests are under way.
    pub(in crate::shard) fn ask(&mut self, turn: &mut Turn, request: impl Into<Request>, continuation: C) -> Result<(), C> {
        if turn.store_is_full() {
            return Err(continuation);
        }
        let request = request.into();
        let write =
            (!request.is_read()).then(|| Write { request: Box::new(request.clone()), attempts: Attempts::new(turn.now.mono) });
        self.send(turn, request, StoreCall { continuation, write });
        Ok(())
    }

    /// Asks once, however much is under way: for work that has begun and must come to an end. Its owner judges the reply.
    pub(in crate::shard) fn ask_once(&mut self, turn: &mut Turn, request: impl Into<Request>, continuation: C) {
        self.send(turn, request.into(), StoreCall { continuation, write: None });
    }

    fn send(&mut self, turn: &mut Turn, request: Request, call: StoreCall<C>) {
        turn.store_inflight += 1;
        let key = u32::try_from(self.calls.insert(call)).expect("requests under way are bounded far below 2^32");
        let ticket = Ticket((self.part as u64) << 32 | u64::from(key));
        turn.effect(Effect::Store { ticket, request });
    }

    /// Takes a reply. `None`: the request will be tried again.
    pub(in crate::shard) fn replied(&mut self, turn: &mut Turn, key: usize, reply: Reply) -> Option<(C, Reply)> {
        let StoreCall { continuation, write } = self.calls.try_remove(key).expect("the store replies once to each ticket");
        turn.store_inflight -= 1;
        let Some(mut write) = write else { return Some((continuation, reply)) };
        match write.attempts.judge(&reply, turn.now.mono) {
            Verdict::Certain => Some((continuation, reply)),
            Verdict::InDoubt => Some((continuation, Reply::Failed(Failure::Unknown))),
            Verdict::Retry => {
                self.retries.push_back((turn.after(RETRY_PAUSE), write, continuation));
                None
            }
        }
    }

    pub(in crate::shard) fn next_deadline(&self) -> Option<Mono> {
        self.retries.front().map(|(at, ..)| *at)
    }

    /// Tries again what is due.
    pub(in crate::shard) fn handle_due(&mut self, turn: &mut Turn) {
        while self.next_deadline().is_some_and(|at| at <= turn.now.mono) {
            let Some((_, write, continuation)) = self.retries.pop_front() else { return };
            let request = (*write.request).clone();
            self.send(turn, request, StoreCall { continuation, write: Some(write) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;
    use crate::store::Call;
    use crate::store::conversations::ListBlocks;

    fn judge(retries: u32, waited: Duration, reply: &Reply) -> Verdict {
        Attempts { retries, since: Mono(0) }.judge(reply, Mono(0).after(waited))
    }

    #[test]
    fn no_failure_is_certain_after_an_unknown_outcome() {
        let check = |failure, retries, expect| {
            assert_eq!(judge(retries, Duration::ZERO, &Reply::Failed(failure)), expect, "{failure:?} {retries}");
        };
        check(Failure::Unknown, 0, Verdict::Retry);
        for failure in [Failure::Busy, Failure::Unavailable] {
            check(failure, 0, Verdict::Certain);
            check(failure, 1, Verdict::Retry);
        }
        let blocks = ListBlocks { user: UserId::new(1).unwrap() };
        assert_eq!(judge(1, Duration::ZERO, &blocks.reply(Vec::new())), Verdict::Certain);
    }

    #[test]
    fn a_write_is_tried_twice_at_least_and_not_for_long() {
        let check = |retries, waited, expect| {
            assert_eq!(judge(retries, waited, &Reply::Failed(Failure::Unknown)), expect, "{retries} {waited:?}");
        };
        check(0, PATIENCE * 2, Verdict::Retry);
        check(1, PATIENCE - Duration::from_millis(1), Verdict::Retry);
        check(9, PATIENCE - Duration::from_millis(1), Verdict::Retry);
        check(1, PATIENCE, Verdict::InDoubt);
    }
}
