//! What must hold, checked whenever something is seen, and once more when all has come to rest.
//!
//! The oracle sees what clients see, and each write at the moment the store carries it out; of the shards it knows
//! nothing. Where an outcome is not known to a client it demands nothing, and it forgets nothing that is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::message::Message;
use crate::model::{ConversationId, MessageId, Mono, UserId, Wall};
use crate::sim::facts::{Attempt, Block, Dto, Entry, Kind, LoginNo, Member, Send, SendNo, SessionFact, SessionNo, Sub};
use crate::store::log::NewMessage;

/// From the answer to a logout, or the end of a token, to the last message its sessions may get.
const CUT_WITHIN_NS: u64 = 1_000_000_000;

/// When something was seen: both clocks, and how often the wall clock has jumped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) mono: Mono,
    pub(super) wall: Wall,
    pub(super) jumps: u32,
}

/// Lifetime: the run's.
#[derive(Default)]
pub(super) struct Oracle {
    /// The first thing that was wrong.
    broken: Option<String>,
    pub(super) sends: Vec<Send>,
    by_content: BTreeMap<String, SendNo>,
    pub(super) log: BTreeMap<ConversationId, Vec<Entry>>,
    index: BTreeMap<MessageId, (ConversationId, usize)>,
    keys: BTreeSet<(ConversationId, UserId, String)>,
    pub(super) members: BTreeMap<(ConversationId, UserId), Member>,
    pub(super) pairs: BTreeMap<ConversationId, (UserId, UserId)>,
    pub(super) blocks: BTreeMap<(UserId, UserId), Block>,
    pub(super) sessions: Vec<SessionFact>,
    /// When each login's logout was answered.
    pub(super) logins: Vec<Option<Mono>>,
    /// The last message of each conversation that a shard has asked for, and the last one of which a load has decided.
    asked: BTreeMap<ConversationId, MessageId>,
    decided: BTreeMap<ConversationId, MessageId>,
    pub(super) delivered: u64,
    pub(super) acknowledged: u64,
}

impl Oracle {
    /// Only the first counts: what follows from it is no news.
    pub(super) fn violate(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// A device wants to send. `words` makes the content longer.
    pub(super) fn intend(
        &mut self,
        device: usize,
        user: UserId,
        conversation: ConversationId,
        keyed: bool,
        words: usize,
    ) -> SendNo {
        let number = self.sends.len();
        let content = format!("m{number}{}", " and more".repeat(words));
        self.by_content.insert(content.clone(), number);
        let key = keyed.then(|| format!("k{number}"));
        let attempts = Vec::new();
        self.sends.push(Send {
            user,
            device,
            conversation,
            content,
            key,
            attempts,
            stored: None,
            acknowledged: false,
            refused: 0,
            doubtful: false,
        });
        number
    }

    pub(super) fn attempt(&mut self, number: SendNo, attempt: Attempt) {
        let send = &mut self.sends[number];
        if let (true, Some(session)) = (send.attempts.is_empty(), attempt.session) {
            self.sessions[session].sends.push(number);
        }
        send.attempts.push(attempt);
    }

    /// A RECEIPT, an ack or a 2xx has come.
    pub(super) fn acknowledged(&mut self, number: SendNo) {
        let send = &mut self.sends[number];
        send.acknowledged = true;
        self.acknowledged += 1;
        if send.stored.is_none() {
            let what = format!("send {number} ({:?}) was acknowledged and is not durable", send.content);
            self.violate(what);
        }
    }

    /// A refusal, which says for certain that nothing was stored, or not.
    pub(super) fn refused(&mut self, number: SendNo, certain: bool) {
        let send = &mut self.sends[number];
        send.refused += usize::from(certain);
        send.doubtful |= !certain;
        self.check_refused(number);
    }

    /// A shard has loaded a conversation: what it had asked for before will never be stored, if it is not.
    pub(super) fn append_decided(&mut self, conversation: ConversationId) {
        if let Some(asked) = self.asked.get(&conversation) {
            self.decided.insert(conversation, *asked);
        }
    }

    /// A shard asks for messages to be stored, for the first time or again.
    pub(super) fn append_asked(&mut self, conversation: ConversationId, messages: &[NewMessage]) {
        if let Some(last) = messages.last() {
            self.asked.insert(conversation, last.id);
        }
    }

    /// The store begins to carry an append out.
    pub(super) fn append_begun(&mut self, conversation: ConversationId, messages: &[NewMessage]) {
        let decided = self.decided.get(&conversation);
        if let Some(late) = messages.iter().find(|new| decided.is_some_and(|decided| new.id <= *decided)) {
            self.violate(format!("{late:?} is appended after its outcome was decided"));
        }
    }

    /// The node is gone, and with it what it may have repeated.
    pub(super) fn forget_appends(&mut self) {
        self.asked.clear();
        self.decided.clear();
    }

    fn check_refused(&mut self, number: SendNo) {
        let send = &self.sends[number];
        if send.stored.is_some() && send.refused == send.attempts.len() {
            self.violate(format!("send {number} is stored, and every attempt was refused"));
        }
    }

    /// The store has made a message durable.
    pub(super) fn stored(&mut self, moment: Moment, message: &Arc<Message>) {
        let Some(&number) = self.by_content.get(&*message.content) else {
            return self.violate(format!("the store holds {message:?}, which nobody sent"));
        };
        let log = self.log.entry(message.conversation).or_default();
        if log.iter().any(|entry| entry.message.id == message.id) {
            return;
        }
        let last = log.last().map(|entry| &entry.message);
        let linked = message.prev == last.map(|last| last.id)
            && message.sequence == last.map_or(1, |last| last.sequence + 1)
            && last.is_none_or(|last| last.id < message.id);
        self.index.insert(message.id, (message.conversation, log.len()));
        let Moment { mono: at, wall, jumps } = moment;
        log.push(Entry { message: message.clone(), send: number, at, wall, jumps, delivered: false });
        if !linked {
            self.violate(format!("{message:?} is not linked to the end of its conversation"));
        }
        self.check_stored(number, message);
    }

    fn check_stored(&mut self, number: SendNo, message: &Message) {
        let send = &mut self.sends[number];
        if send.stored.replace(message.id).is_some() {
            return self.violate(format!("send {number} is stored twice, now as {message:?}"));
        }
        if (send.user, send.conversation, send.key.as_deref())
            != (message.sender, message.conversation, message.client_id.as_deref())
        {
            return self.violate(format!("{message:?} is not what send {number} asked for"));
        }
        let (user, conversation, key) = (send.user, send.conversation, send.key.clone());
        let first = send.attempts.first().map_or(Mono(0), |attempt| attempt.at);
        if key.is_some_and(|key| !self.keys.insert((conversation, user, key))) {
            return self.violate(format!("the client message id of {message:?} is stored twice"));
        }
        let outside = self.members.get(&(conversation, user)).and_then(|member| member.outside_since);
        if outside.is_some_and(|since| since < first) {
            return self.violate(format!("send {number} was stored after the answer to its sender's removal"));
        }
        if let Some(&(one, other)) = self.pairs.get(&conversation) {
            let since = |by, of| self.blocks.get(&(by, of)).and_then(|block: &Block| block.since);
            if [since(one, other), since(other, one)].into_iter().flatten().any(|since| since < first) {
                return self.violate(format!("send {number} of a blocked pair was stored after the block's answer"));
            }
        }
        self.check_refused(number);
    }

    /// What is left after a crash: everything that was acknowledged or delivered must be there.
    pub(super) fn survived(&mut self, left: impl Fn(MessageId, ConversationId) -> bool) {
        let mut lost = Vec::new();
        for (conversation, log) in &mut self.log {
            log.retain(|entry| {
                let there = left(entry.message.id, *conversation);
                if !there {
                    lost.push((entry.send, entry.delivered));
                }
                there
            });
        }
        for (number, delivered) in lost {
            let send = &mut self.sends[number];
            send.stored = None;
            if let Some(key) = &send.key {
                self.keys.remove(&(send.conversation, send.user, key.clone()));
            }
            if send.acknowledged || delivered {
                self.violate(format!("send {number} was acknowledged or delivered, and a crash took it away"));
            }
        }
    }

    pub(super) fn begin_session(&mut self, user: UserId, login: Option<LoginNo>, expires: Wall, jumps: u32) -> SessionNo {
        let (subs, sends) = (BTreeMap::new(), Vec::new());
        self.sessions.push(SessionFact { user, login, expires, jumps, live: true, subs, sends });
        self.sessions.len() - 1
    }

    pub(super) fn end_session(&mut self, session: SessionNo) {
        self.sessions[session].live = false;
    }

    pub(super) fn subscribe(&mut self, moment: Moment, session: SessionNo, id: &str, kind: Kind, destination: String) {
        let subs = &mut self.sessions[session].subs;
        let before = subs.remove(id).filter(|sub| sub.kind == kind);
        let (seen, last) = before.map(|sub| (sub.seen, sub.last)).unwrap_or_default();
        subs.insert(
            id.to_owned(),
            Sub { kind, destination, asked_at: moment.mono, active_since: None, ended: false, seen, last },
        );
    }

    pub(super) fn subscribed(&mut self, moment: Moment, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.active_since = Some(moment.mono);
        }
    }

    pub(super) fn unsubscribing(&mut self, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.active_since = None;
        }
    }

    pub(super) fn unsubscribed(&mut self, session: SessionNo, id: &str) {
        if let Some(sub) = self.sessions[session].subs.get_mut(id) {
            sub.ended = true;
        }
    }

    /// A MESSAGE with a stored message has come. Returns which one.
    pub(super) fn deliver(
        &mut self,
        moment: Moment,
        session: SessionNo,
        (subscription, destination, id): (&str, &str, &str),
        dto: &Dto,
    ) -> Option<(ConversationId, MessageId)> {
        self.delivered += 1;
        let user = self.sessions[session].user;
        let found: Option<MessageId> = dto.id.parse().ok().filter(|_| dto.id == id);
        let found = found.and_then(|id| self.index.get(&id).copied());
        let log = found.and_then(|(conversation, at)| Some((self.log.get_mut(&conversation)?, at)));
        let entry = log.and_then(|(log, at)| log.get_mut(at)).filter(|entry| dto.is_of(&entry.message));
        let Some(entry) = entry else {
            self.violate(format!("session {session} of user {user} was sent {dto:?}, which is not durable"));
            return None;
        };
        entry.delivered = true;
        let (conversation, message) = (entry.message.conversation, entry.message.id);
        let what = format!("session {session} of user {user}, subscription {subscription}, {:?}", entry.message);
        if let Some(fault) = self.fault_of_delivery(moment, session, subscription, (conversation, found.map_or(0, |at| at.1))) {
            self.violate(format!("{what}: {fault}"));
        }
        self.deliver_in_order(session, subscription, destination, (conversation, message), &what);
        Some((conversation, message))
    }

    /// Whether the session may be sent this message at all.
    fn fault_of_delivery(
        &self,
        moment: Moment,
        session: SessionNo,
        subscription: &str,
        (conversation, at): (ConversationId, usize),
    ) -> Option<&'static str> {
        let entry = self.log.get(&conversation)?.get(at)?;
        let fact = &self.sessions[session];
        let send = &self.sends[entry.send];
        let sent_at = send.attempts.first().map_or(Mono(0), |attempt| attempt.at);
        let outside = self.members.get(&(conversation, fact.user)).and_then(|member| member.outside_since);
        let foreign = self.pairs.get(&conversation).is_some_and(|pair| pair.0 != fact.user && pair.1 != fact.user);
        if foreign || outside.is_some_and(|since| since < sent_at) {
            return Some("not a participant at any time between its sending and now");
        }
        let revoked = fact.login.and_then(|login| self.logins[login]);
        if revoked.is_some_and(|at| at.0 + CUT_WITHIN_NS < entry.at.0) {
            return Some("the session's login was revoked more than a second before");
        }
        let steady = fact.jumps == entry.jumps && moment.jumps == entry.jumps;
        if steady && fact.expires.0 + CUT_WITHIN_NS / 100 < entry.wall.0 {
            return Some("the session's token had expired more than a second before");
        }
        let own = send.attempts.iter().all(|attempt| attempt.session == Some(session) && !attempt.echo);
        let to_queue = fact.subs.get(subscription).is_some_and(|sub| sub.kind == Kind::Messages);
        (own && to_queue && !send.doubtful)
            .then_some("the session's own message came back to its queue, and it had not asked for it")
    }

    fn deliver_in_order(
        &mut self,
        session: SessionNo,
        subscription: &str,
        destination: &str,
        (conversation, message): (ConversationId, MessageId),
        what: &str,
    ) {
        let topic = Kind::Topic(conversation).destination(self.sessions[session].user, false);
        let Some(sub) = self.sessions[session].subs.get_mut(subscription).filter(|sub| !sub.ended) else {
            return self.violate(format!("{what}: there is no such subscription"));
        };
        let expect = match sub.kind {
            Kind::Messages => &sub.destination,
            Kind::Topic(of) if of == conversation => &sub.destination,
            Kind::All | Kind::Conversations => &topic,
            _ => return self.violate(format!("{what}: the subscription is for something else")),
        };
        if expect != destination {
            let expect = expect.clone();
            return self.violate(format!("{what}: destination {destination} instead of {expect}"));
        }
        let before = sub.last.insert(conversation, message);
        let fresh = sub.seen.insert(message);
        if !fresh || before.is_some_and(|before| message <= before) {
            return self.violate(format!("{what}: after {before:?}, so twice or out of order"));
        }
        let Some(&(_, at)) = self.index.get(&message) else { return };
        if let Some(lost) = self.missing(session, subscription, conversation, at) {
            let sub = &self.sessions[session].subs[subscription];
            let kind = (sub.kind, sub.active_since);
            self.violate(format!("{what}: and {lost} never came to {kind:?}"));
        }
    }

    /// A message before position `end` of the log that should have reached the subscription, and did not.
    fn missing(&self, session: SessionNo, subscription: &str, conversation: ConversationId, end: usize) -> Option<MessageId> {
        let sub = self.sessions[session].subs.get(subscription)?;
        let since = sub.active_since?;
        let log = self.log.get(&conversation)?;
        let entries = log[..end.min(log.len())].iter().rev().take_while(|entry| since < entry.at);
        let mut lost = entries.filter(|entry| self.is_due(session, sub, entry) && !sub.seen.contains(&entry.message.id));
        lost.next().map(|entry| entry.message.id)
    }

    /// Whether a message must reach a subscription for certain.
    fn is_due(&self, session: SessionNo, sub: &Sub, entry: &Entry) -> bool {
        let user = self.sessions[session].user;
        let conversation = entry.message.conversation;
        let inside = match self.pairs.get(&conversation) {
            Some(pair) => (pair.0 == user || pair.1 == user).then_some(Mono(0)),
            None => self.members.get(&(conversation, user)).and_then(|member| member.inside_since),
        };
        let (Some(inside), Some(active)) = (inside, sub.active_since) else { return false };
        if entry.at <= inside || entry.at <= active {
            return false;
        }
        match sub.kind {
            Kind::Messages => !self.sends[entry.send].attempts.iter().any(|a| a.session == Some(session) && !a.echo),
            // A removal ends the subscription for good.
            Kind::Topic(of) => of == conversation && inside <= sub.asked_at,
            Kind::All | Kind::Conversations => true,
            Kind::Errors | Kind::Acks => false,
        }
    }

    /// All has come to rest: nothing is under way any more.
    pub(super) fn finish(&mut self) {
        for session in 0..self.sessions.len() {
            self.finish_order(session);
            if !self.sessions[session].live {
                continue;
            }
            let subscriptions: Vec<String> = self.sessions[session].subs.keys().cloned().collect();
            for subscription in subscriptions {
                let lost = self.log.iter().find_map(|(id, log)| self.missing(session, &subscription, *id, log.len()));
                if let Some(lost) = lost {
                    let user = self.sessions[session].user;
                    let sub = &self.sessions[session].subs[&subscription];
                    let kind = (sub.kind, sub.active_since);
                    let what = format!("session {session} of user {user}, subscription {subscription} to {kind:?}");
                    self.violate(format!("{what}: {lost} never came"));
                }
            }
        }
    }

    /// What a session sent to one conversation stands there in the order in which it was sent.
    fn finish_order(&mut self, session: SessionNo) {
        let mut last: BTreeMap<ConversationId, MessageId> = BTreeMap::new();
        for number in &self.sessions[session].sends {
            let send = &self.sends[*number];
            // One that was tried again may stand where the second try put it.
            let (Some(id), 1) = (send.stored, send.attempts.len()) else { continue };
            if last.insert(send.conversation, id).is_some_and(|before| id <= before) {
                let what = format!("session {session}: send {number} stands before an earlier one in its conversation");
                return self.violate(what);
            }
        }
    }

    /// What a device knows of a conversation, from deliveries and history, must be all there is.
    pub(super) fn finish_device(&mut self, device: usize, user: UserId, known: &BTreeMap<ConversationId, BTreeSet<MessageId>>) {
        for (conversation, log) in &self.log {
            let inside = match self.pairs.get(conversation) {
                Some(pair) => (pair.0 == user || pair.1 == user).then_some(Mono(0)),
                None => self.members.get(&(*conversation, user)).and_then(|member| member.inside_since),
            };
            let Some(inside) = inside else { continue };
            let known = known.get(conversation);
            let lost = log
                .iter()
                .filter(|entry| inside < entry.at && self.sends[entry.send].device != device)
                .find(|entry| known.is_none_or(|known| !known.contains(&entry.message.id)));
            if let Some(lost) = lost {
                let what = format!("device {device} of user {user} never learned of {:?}", lost.message);
                return self.violate(what);
            }
        }
    }
}
