//! What is on its way into the log of one conversation.

use crate::model::MessageId;
use crate::model::message::{Draft, SenderSession};
use crate::shard::mail::Asker;
use crate::shard::turn::pipeline::Pipeline;
use crate::store::log::Append;

/// Messages on their way into one log.
pub(super) type Log = Pipeline<Send, Box<Appending>, DoubtfulAppend>;

/// A message that waits for the store.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) asker: Asker,
    pub(super) from: Option<SenderSession>,
    pub(super) draft: Draft,
}

/// The append under way: the request, and its senders in order.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) senders: Vec<(Asker, Option<SenderSession>)>,
    pub(super) request: Append,
}

/// What is remembered of an append in doubt.
#[derive(Debug)]
pub(super) struct DoubtfulAppend {
    /// The end of the log before it.
    pub(super) after: Option<MessageId>,
    pub(super) messages: Vec<MessageId>,
}

impl Appending {
    pub(super) fn doubt(&self) -> DoubtfulAppend {
        let Append { head, messages, .. } = &self.request;
        DoubtfulAppend { after: head.last, messages: messages.iter().map(|message| message.id).collect() }
    }

    pub(super) fn askers(self) -> impl Iterator<Item = Asker> {
        self.senders.into_iter().map(|(asker, _)| asker)
    }
}
