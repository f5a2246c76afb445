//! Where a message goes in its conversation: its time, and right behind the line before it where that has the same.
//!
//! An id is made of the conversation and of this time, in ticks of 100 ns, and of nothing else. Lines with equal times are
//! told apart by their position: each is a tick later than the one before. So the ids of a file are the same at every
//! import of it, ascend within a conversation, and no two conversations share one.

use std::collections::BTreeMap;

use crate::model::{ConversationId, Wall};

/// The last message of each conversation in the file.
#[derive(Debug, Default)]
pub(super) struct Places {
    last: BTreeMap<ConversationId, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    created_at: Wall,
    at: Wall,
}

impl Places {
    /// # Errors
    /// When the line before it in its conversation is younger.
    pub(super) fn next(&mut self, conversation: ConversationId, created_at: Wall) -> Result<Wall, String> {
        let last = self.last.get(&conversation).copied();
        if last.is_some_and(|last| created_at < last.created_at) {
            return Err("older than the message before it in its conversation".into());
        }
        let at = last.map_or(created_at, |last| created_at.max(Wall(last.at.0 + 1)));
        self.last.insert(conversation, Place { created_at, at });
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ascend_and_equal_ones_keep_the_order_of_lines() {
        let mut places = Places::default();
        let [one, two] = [1, 2].map(|value| ConversationId::new(value).unwrap());
        let mut next = |conversation, at| places.next(conversation, Wall(at)).ok().map(|at| at.0);
        assert_eq!([10, 10, 10, 11, 20].map(|at| next(one, at)), [10, 11, 12, 13, 20].map(Some));
        assert_eq!(next(one, 19), None);
        assert_eq!(next(two, 10), Some(10));
        assert_eq!(next(one, 20), Some(21));
    }
}
