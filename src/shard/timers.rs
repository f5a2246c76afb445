//! What a shard waits for. One entry a connection at most is current: activity moves nothing, an entry that comes up
//! early finds out what is due and waits for that.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::{ConnectionId, ConversationId, Mono, UserId};
use crate::shard::sockjs::SockJsKey;

/// Whose time it is. The order has no meaning but that it is the same in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Connection(ConnectionId),
    SockJs(SockJsKey),
    /// An append whose outcome is unknown is tried again.
    Append(ConversationId),
    /// The store is asked what became of writes that were given up.
    Doubts,
    /// Another write whose outcome is unknown is tried again.
    Repeat(usize),
    /// The budget is full again: without sessions, nothing of the user need be kept.
    User(UserId),
    /// What was revoked before the start is asked for again.
    Revoked,
    /// Budgets of addresses and revoked logins that no longer matter are dropped.
    Sweep,
    /// The patience of a shard that ends is over.
    Drain,
}

/// Lifetime: the shard's. Owner: the shard. View: shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Mono, Timer)>>,
}

impl Timers {
    pub(super) fn schedule(&mut self, at: Mono, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry whose time has come.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<(Mono, Timer)> {
        if self.next_deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_up_in_order_and_not_early() {
        let mut timers = Timers::default();
        timers.schedule(Mono(20), Timer::Sweep);
        timers.schedule(Mono(10), Timer::Sweep);
        assert_eq!(timers.next_deadline(), Some(Mono(10)));
        assert_eq!(timers.pop_due(Mono(9)), None);
        assert_eq!(timers.pop_due(Mono(15)), Some((Mono(10), Timer::Sweep)));
        assert_eq!(timers.pop_due(Mono(15)), None);
    }
}
