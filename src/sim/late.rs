//! Writes that may still take effect after the store has answered that their outcome is not known.
//!
//! The contract bounds how late: writes with the same [`OrderKey`] take effect in the order in which they were given, so a late
//! write takes effect before a later one with its key does, or never. Of a late append the next load of its conversation
//! decides. Every other late write takes effect within some seconds, and before its node starts again: a store forgets a
//! request that it has not carried out within its own timeout, which is shorter than a restart.

use crate::store::{OrderKey, Write, log};

#[derive(Debug)]
pub(super) struct LateWrite {
    number: u64,
    /// The node and its epoch.
    pub(super) asked_by: (usize, u64),
    pub(super) write: Write,
}

impl LateWrite {
    fn has_key(&self, key: &OrderKey) -> bool {
        self.write.order().as_ref() == Some(key)
    }

    fn is_append(&self) -> bool {
        matches!(self.write, Write::Log(log::Write::Append(_)))
    }
}

/// In the order in which they were given. Lifetime: the run's.
#[derive(Debug, Default)]
pub(super) struct LateWrites {
    writes: Vec<LateWrite>,
    next: u64,
}

impl LateWrites {
    /// Returns the number of the new one.
    pub(super) fn add(&mut self, asked_by: (usize, u64), write: &Write) -> u64 {
        self.next += 1;
        self.writes.push(LateWrite { number: self.next, asked_by, write: write.clone() });
        self.next
    }

    pub(super) fn take(&mut self, number: u64) -> Option<LateWrite> {
        let at = self.writes.iter().position(|late| late.number == number)?;
        Some(self.writes.remove(at))
    }

    pub(super) fn take_with_key(&mut self, key: &OrderKey) -> Vec<LateWrite> {
        self.writes.extract_if(.., |late| late.has_key(key)).collect()
    }

    /// Takes those with the key of `late` that were given before it.
    pub(super) fn take_before(&mut self, late: &LateWrite) -> Vec<LateWrite> {
        let Some(key) = late.write.order() else { return Vec::new() };
        self.writes.extract_if(.., |earlier| earlier.number < late.number && earlier.has_key(&key)).collect()
    }

    /// Takes all of a node but its appends.
    pub(super) fn take_of_node(&mut self, node: usize) -> Vec<LateWrite> {
        self.writes.extract_if(.., |late| late.asked_by.0 == node && !late.is_append()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, UserId};
    use crate::store::conversations::RemoveParticipant;

    fn remove(conversation: u64, user: u64) -> Write {
        let (conversation, user) = (ConversationId::new(conversation).unwrap(), UserId::new(user).unwrap());
        RemoveParticipant { conversation, user }.into()
    }

    #[test]
    fn late_writes_with_one_key_keep_their_order() {
        let mut late = LateWrites::default();
        let numbers = [remove(1, 1), remove(1, 2), remove(1, 1)].map(|write| late.add((0, 1), &write));
        let last = late.take(numbers[2]).unwrap();
        let before: Vec<u64> = late.take_before(&last).iter().map(|write| write.number).collect();
        assert_eq!(before, [numbers[0]]);
        assert!(late.take_with_key(&remove(2, 1).order().unwrap()).is_empty());
        assert_eq!(late.take_of_node(0).len(), 1);
        assert!(late.is_empty());
    }
}
