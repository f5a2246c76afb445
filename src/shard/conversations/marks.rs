//! Read marks, and messages read one at a time.

use bytes::Bytes;

use crate::model::command::Outcome;
use crate::model::destination::UserQueue;
use crate::model::message::ReadMark;
use crate::model::{ConversationId, Refusal, RefusalCode};
use crate::protocol::json;
use crate::shard::conversations::{Conversations, OnReply};
use crate::shard::mail::{Asker, Notice, UserMail};
use crate::shard::turn::{Turn, store_refusal};
use crate::store::{Reply, Request};

impl Conversations {
    pub(super) fn message_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        match reply {
            Reply::Message(Some(message)) => turn.answer(asker, Outcome::Message(message)),
            Reply::Message(None) => {
                turn.refuse(asker, Refusal::new(RefusalCode::NotFound, "there is no such message in this conversation"));
            }
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }

    pub(super) fn message_to_mark_read(&mut self, turn: &mut Turn, asker: Asker, reply: Reply) {
        let Reply::Message(Some(message)) = reply else {
            return self.message_read(turn, asker, reply);
        };
        let mark = ReadMark { user: asker.caller.user, message: message.id, sequence: message.sequence };
        let conversation = message.conversation;
        self.ask_store(turn, Request::Mark { conversation, mark }, OnReply::Marked(asker, conversation));
    }

    /// A read mark is stored. The other participants get a notice if it moved.
    pub(super) fn marked(&mut self, turn: &mut Turn, asker: Asker, conversation: ConversationId, reply: &Reply) {
        let Reply::Marked { mark, changed } = reply else {
            return turn.refuse(asker, store_refusal(reply));
        };
        turn.answer(asker, Outcome::Marked(*mark));
        if !changed {
            return;
        }
        let mut body = Vec::new();
        json::read_mark_event(conversation, mark, &mut body);
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
        match reply {
            Reply::Marks(marks) => turn.answer(asker, Outcome::ReadMarks(marks)),
            other => turn.refuse(asker, store_refusal(&other)),
        }
    }
}
