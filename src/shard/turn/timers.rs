//! What a part waits for. An entry that comes up early costs a look and nothing else: activity moves no entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::Mono;

/// Lifetime: the part's. Owner: the part. View: shard. The order of `T` has no meaning but that it is the same in every run.
#[derive(Debug)]
pub(in crate::shard) struct Timers<T> {
    heap: BinaryHeap<Reverse<(Mono, T)>>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<T: Ord> Timers<T> {
    pub(in crate::shard) fn schedule(&mut self, at: Mono, timer: T) {
        self.heap.push(Reverse((at, timer)));
    }

    pub(in crate::shard) fn next_deadline(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry whose time has come, with the time it was set for.
    pub(in crate::shard) fn pop_due(&mut self, now: Mono) -> Option<(Mono, T)> {
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
        timers.schedule(Mono(20), 'b');
        timers.schedule(Mono(10), 'a');
        assert_eq!(timers.next_deadline(), Some(Mono(10)));
        assert_eq!(timers.pop_due(Mono(9)), None);
        assert_eq!(timers.pop_due(Mono(15)), Some((Mono(10), 'a')));
        assert_eq!(timers.pop_due(Mono(15)), None);
    }
}
