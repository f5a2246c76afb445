//! Heads of the conversations in use, so that an append to a hot conversation reads nothing.

use crate::model::ids::ConversationId;
use crate::model::map::{Map, map};
use crate::model::message::Head;

/// A bounded map in two generations: what was not asked for while the younger filled up is forgotten.
/// Owned by the writer; a conversation that is in it exists.
pub(super) struct Heads {
    young: Map<ConversationId, Head>,
    old: Map<ConversationId, Head>,
    /// Entries of one generation.
    generation_max: usize,
}

impl Heads {
    pub(super) fn new(seed: u64, entries_max: usize) -> Self {
        Self { young: map(seed), old: map(seed), generation_max: (entries_max / 2).max(1) }
    }

    pub(super) fn find(&mut self, conversation: ConversationId) -> Option<Head> {
        if let Some(head) = self.young.get(&conversation) {
            return Some(*head);
        }
        let head = *self.old.get(&conversation)?;
        self.put(conversation, head);
        Some(head)
    }

    pub(super) fn put(&mut self, conversation: ConversationId, head: Head) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&conversation) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(conversation, head);
    }

    /// Forgets everything: after a commit that failed, heads may be ahead of what is stored.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u64) -> ConversationId {
        ConversationId::new(value).unwrap()
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut heads = Heads::new(1, 100);
        for value in 1..=1_000 {
            heads.put(id(value), Head { last: None, sequence: value });
            assert_eq!(heads.find(id(1)).map(|head| head.sequence), Some(1));
            assert!(heads.young.len() + heads.old.len() <= 100);
        }
        assert_eq!(heads.find(id(500)), None);
        heads.put(id(1), Head { last: None, sequence: 2 });
        assert_eq!(heads.find(id(1)).map(|head| head.sequence), Some(2));
        heads.clear();
        assert_eq!(heads.find(id(1)), None);
    }
}
