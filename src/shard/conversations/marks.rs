//! Read marks, and messages read one at a time.

use bytes::Bytes;

use crate::model::command::Outcome;
use crate::model::destination::UserQueue;
use crate::model::message::ReadMark;
use crate::model::{ConversationId, Refusal, RefusalCode};
use crate::protocol::json;
use crate::shard::conversations::{Conversations, OnReply};
use crate::shard::mail::{Asker, Notice, UserMail};
use crate::shard::turn::{Turn, missing, store_refusal};
use crate::store::log::{ListReadMarks, ReadMarkAnswer, ReadMessage, SetReadMark};
use crate::store::{Call, Reply};

impl Conversations {
    pub(super) fn message_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        turn.answer_from::<ReadMessage>(asker, reply, |message| {
            message.map_or_else(|| Outcome::Refused(no_message()), Outcome::Message)
        });
    }

    pub(super) fn message_to_mark_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        match ReadMessage::answer(reply) {
            Ok(Some(message)) => {
                let mark = ReadMark { user: asker.caller.user, message: message.id, sequence: message.sequence };
                let conversation = message.conversation;
                self.ask_store(turn, SetReadMark { conversation, mark }, OnReply::Marked(asker, conversation));
            }
            Ok(None) => turn.refuse(asker, no_message()),
            Err(failure) => turn.refuse(asker, store_refusal(failure)),
        }
    }

    /// A read mark is stored. The other participants get a notice if it moved.
    pub(super) fn marked(&mut self, turn: &mut Turn, asker: Asker, conversation: ConversationId, reply: Reply) {
        let ReadMarkAnswer { mark, changed } = match SetReadMark::answer(reply) {
            Ok(Some(answer)) => answer,
            Ok(None) => return turn.refuse(asker, missing()),
            Err(failure) => return turn.refuse(asker, store_refusal(failure)),
        };
        turn.answer(asker, Outcome::Marked(mark));
        if !changed {
            return;
        }
        let mut body = Vec::new();
        json::read_mark_event(conversation, &mark, &mut body);
        let body = Bytes::from(body);
        let id = turn.message_id(None);
        let lists = self.entries.participants_by_shard(conversation);
        for (shard, users) in turn.placement.all().zip(lists) {
            if !users.is_empty() {
                let (body, except) = (body.clone(), Some(asker.caller.user));
                let notice = Notice { queue: UserQueue::Receipts, id, body, users, except };
                turn.mail(shard, UserMail::Notify(Box::new(notice)));
            }
        }
    }

    pub(super) fn marks_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        turn.answer_from::<ListReadMarks>(asker, reply, |marks| {
            marks.map_or_else(|| Outcome::Refused(missing()), Outcome::ReadMarks)
        });
    }
}

fn no_message() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "there is no such message in this conversation")
}
