//! How shards talk: one bounded channel for each ordered pair, one waker for each destination.
//!
//! A sender never waits and never drops. A message that does not fit stays with the sender, in the order of sending,
//! until the receiver makes room. The payload is opaque here, so that tests need no shard.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::model::ShardId;

/// Messages that one channel holds before its sender keeps them back.
pub const DEPTH: usize = 512;

/// Messages that wait at one sender for one destination. A sender that keeps messages back reads no socket, so only
/// work already under way adds to them. Reaching this bound means that the destination has stopped.
const OVERFLOW_MAX: usize = 1 << 20;

/// Wakes one task of one executor, from any thread: once for any number of calls until the task waits again.
/// Lifetime: the node's. Owner: shared by all that send to its shard. View: one shard.
#[derive(Debug, Default)]
pub struct ShardWaker {
    /// Set by the first wake-up; further ones before the task runs do nothing.
    woken: AtomicBool,
    /// Set once: the waker of a glommio task stays the same for the task's life.
    task: OnceLock<Waker>,
}

impl ShardWaker {
    /// Call this after the message is in its channel.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.task.get()
        {
            waker.wake_by_ref();
        }
    }

    /// Resolves once `has_work` returns true; every wake-up calls it again. Only one task may ever wait.
    ///
    /// # Panics
    /// When another task has waited before.
    pub async fn wait(&self, has_work: impl Fn() -> bool) {
        poll_fn(|context| {
            let waker = self.task.get_or_init(|| context.waker().clone());
            assert!(waker.will_wake(context.waker()), "two tasks wait for one waker");
            // Clear the flag before looking: a message that arrives after the look finds it clear and wakes the task.
            self.woken.swap(false, Ordering::AcqRel);
            if has_work() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The receiving ends of one shard. Lifetime and owner: its executor. View: one shard.
#[derive(Debug)]
pub struct MeshReceiver<M> {
    waker: Arc<ShardWaker>,
    channels: Vec<Incoming<M>>,
    /// The channel to begin with next, so that a busy shard does not starve a quiet one.
    next: usize,
}

#[derive(Debug)]
struct Incoming<M> {
    from: ShardId,
    rx: Receiver<M>,
    starved: Arc<AtomicBool>,
    sender_waker: Arc<ShardWaker>,
}

/// The sending ends of one shard. Lifetime and owner: its executor. View: one shard.
#[derive(Debug)]
pub struct MeshSender<M> {
    /// By destination; `None` at this shard's own index.
    channels: Vec<Option<Outgoing<M>>>,
    /// Messages kept back for all destinations.
    waiting: usize,
}

#[derive(Debug)]
struct Outgoing<M> {
    tx: Sender<M>,
    /// Shared with the receiver: messages are kept back, and the sender wants a wake-up when the channel has room.
    starved: Arc<AtomicBool>,
    receiver_waker: Arc<ShardWaker>,
    overflow: VecDeque<M>,
}

/// The ends of `shards` shards, in their order; `depth` messages fit into each channel.
#[must_use]
pub fn mesh<M>(shards: u16, depth: usize) -> Vec<(MeshReceiver<M>, MeshSender<M>)> {
    let wakers: Vec<Arc<ShardWaker>> = (0..shards).map(|_| Arc::default()).collect();
    let mut ends: Vec<(MeshReceiver<M>, MeshSender<M>)> = wakers
        .iter()
        .map(|waker| {
            let receiver = MeshReceiver { waker: Arc::clone(waker), channels: Vec::new(), next: 0 };
            (receiver, MeshSender { channels: Vec::new(), waiting: 0 })
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (from, to) = (ShardId(from), ShardId(to));
            if from == to {
                ends[from.index()].1.channels.push(None);
                continue;
            }
            let (tx, rx) = bounded(depth);
            let starved = Arc::<AtomicBool>::default();
            let receiver_waker = Arc::clone(&wakers[to.index()]);
            let sender_waker = Arc::clone(&wakers[from.index()]);
            ends[to.index()].0.channels.push(Incoming { from, rx, starved: Arc::clone(&starved), sender_waker });
            ends[from.index()].1.channels.push(Some(Outgoing { tx, starved, receiver_waker, overflow: VecDeque::new() }));
        }
    }
    ends
}

impl<M> MeshReceiver<M> {
    /// This shard's waker, for threads that reach it without the mesh.
    #[must_use]
    pub fn waker(&self) -> Arc<ShardWaker> {
        Arc::clone(&self.waker)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.iter().all(|channel| channel.rx.is_empty())
    }

    /// Takes at most `count_max` messages, one from each channel in turn. Those of one sender keep their order.
    pub fn take(&mut self, count_max: usize, taken: &mut Vec<(ShardId, M)>) {
        let channels = self.channels.len();
        let mut empty = 0;
        let mut left = count_max;
        while empty < channels && left > 0 {
            let channel = &self.channels[self.next];
            self.next = (self.next + 1) % channels;
            match channel.rx.try_recv() {
                Ok(message) => {
                    taken.push((channel.from, message));
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
        for channel in &self.channels {
            if channel.starved.load(Ordering::Acquire) && !channel.rx.is_full() {
                channel.starved.store(false, Ordering::Release);
                channel.sender_waker.wake();
            }
        }
    }
}

impl<M> MeshSender<M> {
    /// Sends to another shard, or keeps the message back while that shard's channel is full.
    ///
    /// # Panics
    /// When `to` is this shard or does not exist, or when `OVERFLOW_MAX` messages already wait for it.
    pub fn send(&mut self, to: ShardId, message: M) {
        let channel = self.channels[to.index()].as_mut().expect("a shard does not send to itself");
        if channel.overflow.is_empty() {
            match channel.tx.try_send(message) {
                Ok(()) => channel.receiver_waker.wake(),
                Err(TrySendError::Full(message)) => {
                    channel.overflow.push_back(message);
                    self.waiting += 1;
                    self.retry();
                }
                // The receiver is dropped only when the node ends, after every shard has finished.
                Err(TrySendError::Disconnected(_)) => {}
            }
        } else {
            assert!(channel.overflow.len() < OVERFLOW_MAX, "shard {} has stopped taking its mail", to.0);
            channel.overflow.push_back(message);
            self.waiting += 1;
        }
    }

    /// Messages kept back. Until they are sent, the shard must not read its sockets.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether a channel has room for a message that was kept back.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting > 0 && self.channels.iter().flatten().any(|channel| !channel.overflow.is_empty() && !channel.tx.is_full())
    }

    /// Sends messages that were kept back, as far as the channels have room. A receiver that makes room wakes this shard.
    pub fn retry(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for channel in self.channels.iter_mut().flatten() {
            let before = channel.overflow.len();
            channel.send_overflow();
            self.waiting -= before - channel.overflow.len();
        }
    }
}

impl<M> Outgoing<M> {
    fn send_overflow(&mut self) {
        let mut asked_for_wake = false;
        while let Some(message) = self.overflow.pop_front() {
            match self.tx.try_send(message) {
                Ok(()) => {
                    self.receiver_waker.wake();
                    asked_for_wake = false;
                }
                Err(TrySendError::Full(message)) => {
                    self.overflow.push_front(message);
                    if asked_for_wake {
                        break;
                    }
                    // Set the flag, then try again: either the receiver sees the flag or this retry sees the room.
                    self.starved.store(true, Ordering::Release);
                    fence(Ordering::SeqCst);
                    asked_for_wake = true;
                }
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(depth: usize) -> (MeshSender<u32>, MeshReceiver<u32>) {
        let mut ends = mesh(2, depth);
        let (receiver, _) = ends.pop().unwrap();
        let (_, sender) = ends.pop().unwrap();
        (sender, receiver)
    }

    fn take_all(receiver: &mut MeshReceiver<u32>, sender: &mut MeshSender<u32>, at_once: usize) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let mut taken = Vec::new();
            receiver.take(at_once, &mut taken);
            sender.retry();
            if taken.is_empty() {
                return all;
            }
            all.extend(taken.into_iter().map(|(_, message)| message));
        }
    }

    #[test]
    fn the_overflow_keeps_the_order() {
        for (depth, at_once) in [(1, 1), (4, 3), (64, 64), (1_000, 7)] {
            let (mut sender, mut receiver) = pair(depth);
            for message in 0..500 {
                sender.send(ShardId(1), message);
            }
            assert_eq!(sender.waiting(), 500_usize.saturating_sub(depth));
            assert_eq!(take_all(&mut receiver, &mut sender, at_once), (0..500).collect::<Vec<_>>());
            assert_eq!(sender.waiting(), 0);
            assert!(receiver.is_empty());
        }
    }

    #[test]
    fn a_starved_sender_is_woken_once() {
        let (mut sender, mut receiver) = pair(1);
        sender.send(ShardId(1), 1);
        sender.send(ShardId(1), 2);
        let waker = Arc::clone(&receiver.channels[0].sender_waker);
        assert!(!waker.woken.load(Ordering::Acquire));
        let mut taken = Vec::new();
        receiver.take(1, &mut taken);
        assert!(waker.woken.swap(false, Ordering::AcqRel));
        receiver.take(1, &mut taken);
        assert!(!waker.woken.load(Ordering::Acquire));
    }

    #[test]
    fn channels_take_turns() {
        let mut ends = mesh::<u32>(3, 8);
        let (mut receiver, _) = ends.pop().unwrap();
        let (_, mut busy) = ends.remove(0);
        let (_, mut quiet) = ends.remove(0);
        for message in 0..8 {
            busy.send(ShardId(2), message);
        }
        quiet.send(ShardId(2), 100);
        let mut taken = Vec::new();
        receiver.take(2, &mut taken);
        assert_eq!(taken, [(ShardId(0), 0), (ShardId(1), 100)]);
        receiver.take(100, &mut taken);
        assert_eq!(taken.len(), 9);
    }

    #[test]
    fn a_single_shard_has_no_channels() {
        let (mut receiver, sender) = mesh::<u32>(1, 8).pop().unwrap();
        let mut taken = Vec::new();
        receiver.take(64, &mut taken);
        assert!(taken.is_empty() && receiver.is_empty() && sender.waiting() == 0);
    }
}
