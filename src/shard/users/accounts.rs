//! Commands about a user: their conversations, their blocks, their account.

use std::sync::Arc;

use crate::access::Caller;
use crate::model::command::{ConversationCommand, Outcome, UserCommand};
use crate::model::message::{Conversation, ConversationKind};
use crate::model::{ConversationId, MessageId, Refusal, RefusalCode, UserId};
use crate::shard::mail::{Asker, ConversationMail};
use crate::shard::turn::{Turn, store_refusal};
use crate::shard::users::{OnReply, Users};
use crate::store::{Reply, Request};

/// A conversation to create, to be tried under another id when this one is taken.
#[derive(Debug)]
pub(super) struct Creation {
    asker: Asker,
    kind: ConversationKind,
    participants: Vec<UserId>,
    title: Option<Box<str>>,
    candidate: ConversationId,
}

impl Users {
    /// Carries out a command of one of this shard's users.
    pub(super) fn ask(&mut self, turn: &mut Turn, asker: Asker, command: UserCommand) {
        let user = asker.caller.user;
        match command {
            UserCommand::MarkRead { message } => {
                self.ask_store(turn, Request::FindMessage { message }, OnReply::MessageFound(asker, message));
            }
            UserCommand::CreateConversation { kind, participants, title } => {
                self.create_conversation(turn, asker, kind, participants, title);
            }
            UserCommand::ListConversations { after, limit } => {
                self.ask_store(turn, Request::ReadConversations { user, after, limit }, OnReply::ConversationsRead(asker));
            }
            UserCommand::SetBlock { user: other, .. } if other == user => {
                turn.refuse(asker, Refusal::new(RefusalCode::BadRequest, "you cannot block yourself"));
            }
            UserCommand::SetBlock { user: other, blocked } => {
                self.ask_store(turn, Request::SetBlock { user, other, blocked }, OnReply::BlockSet(asker));
            }
            UserCommand::ListBlocks => self.ask_store(turn, Request::ReadBlocks { user }, OnReply::BlocksRead(asker)),
            UserCommand::ReadMe => self.ask_store(turn, Request::ReadUser { user }, OnReply::AccountRead(asker)),
        }
    }

    pub(super) fn message_found(&mut self, turn: &mut Turn, asker: Asker, message: MessageId, reply: &Reply) {
        match reply {
            Reply::Found(Some(conversation)) => {
                ask_conversation(turn, *conversation, asker, ConversationCommand::MarkRead { message });
            }
            // A caller does not learn whether a message exists that is not theirs.
            Reply::Found(None) => {
                let refusal = Refusal::new(RefusalCode::NotParticipant, "you are not a participant of its conversation");
                turn.refuse(asker, refusal);
            }
            other => turn.refuse(asker, store_refusal(other)),
        }
    }

    /// A conversation of the caller and others, under a random id.
    fn create_conversation(
        &mut self,
        turn: &mut Turn,
        asker: Asker,
        kind: ConversationKind,
        participants: Vec<UserId>,
        title: Option<Box<str>>,
    ) {
        let caller = asker.caller.user;
        let candidate = ConversationId::new(turn.random_id()).expect("52 bits are an id");
        let users = participants.iter().copied().chain([caller]).collect();
        match Conversation::new(turn.limits(), turn.now.wall, candidate, kind, users, title.as_deref(), caller) {
            Ok(conversation) => {
                let creation = Creation { asker, kind, participants, title, candidate };
                self.ask_store(turn, Request::CreateConversation { conversation }, OnReply::Created(Box::new(creation)));
            }
            Err(refusal) => turn.refuse(asker, refusal),
        }
    }

    pub(super) fn created(&mut self, turn: &mut Turn, creation: Creation, reply: Reply) {
        let Creation { asker, kind, participants, title, candidate } = creation;
        match reply {
            Reply::Conversation { state, created } => {
                let conversation = state.conversation;
                // The id was taken: one in 2^52, and answering with it would reveal a foreign conversation.
                if !created && (kind == ConversationKind::Group || conversation.id == candidate) {
                    return self.create_conversation(turn, asker, kind, participants, title);
                }
                turn.answer(asker, Outcome::Conversation { conversation: Arc::new(conversation), created });
            }
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }

    pub(super) fn conversations_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        match reply {
            Reply::Conversations { summaries, more } => {
                let next = summaries.last().filter(|_| more).map(|last| last.conversation.id);
                turn.answer(asker, Outcome::Conversations { summaries, next });
            }
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }

    /// A block is stored: the pair's conversation must go by it before the caller is answered.
    pub(super) fn block_set(&mut self, turn: &mut Turn, asker: Asker, reply: &Reply) {
        match reply {
            Reply::BlockSet { direct: Some(conversation), .. } => {
                let conversation = *conversation;
                turn.mail(turn.placement.conversation(conversation), ConversationMail::BlockChanged { conversation, asker });
            }
            Reply::BlockSet { direct: None, .. } => turn.answer(asker, Outcome::Done),
            other => turn.refuse(asker, store_refusal(other)),
        }
    }

    pub(super) fn blocks_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        match reply {
            Reply::Blocks(users) => turn.answer(asker, Outcome::Blocks(users)),
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }

    pub(super) fn account_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        let Caller { user, admin } = asker.caller;
        match reply {
            Reply::User(account) => {
                let (user, roles, display_name) = (account.user, account.roles, account.display_name);
                turn.answer(asker, Outcome::Me { user, roles, display_name });
            }
            // A token made elsewhere names a user that never logged in here.
            Reply::Missing => {
                let roles = if admin { vec!["admin".into()] } else { Vec::new() };
                turn.answer(asker, Outcome::Me { user, roles, display_name: None });
            }
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }
}

/// Sends a command to its conversation's shard.
pub(super) fn ask_conversation(turn: &mut Turn, conversation: ConversationId, asker: Asker, command: ConversationCommand) {
    let command = Box::new(command);
    turn.mail(turn.placement.conversation(conversation), ConversationMail::Ask { asker, conversation, command });
}
