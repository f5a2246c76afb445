//! One device of a user: it connects, reconnects after every loss, and reads the messages that it missed in the history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Deserialize;

use crate::access::token::Claims;
use crate::client::http::Response;
use crate::model::command::Position;
use crate::model::{ConversationId, MessageId, Mono, UserId, Wall};
use crate::sim::context::{Ctx, Do, Phase};
use crate::sim::facts::{Dto, Kind, LoginNo, SendNo, SessionNo};
use crate::sim::link::{Link, LinkState, News, is_certain};
use crate::sim::network::Line;
use crate::sim::oracle::{Answered, Asked};
use crate::sim::plan::CODE;
use crate::sim::rest::{Question, Rest, query};

struct Token {
    text: String,
    expires: Wall,
    login: Option<(LoginNo, String)>,
}

/// Lifetime: the run's.
pub(super) struct Device {
    pub(super) number: usize,
    pub(super) user: UserId,
    /// The node that the device connects to.
    pub(super) node: usize,
    token: Option<Token>,
    logging_in: bool,
    pub(super) link: Option<Link>,
    pub(super) rest: Option<Rest>,
    offline_until: Mono,
    failures: u32,
    pub(super) known: BTreeMap<ConversationId, BTreeSet<MessageId>>,
    /// The device knows every message up to this one.
    cursors: BTreeMap<ConversationId, MessageId>,
    /// Conversations whose history the device has read since it subscribed its queue: the next message follows the cursor.
    caught_up: BTreeSet<ConversationId>,
    fetch: VecDeque<ConversationId>,
    fetching: bool,
    pub(super) retry: Vec<SendNo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedIn {
    access_token: String,
    refresh_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    messages: Vec<Dto>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

impl Device {
    pub(super) fn new(number: usize, user: UserId, node: usize) -> Self {
        Self {
            number,
            user,
            node,
            token: None,
            logging_in: false,
            link: None,
            rest: None,
            offline_until: Mono(0),
            failures: 0,
            known: BTreeMap::new(),
            cursors: BTreeMap::new(),
            caught_up: BTreeSet::new(),
            fetch: VecDeque::new(),
            fetching: false,
            retry: Vec::new(),
        }
    }

    /// The phone under which the user logs in.
    pub(super) fn phone(user: UserId) -> String {
        format!("+1555{:07}", user.value())
    }

    /// Does what a device must do before its workload. Returns whether there was anything to do.
    pub(super) fn keep_up(&mut self, ctx: &mut Ctx<'_>) -> bool {
        match self.link.as_ref().map(|link| link.state) {
            None if ctx.moment.mono >= self.offline_until => {
                self.connect(ctx);
                return true;
            }
            // The server has closed the session, or the client has sent DISCONNECT: most clients close the connection then.
            Some(LinkState::Ending | LinkState::Refused) if ctx.phase != Phase::Faults || ctx.random.percent(20) => {
                ctx.out.push(Do::Close(Line::Socket));
                self.ended(ctx, Line::Socket);
                return true;
            }
            _ => {}
        }
        if !self.fetching
            && self.link.as_ref().is_some_and(|link| link.state == LinkState::Online)
            && let Some(conversation) = self.fetch.pop_front()
        {
            let after = self.cursors.get(&conversation).copied().unwrap_or(MessageId::MIN);
            let session = self.link.as_ref().map(|link| link.session);
            let limit = if ctx.phase == Phase::Faults { ctx.random.pick(&[1, 5, 20, 100]) } else { 100 };
            self.fetching = self.read_history(ctx, conversation, Position::After(after), limit, session);
            if !self.fetching {
                self.fetch.push_front(conversation);
            }
            return true;
        }
        false
    }

    fn connect(&mut self, ctx: &mut Ctx<'_>) {
        let Some(token) = self.take_token(ctx) else { return };
        let (login, expires) = (token.1, token.2);
        let session = ctx.oracle.begin_session(self.user, login, expires, ctx.moment.jumps);
        let mut link = Link::begin(ctx, session, self.user, &token.0);
        self.caught_up.clear();
        if ctx.random.percent(85) {
            link.subscribe(ctx, "errors", Kind::Errors);
        }
        if ctx.random.percent(40) {
            link.subscribe(ctx, "acks", Kind::Acks);
        }
        link.subscribe(ctx, "q", Kind::Messages);
        if link.state != LinkState::Opening {
            link.flush(ctx);
        }
        self.link = Some(link);
    }

    /// A token, its login and its expiry; `None` while the device logs in.
    pub(super) fn take_token(&mut self, ctx: &mut Ctx<'_>) -> Option<(String, Option<LoginNo>, Wall)> {
        let faults = ctx.phase == Phase::Faults;
        let wall = ctx.moment.wall;
        if self.token.as_ref().is_some_and(|token| token.expires <= wall.after(Duration::from_secs(1)))
            && !(faults && ctx.random.percent(5))
        {
            self.token = None;
        }
        if self.token.is_none() && !self.logging_in {
            if faults && ctx.random.percent(35) {
                let body = format!("{{\"phone\":\"{}\",\"otp\":\"{CODE}\"}}", Self::phone(self.user));
                self.logging_in = true;
                self.ask_with(ctx, "", ("POST", "/auth/login", &body), Question::Login);
                return None;
            }
            let short = faults && ctx.random.percent(ctx.plan.short_tokens);
            let life = if short { ctx.random.between(2, 8) as u64 } else { 7_200 };
            let expires = Wall::from_unix_seconds(wall.unix_seconds() + life);
            let claims = Claims { user: self.user, roles: Vec::new(), expires, family: None };
            self.token = Some(Token { text: ctx.plan.policy.keys.sign(&claims, wall), expires, login: None });
        }
        let token = self.token.as_ref()?;
        Some((token.text.clone(), token.login.as_ref().map(|login| login.0), token.expires))
    }

    pub(super) fn ask(&mut self, ctx: &mut Ctx<'_>, request: (&str, &str, &str), question: Question) -> bool {
        let Some((token, ..)) = self.take_token(ctx) else { return false };
        self.ask_with(ctx, &token, request, question);
        true
    }

    fn ask_with(&mut self, ctx: &mut Ctx<'_>, token: &str, (method, path, body): (&str, &str, &str), question: Question) {
        let mut rest = self.rest.take().unwrap_or_else(|| Rest::open(ctx));
        rest.ask(ctx, token, method, path, body, question);
        self.rest = Some(rest);
    }

    pub(super) fn read_history(
        &mut self,
        ctx: &mut Ctx<'_>,
        conversation: ConversationId,
        from: Position,
        limit: usize,
        catching: Option<SessionNo>,
    ) -> bool {
        let length = ctx.oracle.length(conversation);
        let asked = Asked { user: self.user, conversation, from, limit, at: ctx.moment.mono, length };
        let path = format!("/conversations/{conversation}/messages{}", query(from, limit));
        self.ask(ctx, ("GET", &path, ""), Question::History { asked, catching })
    }

    pub(super) fn log_out(&mut self, ctx: &mut Ctx<'_>) {
        let Some((login, refresh)) = self.token.as_ref().and_then(|token| token.login.clone()) else { return };
        let body = format!("{{\"refreshToken\":\"{refresh}\"}}");
        self.ask_with(ctx, "", ("POST", "/auth/logout", &body), Question::Logout(login));
    }

    pub(super) fn received(&mut self, ctx: &mut Ctx<'_>, line: Line, bytes: &[u8]) {
        match line {
            Line::Socket | Line::Bring => {
                let Some(mut link) = self.link.take() else { return };
                let news = link.receive(ctx, line, bytes);
                self.link = Some(link);
                for item in news {
                    self.hear(ctx, item);
                }
            }
            Line::Rest => {
                let Some(mut rest) = self.rest.take() else { return };
                let answers = rest.receive(ctx, bytes);
                self.rest = Some(rest);
                for (question, answer) in answers {
                    self.answered(ctx, question, answer);
                }
            }
        }
    }

    fn hear(&mut self, ctx: &mut Ctx<'_>, news: News) {
        match news {
            News::Online => self.failures = 0,
            News::Subscribed(id) if id == "q" => {
                self.fetch = ctx.plan.conversations.iter().map(|group| group.id).collect();
                self.caught_up.clear();
            }
            News::Message { subscription, conversation, message } if subscription == "q" => {
                self.known.entry(conversation).or_default().insert(message);
                if self.caught_up.contains(&conversation) {
                    let cursor = self.cursors.entry(conversation).or_insert(message);
                    *cursor = message.max(*cursor);
                }
            }
            News::Failed { send, again } => {
                if again {
                    self.try_again(ctx, send);
                }
            }
            News::Refused(401) => self.token = None,
            News::Subscribed(_) | News::Message { .. } | News::Refused(_) | News::Ended => {}
        }
    }

    fn try_again(&mut self, ctx: &Ctx<'_>, send: SendNo) {
        if ctx.oracle.sends[send].key.is_some() {
            self.retry.push(send);
        }
    }

    fn answered(&mut self, ctx: &mut Ctx<'_>, question: Question, response: Response) {
        let Response { status, mut body, .. } = response;
        let code = match simd_json::serde::from_slice::<Refused>(&mut body.clone()) {
            Ok(refused) if status >= 400 => refused.code,
            _ => String::new(),
        };
        let allowed = match status {
            401 | 404 => true,
            400.. => is_certain(&code).is_some(),
            _ => status >= 200,
        };
        if !allowed {
            return ctx.oracle.violate(format!("device {}: {question:?} was answered {status} {code}", self.number));
        }
        if status == 401 {
            self.token = None;
        }
        match question {
            Question::Login => self.logged_in(status, &mut body, ctx),
            Question::Logout(login) => {
                if status == 204 {
                    ctx.oracle.logins[login].get_or_insert(ctx.moment.mono);
                }
                // Some clients go on using the token.
                if ctx.random.percent(60) {
                    self.token = None;
                }
            }
            Question::Send(send) => self.sent(ctx, send, status, &code, &mut body),
            Question::History { asked, catching } => self.history(ctx, asked, catching, status, &mut body),
            Question::Change { conversation, user, adding, version } => {
                let done = matches!((adding, status), (true, 200..300) | (false, 204 | 404));
                let answered = Answered { node: self.node, version, asked: adding, done };
                ctx.oracle.changed(ctx.moment, answered, conversation, user);
            }
            Question::Block { user, blocked, version } => {
                let answered = Answered { node: self.node, version, asked: blocked, done: status == 204 };
                ctx.oracle.blocked(ctx.moment, answered, self.user, user);
            }
            Question::Other => {}
        }
    }

    fn logged_in(&mut self, status: u16, body: &mut [u8], ctx: &mut Ctx<'_>) {
        self.logging_in = false;
        if let (200, Ok(answer)) = (status, simd_json::serde::from_slice::<LoggedIn>(body)) {
            let expires = ctx.moment.wall.after(ctx.plan.policy.limits.access_ttl);
            ctx.oracle.logins.push(None);
            let login = Some((ctx.oracle.logins.len() - 1, answer.refresh_token));
            self.token = Some(Token { text: answer.access_token, expires, login });
        }
    }

    fn sent(&mut self, ctx: &mut Ctx<'_>, send: SendNo, status: u16, code: &str, body: &mut [u8]) {
        match status {
            200 | 201 => {
                let dto = simd_json::serde::from_slice::<Dto>(body);
                ctx.oracle.sent(send, dto.map(|dto| dto.id).ok());
            }
            _ => {
                ctx.oracle.refused(send, status == 401 || is_certain(code) == Some(true));
                if !matches!(code, "not_participant" | "blocked") {
                    self.try_again(ctx, send);
                }
            }
        }
    }

    fn history(&mut self, ctx: &mut Ctx<'_>, asked: Asked, catching: Option<SessionNo>, status: u16, body: &mut [u8]) {
        let page = simd_json::serde::from_slice::<Page>(body).ok().filter(|_| status == 200);
        if let Some(page) = &page {
            ctx.oracle.check_page(asked, &page.messages, page.has_more);
        } else if status == 200 {
            ctx.oracle.no_page(asked);
        }
        let Some(session) = catching else { return };
        self.fetching = false;
        if self.link.as_ref().is_none_or(|link| link.session != session) {
            return;
        }
        let conversation = asked.conversation;
        match page {
            Some(page) => {
                let ids = page.messages.iter().filter_map(|dto| dto.id.parse::<MessageId>().ok());
                for id in ids {
                    self.known.entry(conversation).or_default().insert(id);
                    self.cursors.insert(conversation, id);
                }
                if page.has_more {
                    self.fetch.push_front(conversation);
                } else {
                    self.caught_up.insert(conversation);
                }
            }
            None if status == 403 => {
                self.caught_up.insert(conversation);
            }
            None => self.fetch.push_back(conversation),
        }
    }

    /// The device or the server has closed a connection.
    pub(super) fn ended(&mut self, ctx: &mut Ctx<'_>, line: Line) {
        match line {
            Line::Socket => {
                let Some(link) = self.link.take() else { return };
                for send in link.end(ctx) {
                    self.try_again(ctx, send);
                }
                self.failures = (self.failures + 1).min(6);
                let pause = ctx.random.millis(5, 30 << self.failures);
                self.offline_until = ctx.moment.mono.after(pause);
                self.fetch.clear();
                ctx.out.push(Do::Close(Line::Bring));
            }
            Line::Bring => {
                if self.link.as_mut().is_some_and(|link| link.sender_ended(ctx)) {
                    ctx.out.push(Do::Close(Line::Socket));
                    self.ended(ctx, Line::Socket);
                }
            }
            Line::Rest => {
                let Some(rest) = self.rest.take() else { return };
                for question in rest.asked {
                    match question {
                        Question::Login => self.logging_in = false,
                        Question::Send(send) => self.try_again(ctx, send),
                        Question::History { asked, catching: Some(session) } => {
                            self.fetching = false;
                            if self.link.as_ref().is_some_and(|link| link.session == session) {
                                self.fetch.push_back(asked.conversation);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Why the device has not come to rest, if it has not.
    pub(super) fn unsettled(&self) -> Option<String> {
        let Some(link) = &self.link else { return Some("it is offline".to_owned()) };
        let asked = self.rest.as_ref().map_or(0, |rest| rest.asked.len());
        let settled = link.is_settled() && asked == 0 && self.fetch.is_empty() && !self.fetching;
        (!settled).then(|| format!("{:?}, receipts {:?}, {asked} requests, fetch {:?}", link.state, link.pending(), self.fetch))
    }
}
