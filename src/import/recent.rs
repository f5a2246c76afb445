//! What is known of the conversations that were used last, so that their next message asks nothing.

use std::collections::BTreeMap;

use crate::model::ConversationId;

use super::Known;

/// Participants of all conversations of one generation, each conversation counting for one more.
const GENERATION_MAX: usize = 500_000;

/// A bounded map in two generations: what was not asked for while the younger filled up is forgotten.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: BTreeMap<ConversationId, Known>,
    old: BTreeMap<ConversationId, Known>,
    /// Of the young ones, counting those that were taken out.
    weight: usize,
}

impl Recent {
    pub(super) fn take(&mut self, id: ConversationId) -> Option<Known> {
        self.young.remove(&id).or_else(|| self.old.remove(&id))
    }

    pub(super) fn put(&mut self, id: ConversationId, known: Known) {
        self.weight += known.participants.len() + 1;
        self.young.insert(id, known);
        if self.weight >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
    }
}
