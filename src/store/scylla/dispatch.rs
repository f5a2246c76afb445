//! Which part of the store answers which request.

use std::future::Future;

use futures_util::future::LocalBoxFuture;

use crate::store::{Call, Read, Reply, Request, Write, accounts, conversations, erasure, log};

use super::{Fault, Work};

pub(super) type Answering<'a> = LocalBoxFuture<'a, Result<Reply, Fault>>;

/// Each in a box of its own: in one piece every request would take the memory of the largest.
fn answering<'a, C: Call>(call: &'a C, answer: impl Future<Output = Result<C::Answer, Fault>> + 'a) -> Answering<'a> {
    Box::pin(async move { Ok(call.reply(answer.await?)) })
}

impl Work<'_> {
    pub(super) fn answer<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        match request {
            Request::Read(Read::Log(read)) => self.answer_log_read(read),
            Request::Read(Read::Conversations(read)) => self.answer_conversations_read(read),
            Request::Read(Read::Accounts(read)) => self.answer_accounts_read(read),
            Request::Write(Write::Log(write)) => self.answer_log_write(write),
            Request::Write(Write::Conversations(write)) => self.answer_conversations_write(write),
            Request::Write(Write::Accounts(write)) => self.answer_accounts_write(write),
            Request::Write(Write::Erasure(write)) => self.answer_erasure_write(write),
        }
    }

    fn answer_log_write<'a>(&'a self, write: &'a log::Write) -> Answering<'a> {
        match write {
            log::Write::Append(append) => answering(append, self.append(append)),
            log::Write::SetReadMark(set) => answering(set, self.set_read_mark(set)),
        }
    }

    fn answer_log_read<'a>(&'a self, read: &'a log::Read) -> Answering<'a> {
        match read {
            log::Read::ReadBefore(read) => answering(read, self.read_before(read)),
            log::Read::ReadAfter(read) => answering(read, self.read_after(read)),
            log::Read::ReadMessage(read) => answering(read, self.read_message(read)),
            log::Read::FindMessage(find) => answering(find, self.find_message(find.message)),
            log::Read::ListReadMarks(list) => answering(list, self.list_read_marks(list.conversation)),
        }
    }

    fn answer_conversations_write<'a>(&'a self, write: &'a conversations::Write) -> Answering<'a> {
        match write {
            conversations::Write::CreateConversation(create) => answering(create, self.create(&create.conversation)),
            conversations::Write::PutParticipant(put) => answering(put, self.put_participant(put)),
            conversations::Write::RemoveParticipant(remove) => answering(remove, self.remove_participant(remove)),
            conversations::Write::SetBlock(set) => answering(set, self.set_block(set)),
        }
    }

    fn answer_conversations_read<'a>(&'a self, read: &'a conversations::Read) -> Answering<'a> {
        match read {
            conversations::Read::ReadConversation(read) => answering(read, self.state(read.conversation, false)),
            conversations::Read::LoadConversation(load) => answering(load, self.state(load.conversation, true)),
            conversations::Read::ListConversations(list) => answering(list, self.list_conversations(list)),
            conversations::Read::ListBlocks(list) => answering(list, self.list_blocks(list.user)),
        }
    }

    fn answer_accounts_write<'a>(&'a self, write: &'a accounts::Write) -> Answering<'a> {
        match write {
            accounts::Write::PutCode(put) => answering(put, self.put_code(put)),
            accounts::Write::TakeCode(take) => answering(take, self.take_code(take)),
            accounts::Write::LoginUser(login) => answering(login, self.login_user(login)),
            accounts::Write::PutRefresh(put) => answering(put, self.put_refresh(put)),
            accounts::Write::RotateRefresh(rotate) => answering(rotate, self.rotate_refresh(rotate)),
            accounts::Write::RevokeRefresh(revoke) => answering(revoke, self.revoke_refresh(revoke)),
        }
    }

    fn answer_accounts_read<'a>(&'a self, read: &'a accounts::Read) -> Answering<'a> {
        match read {
            accounts::Read::ReadUser(read) => answering(read, self.read_user(read.user)),
            accounts::Read::ListRevoked(list) => answering(list, self.list_revoked(list.since)),
        }
    }

    fn answer_erasure_write<'a>(&'a self, write: &'a erasure::Write) -> Answering<'a> {
        match write {
            erasure::Write::EraseUser(erase) => answering(erase, self.erase_user(erase)),
        }
    }
}
