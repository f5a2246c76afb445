//! The store's threads, and the handles through which shards reach them.
//!
//! The store decides which threads it needs ([`Backing`]). A [`Store`] lives on one thread, which writes: it takes all waiting
//! requests, hands them to the store as one group commit, and replies. While it waits for the disk the next batch gathers, so
//! batches grow under load and a lone write is not delayed. A few threads read. Every request gets exactly one reply, with its
//! ticket, and a wake-up of its shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tokio::sync::Notify;

use crate::io::clock;
use crate::io::mesh::ShardWaker;
use crate::model::{Mono, ShardId, Wall};
use crate::store::{Failure, Read, Reply, Request, Ticket, Write};

/// Requests of one group commit.
const BATCH_MAX: usize = 1_024;

/// A commit of this many requests makes the next one wait for more; and the longest such wait.
const CROWD: usize = 4;
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// Threads that read. With two, one slow read does not block all others.
const READERS: usize = 2;

/// How often the writer looks for expired rows: under writes, and when idle.
const PURGE_EVERY: Duration = Duration::from_secs(1);
const PURGE_IDLE: Duration = Duration::from_secs(60);
/// Rows of one look, at least and at most, so that writes wait only briefly for it.
const PURGE_ROWS_MIN: usize = 1_000;
const PURGE_ROWS_MAX: usize = 20_000;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub shard: ShardId,
    pub ticket: Ticket,
}

/// An open store that starts its own threads.
pub trait Backing: Send + 'static {
    /// Grows with every start on the same data.
    fn epoch(&self) -> u64;

    /// Starts the threads, which end when every handle is dropped and every request answered.
    ///
    /// # Errors
    /// When the system refuses a thread.
    fn start(self, ends: Ends) -> std::io::Result<Vec<JoinHandle<()>>>;
}

/// The store's ends of all handles.
pub struct Ends {
    pub(super) writes: Receiver<Batch>,
    pub(super) reads: Receiver<(Origin, Read)>,
    pub(super) answers: Answers,
    /// Notified after each request and when a handle is dropped, for a store that does not block on the channels.
    pub(super) wake: Arc<Notify>,
}

/// A store that lives on one thread. Owner: the writing thread.
pub trait Store: Send + 'static {
    type Reader: StoreReader;

    /// Grows with every start on the same data.
    fn epoch(&self) -> u64;

    /// Carries out the writes in order, durably, and appends one reply for each.
    fn apply(&mut self, writes: Vec<(Origin, Write)>, replies: &mut Vec<(Origin, Reply)>);

    fn reader(&self) -> Self::Reader;

    /// Looks at the next `rows_max` rows, round and round, and removes those expired by `now`; returns how many.
    fn purge(&mut self, now: Wall, rows_max: usize) -> usize;
}

/// Answers reads while the writer works. Owner: a reading thread.
pub trait StoreReader: Clone + Send + 'static {
    fn read(&self, read: &Read) -> Reply;
}

/// The writes of one turn of one shard.
pub(super) type Batch = Vec<(Origin, Write)>;

/// A shard's handle to the store. Lifetime and owner: the shard's executor. View: one shard.
#[derive(Debug)]
pub(super) struct StoreHandle {
    shard: ShardId,
    writes: Sender<Batch>,
    reads: Sender<(Origin, Read)>,
    replies: Receiver<(Ticket, Reply)>,
    /// Writes of this turn.
    gathered: Batch,
    /// Requests that this handle refused, and that still need a reply.
    refused: Vec<Ticket>,
    inflight: usize,
    inflight_max: usize,
    wake: Arc<Notify>,
    /// Whether the store can be reached, and the last state reported to the shard.
    up: Arc<AtomicBool>,
    reported_up: bool,
}

/// The store's threads. Lifetime: the node's. Owner: the thread that runs the node.
#[derive(Debug)]
pub(super) struct StoreThreads {
    threads: Vec<JoinHandle<()>>,
}

/// Starts the threads. They end when the last handle is dropped and every request is done.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn start<S: Backing>(
    store: S,
    wakers: &[Arc<ShardWaker>],
    inflight_max: usize,
) -> std::io::Result<(StoreThreads, Vec<StoreHandle>)> {
    let (writes_in, writes) = unbounded();
    let (reads_in, reads) = unbounded();
    let (wake, up) = (Arc::<Notify>::default(), Arc::new(AtomicBool::new(true)));
    let mut handles = Vec::new();
    let mut shards = Vec::new();
    for (shard, waker) in (0..).map(ShardId).zip(wakers) {
        let (replies_in, replies) = unbounded();
        shards.push(Answer { replies: replies_in, waker: Arc::clone(waker) });
        handles.push(StoreHandle {
            shard,
            writes: writes_in.clone(),
            reads: reads_in.clone(),
            replies,
            gathered: Vec::new(),
            refused: Vec::new(),
            inflight: 0,
            inflight_max,
            wake: Arc::clone(&wake),
            up: Arc::clone(&up),
            reported_up: true,
        });
    }
    let threads = store.start(Ends { writes, reads, answers: Answers { shards, up }, wake })?;
    Ok((StoreThreads { threads }, handles))
}

impl<S: Store> Backing for S {
    fn epoch(&self) -> u64 {
        Store::epoch(self)
    }

    fn start(self, ends: Ends) -> std::io::Result<Vec<JoinHandle<()>>> {
        let Ends { writes, reads, answers, wake: _ } = ends;
        let mut threads = Vec::new();
        for number in 0..READERS {
            let (reader, reads, answers) = (self.reader(), reads.clone(), answers.clone());
            let reading = move || guarded(|| read_all(&reader, &reads, &answers));
            threads.push(Builder::new().name(format!("store-read-{number}")).spawn(reading)?);
        }
        let writing = move || guarded(|| write_all(self, &writes, &answers));
        threads.push(Builder::new().name("store-write".into()).spawn(writing)?);
        Ok(threads)
    }
}

impl StoreThreads {
    /// Waits until every request is done and the store is closed. All handles must be dropped before.
    pub(super) fn join(self) {
        for thread in self.threads {
            // A thread that panicked has ended the process.
            let _ended = thread.join();
        }
    }
}

impl StoreHandle {
    /// Takes a request of this turn. Beyond the bound it refuses the request, which the shard receives as a reply.
    pub(super) fn submit(&mut self, ticket: Ticket, request: Request) {
        if self.inflight >= self.inflight_max {
            self.refused.push(ticket);
            return;
        }
        self.inflight += 1;
        let origin = Origin { shard: self.shard, ticket };
        match request {
            Request::Read(read) => {
                assert!(self.reads.send((origin, read)).is_ok(), "the store's readers ended before the shard");
                self.wake.notify_one();
            }
            Request::Write(write) => self.gathered.push((origin, write)),
        }
    }

    /// Sends the writer the writes of this turn as one batch: one wake-up, and one commit if the writer is idle.
    pub(super) fn commit(&mut self) {
        if !self.gathered.is_empty() {
            let batch = std::mem::take(&mut self.gathered);
            assert!(self.writes.send(batch).is_ok(), "the store's writer ended before the shard");
            self.wake.notify_one();
        }
    }

    /// The next reply, if one has come.
    pub(super) fn next_reply(&mut self) -> Option<(Ticket, Reply)> {
        if let Some(ticket) = self.refused.pop() {
            return Some((ticket, Reply::Failed(Failure::Busy)));
        }
        let reply = self.replies.try_recv().ok()?;
        assert!(self.inflight > 0, "a reply without a request");
        self.inflight -= 1;
        Some(reply)
    }

    /// Whether the store can be reached, if that has changed since the last call. Earlier replies go first, so that none of
    /// them contradicts it.
    pub(super) fn next_change(&mut self) -> Option<bool> {
        if self.has_replies() {
            return None;
        }
        let up = self.up.load(Ordering::Acquire);
        (std::mem::replace(&mut self.reported_up, up) != up).then_some(up)
    }

    pub(super) fn has_replies(&self) -> bool {
        !self.refused.is_empty() || !self.replies.is_empty()
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        // Close the channels before the wake-up, so that a waiting store sees them closed.
        let (closed, _) = unbounded();
        self.writes = closed;
        let (closed, _) = unbounded();
        self.reads = closed;
        self.wake.notify_one();
    }
}

/// Where replies go, by shard. View: node.
#[derive(Clone)]
pub(super) struct Answers {
    shards: Vec<Answer>,
    up: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Answer {
    replies: Sender<(Ticket, Reply)>,
    waker: Arc<ShardWaker>,
}

impl Answers {
    pub(super) fn give(&self, origin: Origin, reply: Reply) {
        // A shard that has ended was drained before, so it waits for no reply.
        let _gone = self.shards[origin.shard.index()].replies.send((origin.ticket, reply));
    }

    pub(super) fn wake(&self, shard: ShardId) {
        self.shards[shard.index()].waker.wake();
    }

    /// Sets whether the store can be reached, and wakes every shard.
    pub(super) fn set_reachable(&self, up: bool) {
        self.up.store(up, Ordering::Release);
        for answer in &self.shards {
            answer.waker.wake();
        }
    }
}

fn read_all<R: StoreReader>(reader: &R, reads: &Receiver<(Origin, Read)>, answers: &Answers) {
    while let Ok((origin, read)) = reads.recv() {
        answers.give(origin, reader.read(&read));
        answers.wake(origin.shard);
    }
}

fn write_all<S: Store>(mut store: S, channel: &Receiver<Batch>, answers: &Answers) {
    let mut replies = Vec::new();
    let mut to_wake = vec![false; answers.shards.len()];
    let mut purge_at = clock::mono();
    let mut writes = 0;
    let mut pause = Duration::ZERO;
    loop {
        match channel.recv_timeout(purge_at.since(clock::mono())) {
            Ok(mut batch) => {
                gather(std::mem::take(&mut pause));
                let began = clock::mono();
                while batch.len() < BATCH_MAX
                    && let Ok(more) = channel.try_recv()
                {
                    batch.extend(more);
                }
                let count = batch.len();
                writes += count;
                store.apply(batch, &mut replies);
                assert_eq!(replies.len(), count, "one reply for each request");
                for (origin, reply) in replies.drain(..) {
                    to_wake[origin.shard.index()] = true;
                    answers.give(origin, reply);
                }
                for (shard, wake) in (0..).map(ShardId).zip(&mut to_wake) {
                    if std::mem::take(wake) {
                        answers.wake(shard);
                    }
                }
                if count >= CROWD {
                    pause = clock::mono().since(began).min(PAUSE_MAX);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if clock::mono() >= purge_at {
            purge_at = purge(&mut store, std::mem::take(&mut writes));
        }
    }
}

/// A sync costs the same for one request and for a hundred. When many came together, more are on their way, and a pause
/// as long as the last commit lets them into the next one. Each of them would end a wait on the channel, but not this
/// sleep. A request that came alone causes no pause, so a lone one is never delayed.
fn gather(pause: Duration) {
    if !pause.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "the writer's own thread, not an executor's")]
        std::thread::sleep(pause);
    }
}

/// Looks at more rows than were written since the last purge, to keep up. Returns the time of the next one.
fn purge<S: Store>(store: &mut S, writes: usize) -> Mono {
    let rows = writes.saturating_mul(4).clamp(PURGE_ROWS_MIN, PURGE_ROWS_MAX);
    let removed = store.purge(clock::wall(), rows);
    clock::mono().after(if writes == 0 && removed == 0 { PURGE_IDLE } else { PURGE_EVERY })
}

/// Runs a thread that the node needs: after its panic the store would acknowledge nothing more, and shards would wait for
/// ever. The process ends instead; everything acknowledged is on disk.
pub(super) fn guarded(thread: impl FnOnce()) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(thread));
    if outcome.is_err() {
        tracing::error!("a thread of the store panicked: the process ends");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, UserId};
    use crate::store::accounts::ReadUser;
    use crate::store::conversations::RemoveParticipant;
    use crate::store::{Call, Done};

    /// Reports the size of each commit, which waits for a permit in `open`.
    #[derive(Clone)]
    struct Fake {
        commits: Sender<usize>,
        open: Receiver<()>,
    }

    impl Store for Fake {
        type Reader = Self;

        fn epoch(&self) -> u64 {
            1
        }

        fn apply(&mut self, writes: Vec<(Origin, Write)>, replies: &mut Vec<(Origin, Reply)>) {
            self.open.recv().unwrap();
            self.commits.send(writes.len()).unwrap();
            replies.extend(writes.into_iter().map(|(origin, _)| (origin, write().reply(Some(Done { changed: true })))));
        }

        fn reader(&self) -> Self {
            self.clone()
        }

        fn purge(&mut self, _now: Wall, _rows_max: usize) -> usize {
            0
        }
    }

    impl StoreReader for Fake {
        fn read(&self, _read: &Read) -> Reply {
            read().reply(None)
        }
    }

    fn write() -> RemoveParticipant {
        RemoveParticipant { conversation: ConversationId::new(1).unwrap(), user: UserId::new(1).unwrap() }
    }

    fn read() -> ReadUser {
        ReadUser { user: UserId::new(1).unwrap() }
    }

    fn wait_reply(handle: &mut StoreHandle) -> (Ticket, Reply) {
        loop {
            if let Some(reply) = handle.next_reply() {
                return reply;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn writes_during_a_commit_form_the_next_one() {
        let (commits, counted) = unbounded();
        let (go, open) = unbounded();
        let wakers = [Arc::<ShardWaker>::default(), Arc::default()];
        let (threads, mut handles) = start(Fake { commits, open }, &wakers, 100).unwrap();
        handles[0].submit(Ticket(0), write().into());
        handles[0].commit();
        // Once the channel is empty, the writer has the first batch. The others come while it waits for the disk.
        while !handles[0].writes.is_empty() {
            std::thread::yield_now();
        }
        for ticket in 1..=20 {
            let handle = &mut handles[(ticket % 2) as usize];
            handle.submit(Ticket(ticket), write().into());
            handle.commit();
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!((counted.recv().unwrap(), counted.recv().unwrap()), (1, 20));
        for expect in [0, 2, 4] {
            assert_eq!(wait_reply(&mut handles[0]).0, Ticket(expect));
        }
        assert_eq!(wait_reply(&mut handles[1]).0, Ticket(1));
        drop(handles);
        threads.join();
    }

    #[test]
    fn reads_do_not_wait_for_a_commit() {
        let (commits, _counted) = unbounded();
        let (go, open) = unbounded();
        let (threads, mut handles) = start(Fake { commits, open }, &[Arc::default()], 100).unwrap();
        handles[0].submit(Ticket(1), write().into());
        handles[0].commit();
        handles[0].submit(Ticket(2), read().into());
        let (ticket, reply) = wait_reply(&mut handles[0]);
        assert_eq!((ticket, ReadUser::answer(reply)), (Ticket(2), Ok(None)));
        go.send(()).unwrap();
        let (ticket, reply) = wait_reply(&mut handles[0]);
        assert_eq!((ticket, RemoveParticipant::answer(reply)), (Ticket(1), Ok(Some(Done { changed: true }))));
        drop(handles);
        threads.join();
    }

    #[test]
    fn requests_beyond_the_bound_are_refused() {
        let (commits, _counted) = unbounded();
        let (go, open) = unbounded();
        let (threads, mut handles) = start(Fake { commits, open }, &[Arc::default()], 2).unwrap();
        for ticket in 0..3 {
            handles[0].submit(Ticket(ticket), write().into());
        }
        handles[0].commit();
        assert!(matches!(wait_reply(&mut handles[0]), (Ticket(2), Reply::Failed(Failure::Busy))));
        go.send(()).unwrap();
        assert_eq!(wait_reply(&mut handles[0]).0, Ticket(0));
        assert_eq!(wait_reply(&mut handles[0]).0, Ticket(1));
        assert_eq!(handles[0].inflight, 0);
        drop(handles);
        threads.join();
    }
}
