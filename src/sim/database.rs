//! The store that the nodes share: the reference model behind refusals, lost replies, late writes and crashes.
//!
//! A write is durable from the moment it takes effect. It may take effect late, after its node was answered that its outcome
//! is not known: within the bounds of the store's contract, which are those of [`LateWrites`](crate::sim::late::LateWrites).
//! An injected fault puts a second, slower disk behind the first.

use std::collections::{BTreeSet, VecDeque};

use crate::model::MessageId;
use crate::sim::InjectedBug;
use crate::sim::late::{LateWrite, LateWrites};
use crate::sim::plan::StoreFaults;
use crate::sim::random::Random;
use crate::store::log::{Append, Appended};
use crate::store::memory::Memory;
use crate::store::{Call, Failure, OrderKey, Read, Reply, Write, conversations, log};

/// A write that has taken effect.
pub(super) struct Effected {
    pub(super) write: Write,
    /// What the store answers to it, if it answers.
    pub(super) reply: Reply,
    /// Of a late write: the node and the epoch that asked for it.
    pub(super) late: Option<(usize, u64)>,
}

/// Lifetime: the run's; it outlives every node.
pub(super) struct Database {
    memory: Memory,
    faults: StoreFaults,
    late: LateWrites,
    /// Messages that were stored by late writes.
    stored_late: BTreeSet<MessageId>,
    bug: Option<InjectedBug>,
    /// With an injected fault: what a crash leaves.
    durable: Memory,
    lagging: VecDeque<(Write, Reply)>,
}

impl Database {
    pub(super) fn new(faults: StoreFaults, bug: Option<InjectedBug>) -> Self {
        Self {
            memory: Memory::new(),
            faults,
            late: LateWrites::default(),
            stored_late: BTreeSet::new(),
            bug,
            durable: Memory::new(),
            lagging: VecDeque::new(),
        }
    }

    /// Before the run: carried out at once.
    pub(super) fn prepare(&mut self, write: &Write) {
        self.durable.write(write);
        self.memory.write(write);
    }

    pub(super) fn heal(&mut self) {
        self.faults = StoreFaults::default();
    }

    /// What a crash at this moment would leave.
    pub(super) fn survivor(&self) -> &Memory {
        if self.lags() { &self.durable } else { &self.memory }
    }

    /// Answers a read. `away`: the store cannot be reached. A load decides of every late append of its conversation.
    pub(super) fn read(&mut self, random: &mut Random, away: bool, read: &Read, effects: &mut Vec<Effected>) -> Reply {
        let failed = away || random.per_mille(self.faults.reads);
        let failure = random.pick(&[Failure::Unavailable, Failure::Busy, Failure::Unknown]);
        if failed {
            return Reply::Failed(failure);
        }
        if let Read::Conversations(conversations::Read::LoadConversation(load)) = read {
            self.decide_late(random, &OrderKey::Log(load.conversation), effects);
        }
        self.memory.read(read)
    }

    /// Carries a write of a node out, or not, and answers it, truthfully or not. A late one gives its number.
    pub(super) fn write(
        &mut self,
        random: &mut Random,
        away: bool,
        asked_by: (usize, u64),
        write: &Write,
        effects: &mut Vec<Effected>,
    ) -> (Reply, Option<u64>) {
        let StoreFaults { unavailable, busy, unknown_done, unknown_undone, unknown_late, .. } = self.faults;
        let rest = 1_000_u32.saturating_sub(unavailable + busy + unknown_done + unknown_undone + unknown_late);
        let outcome = random.weighted(&[rest, unavailable, busy, unknown_done, unknown_undone, unknown_late]);
        let outcome = if away { 1 } else { outcome };
        let reply = match outcome {
            0 => self.carry_out(random, write, effects),
            1 => Reply::Failed(Failure::Unavailable),
            2 => Reply::Failed(Failure::Busy),
            3 => {
                self.carry_out(random, write, effects);
                Reply::Failed(Failure::Unknown)
            }
            4 => Reply::Failed(Failure::Unknown),
            _ => return (Reply::Failed(Failure::Unknown), Some(self.late.add(asked_by, write))),
        };
        (reply, None)
    }

    /// A node has crashed with a write under way, of which the store knows already. Gives its number if it may still take
    /// effect.
    pub(super) fn abandon(&mut self, random: &mut Random, asked_by: (usize, u64), write: &Write) -> Option<u64> {
        let knows = 0 < self.faults.unknown_late && random.percent(50);
        knows.then(|| self.late.add(asked_by, write))
    }

    /// The time of a late write has come, unless it was decided before.
    pub(super) fn take_effect_late(&mut self, random: &mut Random, number: u64, effects: &mut Vec<Effected>) {
        let Some(late) = self.late.take(number) else { return };
        // Those with the same key that were given before it go first.
        for earlier in self.late.take_before(&late) {
            if random.percent(50) {
                self.land(earlier, effects);
            }
        }
        self.land(late, effects);
    }

    /// A node starts again: the store has forgotten its late writes by then or carried them out, all but appends, of which
    /// the next load decides.
    pub(super) fn settle_late(&mut self, random: &mut Random, node: usize, effects: &mut Vec<Effected>) {
        for late in self.late.take_of_node(node) {
            if random.percent(50) {
                self.land(late, effects);
            }
        }
    }

    /// A later request with the same key is carried out: a late write has taken effect before it, or never will.
    fn decide_late(&mut self, random: &mut Random, key: &OrderKey, effects: &mut Vec<Effected>) {
        for late in self.late.take_with_key(key) {
            if random.percent(50) {
                self.land(late, effects);
            }
        }
    }

    fn land(&mut self, late: LateWrite, effects: &mut Vec<Effected>) {
        let reply = self.apply(&late.write);
        if let Reply::Log(log::Reply::Append(Some(answer))) = &reply {
            let stored = answer.results.iter().filter_map(|result| match result {
                Appended::Stored(message) => Some(message.id),
                Appended::Replay(_) | Appended::KeyReused => None,
            });
            self.stored_late.extend(stored);
        }
        effects.push(Effected { write: late.write, reply, late: Some(late.asked_by) });
    }

    /// Carries a write out. Returns the answer.
    fn carry_out(&mut self, random: &mut Random, write: &Write, effects: &mut Vec<Effected>) -> Reply {
        if let Some(key) = write.order() {
            self.decide_late(random, &key, effects);
        }
        let reply = self.apply(write);
        effects.push(Effected { write: write.clone(), reply: reply.clone(), late: None });
        match write {
            Write::Log(log::Write::Append(append)) if self.bug == Some(InjectedBug::RedeliverLate) => {
                self.stored_anew(append, reply)
            }
            Write::Log(_) | Write::Conversations(_) | Write::Accounts(_) | Write::Erasure(_) => reply,
        }
    }

    fn apply(&mut self, write: &Write) -> Reply {
        let reply = self.memory.write(write);
        if self.lags() {
            self.lagging.push_back((write.clone(), reply.clone()));
        }
        reply
    }

    /// With an injected fault: the answer says of messages that were stored late that they were stored just now.
    fn stored_anew(&self, append: &Append, reply: Reply) -> Reply {
        let mut answer = match Append::answer(reply) {
            Ok(answer) => answer,
            Err(failure) => return Reply::Failed(failure),
        };
        for result in answer.iter_mut().flat_map(|answer| &mut answer.results) {
            if let Appended::Replay(message) = result
                && self.stored_late.contains(&message.id)
            {
                *result = Appended::Stored(message.clone());
            }
        }
        append.reply(answer)
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

    /// With an injected fault a crash takes what the slower disk does not have.
    pub(super) fn crash(&mut self) {
        if self.lags() {
            self.lagging.clear();
            self.memory = self.durable.clone();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.late.is_empty()
    }
}
