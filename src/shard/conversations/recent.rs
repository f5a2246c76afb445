//! The newest messages of conversations in use, so that the page which every client opens first is not read from the store.
//!
//! The messages of a conversation are an unbroken end of its log: each names the one before it, and the caller says where
//! the log ends. Nothing else has to be kept in step with the store: messages that end elsewhere are not used.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::model::command::{Page, Position};
use crate::model::map::{self, Map};
use crate::model::message::{Head, Message};
use crate::model::{ConversationId, MessageId};

/// Beside its messages: its places in the map and among those that are dropped in turn.
const ENTRY_BYTES: usize = 128;

/// Owner: the shard. View: shard.
#[derive(Debug)]
pub(super) struct RecentMessages {
    map: Map<ConversationId, Recent>,
    /// Every conversation of the map once; the first is dropped next, unless it was used.
    clock: VecDeque<ConversationId>,
    bytes: usize,
    /// Messages of one conversation, and bytes of all.
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Recent {
    /// Oldest first.
    messages: VecDeque<Arc<Message>>,
    used: bool,
}

impl Recent {
    /// Returns how many bytes that were.
    fn empty(&mut self) -> usize {
        self.messages.drain(..).map(|message| weight(&message)).sum()
    }
}

impl RecentMessages {
    pub(super) fn new(seed: u64, messages_max: usize, bytes_max: usize) -> Self {
        Self { map: map::map(seed), clock: VecDeque::new(), bytes: 0, messages_max, bytes_max }
    }

    /// Other bounds hold from now on.
    pub(super) fn set_bounds(&mut self, messages_max: usize, bytes_max: usize) {
        (self.messages_max, self.bytes_max) = (messages_max, bytes_max);
        self.trim();
    }

    /// A message was stored at the end of its conversation's log.
    pub(super) fn push(&mut self, message: &Arc<Message>) {
        self.extend(message.conversation, [message]);
    }

    /// The store returned the newest messages of a conversation, newest first.
    pub(super) fn fill(&mut self, id: ConversationId, newest: &[Arc<Message>]) {
        let last = |messages: Option<&Arc<Message>>| messages.map(|message| message.id);
        let held = self.map.get(&id).map(|recent| &recent.messages);
        let covers = held.is_some_and(|held| last(held.back()) == last(newest.first()) && newest.len() <= held.len());
        if !covers {
            self.clear(id);
            self.extend(id, newest.iter().rev());
        }
    }

    /// Puts messages, oldest first, behind those that are there, as far as they are linked.
    fn extend<'a>(&mut self, id: ConversationId, messages: impl IntoIterator<Item = &'a Arc<Message>>) {
        if self.messages_max == 0 {
            return;
        }
        let recent = match self.map.entry(id) {
            Entry::Occupied(entry) => {
                let recent = entry.into_mut();
                recent.used = true;
                recent
            }
            // One that is used once only must not push out those in use.
            Entry::Vacant(entry) => {
                self.clock.push_back(id);
                self.bytes += ENTRY_BYTES;
                entry.insert(Recent::default())
            }
        };
        for message in messages {
            assert!(message.conversation == id, "a conversation holds its own messages");
            if recent.messages.back().is_some_and(|last| message.prev != Some(last.id)) {
                self.bytes -= recent.empty();
            }
            self.bytes += weight(message);
            recent.messages.push_back(Arc::clone(message));
            while recent.messages.len() > self.messages_max {
                self.bytes -= recent.messages.pop_front().map_or(0, |message| weight(&message));
            }
        }
        self.trim();
    }

    fn clear(&mut self, id: ConversationId) {
        if let Some(recent) = self.map.get_mut(&id) {
            self.bytes -= recent.empty();
        }
    }

    /// Drops conversations out of use until the rest fits. It ends: a conversation is passed over once.
    fn trim(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(id) = self.clock.pop_front() else { return };
            let Some(recent) = self.map.get_mut(&id) else { continue };
            if std::mem::take(&mut recent.used) {
                self.clock.push_back(id);
            } else {
                self.bytes -= recent.empty() + ENTRY_BYTES;
                self.map.remove(&id);
            }
        }
    }

    /// A page of a log that ends at `head`, and whether there is more behind it; `None` when part of it may only be in the
    /// store.
    pub(super) fn page(&mut self, id: ConversationId, head: Head, page: Page) -> Option<(Vec<Arc<Message>>, bool)> {
        let recent = self.map.get_mut(&id)?;
        let (held, limit) = (&recent.messages, usize::from(page.limit));
        let (first, last) = (held.front()?, held.back()?);
        if head.last != Some(last.id) {
            return None;
        }
        let is_whole = first.prev.is_none();
        let found = match page.from {
            Position::After(after) if after < first.id && !is_whole => return None,
            Position::After(after) => {
                let start = held.partition_point(|message| message.id <= after);
                let end = held.len().min(start + limit);
                (held.range(start..end).cloned().collect(), end < held.len())
            }
            Position::Newest => before(held, MessageId::MAX, limit, is_whole)?,
            Position::Before(id) => before(held, id, limit, is_whole)?,
        };
        recent.used = true;
        Some(found)
    }
}

/// Newest first.
fn before(held: &VecDeque<Arc<Message>>, id: MessageId, limit: usize, is_whole: bool) -> Option<(Vec<Arc<Message>>, bool)> {
    let end = held.partition_point(|message| message.id < id);
    let start = end.saturating_sub(limit);
    let is_full = end - start == limit;
    if !is_full && !is_whole {
        return None;
    }
    let more = is_full && held.get(start).is_some_and(|oldest| oldest.prev.is_some());
    Some((held.range(start..end).rev().cloned().collect(), more))
}

/// What a message takes in memory, its share of the lists included.
fn weight(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let texts = message.content.len() + message.client_id.as_ref().map_or(0, |client_id| client_id.len());
    size_of::<Message>() + 32 + texts + headers
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::fuzz;
    use crate::model::message::{Conversation, ConversationKind, Draft};
    use crate::model::{UserId, Wall};
    use crate::store::Call;
    use crate::store::conversations::CreateConversation;
    use crate::store::log::{Append, AppendAnswer, Appended, Messages, NewMessage, ReadAfter, ReadBefore};
    use crate::store::memory::Memory;

    fn id(value: u64) -> ConversationId {
        ConversationId::new(value).unwrap()
    }

    fn message_id(at: u64) -> MessageId {
        MessageId::from_parts(Wall(at), 0, 0)
    }

    fn store(conversations: u64) -> Memory {
        let mut store = Memory::new();
        for value in 1..=conversations {
            let (kind, created_by, created_at) = (ConversationKind::Group, UserId::new(1).unwrap(), Wall(0));
            let conversation =
                Conversation { id: id(value), kind, title: None, created_by, created_at, participants: Vec::new() };
            store.ask(CreateConversation { conversation }).unwrap();
        }
        store
    }

    fn append(store: &mut Memory, conversation: ConversationId, at: u64) -> (Arc<Message>, Head) {
        let draft = Draft { content: "some text".into(), client_id: None, headers: Vec::new() };
        let messages = vec![NewMessage { id: message_id(at), sender: UserId::new(1).unwrap(), draft }];
        let (keys_expire, now) = (Wall(u64::MAX), Wall(0));
        let append = Append { conversation, head: Head::default(), messages, keys_expire, now };
        let AppendAnswer { results, head } = store.ask(append).unwrap().unwrap();
        let [Appended::Stored(message)] = &results[..] else { panic!("{results:?}") };
        (Arc::clone(message), head)
    }

    fn stored(store: &Memory, conversation: ConversationId, Page { from, limit }: Page) -> (Vec<Arc<Message>>, bool) {
        let before = |before| ReadBefore::answer(store.read(&ReadBefore { conversation, before, limit }.into()));
        let after = |after| ReadAfter::answer(store.read(&ReadAfter { conversation, after, limit }.into()));
        let page = match from {
            Position::Newest => before(MessageId::MAX),
            Position::Before(position) => before(position),
            Position::After(position) => after(position),
        };
        let Messages { messages, more } = page.unwrap().unwrap();
        (messages, more)
    }

    /// Messages that are pushed and messages that are missed, pages that are read, conversations that push each other
    /// out: a page from memory is always the store's.
    #[test]
    fn a_page_from_memory_is_the_stores() {
        for seed in fuzz::seeds(200) {
            let mut random = ChaCha20Rng::seed_from_u64(seed);
            let mut below = |bound: u64| random.next_u64() % bound;
            let (mut store, mut heads) = (store(3), [Head::default(); 4]);
            let bytes_max = if below(2) == 0 { usize::MAX } else { 3_000 };
            let mut recent = RecentMessages::new(seed, 1 + below(12) as usize, bytes_max);
            let mut from_memory = 0;
            for step in 1..400 {
                let value = 1 + below(3);
                let page = Page {
                    from: match below(3) {
                        0 => Position::Newest,
                        1 => Position::Before(message_id(below(2 * step + 2))),
                        _ => Position::After(message_id(below(2 * step + 2))),
                    },
                    limit: 1 + below(8) as u16,
                };
                match below(8) {
                    0..2 => {
                        let (message, head) = append(&mut store, id(value), 2 * step);
                        heads[value as usize] = head;
                        if below(20) > 0 {
                            recent.push(&message);
                        }
                    }
                    2 => {
                        let newest = stored(&store, id(value), Page { from: Position::Newest, ..page }).0;
                        recent.fill(id(value), &newest);
                    }
                    _ => {
                        let found = recent.page(id(value), heads[value as usize], page);
                        from_memory += u32::from(found.is_some());
                        let expect = stored(&store, id(value), page);
                        assert!(found.is_none_or(|found| found == expect), "seed {seed}, step {step}: {page:?} of {value}");
                    }
                }
                let held = recent.map.values().flat_map(|recent| &recent.messages).map(|message| weight(message)).sum::<usize>();
                assert_eq!(recent.bytes, held + recent.map.len() * ENTRY_BYTES, "seed {seed}");
                assert!(recent.bytes <= bytes_max && recent.clock.len() == recent.map.len(), "seed {seed}");
                assert!(recent.map.values().all(|entry| entry.messages.len() <= recent.messages_max), "seed {seed}");
            }
            assert!(from_memory > 0, "seed {seed}");
        }
    }

    #[test]
    fn a_conversation_in_use_stays() {
        let mut store = store(100);
        let mut recent = RecentMessages::new(1, 5, 20 * ENTRY_BYTES);
        let newest = Page { from: Position::Newest, limit: 1 };
        let (message, head) = append(&mut store, id(1), 1);
        recent.push(&message);
        for value in 2..=100 {
            recent.push(&append(&mut store, id(value), value).0);
            assert!(recent.page(id(1), head, newest).is_some());
        }
        assert!(recent.map.len() < 20 && !recent.map.contains_key(&id(2)));
    }

    #[test]
    fn nothing_is_kept_when_turned_off() {
        let mut store = store(1);
        let mut recent = RecentMessages::new(1, 0, usize::MAX);
        let (message, head) = append(&mut store, id(1), 1);
        recent.push(&message);
        recent.fill(id(1), &[message]);
        assert!(recent.page(id(1), head, Page { from: Position::Newest, limit: 1 }).is_none());
        assert_eq!(recent.bytes, 0);
    }
}
