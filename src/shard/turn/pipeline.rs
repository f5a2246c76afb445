//! One discipline for writes that must be made one after another: the messages of a log, the changes of a membership.
//!
//! ```text
//! push -> queue --take, begin--> under way --certain reply--> settled
//!                                under way --unknown outcome--> under way, the same write again
//!                                under way --given up--> in doubt --settle--> settled
//! ```
//!
//! One write is under way at a time, and takes entries of the queue that waited meanwhile. So a failed write fails whole,
//! nothing behind it overtakes it, and a busy owner pays one store request for many entries. A write that was given up
//! without knowing its outcome is in doubt, and nothing else is written until its owner has settled it.

use std::collections::VecDeque;

use crate::model::Mono;
use crate::shard::turn::store_calls::{Attempts, Verdict};
use crate::store::Reply;

/// `T`: an entry that waits. `B`: the write under way. `D`: what is remembered of a write in doubt.
/// Lifetime and owner: what is written to. View: one conversation's log, or membership.
#[derive(Debug)]
pub(in crate::shard) struct Pipeline<T, B, D> {
    queue: VecDeque<T>,
    write: State<B, D>,
}

#[derive(Debug)]
enum State<B, D> {
    Settled,
    UnderWay {
        batch: B,
        attempts: Attempts,
    },
    /// `asked`: the store was asked about it and has not answered.
    InDoubt {
        doubt: D,
        asked: bool,
    },
}

/// What a reply to the write under way means.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum Outcome<B> {
    /// The reply says what became of the write; the next may begin.
    Certain(B),
    /// The same write once more, after the pause.
    Retry,
    /// Its outcome is unknown and stays so for now.
    InDoubt(B),
}

impl<T, B, D> Default for Pipeline<T, B, D> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), write: State::Settled }
    }
}

impl<T, B, D> Pipeline<T, B, D> {
    /// Entries that wait.
    pub(in crate::shard) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Nothing is under way or in doubt: what was written is known.
    pub(in crate::shard) fn is_settled(&self) -> bool {
        matches!(self.write, State::Settled)
    }

    /// Settled, and nothing waits.
    pub(in crate::shard) fn is_idle(&self) -> bool {
        self.is_settled() && self.queue.is_empty()
    }

    pub(in crate::shard) fn push(&mut self, entry: T) {
        self.queue.push_back(entry);
    }

    /// Takes the oldest entries, at most `max`, for the next write. None while the pipeline is not settled.
    pub(in crate::shard) fn take(&mut self, max: usize) -> impl ExactSizeIterator<Item = T> {
        let count = if self.is_settled() { self.queue.len().min(max) } else { 0 };
        self.queue.drain(..count)
    }

    /// Takes all entries that wait, to refuse them.
    pub(in crate::shard) fn take_waiting(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.queue)
    }

    /// # Panics
    /// When a write is under way or in doubt.
    pub(in crate::shard) fn begin(&mut self, batch: B, now: Mono) {
        assert!(self.is_settled(), "one write is under way at a time, and none while one is in doubt");
        self.write = State::UnderWay { batch, attempts: Attempts::new(now) };
    }

    /// The write under way, to try it again.
    pub(in crate::shard) fn under_way(&self) -> Option<&B> {
        match &self.write {
            State::UnderWay { batch, .. } => Some(batch),
            State::Settled | State::InDoubt { .. } => None,
        }
    }

    /// The store replied to the write under way. `doubt` says what to remember of it when it is given up.
    ///
    /// # Panics
    /// When no write is under way.
    pub(in crate::shard) fn replied(&mut self, reply: &Reply, now: Mono, doubt: impl FnOnce(&B) -> D) -> Outcome<B> {
        let State::UnderWay { batch, mut attempts } = std::mem::replace(&mut self.write, State::Settled) else {
            panic!("a reply answers the write under way")
        };
        match attempts.judge(reply, now) {
            Verdict::Certain => Outcome::Certain(batch),
            Verdict::Retry => {
                self.write = State::UnderWay { batch, attempts };
                Outcome::Retry
            }
            Verdict::InDoubt => {
                self.write = State::InDoubt { doubt: doubt(&batch), asked: false };
                Outcome::InDoubt(batch)
            }
        }
    }

    /// The write in doubt.
    pub(in crate::shard) fn doubt(&self) -> Option<&D> {
        match &self.write {
            State::InDoubt { doubt, .. } => Some(doubt),
            State::Settled | State::UnderWay { .. } => None,
        }
    }

    /// The write in doubt, to ask the store about it; `None` while an earlier question is not answered.
    pub(in crate::shard) fn ask_doubt(&mut self) -> Option<&D> {
        match &mut self.write {
            State::InDoubt { doubt, asked: asked @ false } => {
                *asked = true;
                Some(doubt)
            }
            State::InDoubt { .. } | State::Settled | State::UnderWay { .. } => None,
        }
    }

    /// The store did not answer the question: it is asked again later.
    pub(in crate::shard) fn keep_doubt(&mut self) {
        if let State::InDoubt { asked, .. } = &mut self.write {
            *asked = false;
        }
    }

    /// What became of the write in doubt is known now, or no longer matters.
    pub(in crate::shard) fn settle(&mut self) -> Option<D> {
        match std::mem::replace(&mut self.write, State::Settled) {
            State::InDoubt { doubt, .. } => Some(doubt),
            other @ (State::Settled | State::UnderWay { .. }) => {
                self.write = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;
    use crate::store::conversations::ListBlocks;
    use crate::store::{Call, Failure};

    type Numbers = Pipeline<u32, Vec<u32>, u32>;

    const UNKNOWN: Reply = Reply::Failed(Failure::Unknown);
    /// Longer than any patience.
    const LATE: Mono = Mono(10_000_000_000);

    fn done() -> Reply {
        ListBlocks { user: UserId::new(1).unwrap() }.reply(Vec::new())
    }

    fn begun(entries: &[u32], max: usize) -> Numbers {
        let mut pipeline = Numbers::default();
        for entry in entries {
            pipeline.push(*entry);
        }
        let batch: Vec<u32> = pipeline.take(max).collect();
        pipeline.begin(batch, Mono(0));
        pipeline
    }

    fn reply(pipeline: &mut Numbers, reply: &Reply, now: Mono) -> Outcome<Vec<u32>> {
        pipeline.replied(reply, now, |batch| batch[0])
    }

    #[test]
    fn one_write_at_a_time_takes_what_waited() {
        let mut pipeline = begun(&[1], 8);
        for entry in 2..=4 {
            pipeline.push(entry);
        }
        assert_eq!(pipeline.take(8).len(), 0, "a write is under way");
        assert_eq!(reply(&mut pipeline, &done(), Mono(1)), Outcome::Certain(vec![1]));
        assert_eq!(pipeline.take(2).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(pipeline.waiting(), 1);
    }

    #[test]
    fn a_certain_failure_gives_the_batch_back() {
        let mut pipeline = begun(&[1, 2], 8);
        let busy = Reply::Failed(Failure::Busy);
        assert_eq!(reply(&mut pipeline, &busy, Mono(1)), Outcome::Certain(vec![1, 2]));
        assert!(pipeline.is_idle());
    }

    #[test]
    fn a_write_of_unknown_outcome_stays_under_way_until_it_is_given_up() {
        let mut pipeline = begun(&[1, 2, 3], 2);
        assert_eq!(reply(&mut pipeline, &UNKNOWN, Mono(1)), Outcome::Retry);
        assert_eq!(pipeline.under_way(), Some(&vec![1, 2]));
        assert_eq!(reply(&mut pipeline, &UNKNOWN, LATE), Outcome::InDoubt(vec![1, 2]));
        assert!(!pipeline.is_settled() && pipeline.take(8).len() == 0, "nothing is written while a write is in doubt");
        assert_eq!(pipeline.doubt(), Some(&1));
        assert_eq!(pipeline.take_waiting(), [3]);
    }

    #[test]
    fn a_doubt_is_asked_about_once_at_a_time_and_settled_once() {
        let mut pipeline = begun(&[7], 1);
        reply(&mut pipeline, &UNKNOWN, Mono(1));
        reply(&mut pipeline, &UNKNOWN, LATE);
        assert_eq!(pipeline.ask_doubt(), Some(&7));
        assert_eq!(pipeline.ask_doubt(), None);
        pipeline.keep_doubt();
        assert_eq!(pipeline.ask_doubt(), Some(&7));
        assert_eq!((pipeline.settle(), pipeline.settle()), (Some(7), None));
        assert!(pipeline.is_idle());
    }

    #[test]
    #[should_panic(expected = "one write is under way at a time")]
    fn nothing_begins_beside_a_write() {
        begun(&[1], 1).begin(vec![2], Mono(0));
    }
}
