//! The reference model: the contract in plain ordered maps, as obviously right as we can make it.
//!
//! Tests compare other implementations with it, and the simulator runs on it: a clone stands for the contents of a disk.
//! View: one node. Not durable. Every request looks rows up in place, and nothing is ever purged: an expired row counts as
//! absent.

mod accounts;
mod conversations;
mod erasure;
mod log;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::{ConversationId, MessageId, UserId};
use crate::model::message::{Conversation, Head, Message, Participant, ReadMark};
use crate::model::time::Wall;
use crate::store::accounts::{FamilyId, SecretHash, User};
use crate::store::{Call, Failure, Read, Reply, Request, Write};

/// All tables of the contract.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The list of participants is empty here: they have a table of their own.
    conversations: BTreeMap<ConversationId, Conversation>,
    participants: BTreeMap<(ConversationId, UserId), Participant>,
    conversations_of: BTreeMap<(UserId, ConversationId), ()>,
    pairs: BTreeMap<(UserId, UserId), ConversationId>,
    log: BTreeMap<(ConversationId, MessageId), Arc<Message>>,
    /// Ends of logs, which outlive their messages.
    heads: BTreeMap<ConversationId, Head>,
    index: BTreeMap<MessageId, ConversationId>,
    keys: BTreeMap<(ConversationId, UserId, Box<str>), Key>,
    marks: BTreeMap<(ConversationId, UserId), ReadMark>,
    blocks: BTreeMap<(UserId, UserId), ()>,
    logins: BTreeMap<Box<str>, UserId>,
    users: BTreeMap<UserId, User>,
    codes: BTreeMap<Box<str>, Code>,
    tokens: BTreeMap<SecretHash, Token>,
    families: BTreeMap<FamilyId, Family>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    message: MessageId,
    expires: Wall,
}

#[derive(Clone, Debug, Default)]
struct Code {
    live: Option<LiveCode>,
    /// When codes were sent within the last hour, ascending.
    sent: Vec<Wall>,
    /// The last attempt and whether it was right, so that a repetition does not count as another attempt.
    last_attempt: Option<(Wall, SecretHash, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct LiveCode {
    code: SecretHash,
    expires: Wall,
    wrong_attempts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    user: UserId,
    family: FamilyId,
    expires: Wall,
    /// The token that replaced it.
    next: Option<SecretHash>,
}

#[derive(Clone, Copy, Debug)]
struct Family {
    user: UserId,
    revoked: Option<Wall>,
}

impl Memory {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries a request out and replies to it.
    pub fn apply(&mut self, request: &Request) -> Reply {
        match request {
            Request::Read(read) => self.read(read),
            Request::Write(write) => self.write(write),
        }
    }

    /// Carries a request out and returns its answer.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] for an append that is refused.
    pub fn ask<C: Call>(&mut self, call: C) -> Result<C::Answer, Failure> {
        C::answer(self.apply(&call.into()))
    }

    pub fn write(&mut self, write: &Write) -> Reply {
        match write {
            Write::Log(write) => self.write_log(write),
            Write::Conversations(write) => self.write_conversations(write),
            Write::Accounts(write) => self.write_accounts(write),
            Write::Erasure(write) => self.write_erasure(write),
        }
    }

    #[must_use]
    pub fn read(&self, read: &Read) -> Reply {
        match read {
            Read::Log(read) => self.read_log(read),
            Read::Conversations(read) => self.read_conversations(read),
            Read::Accounts(read) => self.read_accounts(read),
        }
    }

    /// Removes the messages that are as old as `retention` at `now`.
    pub fn expire(&mut self, now: Wall, retention: Duration) {
        self.log.retain(|(_, message), _| now < message.at().after(retention));
        self.index.retain(|message, _| now < message.at().after(retention));
    }
}
