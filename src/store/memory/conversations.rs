//! Conversations, their participants, and blocks.

use crate::model::ids::{ConversationId, UserId};
use crate::model::message::{Conversation, ConversationKind, ConversationSummary};
use crate::store::conversations::{
    BlockAnswer, ConversationList, ConversationState, CreateAnswer, ListConversations, PutParticipant, Read, RemoveParticipant,
    SetBlock, Write, pair_key,
};
use crate::store::log::unread;
use crate::store::{Call, Done, Reply};

use super::Memory;

impl Memory {
    pub(super) fn write_conversations(&mut self, write: &Write) -> Reply {
        match write {
            Write::CreateConversation(create) => create.reply(self.create(&create.conversation)),
            Write::PutParticipant(put) => put.reply(self.put_participant(put)),
            Write::RemoveParticipant(remove) => remove.reply(self.remove_participant(remove)),
            Write::SetBlock(set) => set.reply(self.set_block(set)),
        }
    }

    pub(super) fn read_conversations(&self, read: &Read) -> Reply {
        match read {
            Read::ReadConversation(read) => read.reply(self.state(read.conversation)),
            Read::LoadConversation(load) => load.reply(self.state(load.conversation)),
            Read::ListConversations(list) => list.reply(self.list_conversations(list)),
            Read::ListBlocks(list) => {
                let blocked = self.blocks.keys().filter(|(by, _)| *by == list.user).map(|(_, other)| *other);
                list.reply(blocked.collect())
            }
        }
    }

    fn create(&mut self, conversation: &Conversation) -> CreateAnswer {
        let there = pair_key(conversation).and_then(|pair| self.pairs.get(&pair).copied());
        let there = there.or_else(|| self.conversations.contains_key(&conversation.id).then_some(conversation.id));
        let (id, created) = (there.unwrap_or(conversation.id), there.is_none());
        if created {
            self.conversations.insert(id, Conversation { participants: Vec::new(), ..conversation.clone() });
            for participant in &conversation.participants {
                self.participants.insert((id, participant.user), *participant);
                self.conversations_of.insert((participant.user, id), ());
            }
            if let Some(pair) = pair_key(conversation) {
                self.pairs.insert(pair, id);
            }
        }
        CreateAnswer { state: self.state(id).expect("it exists or was created just now"), created }
    }

    fn state(&self, id: ConversationId) -> Option<ConversationState> {
        let conversation = self.conversation(id)?;
        let blocked = match (conversation.kind, pair_key(&conversation)) {
            (ConversationKind::Direct, Some((first, second))) => self.blocked(first, second),
            _ => false,
        };
        Some(ConversationState { conversation, head: self.head(id), blocked })
    }

    fn conversation(&self, id: ConversationId) -> Option<Conversation> {
        let participants = self.participants.iter().filter(|((of, _), _)| *of == id).map(|(_, participant)| *participant);
        Some(Conversation { participants: participants.collect(), ..self.conversations.get(&id)?.clone() })
    }

    fn blocked(&self, first: UserId, second: UserId) -> bool {
        self.blocks.contains_key(&(first, second)) || self.blocks.contains_key(&(second, first))
    }

    fn put_participant(&mut self, put: &PutParticipant) -> Option<Done> {
        let PutParticipant { conversation, participant } = *put;
        if !self.conversations.contains_key(&conversation) {
            return None;
        }
        let changed = match self.participants.get_mut(&(conversation, participant.user)) {
            Some(there) => {
                let changed = there.role != participant.role;
                there.role = participant.role;
                if changed {
                    self.conversations_of.insert((participant.user, conversation), ());
                }
                changed
            }
            None => {
                self.participants.insert((conversation, participant.user), participant);
                self.conversations_of.insert((participant.user, conversation), ());
                true
            }
        };
        Some(Done { changed })
    }

    fn remove_participant(&mut self, remove: &RemoveParticipant) -> Option<Done> {
        let RemoveParticipant { conversation, user } = *remove;
        if !self.conversations.contains_key(&conversation) {
            return None;
        }
        let changed = self.participants.remove(&(conversation, user)).is_some();
        if changed {
            self.conversations_of.remove(&(user, conversation));
            self.marks.remove(&(conversation, user));
        }
        Some(Done { changed })
    }

    fn set_block(&mut self, set: &SetBlock) -> BlockAnswer {
        let SetBlock { user, other, blocked } = *set;
        let changed = match blocked {
            true => self.blocks.insert((user, other), ()).is_none(),
            false => self.blocks.remove(&(user, other)).is_some(),
        };
        let direct = self.pairs.get(&(user.min(other), user.max(other))).copied();
        BlockAnswer { direct, blocked: self.blocked(user, other), changed }
    }

    fn list_conversations(&self, list: &ListConversations) -> ConversationList {
        let ListConversations { user, after, limit } = *list;
        let mut ids = self.conversations_of.keys().filter(|(of, id)| *of == user && after.is_none_or(|after| after < *id));
        let mut summaries = Vec::new();
        for (_, id) in ids.by_ref().take(usize::from(limit)) {
            let Some(conversation) = self.conversation(*id) else { continue };
            let read = self.marks.get(&(*id, user)).map_or(0, |mark| mark.sequence);
            summaries.push(ConversationSummary {
                conversation,
                last_message: self.last_message(*id).cloned(),
                unread: unread(self.head(*id), read, || self.first_sequence(*id)),
            });
        }
        ConversationList { summaries, more: ids.next().is_some() }
    }
}
