//! Commands about a user: their conversations, their blocks, their account.

use std::sync::Arc;

use crate::access::Caller;
use crate::model::command::{ConversationCommand, Outcome, UserCommand};
use crate::model::message::{Conversation, ConversationKind};
use crate::model::{ConversationId, MessageId, Refusal, RefusalCode, UserId};
use crate::shard::mail::{Asker, ConversationMail};
use crate::shard::turn::{Turn, store_refusal};
use crate::shard::users::{OnReply, Users};
use crate::store::accounts::{ReadUser, User};
use crate::store::conversations::{CreateAnswer, CreateConversation, ListBlocks, ListConversations, SetBlock};
use crate::store::log::FindMessage;
use crate::store::{Call, Reply};

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
                self.ask_store(turn, FindMessage { message }, OnReply::MessageFound(asker, message));
            }
            UserCommand::CreateConversation { kind, participants, title } => {
                self.create_conversation(turn, asker, kind, participants, title);
            }
            UserCommand::ListConversations { after, limit } => {
                self.ask_store(turn, ListConversations { user, after, limit }, OnReply::ConversationsRead(asker));
            }
            UserCommand::SetBlock { user: other, .. } if other == user => {
                turn.refuse(asker, Refusal::new(RefusalCode::BadRequest, "you cannot block yourself"));
            }
            UserCommand::SetBlock { user: other, blocked } => {
                self.ask_store(turn, SetBlock { user, other, blocked }, OnReply::BlockSet(asker));
            }
            UserCommand::ListBlocks => self.ask_store(turn, ListBlocks { user }, OnReply::BlocksRead(asker)),
            UserCommand::ReadMe => self.ask_store(turn, ReadUser { user }, OnReply::AccountRead(asker)),
        }
    }

    pub(super) fn message_found(&mut self, turn: &mut Turn, asker: Asker, message: MessageId, reply: Reply) {
        match FindMessage::answer(reply) {
            Ok(Some(conversation)) => {
                ask_conversation(turn, conversation, asker, ConversationCommand::MarkRead { message });
            }
            // A caller does not learn whether a message exists that is not theirs.
            Ok(None) => {
                let refusal = Refusal::new(RefusalCode::NotParticipant, "you are not a participant of its conversation");
                turn.refuse(asker, refusal);
            }
            Err(failure) => turn.refuse(asker, store_refusal(failure)),
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
                self.ask_store(turn, CreateConversation { conversation }, OnReply::Created(Box::new(creation)));
            }
            Err(refusal) => turn.refuse(asker, refusal),
        }
    }

    pub(super) fn created(&mut self, turn: &mut Turn, creation: Creation, reply: Reply) {
        let Creation { asker, kind, participants, title, candidate } = creation;
        match CreateConversation::answer(reply) {
            Ok(CreateAnswer { state, created }) => {
                let conversation = state.conversation;
                // The id was taken: one in 2^52, and answering with it would reveal a foreign conversation.
                if !created && (kind == ConversationKind::Group || conversation.id == candidate) {
                    return self.create_conversation(turn, asker, kind, participants, title);
                }
                turn.answer(asker, Outcome::Conversation { conversation: Arc::new(conversation), created });
            }
            Err(failure) => turn.refuse(asker, store_refusal(failure)),
        }
    }

    pub(super) fn conversations_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        turn.answer_from::<ListConversations>(asker, reply, |list| {
            let next = list.summaries.last().filter(|_| list.more).map(|last| last.conversation.id);
            Outcome::Conversations { summaries: list.summaries, next }
        });
    }

    /// A block is stored: the pair's conversation must go by it before the caller is answered.
    pub(super) fn block_set(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        match SetBlock::answer(reply).map(|answer| answer.direct) {
            Ok(Some(conversation)) => {
                turn.mail(turn.placement.conversation(conversation), ConversationMail::BlockChanged { conversation, asker });
            }
            Ok(None) => turn.answer(asker, Outcome::Done),
            Err(failure) => turn.refuse(asker, store_refusal(failure)),
        }
    }

    pub(super) fn blocks_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        turn.answer_from::<ListBlocks>(asker, reply, Outcome::Blocks);
    }

    pub(super) fn account_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        let Caller { user, admin } = asker.caller;
        turn.answer_from::<ReadUser>(asker, reply, |account| match account {
            Some(User { user, roles, display_name }) => Outcome::Me { user, roles, display_name },
            // A token made elsewhere names a user that never logged in here.
            None => Outcome::Me { user, roles: if admin { vec!["admin".into()] } else { Vec::new() }, display_name: None },
        });
    }
}

/// Sends a command to its conversation's shard.
pub(super) fn ask_conversation(turn: &mut Turn, conversation: ConversationId, asker: Asker, command: ConversationCommand) {
    let command = Box::new(command);
    turn.mail(turn.placement.conversation(conversation), ConversationMail::Ask { asker, conversation, command });
}
