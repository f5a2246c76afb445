//! **A refusal is true.** When every attempt of a send was refused for certain, nothing of it is stored. Of an append that
//! a shard has given up, the next load of its conversation decides, and the shard does not ask for it again.

use std::collections::BTreeMap;

use crate::model::{ConversationId, MessageId};
use crate::sim::facts::SendNo;
use crate::sim::oracle::{Oracle, Promise};
use crate::store::log::NewMessage;

pub(super) const PROMISE: &str = "what was refused for certain is not stored, and what was decided stays decided";

/// The last message of each conversation that a node has asked for, and the last one of which a load has decided.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    asked: BTreeMap<(usize, ConversationId), MessageId>,
    decided: BTreeMap<(usize, ConversationId), MessageId>,
}

impl Oracle {
    /// A refusal has come: `certain` if it says that nothing was stored.
    pub(in crate::sim) fn refused(&mut self, number: SendNo, certain: bool) {
        self.sends[number].refused += usize::from(certain);
        self.check_refused(number);
    }

    pub(in crate::sim) fn check_refused(&mut self, number: SendNo) {
        let send = &self.sends[number];
        if send.stored.is_some() && send.refused == send.attempts.len() {
            self.break_promise(Promise::Refusals, format!("send {number} is stored, and every attempt was refused"));
        }
    }

    /// A shard asks for messages to be stored, for the first time or again.
    pub(in crate::sim) fn append_asked(&mut self, node: usize, conversation: ConversationId, messages: &[NewMessage]) {
        if let Some(last) = messages.last() {
            self.decisions.asked.insert((node, conversation), last.id);
        }
    }

    /// A shard has loaded a conversation: what it had asked for before will never be stored, if it is not.
    pub(in crate::sim) fn append_decided(&mut self, node: usize, conversation: ConversationId) {
        let Decisions { asked, decided } = &mut self.decisions;
        if let Some(asked) = asked.get(&(node, conversation)) {
            decided.insert((node, conversation), *asked);
        }
    }

    /// The store begins to carry an append out.
    pub(in crate::sim) fn append_begun(&mut self, node: usize, conversation: ConversationId, messages: &[NewMessage]) {
        let decided = self.decisions.decided.get(&(node, conversation));
        if let Some(late) = messages.iter().find(|new| decided.is_some_and(|decided| new.id <= *decided)) {
            self.break_promise(Promise::Refusals, format!("{late:?} is appended after its outcome was decided"));
        }
    }

    /// The node is gone, and with it what it may have repeated.
    pub(in crate::sim) fn forget_appends(&mut self, node: usize) {
        let Decisions { asked, decided } = &mut self.decisions;
        asked.retain(|(of, _), _| *of != node);
        decided.retain(|(of, _), _| *of != node);
    }
}
