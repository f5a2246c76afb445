//! The workload: what devices do when nothing else has to be done, chosen at random.

use crate::model::command::Position;
use crate::model::{ConversationId, MessageId, UserId};
use crate::sim::context::{Ctx, Do, Phase};
use crate::sim::device::Device;
use crate::sim::facts::{Attempt, Kind};
use crate::sim::link::LinkState;
use crate::sim::network::Line;
use crate::sim::rest::Question;

/// The actions of the workload, and how often a device takes each of them in proportion.
const ACTIONS: [(Action, u32); 18] = [
    (Action::Send, 400),
    (Action::SendBurst, 30),
    (Action::SendRest, 80),
    (Action::Retry, 60),
    (Action::Page, 40),
    (Action::Subscribe, 80),
    (Action::Unsubscribe, 25),
    (Action::Resubscribe, 20),
    (Action::Change, 60),
    (Action::Block, 25),
    (Action::MarkRead, 15),
    (Action::Ask, 10),
    (Action::Ping, 10),
    (Action::Disconnect, 8),
    (Action::Drop, 8),
    (Action::HalfClose, 4),
    (Action::Stall, 6),
    (Action::LogOut, 10),
];

#[derive(Clone, Copy, Debug)]
enum Action {
    Send,
    SendBurst,
    SendRest,
    Retry,
    Page,
    Subscribe,
    Unsubscribe,
    Resubscribe,
    Change,
    Block,
    MarkRead,
    Ask,
    Ping,
    Disconnect,
    Drop,
    HalfClose,
    Stall,
    LogOut,
}

impl Device {
    /// The device acts once.
    pub(super) fn act(&mut self, ctx: &mut Ctx<'_>) {
        if self.keep_up(ctx) || ctx.phase == Phase::Settling {
            return;
        }
        let online = self.link.as_ref().is_some_and(|link| link.state == LinkState::Online);
        if !online {
            return;
        }
        if ctx.phase == Phase::Recovery {
            return self.retry_one(ctx);
        }
        let weights = ACTIONS.map(|(action, weight)| match action {
            Action::Change | Action::Block if ctx.plan.quarrels => 8 * weight,
            _ => weight,
        });
        let action = ACTIONS[ctx.random.weighted(&weights)].0;
        self.take_action(ctx, action);
        if let Some(link) = self.link.as_mut().filter(|link| link.state != LinkState::Opening) {
            link.flush(ctx);
        }
    }

    fn take_action(&mut self, ctx: &mut Ctx<'_>, action: Action) {
        match action {
            Action::Send => self.send(ctx, false),
            Action::SendBurst => {
                for _ in 0..ctx.random.between(2, 12) {
                    self.send(ctx, false);
                }
            }
            Action::SendRest => {
                for _ in 0..ctx.random.pick(&[1, 1, 1, 4]) {
                    self.send(ctx, true);
                }
            }
            Action::Retry => self.retry_one(ctx),
            Action::Page => self.page(ctx),
            Action::Subscribe => self.subscribe(ctx),
            Action::Unsubscribe => self.unsubscribe(ctx),
            Action::Resubscribe => self.resubscribe(ctx),
            Action::Change => self.change(ctx),
            Action::Block => self.block(ctx),
            Action::MarkRead => self.mark_read(ctx),
            Action::Ask => {
                let path = ctx.random.pick(&["/users/me", "/conversations", "/users/me/blocks"]);
                self.ask(ctx, ("GET", path, ""), Question::Other);
            }
            Action::Ping => {
                let count = ctx.random.pick(&[1, 1, 200]);
                let bytes = ctx.random.between(0, 125);
                if let Some(link) = &mut self.link {
                    for _ in 0..count {
                        link.ping(ctx, bytes);
                    }
                }
            }
            Action::Disconnect => {
                if let Some(link) = &mut self.link {
                    link.disconnect();
                }
            }
            Action::Drop => {
                let line = ctx.random.pick(&[Line::Socket, Line::Socket, Line::Bring, Line::Rest]);
                ctx.out.push(Do::Close(line));
                self.ended(ctx, line);
            }
            Action::HalfClose => ctx.out.push(Do::Finish(ctx.random.pick(&[Line::Socket, Line::Bring, Line::Rest]))),
            Action::Stall => {
                let line = ctx.random.pick(&[Line::Socket, Line::Socket, Line::Bring, Line::Rest]);
                let pause = ctx.random.pick(&[200, 3_000, 30_000]);
                ctx.out.push(Do::Stall(line, ctx.random.millis(0, pause)));
            }
            Action::LogOut => self.log_out(ctx),
        }
    }

    /// Chooses a conversation, mostly one of the user's.
    fn choose_conversation(&self, ctx: &mut Ctx<'_>) -> ConversationId {
        let mine: Vec<ConversationId> = ctx
            .plan
            .conversations
            .iter()
            .filter(|group| {
                let member = ctx.oracle.members.get(&(group.id, self.user));
                (group.direct && group.participants.contains(&self.user)) || member.is_some_and(|member| member.stored)
            })
            .map(|group| group.id)
            .collect();
        if mine.is_empty() || ctx.random.percent(4) {
            ctx.plan.conversations[ctx.random.below(ctx.plan.conversations.len())].id
        } else {
            ctx.random.pick(&mine)
        }
    }

    fn send(&mut self, ctx: &mut Ctx<'_>, over_rest: bool) {
        let conversation = self.choose_conversation(ctx);
        let keyed = ctx.random.percent(70);
        let words = ctx.random.pick(&[0, 0, 0, 3, 30, 300]);
        let number = ctx.oracle.intend(self.number, self.user, conversation, keyed, words);
        self.send_number(ctx, number, over_rest);
    }

    fn send_number(&mut self, ctx: &mut Ctx<'_>, number: usize, over_rest: bool) {
        if !over_rest {
            if let Some(link) = &mut self.link {
                link.send(ctx, number);
            }
            return;
        }
        let send = &ctx.oracle.sends[number];
        let path = format!("/conversations/{}/messages", send.conversation);
        let key = send.key.as_ref().map(|key| format!(",\"clientMessageId\":\"{key}\"")).unwrap_or_default();
        let body = format!("{{\"content\":\"{}\"{key}}}", send.content);
        let attempt = Attempt { session: None, echo: false, at: ctx.moment.mono };
        if self.ask(ctx, ("POST", &path, &body), Question::Send(number)) {
            ctx.oracle.attempt(number, attempt);
        }
    }

    fn retry_one(&mut self, ctx: &mut Ctx<'_>) {
        let Some(number) = self.retry.pop() else { return };
        if !ctx.oracle.sends[number].acknowledged {
            let over_rest = ctx.random.percent(50);
            self.send_number(ctx, number, over_rest);
            if let Some(link) = &mut self.link {
                link.flush(ctx);
            }
        }
    }

    fn page(&mut self, ctx: &mut Ctx<'_>) {
        let conversation = self.choose_conversation(ctx);
        let known: Vec<MessageId> = self.known.get(&conversation).into_iter().flatten().copied().collect();
        let from = match known.as_slice() {
            [] => Position::Newest,
            known => {
                let id = ctx.random.pick(known);
                ctx.random.pick(&[Position::Newest, Position::Before(id), Position::After(id)])
            }
        };
        let limit = ctx.random.pick(&[1, 3, 20, 100]);
        self.read_history(ctx, conversation, from, limit, None);
    }

    fn subscribe(&mut self, ctx: &mut Ctx<'_>) {
        let conversation = self.choose_conversation(ctx);
        let kind = ctx.random.pick(&[
            Kind::Topic(conversation),
            Kind::Topic(conversation),
            Kind::Messages,
            Kind::All,
            Kind::Conversations,
        ]);
        let id = format!("x{}", ctx.random.below(6));
        let Some(link) = &mut self.link else { return };
        let taken = ctx.oracle.sessions[link.session].subs.get(&id).is_some_and(|sub| !sub.ended);
        if !taken {
            link.subscribe(ctx, &id, kind);
        }
    }

    /// One of the workload's subscriptions that are in force.
    fn extra_subscription(&self, ctx: &mut Ctx<'_>) -> Option<String> {
        let link = self.link.as_ref()?;
        let subs = &ctx.oracle.sessions[link.session].subs;
        let active = subs.iter().filter(|(id, sub)| id.starts_with('x') && !sub.ended && sub.active_since.is_some());
        let active: Vec<&String> = active.map(|(id, _)| id).collect();
        if active.is_empty() { None } else { Some(ctx.random.pick(&active).clone()) }
    }

    fn unsubscribe(&mut self, ctx: &mut Ctx<'_>) {
        let Some(id) = self.extra_subscription(ctx) else { return };
        if let Some(link) = &mut self.link {
            link.unsubscribe(ctx, &id);
        }
    }

    fn resubscribe(&mut self, ctx: &mut Ctx<'_>) {
        let Some(id) = self.extra_subscription(ctx) else { return };
        if let Some(link) = &mut self.link {
            link.resubscribe(ctx, &id);
        }
    }

    /// Adds a participant to a group, or removes one; the first two of a group are its admins and stay.
    fn change(&mut self, ctx: &mut Ctx<'_>) {
        let groups: Vec<_> = ctx
            .plan
            .conversations
            .iter()
            .filter(|group| !group.direct && group.participants[..2].contains(&self.user))
            .map(|group| (group.id, [group.participants[0], group.participants[1]]))
            .collect();
        if groups.is_empty() {
            return;
        }
        let (conversation, admins) = ctx.random.pick(&groups);
        let others: Vec<UserId> = ctx.plan.users.iter().copied().filter(|user| !admins.contains(user)).collect();
        let user = ctx.random.pick(&others);
        let adding = ctx.random.percent(50);
        let path = format!("/conversations/{conversation}/participants");
        let version = ctx.oracle.version_of_member(conversation, user) + 1;
        let question = Question::Change { conversation, user, adding, version };
        let asked = if adding {
            self.ask(ctx, ("POST", &path, &format!("{{\"userId\":{user}}}")), question)
        } else {
            self.ask(ctx, ("DELETE", &format!("{path}/{user}"), ""), question)
        };
        if asked {
            ctx.oracle.changing(self.node, conversation, user, adding);
        }
    }

    fn block(&mut self, ctx: &mut Ctx<'_>) {
        let pairs = ctx.oracle.pairs.values().filter(|pair| pair.0 == self.user || pair.1 == self.user);
        let others: Vec<UserId> = pairs.map(|pair| if pair.0 == self.user { pair.1 } else { pair.0 }).collect();
        if others.is_empty() {
            return;
        }
        let user = ctx.random.pick(&others);
        let blocked = ctx.random.percent(50);
        let method = if blocked { "PUT" } else { "DELETE" };
        let version = ctx.oracle.version_of_block(self.user, user) + 1;
        let question = Question::Block { user, blocked, version };
        if self.ask(ctx, (method, &format!("/users/{user}/block"), ""), question) {
            ctx.oracle.blocking(self.node, self.user, user, blocked);
        }
    }

    fn mark_read(&mut self, ctx: &mut Ctx<'_>) {
        let conversation = self.choose_conversation(ctx);
        let known: Vec<MessageId> = self.known.get(&conversation).into_iter().flatten().copied().collect();
        if let (false, Some(link)) = (known.is_empty(), &mut self.link) {
            let message = ctx.random.pick(&known);
            let named = ctx.random.percent(50).then_some(conversation);
            link.mark_read(named, message);
        }
    }
}
