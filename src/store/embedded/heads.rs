//! The ends of the logs in use, kept in memory, so that an append to a hot conversation reads nothing.

use crate::model::ids::{ConversationId, UserId};
use crate::model::map::{Map, map};
use crate::model::message::{ConversationKind, Head};

use super::read::LED_MAX;

/// A conversation as the writer left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) head: Head,
    kind: ConversationKind,
    /// Users whose mark's row leads, with the sequence of the message in it; the later one last.
    leads: [Option<(UserId, u64)>; 2],
}

impl Known {
    pub(super) fn new(kind: ConversationKind, head: Head) -> Self {
        Self { head, kind, leads: [None; 2] }
    }

    /// Whether the message with this sequence moves its sender's mark without a row of it: readers of the mark look for
    /// own messages this far behind the row.
    pub(super) fn is_led(&self, sender: UserId, sequence: u64) -> bool {
        self.leads.iter().flatten().any(|(user, row)| *user == sender && sequence - row <= LED_MAX)
    }

    /// Notes that the sender's mark gets a row for its message with this sequence. Answers whether that row leads: only where
    /// two talk, so that the marks of a large group are read without looking further.
    pub(super) fn lead(&mut self, sender: UserId, sequence: u64) -> bool {
        let leads = self.kind == ConversationKind::Direct;
        if leads {
            self.forget_lead(sender);
            let [first, second] = self.leads;
            self.leads = [second.or(first), Some((sender, sequence))];
        }
        leads
    }

    fn forget_lead(&mut self, user: UserId) {
        for lead in &mut self.leads {
            lead.take_if(|(of, _)| *of == user);
        }
    }
}

/// A bounded map in two generations: an entry that was not used while the younger generation filled up is forgotten.
/// Owned by the writer; a conversation that is in it exists.
pub(super) struct Heads {
    young: Map<ConversationId, Known>,
    old: Map<ConversationId, Known>,
    /// Entries of one generation.
    generation_max: usize,
}

impl Heads {
    pub(super) fn new(seed: u64, entries_max: usize) -> Self {
        Self { young: map(seed), old: map(seed), generation_max: (entries_max / 2).max(1) }
    }

    pub(super) fn find(&mut self, conversation: ConversationId) -> Option<Known> {
        if let Some(known) = self.young.get(&conversation) {
            return Some(*known);
        }
        let known = *self.old.get(&conversation)?;
        self.put(conversation, known);
        Some(known)
    }

    pub(super) fn put(&mut self, conversation: ConversationId, known: Known) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&conversation) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(conversation, known);
    }

    /// The row of the user's mark leads no more.
    pub(super) fn forget_lead(&mut self, conversation: ConversationId, user: UserId) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some(known) = generation.get_mut(&conversation) {
                known.forget_lead(user);
            }
        }
    }

    /// Forgets everything: after a failed commit, heads may be ahead of the stored log.
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

    fn known(sequence: u64) -> Known {
        Known::new(ConversationKind::Direct, Head { last: None, sequence })
    }

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut heads = Heads::new(1, 100);
        let sequence = |heads: &mut Heads, value| heads.find(id(value)).map(|known| known.head.sequence);
        for value in 1..=1_000 {
            heads.put(id(value), known(value));
            assert_eq!(sequence(&mut heads, 1), Some(1));
            assert!(heads.young.len() + heads.old.len() <= 100);
        }
        assert_eq!(sequence(&mut heads, 500), None);
        heads.put(id(1), known(2));
        assert_eq!(sequence(&mut heads, 1), Some(2));
        heads.clear();
        assert_eq!(sequence(&mut heads, 1), None);
    }

    #[test]
    fn a_mark_leads_what_follows_it_closely() {
        let [one, two, three] = [1, 2, 3].map(|value| UserId::new(value).unwrap());
        let mut talk = known(0);
        assert!(!talk.is_led(one, 1));
        assert!(talk.lead(one, 1) && talk.lead(two, 2));
        assert!(talk.is_led(one, 1 + LED_MAX) && !talk.is_led(one, 2 + LED_MAX));
        talk.lead(two, 3);
        assert!(talk.is_led(one, 4) && talk.is_led(two, 3 + LED_MAX));
        talk.lead(three, 5);
        assert!(!talk.is_led(one, 6) && talk.is_led(two, 6) && talk.is_led(three, 6));
        talk.forget_lead(two);
        assert!(!talk.is_led(two, 6) && talk.is_led(three, 6));

        let mut group = Known::new(ConversationKind::Group, Head::default());
        assert!(!group.lead(one, 1) && !group.is_led(one, 2));
    }
}
