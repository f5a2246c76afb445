//! The store: the reference model behind delays, refusals, lost replies and crashes.
//!
//! A write is durable from the moment it is carried out, so what a crash takes is what was not yet carried out.
//! An injected fault puts a second, slower disk behind the first.

use std::collections::VecDeque;

use crate::model::Mono;
use crate::sim::InjectedBug;
use crate::sim::plan::StoreFaults;
use crate::sim::random::Random;
use crate::store::memory::Memory;
use crate::store::{Failure, Read, Reply, Request, Ticket, Write};

/// A request of one shard.
#[derive(Debug)]
pub(super) struct Job<T> {
    pub(super) shard: usize,
    pub(super) ticket: Ticket,
    pub(super) request: T,
}

/// The reply to a request, and whether the write happened, whatever the reply says.
pub(super) struct Done<T> {
    pub(super) job: Job<T>,
    pub(super) reply: Reply,
    /// What the store answered itself, when it carried the write out.
    pub(super) carried_out: Option<Reply>,
}

/// Lifetime: the run's; it outlives the node.
pub(super) struct Disk {
    memory: Memory,
    faults: StoreFaults,
    /// Until then everything is refused.
    pub(super) outage_until: Mono,
    writes: VecDeque<Job<Write>>,
    reads: VecDeque<Job<Read>>,
    bug: Option<InjectedBug>,
    /// With an injected fault: what a crash leaves.
    durable: Memory,
    lagging: VecDeque<(Write, Reply)>,
}

impl Disk {
    pub(super) fn new(faults: StoreFaults, bug: Option<InjectedBug>) -> Self {
        Self {
            memory: Memory::new(),
            faults,
            outage_until: Mono(0),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            bug,
            durable: Memory::new(),
            lagging: VecDeque::new(),
        }
    }

    /// Before the run: carried out at once.
    pub(super) fn prepare(&mut self, request: &Request) -> Reply {
        self.durable.apply(request);
        self.memory.apply(request)
    }

    pub(super) fn heal(&mut self) {
        self.faults = StoreFaults::default();
        self.outage_until = Mono(0);
    }

    /// What would be there after a crash at this moment.
    pub(super) fn survivor(&self) -> &Memory {
        if self.lags() { &self.durable } else { &self.memory }
    }

    pub(super) fn submit(&mut self, job: Job<Request>) {
        let Job { shard, ticket, request } = job;
        match request {
            Request::Read(request) => self.reads.push_back(Job { shard, ticket, request }),
            Request::Write(request) => self.writes.push_back(Job { shard, ticket, request }),
        }
    }

    pub(super) fn next_read(&mut self, random: &mut Random, now: Mono) -> Option<Done<Read>> {
        // Reads stand beside each other: any of them may be the next.
        if self.reads.is_empty() {
            return None;
        }
        let job = self.reads.remove(random.below(self.reads.len()))?;
        let failed = now < self.outage_until || random.per_mille(self.faults.reads);
        let failure = random.pick(&[Failure::Unavailable, Failure::Busy, Failure::Unknown]);
        let reply = if failed { Reply::Failed(failure) } else { self.memory.read(&job.request) };
        Some(Done { job, reply, carried_out: None })
    }

    /// Everything that waits to be written, as one commit.
    pub(super) fn commit(&mut self, random: &mut Random, now: Mono) -> Vec<Done<Write>> {
        let jobs = std::mem::take(&mut self.writes);
        jobs.into_iter().map(|job| self.write(random, now, job)).collect()
    }

    fn write(&mut self, random: &mut Random, now: Mono, job: Job<Write>) -> Done<Write> {
        let StoreFaults { unavailable, busy, unknown_done, unknown_undone, .. } = self.faults;
        let rest = 1_000_u32.saturating_sub(unavailable + busy + unknown_done + unknown_undone);
        let outcome = random.weighted(&[rest, unavailable, busy, unknown_done, unknown_undone]);
        let outcome = if now < self.outage_until { 1 } else { outcome };
        let carried_out = matches!(outcome, 0 | 3).then(|| self.carry_out(&job.request));
        let reply = match (outcome, &carried_out) {
            (0, Some(reply)) => reply.clone(),
            (1, _) => Reply::Failed(Failure::Unavailable),
            (2, _) => Reply::Failed(Failure::Busy),
            _ => Reply::Failed(Failure::Unknown),
        };
        Done { job, reply, carried_out }
    }

    fn carry_out(&mut self, write: &Write) -> Reply {
        let reply = self.memory.write(write);
        if self.lags() {
            self.lagging.push_back((write.clone(), reply.clone()));
        }
        reply
    }

    fn lags(&self) -> bool {
        matches!(self.bug, Some(InjectedBug::AckBeforeDurable | InjectedBug::LyingDisk))
    }

    /// With an injected fault: the slower disk follows. What it took in is durable from now on.
    pub(super) fn follow(&mut self) -> Vec<(Write, Reply)> {
        let followed: Vec<_> = self.lagging.drain(..).collect();
        for (write, _) in &followed {
            self.durable.write(write);
        }
        followed
    }

    /// The node is gone, and with it everything it had asked for that was not carried out.
    pub(super) fn crash(&mut self) {
        self.writes.clear();
        self.reads.clear();
        if self.lags() {
            self.lagging.clear();
            self.memory = self.durable.clone();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }
}
