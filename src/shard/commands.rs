//! What a connected client's frames do, and how their outcomes come back to it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::command::{Command, Outcome};
use crate::model::destination::{ANNOUNCEMENTS, UserQueue};
use crate::model::message::{Draft, Event};
use crate::model::{Close, Fault, Mono, Refusal, RefusalCode, ShardId, UserId};
use crate::protocol::json;
use crate::protocol::stomp::{Command as StompCommand, Frame};
use crate::session::frames::{self, Address, Content};
use crate::session::intent::{self, Announcement, SendIntent};
use crate::session::rate::{Rate, retry_after_seconds};
use crate::session::state::{Group, Pending, Transaction};
use crate::session::{Principal, content};
use crate::shard::mail::{Ask, Asked, Asker, Mail, SessionKey, Subscriber};
use crate::shard::storing::Errand;
use crate::shard::timers::Timer;
use crate::shard::{Shard, Turn};
use crate::store::log::FindMessage;

/// What a SEND asked to be told.
#[derive(Debug, Default)]
struct Tell {
    receipt: Option<Box<str>>,
    group: Option<usize>,
}

impl Shard {
    pub(super) fn handle_client_frame(&mut self, turn: &mut Turn<'_>, key: SessionKey, frame: &Frame<'_>) -> Result<(), Fault> {
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        if live.session.disconnecting.is_some() {
            return Err(Fault::protocol("no frame may follow DISCONNECT"));
        }
        let receipt = intent::name(frame, "receipt")?;
        if live.session.principal.expires <= turn.now.wall {
            return Err(Fault::policy("the token has expired"));
        }
        match frame.command {
            StompCommand::Send => self.handle_send(turn, key, frame, receipt),
            StompCommand::Subscribe => self.handle_subscribe(turn, key, frame, receipt),
            StompCommand::Unsubscribe => self.handle_unsubscribe(turn, key, frame, receipt),
            StompCommand::Ack | StompCommand::Nack => self.handle_acknowledge(turn, key, frame, receipt),
            StompCommand::Begin | StompCommand::Commit | StompCommand::Abort => {
                self.handle_transaction(turn, key, frame, receipt)
            }
            StompCommand::Disconnect => {
                live.session.disconnecting = Some(receipt.map(Into::into));
                self.finish_disconnect(turn, key);
                Ok(())
            }
            StompCommand::Connect => Err(Fault::protocol("the session is connected already")),
            StompCommand::Connected | StompCommand::Message | StompCommand::Receipt | StompCommand::Error => {
                Err(Fault::protocol("a client may not send a server's frame"))
            }
        }
    }

    fn handle_send(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        frame: &Frame<'_>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let policy = self.policy.clone();
        let transaction = intent::name(frame, "transaction")?;
        if frame.header("destination").is_none() {
            return Err(Fault::protocol("header destination is missing"));
        }
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        let send = match intent::interpret_send(frame, live.session.id, &policy.limits, &mut self.reader) {
            Ok(send) => send,
            Err(refusal) => {
                if let Some(name) = transaction {
                    live.session.transaction(name)?.refused.get_or_insert_with(|| refusal.clone());
                }
                self.refuse(turn, key, &refusal, receipt);
                return Ok(());
            }
        };
        match transaction {
            Some(name) => {
                live.session.enlist(name, send, &policy.limits)?;
                // Inside a transaction a receipt means taken in; COMMIT's means durable.
                self.write_receipt(turn, key, receipt);
            }
            None => self.carry_out(turn, key, send, Tell { receipt: receipt.map(Into::into), group: None }),
        }
        Ok(())
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, key: SessionKey, send: SendIntent, tell: Tell) {
        match send {
            SendIntent::HeartBeat => self.told(turn, key, &tell, None),
            SendIntent::RefreshToken(token) => {
                let refused = self.extend_session(turn, key, token.expose()).err();
                self.told(turn, key, &tell, refused);
            }
            SendIntent::Announce(announcement) => {
                let refused = self.announce(turn, key, announcement).err();
                self.told(turn, key, &tell, refused);
            }
            SendIntent::Command(command) => {
                let Some(live) = self.sessions.find_mut(key) else { return };
                let Principal { user, admin, .. } = live.session.principal;
                let Tell { receipt, group } = tell;
                let number = live.session.pending.insert(Pending { receipt, group });
                let asked = Asked::Session { session: key, number };
                self.submit(turn, Ask { asker: Asker { shard: self.id, asked, user, admin }, command });
            }
        }
    }

    /// On the user's shard, for both doors: the rules of content and the user's budget, then on to the conversation.
    pub(super) fn submit(&mut self, turn: &mut Turn<'_>, mut ask: Ask) {
        let user = ask.asker.user;
        assert!(ShardId::of(user.value(), self.shards) == self.id, "commands are submitted at their user's shard");
        if let Command::Send { draft, .. } = &mut ask.command {
            let admitted = self.spend(turn, user).and_then(|()| self.sanitize(draft));
            if let Err(refusal) = admitted {
                return self.answer(turn, ask.asker, Outcome::Refused(refusal));
            }
        }
        self.route(turn, ask);
    }

    fn sanitize(&self, draft: &mut Draft) -> Result<(), Refusal> {
        let content = content::check(&draft.content, self.policy.limits.content_chars, self.policy.sanitize)?;
        if let Cow::Owned(sanitized) = content {
            draft.content = sanitized.into();
        }
        Ok(())
    }

    fn spend(&mut self, turn: &mut Turn<'_>, user: UserId) -> Result<(), Refusal> {
        let limits = &self.policy.limits;
        let rate = Rate::new(limits.messages_per_minute, limits.messages_burst);
        let known = self.users.enter(user, turn.now.mono);
        known.budget.take(turn.now.mono, rate).map_err(|wait| {
            let message = format!("more than {} messages a minute", limits.messages_per_minute);
            Refusal::new(RefusalCode::RateLimited, message).retry_after(retry_after_seconds(wait))
        })?;
        if !std::mem::replace(&mut known.watched, true) {
            let full_at = known.budget.full_at();
            self.watch_user(user, Some(full_at));
        }
        Ok(())
    }

    pub(super) fn watch_user(&mut self, user: UserId, next: Option<Mono>) {
        if let Some(at) = next {
            self.timers.schedule(at, Timer::User(user));
        }
    }

    /// To the shard of the command's conversation; commands without one are carried out here.
    pub(super) fn route(&mut self, turn: &mut Turn<'_>, ask: Ask) {
        let conversation = match &ask.command {
            Command::Send { conversation, .. }
            | Command::ListReadMarks { conversation }
            | Command::ReadHistory { conversation, .. }
            | Command::ReadMessage { conversation, .. }
            | Command::PutConversation { conversation, .. }
            | Command::ReadConversation { conversation }
            | Command::AddParticipant { conversation, .. }
            | Command::SetRole { conversation, .. }
            | Command::RemoveParticipant { conversation, .. } => Some(*conversation),
            Command::MarkRead { conversation, message } => {
                if conversation.is_none() {
                    let request = FindMessage { message: *message };
                    return self.ask_store(turn, request, Errand::Find(Box::new(ask)));
                }
                *conversation
            }
            Command::CreateConversation { .. }
            | Command::ListConversations { .. }
            | Command::SetBlock { .. }
            | Command::ListBlocks
            | Command::ReadMe => None,
        };
        match conversation {
            Some(conversation) => {
                let to = ShardId::of(conversation.value(), self.shards);
                self.mail(turn, to, Mail::Ask(Box::new(ask)));
            }
            None => self.ask_about_user(turn, ask),
        }
    }

    /// Sends an outcome to where the asker is.
    pub(super) fn answer(&mut self, turn: &mut Turn<'_>, asker: Asker, outcome: Outcome) {
        self.mail(turn, asker.shard, Mail::Answer { asked: asker.asked, outcome: Box::new(outcome) });
    }

    /// An outcome has come back to its session or connection.
    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, asked: Asked, outcome: Outcome) {
        match asked {
            Asked::Session { session, number } => self.session_answered(turn, session, number, &outcome),
            Asked::Request { connection, number } => self.request_answered(turn, connection, number, &outcome),
        }
    }

    fn session_answered(&mut self, turn: &mut Turn<'_>, key: SessionKey, number: usize, outcome: &Outcome) {
        let Some(live) = self.sessions.find_mut(key) else { return };
        let pending = live.session.pending.try_remove(number).expect("a command gets exactly one answer");
        live.session.forget_burst();
        let inflight = live.session.pending.len();
        let carrier = live.carrier;
        let refused = match outcome {
            Outcome::Refused(refusal) => Some(refusal.clone()),
            Outcome::Sent { message, replay } => {
                self.acknowledge_send(turn, key, message, *replay);
                None
            }
            _ => None,
        };
        self.told(turn, key, &Tell { receipt: pending.receipt, group: pending.group }, refused);
        if inflight < self.policy.limits.session_inflight && self.draining.is_none() {
            self.resume_carrier(turn, carrier);
        }
        self.finish_disconnect(turn, key);
        if inflight == 0 && self.draining.is_some() {
            self.drain_carrier(turn, carrier);
        }
    }

    /// One command's outcome is known: its own receipt, or its transaction's.
    fn told(&mut self, turn: &mut Turn<'_>, key: SessionKey, tell: &Tell, refused: Option<Refusal>) {
        let failed = refused.is_some();
        if let Some(refusal) = refused {
            let receipt = match tell.group {
                None => tell.receipt.clone(),
                Some(group) => self.sessions.find(key).and_then(|live| live.session.groups.get(group)?.receipt.clone()),
            };
            self.refuse(turn, key, &refusal, receipt.as_deref());
        } else if tell.group.is_none() {
            self.write_receipt(turn, key, tell.receipt.as_deref());
        }
        let (Some(number), Some(live)) = (tell.group, self.sessions.find_mut(key)) else { return };
        let Some(group) = live.session.groups.get_mut(number) else { return };
        group.left -= 1;
        group.failed |= failed;
        if group.left == 0 {
            let group = live.session.groups.remove(number);
            if !group.failed {
                self.write_receipt(turn, key, group.receipt.as_deref());
            }
        }
    }

    /// A refused SEND leaves the session open if the client listens for errors, or asked for nothing.
    fn refuse(&mut self, turn: &mut Turn<'_>, key: SessionKey, refusal: &Refusal, receipt: Option<&str>) {
        let Some(live) = self.sessions.find(key) else { return };
        tracing::debug!(shard = self.id.0, session = ?live.session.id, code = refusal.code.name(), "send refused");
        let listening = live.session.queue_subscriptions(&UserQueue::Errors).next().is_some();
        if listening {
            let mut body = Vec::new();
            json::error_body(refusal, receipt, &mut body);
            let headers: Vec<(Box<str>, Box<str>)> = match refusal.retry_after {
                Some(seconds) => vec![("retry-after".into(), seconds.to_string().into())],
                None => Vec::new(),
            };
            self.tell_queue(turn, key, &UserQueue::Errors, &headers, &body);
        } else if receipt.is_some() {
            let error = frames::refused(live.format, refusal, receipt);
            self.close_session(turn, key, Close::Policy, Some(error));
        }
    }

    /// `{id, conversationId, ...}` to the sending session alone.
    fn acknowledge_send(&mut self, turn: &mut Turn<'_>, key: SessionKey, message: &crate::model::message::Message, replay: bool) {
        let Some(live) = self.sessions.find(key) else { return };
        if live.session.queue_subscriptions(&UserQueue::Acks).next().is_some() {
            let mut body = Vec::new();
            json::ack(message, replay, &mut body);
            self.tell_queue(turn, key, &UserQueue::Acks, &[], &body);
        }
    }

    /// Something for one session alone.
    fn tell_queue(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        queue: &UserQueue,
        headers: &[(Box<str>, Box<str>)],
        body: &[u8],
    ) {
        let message_id = self.message_ids.next_id(turn.now.wall, None);
        let Some(live) = self.sessions.find(key) else { return };
        let content = Content { message_id, content_type: "application/json", headers, body };
        let frames: Vec<_> = live
            .session
            .queue_subscriptions(queue)
            .map(|subscription| {
                let address = Address {
                    format: live.format,
                    destination: &subscription.destination,
                    subscription: subscription.id.as_deref(),
                    acknowledged: subscription.ack != intent::AckMode::Auto,
                };
                frames::message(address, content)
            })
            .collect();
        for frame in frames {
            self.write_session(turn, key, frame);
        }
    }

    pub(super) fn write_receipt(&mut self, turn: &mut Turn<'_>, key: SessionKey, receipt: Option<&str>) {
        let (Some(receipt), Some(live)) = (receipt, self.sessions.find(key)) else { return };
        let frame = frames::receipt(live.format, receipt);
        self.write_session(turn, key, frame);
    }

    fn handle_transaction(
        &mut self,
        turn: &mut Turn<'_>,
        key: SessionKey,
        frame: &Frame<'_>,
        receipt: Option<&str>,
    ) -> Result<(), Fault> {
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        let Some(name) = intent::name(frame, "transaction")? else {
            return Err(Fault::protocol("header transaction is missing"));
        };
        match frame.command {
            StompCommand::Begin => live.session.begin(name, &self.policy.limits)?,
            StompCommand::Commit => {
                let Transaction { sends, refused, .. } = live.session.end_transaction(name)?;
                if let Some(refusal) = refused {
                    self.refuse(turn, key, &refusal, receipt);
                    return Ok(());
                }
                if !sends.is_empty() {
                    let group = Group { left: sends.len(), receipt: receipt.map(Into::into), failed: false };
                    let group = live.session.groups.insert(group);
                    for send in sends {
                        self.carry_out(turn, key, send, Tell { receipt: None, group: Some(group) });
                    }
                    return Ok(());
                }
            }
            _ => drop(live.session.end_transaction(name)?),
        }
        self.write_receipt(turn, key, receipt);
        Ok(())
    }

    /// DISCONNECT waits for the answers of everything before it.
    pub(super) fn finish_disconnect(&mut self, turn: &mut Turn<'_>, key: SessionKey) {
        let Some(live) = self.sessions.find_mut(key) else { return };
        if live.session.awaits_answers() {
            return;
        }
        let Some(receipt) = live.session.disconnecting.take() else { return };
        let format = live.format;
        let receipt = receipt.map(|receipt| frames::receipt(format, &receipt));
        self.close_session(turn, key, Close::Normal, receipt);
    }

    fn announce(&mut self, turn: &mut Turn<'_>, key: SessionKey, announcement: Announcement) -> Result<(), Refusal> {
        let Some(live) = self.sessions.find(key) else { return Ok(()) };
        let Principal { user, admin, .. } = live.session.principal;
        if !admin {
            return Err(Refusal::new(RefusalCode::Forbidden, "announcements need role admin"));
        }
        self.spend(turn, user)?;
        let Announcement { content_type, body, headers } = announcement;
        let id = self.message_ids.next_id(turn.now.wall, None);
        let event = Arc::new(Event { id, content_type, body: body.into(), headers });
        let to = self.topic_shard(ANNOUNCEMENTS);
        self.mail(turn, to, Mail::Publish { name: ANNOUNCEMENTS.into(), event });
        Ok(())
    }

    /// `/app/auth/refresh`: a new token of the same user carries the session on.
    fn extend_session(&mut self, turn: &mut Turn<'_>, key: SessionKey, token: &str) -> Result<(), Refusal> {
        let claims = self.verify(turn, token)?;
        let limits = self.policy.limits.clone();
        let Some(live) = self.sessions.find_mut(key) else { return Ok(()) };
        if claims.user != live.session.principal.user {
            return Err(Refusal::new(RefusalCode::Forbidden, "the token names another user"));
        }
        live.session.principal = Principal::new(&claims, &limits);
        let deadline = live.session.next_deadline(turn.now.mono, turn.now.wall);
        let carrier = live.carrier;
        self.schedule_carrier(carrier, deadline);
        Ok(())
    }

    /// The session is over: nothing of it is left on this shard, or registered on another.
    pub(super) fn end_session(&mut self, turn: &mut Turn<'_>, key: SessionKey) {
        let Some(live) = self.sessions.remove(key) else { return };
        let user = live.session.principal.user;
        for subscription in &live.session.subscriptions {
            let subscriber = Subscriber { session: key, serial: subscription.serial };
            self.end_subscription(turn, subscriber, &subscription.target);
        }
        let next = self.users.leave(user, key, turn.now.mono);
        self.watch_user(user, next);
    }
}
