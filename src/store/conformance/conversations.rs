//! Conversations, their participants, lists, and blocks.

use std::sync::Arc;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, ConversationKind, Message, Participant, ParticipantRole};
use crate::store::conversations::{
    BlockAnswer, ConversationList, CreateAnswer, CreateConversation, ListBlocks, ListConversations, PutParticipant,
    ReadConversation, RemoveParticipant, SetBlock,
};

use super::log::{after, fill, mark, page};
use super::{Ask, Store, at, conversation_id, on_every_store, stores, user};

on_every_store! {
    stores:
    lists_count_what_is_unread,
    participants_come_and_go,
    a_pair_has_one_conversation,
    a_block_counts_both_ways,
}

pub(super) fn participants(users: &[u64]) -> Vec<Participant> {
    let member = |value: &u64| Participant { user: user(*value), role: ParticipantRole::Member, joined_at: at(0) };
    users.iter().map(member).collect()
}

pub(super) fn direct(id: u64, users: [u64; 2]) -> Conversation {
    let [first, second] = [users[0].min(users[1]), users[0].max(users[1])];
    let participants = participants(&[first, second]);
    Conversation {
        id: conversation_id(id),
        kind: ConversationKind::Direct,
        title: None,
        created_by: user(users[0]),
        created_at: at(0),
        participants,
    }
}

pub(super) fn group(id: u64, users: &[u64]) -> Conversation {
    let title = Some("title".into());
    let created_by = user(users[0]);
    let participants = participants(users);
    Conversation { id: conversation_id(id), kind: ConversationKind::Group, title, created_by, created_at: at(0), participants }
}

pub(super) fn create(store: &mut dyn Store, conversation: Conversation) -> (ConversationId, bool) {
    let CreateAnswer { state, created } = store.ask(CreateConversation { conversation });
    (state.conversation.id, created)
}

/// Id, unread count and last sequence of each conversation of a list, and whether there are more.
pub(super) fn list(store: &mut dyn Store, user_value: u64, after: Option<u64>, limit: u16) -> (Vec<(u64, u64, u64)>, bool) {
    let after = after.map(conversation_id);
    let ConversationList { summaries, more } = store.ask(ListConversations { user: user(user_value), after, limit });
    let last = |message: &Option<Arc<Message>>| message.as_ref().map_or(0, |message| message.sequence);
    (summaries.iter().map(|s| (s.conversation.id.value(), s.unread, last(&s.last_message))).collect(), more)
}

fn lists_count_what_is_unread(store: &mut dyn Store) {
    create(store, direct(5, [1, 2]));
    create(store, group(7, &[1, 2, 3]));
    create(store, group(9, &[2]));
    fill(store, 7, 1..=4);
    assert_eq!(list(store, 1, None, 10), (vec![(5, 0, 0), (7, 0, 4)], false));
    assert_eq!(list(store, 2, None, 10), (vec![(5, 0, 0), (7, 4, 4), (9, 0, 0)], false));
    store.ask(mark(2, 3));
    assert_eq!(list(store, 2, Some(5), 1), (vec![(7, 1, 4)], true));
    assert_eq!(list(store, 2, Some(7), 1), (vec![(9, 0, 0)], false));
    assert_eq!(list(store, 2, None, 0), (vec![], true));
    assert_eq!(list(store, 4, None, 10), (vec![], false));
}

fn participants_come_and_go(store: &mut dyn Store) {
    create(store, group(7, &[1, 3]));
    fill(store, 7, 1..=2);
    let put = |value, role| {
        let participant = Participant { user: user(value), role, joined_at: at(value) };
        PutParticipant { conversation: conversation_id(7), participant }
    };
    let remove = |value| RemoveParticipant { conversation: conversation_id(7), user: user(value) };
    assert!(store.ask(put(2, ParticipantRole::Member)).unwrap().changed);
    assert!(!store.ask(put(2, ParticipantRole::Member)).unwrap().changed);
    assert!(store.ask(put(1, ParticipantRole::Admin)).unwrap().changed);
    store.ask(mark(3, 1));
    assert!(store.ask(remove(3)).unwrap().changed);
    assert!(!store.ask(remove(3)).unwrap().changed);
    let state = store.ask(ReadConversation { conversation: conversation_id(7) }).unwrap();
    let there: Vec<_> = state.conversation.participants.iter().map(|p| (p.user.value(), p.role, p.joined_at)).collect();
    // A change of role keeps the date of joining.
    assert_eq!(there, [(1, ParticipantRole::Admin, at(0)), (2, ParticipantRole::Member, at(2))]);
    assert_eq!(list(store, 3, None, 10), (vec![], false));
    assert_eq!(page(store, after(7, MessageId::MIN, 10)), (vec![1, 2], false));
    // A user who comes back begins anew.
    assert!(store.ask(put(3, ParticipantRole::Member)).unwrap().changed);
    assert_eq!(list(store, 3, None, 10), (vec![(7, 2, 2)], false));
}

fn a_pair_has_one_conversation(store: &mut dyn Store) {
    assert_eq!(create(store, direct(7, [1, 2])), (conversation_id(7), true));
    assert_eq!(create(store, direct(8, [2, 1])), (conversation_id(7), false));
    assert_eq!(create(store, direct(8, [1, 3])), (conversation_id(8), true));
    // Under an id that is taken nothing is made.
    assert_eq!(create(store, group(7, &[4])), (conversation_id(7), false));
    assert_eq!(create(store, direct(8, [4, 5])), (conversation_id(8), false));
    assert_eq!(list(store, 4, None, 10), (vec![], false));
    // Groups are not unique.
    assert_eq!(create(store, group(9, &[1, 2])), (conversation_id(9), true));
    assert_eq!(create(store, group(10, &[1, 2])), (conversation_id(10), true));
}

fn a_block_counts_both_ways(store: &mut dyn Store) {
    let set = |store: &mut dyn Store, by: u64, other: u64, blocked| {
        let BlockAnswer { direct, blocked, changed } = store.ask(SetBlock { user: user(by), other: user(other), blocked });
        (direct.map(ConversationId::value), blocked, changed)
    };
    assert_eq!(set(store, 1, 2, true), (None, true, true));
    create(store, direct(7, [1, 2]));
    create(store, group(8, &[1, 2]));
    let blocked = |store: &mut dyn Store, id| store.ask(ReadConversation { conversation: conversation_id(id) }).unwrap().blocked;
    assert!(blocked(store, 7) && !blocked(store, 8));
    assert_eq!(set(store, 1, 2, true), (Some(7), true, false));
    assert_eq!(set(store, 2, 1, true), (Some(7), true, true));
    assert_eq!(set(store, 1, 2, false), (Some(7), true, true));
    assert_eq!(set(store, 1, 3, true), (None, true, true));
    let blocks =
        |store: &mut dyn Store, by| store.ask(ListBlocks { user: user(by) }).into_iter().map(UserId::value).collect::<Vec<_>>();
    assert_eq!((blocks(store, 1), blocks(store, 2), blocks(store, 3)), (vec![3], vec![1], vec![]));
    assert_eq!(set(store, 2, 1, false), (Some(7), false, true));
    assert!(!blocked(store, 7));
}
