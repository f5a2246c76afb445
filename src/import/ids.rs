//! The ids of imported messages: a message's time, or a tick after the line before it where both times are equal.
//!
//! An id depends on the conversation and on this time, in ticks of 100 ns, and on nothing else. Lines with equal times
//! differ by their order: each is a tick later than the one before. So the ids of a file are the same at every
//! import of it, ascend within a conversation, and no two conversations share one.

use std::collections::BTreeMap;

use crate::model::{ConversationId, Wall};

/// The last message of each conversation in the file.
#[derive(Debug, Default)]
pub(super) struct ImportIds {
    last: BTreeMap<ConversationId, LastId>,
}

#[derive(Clone, Copy, Debug)]
struct LastId {
    created_at: Wall,
    at: Wall,
}

impl ImportIds {
    /// # Errors
    /// When the line before it in its conversation is younger.
    pub(super) fn next(&mut self, conversation: ConversationId, created_at: Wall) -> Result<Wall, String> {
        let last = self.last.get(&conversation).copied();
        if last.is_some_and(|last| created_at < last.created_at) {
            return Err("older than the message before it in its conversation".into());
        }
        let at = last.map_or(created_at, |last| created_at.max(Wall(last.at.0 + 1)));
        self.last.insert(conversation, LastId { created_at, at });
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_and_equal_times_keep_the_order_of_lines() {
        let mut ids = ImportIds::default();
        let [one, two] = [1, 2].map(|value| ConversationId::new(value).unwrap());
        let mut next = |conversation, at| ids.next(conversation, Wall(at)).ok().map(|at| at.0);
        assert_eq!([10, 10, 10, 11, 20].map(|at| next(one, at)), [10, 11, 12, 13, 20].map(Some));
        assert_eq!(next(one, 19), None);
        assert_eq!(next(two, 10), Some(10));
        assert_eq!(next(one, 20), Some(21));
    }
}
