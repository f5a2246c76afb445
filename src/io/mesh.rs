//! How shards talk: one bounded channel for each ordered pair, one bell for each destination.
//!
//! A sender never waits and never drops. What does not fit stays with the sender in the order of sending, and goes on
//! as soon as the receiver has made room. The payload is opaque here, so that the mesh is tested without a shard.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::model::ShardId;

/// Messages that one channel holds before its sender keeps them back.
pub const DEPTH: usize = 512;

/// Messages that wait at one sender for one destination. A sender with anything waiting reads no socket, so only
/// what was already under way adds to them; more than this is a destination that has stopped.
const OVERFLOW_MAX: usize = 1 << 20;

/// Wakes one task of one executor, from any thread, once for any number of rings until it listens again.
/// Lifetime: the node's. Owner: shared by all that have something for its shard. View: one shard.
#[derive(Debug, Default)]
pub struct Bell {
    /// Set by the first ring; the others before the task runs have nothing to do.
    rung: AtomicBool,
    /// Set once: the waker of a glommio task stays the same for the task's life.
    waker: OnceLock<Waker>,
}

impl Bell {
    /// Call after the message is where its receiver looks for it.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }

    /// Resolves once `has_work` says so; it is asked again after every ring. Only one task may ever wait.
    ///
    /// # Panics
    /// When another task has waited before.
    pub async fn wait(&self, has_work: impl Fn() -> bool) {
        poll_fn(|context| {
            let waker = self.waker.get_or_init(|| context.waker().clone());
            assert!(waker.will_wake(context.waker()), "two tasks wait for one bell");
            // Lowered before looking: a message that comes after the look finds the bell lowered, and rings it.
            self.rung.swap(false, Ordering::AcqRel);
            if has_work() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// What two shards share of the channel between them.
#[derive(Debug, Default)]
struct Link {
    /// The sender keeps messages back, and wants to hear of room.
    starved: AtomicBool,
}

/// The receiving ends of one shard. Lifetime and owner: its executor. View: one shard.
#[derive(Debug)]
pub struct Inbox<M> {
    bell: Arc<Bell>,
    lanes: Vec<Incoming<M>>,
    /// The lane to begin with next, so that a loud neighbour does not silence a quiet one.
    next: usize,
}

#[derive(Debug)]
struct Incoming<M> {
    from: ShardId,
    receiver: Receiver<M>,
    link: Arc<Link>,
    sender_bell: Arc<Bell>,
}

/// The sending ends of one shard. Lifetime and owner: its executor. View: one shard.
#[derive(Debug)]
pub struct Outlets<M> {
    /// By destination; `None` in this shard's own place.
    lanes: Vec<Option<Outgoing<M>>>,
    /// Messages kept back, over all destinations.
    waiting: usize,
}

#[derive(Debug)]
struct Outgoing<M> {
    sender: Sender<M>,
    link: Arc<Link>,
    bell: Arc<Bell>,
    overflow: VecDeque<M>,
}

/// Ends for `shards` shards, in their order; `depth` messages fit into each channel.
#[must_use]
pub fn mesh<M>(shards: u16, depth: usize) -> Vec<(Inbox<M>, Outlets<M>)> {
    let bells: Vec<Arc<Bell>> = (0..shards).map(|_| Arc::default()).collect();
    let mut ends: Vec<(Inbox<M>, Outlets<M>)> = bells
        .iter()
        .map(|bell| {
            let inbox = Inbox { bell: Arc::clone(bell), lanes: Vec::new(), next: 0 };
            (inbox, Outlets { lanes: Vec::new(), waiting: 0 })
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (from, to) = (ShardId(from), ShardId(to));
            if from == to {
                ends[from.index()].1.lanes.push(None);
                continue;
            }
            let (sender, receiver) = bounded(depth);
            let link = Arc::<Link>::default();
            let bell = Arc::clone(&bells[to.index()]);
            let sender_bell = Arc::clone(&bells[from.index()]);
            ends[to.index()].0.lanes.push(Incoming { from, receiver, link: Arc::clone(&link), sender_bell });
            ends[from.index()].1.lanes.push(Some(Outgoing { sender, link, bell, overflow: VecDeque::new() }));
        }
    }
    ends
}

impl<M> Inbox<M> {
    /// The bell of this shard, for those that bring it something by another way.
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.receiver.is_empty())
    }

    /// Takes at most `count_max` messages, one from each lane in turn; those of one sender in the order of sending.
    pub fn take(&mut self, count_max: usize, taken: &mut Vec<(ShardId, M)>) {
        let lanes = self.lanes.len();
        let mut empty = 0;
        let mut left = count_max;
        while empty < lanes && left > 0 {
            let lane = &self.lanes[self.next];
            self.next = (self.next + 1) % lanes;
            match lane.receiver.try_recv() {
                Ok(message) => {
                    taken.push((lane.from, message));
                    empty = 0;
                    left -= 1;
                }
                Err(_) => empty += 1,
            }
        }
        if left == count_max {
            return;
        }
        fence(Ordering::SeqCst);
        for lane in &self.lanes {
            if lane.link.starved.load(Ordering::Acquire) && !lane.receiver.is_full() {
                lane.link.starved.store(false, Ordering::Release);
                lane.sender_bell.ring();
            }
        }
    }
}

impl<M> Outlets<M> {
    /// Sends to another shard, or keeps the message back while that shard's channel is full.
    ///
    /// # Panics
    /// When `to` is this shard, or no shard, or has not taken anything for `OVERFLOW_MAX` messages.
    pub fn send(&mut self, to: ShardId, message: M) {
        let lane = self.lanes[to.index()].as_mut().expect("a shard does not write to itself");
        if lane.overflow.is_empty() {
            match lane.sender.try_send(message) {
                Ok(()) => lane.bell.ring(),
                Err(TrySendError::Full(message)) => {
                    lane.overflow.push_back(message);
                    self.waiting += 1;
                    self.retry();
                }
                // The receiver is gone only when the node ends, after every shard was done.
                Err(TrySendError::Disconnected(_)) => {}
            }
        } else {
            assert!(lane.overflow.len() < OVERFLOW_MAX, "shard {} has stopped taking its mail", to.0);
            lane.overflow.push_back(message);
            self.waiting += 1;
        }
    }

    /// Messages kept back. While there are any, the shard must not take on new work from its sockets.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether some of what was kept back could go on now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting > 0 && self.lanes.iter().flatten().any(|lane| !lane.overflow.is_empty() && !lane.sender.is_full())
    }

    /// Sends on what was kept back, as far as there is room. The receivers ring this shard's bell when they made some.
    pub fn retry(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for lane in self.lanes.iter_mut().flatten() {
            let before = lane.overflow.len();
            lane.send_on();
            self.waiting -= before - lane.overflow.len();
        }
    }
}

impl<M> Outgoing<M> {
    fn send_on(&mut self) {
        let mut asked = false;
        while let Some(message) = self.overflow.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => {
                    self.bell.ring();
                    asked = false;
                }
                Err(TrySendError::Full(message)) => {
                    self.overflow.push_front(message);
                    if asked {
                        break;
                    }
                    // Asked first, tried again after: room made in between is seen by one or the other.
                    self.link.starved.store(true, Ordering::Release);
                    fence(Ordering::SeqCst);
                    asked = true;
                }
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(depth: usize) -> (Outlets<u32>, Inbox<u32>) {
        let mut ends = mesh(2, depth);
        let (inbox, _) = ends.pop().unwrap();
        let (_, outlets) = ends.pop().unwrap();
        (outlets, inbox)
    }

    fn take_all(inbox: &mut Inbox<u32>, outlets: &mut Outlets<u32>, at_once: usize) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let mut taken = Vec::new();
            inbox.take(at_once, &mut taken);
            outlets.retry();
            if taken.is_empty() {
                return all;
            }
            all.extend(taken.into_iter().map(|(_, message)| message));
        }
    }

    #[test]
    fn order_holds_across_the_overflow() {
        for (depth, at_once) in [(1, 1), (4, 3), (64, 64), (1_000, 7)] {
            let (mut outlets, mut inbox) = pair(depth);
            for message in 0..500 {
                outlets.send(ShardId(1), message);
            }
            assert_eq!(outlets.waiting(), 500_usize.saturating_sub(depth));
            assert_eq!(take_all(&mut inbox, &mut outlets, at_once), (0..500).collect::<Vec<_>>());
            assert_eq!(outlets.waiting(), 0);
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn a_starved_sender_hears_of_room_once() {
        let (mut outlets, mut inbox) = pair(1);
        outlets.send(ShardId(1), 1);
        outlets.send(ShardId(1), 2);
        let bell = Arc::clone(&inbox.lanes[0].sender_bell);
        assert!(!bell.rung.load(Ordering::Acquire));
        let mut taken = Vec::new();
        inbox.take(1, &mut taken);
        assert!(bell.rung.swap(false, Ordering::AcqRel));
        inbox.take(1, &mut taken);
        assert!(!bell.rung.load(Ordering::Acquire));
    }

    #[test]
    fn lanes_take_turns() {
        let mut ends = mesh::<u32>(3, 8);
        let (mut inbox, _) = ends.pop().unwrap();
        let (_, mut loud) = ends.remove(0);
        let (_, mut quiet) = ends.remove(0);
        for message in 0..8 {
            loud.send(ShardId(2), message);
        }
        quiet.send(ShardId(2), 100);
        let mut taken = Vec::new();
        inbox.take(2, &mut taken);
        assert_eq!(taken, [(ShardId(0), 0), (ShardId(1), 100)]);
        inbox.take(100, &mut taken);
        assert_eq!(taken.len(), 9);
    }

    #[test]
    fn one_shard_has_no_lanes() {
        let (mut inbox, outlets) = mesh::<u32>(1, 8).pop().unwrap();
        let mut taken = Vec::new();
        inbox.take(64, &mut taken);
        assert!(taken.is_empty() && inbox.is_empty() && outlets.waiting() == 0);
    }
}
