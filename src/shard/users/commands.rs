//! What a connected client's frames do, and how their outcomes come back to it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::rate::{Rate, retry_after_seconds};
use crate::access::{Action, Caller, Principal, may};
use crate::model::command::{Command, ConversationCommand, Outcome, UserCommand};
use crate::model::destination::{ANNOUNCEMENTS, UserQueue};
use crate::model::message::{Draft, Event, Message, SenderSession};
use crate::model::{Close, Fault, Refusal, RefusalCode, UserId};
use crate::protocol::json;
use crate::session::content;
use crate::session::frames::{self, Address, MessageContent};
use crate::session::intent::{AckMode, Announcement, ClientFrame, Intent, SendIntent};
use crate::session::state::{Group, Pending, Transaction};
use crate::shard::clients::Clients;
use crate::shard::mail::{Asker, ReplyTo, SessionKey, TopicMail};
use crate::shard::turn::Turn;
use crate::shard::users::Users;
use crate::shard::users::accounts::ask_conversation;

/// What follows a SEND: its own receipt, or its transaction's.
#[derive(Debug, Default)]
struct Receipt {
    receipt: Option<Box<str>>,
    group: Option<usize>,
}

impl Users {
    /// A frame of a session. A fault ends the session: ERROR, close.
    pub(super) fn handle_frame(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, frame: ClientFrame) {
        let ClientFrame { receipt, intent } = frame;
        let Some(entry) = self.sessions.find(key) else { return };
        let done = if entry.session.disconnecting.is_some() {
            Err(Fault::protocol("no frame may follow DISCONNECT"))
        } else if entry.session.principal.expires <= turn.now.wall {
            Err(Fault::policy("the token has expired"))
        } else {
            intent.and_then(|intent| self.carry_out(turn, clients, key, intent, receipt.as_deref()))
        };
        if let Err(fault) = done
            && let Some(entry) = self.sessions.find(key)
        {
            let error = frames::error(entry.format, &fault.message, receipt.as_deref());
            self.close_session(turn, clients, key, fault.close, Some(error));
        }
        self.pause_if_full(turn, clients, key);
    }

    /// Stops reading from a client with as many commands under way as may be.
    fn pause_if_full(&self, turn: &mut Turn, clients: &mut Clients, key: SessionKey) {
        if let Some(entry) = self.sessions.find(key)
            && entry.session.pending.len() >= turn.limits().session_inflight
        {
            clients.pause(turn, entry.client);
        }
    }

    fn carry_out(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        key: SessionKey,
        intent: Intent,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(entry) = self.sessions.find_mut(key) else { return Ok(()) };
        match intent {
            Intent::Send { transaction, send } => return self.handle_send(turn, clients, key, transaction, send, receipt),
            Intent::Subscribe(subscribe) => return self.handle_subscribe(turn, clients, key, subscribe, receipt),
            Intent::Unsubscribe { id, destination } => self.handle_unsubscribe(turn, key, id.as_deref(), destination.as_deref()),
            Intent::Acknowledge { transaction } => {
                if let Some(name) = transaction {
                    entry.session.transaction(&name)?;
                }
            }
            Intent::Begin { transaction } => entry.session.begin(&transaction, turn.limits())?,
            Intent::Commit { transaction } => {
                let transaction = entry.session.end_transaction(&transaction)?;
                if !self.commit(turn, clients, key, transaction, receipt) {
                    return Ok(());
                }
            }
            Intent::Abort { transaction } => drop(entry.session.end_transaction(&transaction)?),
            Intent::Disconnect => {
                entry.session.disconnecting = Some(receipt.map(Into::into));
                self.finish_disconnect(turn, clients, key);
                return Ok(());
            }
        }
        self.write_receipt(turn, clients, key, receipt);
        Ok(())
    }

    fn handle_send(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        key: SessionKey,
        transaction: Option<Box<str>>,
        send: Result<SendIntent, Refusal>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(entry) = self.sessions.find_mut(key) else { return Ok(()) };
        match (send, transaction) {
            (Err(refusal), transaction) => {
                if let Some(name) = transaction {
                    entry.session.transaction(&name)?.refused.get_or_insert_with(|| refusal.clone());
                }
                self.refuse(turn, clients, key, &refusal, receipt);
            }
            (Ok(send), Some(name)) => {
                entry.session.enlist(&name, send, turn.limits())?;
                // Inside a transaction a receipt means taken in; COMMIT's means durable.
                self.write_receipt(turn, clients, key, receipt);
            }
            (Ok(send), None) => {
                self.send(turn, clients, key, send, Receipt { receipt: receipt.map(Into::into), group: None });
            }
        }
        Ok(())
    }

    /// Sends what a transaction gathered. True when that was nothing, so that its receipt can be written at once.
    fn commit(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        key: SessionKey,
        transaction: Transaction,
        receipt: Option<&str>,
    ) -> bool {
        let Transaction { sends, refused, .. } = transaction;
        if let Some(refusal) = refused {
            self.refuse(turn, clients, key, &refusal, receipt);
            return false;
        }
        if sends.is_empty() {
            return true;
        }
        let Some(entry) = self.sessions.find_mut(key) else { return false };
        let group = Group { left: sends.len(), receipt: receipt.map(Into::into), failed: false };
        let group = entry.session.groups.insert(group);
        for send in sends {
            self.send(turn, clients, key, send, Receipt { receipt: None, group: Some(group) });
        }
        false
    }

    fn send(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, send: SendIntent, receipt: Receipt) {
        let Some(entry) = self.sessions.find_mut(key) else { return };
        let command = match send {
            SendIntent::HeartBeat => return self.done(turn, clients, key, &receipt, None),
            SendIntent::RefreshToken(token) => {
                let refused = self.extend_session(turn, key, token.expose()).err();
                return self.done(turn, clients, key, &receipt, refused);
            }
            SendIntent::Announce(announcement) => {
                let refused = self.announce(turn, key, announcement).err();
                return self.done(turn, clients, key, &receipt, refused);
            }
            SendIntent::Message { conversation, draft, echo } => {
                let from = Some(SenderSession { session: entry.session.id, echo });
                Command::Conversation(conversation, ConversationCommand::Send { draft, from })
            }
            SendIntent::MarkRead { conversation: Some(conversation), message } => {
                Command::Conversation(conversation, ConversationCommand::MarkRead { message })
            }
            SendIntent::MarkRead { conversation: None, message } => Command::User(UserCommand::MarkRead { message }),
        };
        let caller = entry.session.principal.caller();
        let Receipt { receipt, group } = receipt;
        let number = entry.session.pending.insert(Pending { receipt, group });
        let reply_to = ReplyTo::Session { session: key, number };
        self.submit(turn, Asker { shard: turn.id, reply_to, caller }, command);
    }

    /// Commands of STOMP and REST alike: the rules of content and the user's budget, then on to the owner.
    pub(super) fn submit(&mut self, turn: &mut Turn, asker: Asker, mut command: Command) {
        let user = asker.caller.user;
        assert!(turn.placement.user(user) == turn.id, "commands are submitted at their user's shard");
        if let Command::Conversation(_, ConversationCommand::Send { draft, .. }) = &mut command {
            let admitted = self.spend(turn, user).and_then(|()| sanitize(turn, draft));
            if let Err(refusal) = admitted {
                return turn.refuse(asker, refusal);
            }
        }
        match command {
            Command::Conversation(conversation, command) => ask_conversation(turn, conversation, asker, command),
            Command::User(command) => self.ask(turn, asker, command),
        }
    }

    fn spend(&mut self, turn: &Turn, user: UserId) -> Result<(), Refusal> {
        let limits = turn.limits();
        let rate = Rate::new(limits.messages_per_minute, limits.messages_burst);
        let known = self.table.enter(user, turn.now.mono);
        known.budget.take(turn.now.mono, rate).map_err(|wait| {
            let message = format!("more than {} messages a minute", limits.messages_per_minute);
            Refusal::new(RefusalCode::RateLimited, message).retry_after(retry_after_seconds(wait))
        })?;
        if !std::mem::replace(&mut known.watched, true) {
            let full_at = known.budget.full_at();
            self.watch(user, Some(full_at));
        }
        Ok(())
    }

    /// An outcome has come back to its session.
    pub(super) fn answered(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, number: usize, outcome: &Outcome) {
        let Some(entry) = self.sessions.find_mut(key) else { return };
        let Pending { receipt, group } = entry.session.pending.try_remove(number).expect("a command gets exactly one answer");
        entry.session.forget_burst();
        let inflight = entry.session.pending.len();
        let client = entry.client;
        let refused = match outcome {
            Outcome::Refused(refusal) => Some(refusal.clone()),
            Outcome::Sent { message, replay } => {
                self.acknowledge_send(turn, clients, key, message, *replay);
                None
            }
            _ => None,
        };
        self.done(turn, clients, key, &Receipt { receipt, group }, refused);
        if inflight < turn.limits().session_inflight && turn.draining.is_none() {
            clients.resume(turn, client);
        }
        self.finish_disconnect(turn, clients, key);
        if inflight == 0 && turn.draining.is_some() {
            self.close_session(turn, clients, key, Close::Restart, None);
        }
    }

    /// One command's outcome is known: its own receipt, or its transaction's.
    fn done(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, receipt: &Receipt, refused: Option<Refusal>) {
        let failed = refused.is_some();
        if let Some(refusal) = refused {
            let asked = match receipt.group {
                None => receipt.receipt.clone(),
                Some(group) => self.sessions.find(key).and_then(|entry| entry.session.groups.get(group)?.receipt.clone()),
            };
            self.refuse(turn, clients, key, &refusal, asked.as_deref());
        } else if receipt.group.is_none() {
            self.write_receipt(turn, clients, key, receipt.receipt.as_deref());
        }
        let (Some(number), Some(entry)) = (receipt.group, self.sessions.find_mut(key)) else { return };
        let Some(group) = entry.session.groups.get_mut(number) else { return };
        group.left -= 1;
        group.failed |= failed;
        if group.left == 0 {
            let group = entry.session.groups.remove(number);
            if !group.failed {
                self.write_receipt(turn, clients, key, group.receipt.as_deref());
            }
        }
    }

    /// A refused SEND leaves the session open if the client listens for errors, or asked for nothing.
    fn refuse(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, refusal: &Refusal, receipt: Option<&str>) {
        let Some(entry) = self.sessions.find(key) else { return };
        tracing::debug!(shard = turn.id.0, session = ?entry.session.id, code = refusal.code.name(), "send refused");
        let listening = entry.session.queue_subscriptions(&UserQueue::Errors).next().is_some();
        if listening {
            let mut body = Vec::new();
            json::error_body(refusal, receipt, &mut body);
            let headers: Vec<(Box<str>, Box<str>)> = match refusal.retry_after {
                Some(seconds) => vec![("retry-after".into(), seconds.to_string().into())],
                None => Vec::new(),
            };
            self.write_to_queue(turn, clients, key, &UserQueue::Errors, &headers, &body);
        } else if receipt.is_some() {
            let error = frames::refused(entry.format, refusal, receipt);
            self.close_session(turn, clients, key, Close::Policy, Some(error));
        }
    }

    /// `{id, conversationId, ...}` to the sending session alone.
    fn acknowledge_send(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, message: &Message, replay: bool) {
        let Some(entry) = self.sessions.find(key) else { return };
        if entry.session.queue_subscriptions(&UserQueue::Acks).next().is_some() {
            let mut body = Vec::new();
            json::ack(message, replay, &mut body);
            self.write_to_queue(turn, clients, key, &UserQueue::Acks, &[], &body);
        }
    }

    /// An event for one session alone.
    fn write_to_queue(
        &mut self,
        turn: &mut Turn,
        clients: &mut Clients,
        key: SessionKey,
        queue: &UserQueue,
        headers: &[(Box<str>, Box<str>)],
        body: &[u8],
    ) {
        let message_id = turn.message_id(None);
        let Some(entry) = self.sessions.find(key) else { return };
        let content = MessageContent { message_id, content_type: "application/json", headers, body };
        let frames: Vec<_> = entry
            .session
            .queue_subscriptions(queue)
            .map(|subscription| {
                let address = Address {
                    format: entry.format,
                    destination: &subscription.destination,
                    subscription: subscription.id.as_deref(),
                    acknowledged: subscription.ack != AckMode::Auto,
                };
                frames::message(address, content)
            })
            .collect();
        for frame in frames {
            self.write_session(turn, clients, key, frame);
        }
    }

    pub(super) fn write_receipt(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey, receipt: Option<&str>) {
        let (Some(receipt), Some(entry)) = (receipt, self.sessions.find(key)) else { return };
        let frame = frames::receipt(entry.format, receipt);
        self.write_session(turn, clients, key, frame);
    }

    /// DISCONNECT waits for the answers of everything before it.
    pub(super) fn finish_disconnect(&mut self, turn: &mut Turn, clients: &mut Clients, key: SessionKey) {
        let Some(entry) = self.sessions.find_mut(key) else { return };
        if entry.session.awaits_answers() {
            return;
        }
        let Some(receipt) = entry.session.disconnecting.take() else { return };
        let receipt = receipt.map(|receipt| frames::receipt(entry.format, &receipt));
        self.close_session(turn, clients, key, Close::Normal, receipt);
    }

    fn announce(&mut self, turn: &mut Turn, key: SessionKey, announcement: Announcement) -> Result<(), Refusal> {
        let Some(entry) = self.sessions.find(key) else { return Ok(()) };
        let caller: Caller = entry.session.principal.caller();
        may(caller, Action::Announce, None)?;
        self.spend(turn, caller.user)?;
        let Announcement { content_type, body, headers } = announcement;
        let event = Arc::new(Event { id: turn.message_id(None), content_type, body: body.into(), headers });
        turn.mail(turn.placement.named_topic(ANNOUNCEMENTS), TopicMail::Publish { name: ANNOUNCEMENTS.into(), event });
        Ok(())
    }

    /// `/app/auth/refresh`: a new token of the same user extends the session.
    fn extend_session(&mut self, turn: &mut Turn, key: SessionKey, token: &str) -> Result<(), Refusal> {
        let claims = turn.verify(token)?;
        let Some(entry) = self.sessions.find_mut(key) else { return Ok(()) };
        if claims.user != entry.session.principal.user {
            return Err(Refusal::new(RefusalCode::Forbidden, "the token names another user"));
        }
        entry.session.principal = Principal::new(&claims, turn.limits());
        let deadline = entry.session.next_deadline(turn.now.mono, turn.now.wall);
        self.schedule_session(key, deadline);
        Ok(())
    }
}

fn sanitize(turn: &Turn, draft: &mut Draft) -> Result<(), Refusal> {
    let content = content::check(&draft.content, turn.limits().content_chars, turn.policy.sanitize)?;
    if let Cow::Owned(sanitized) = content {
        draft.content = sanitized.into();
    }
    Ok(())
}
