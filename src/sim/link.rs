//! A device's STOMP, in real bytes, and what the answers on it must be.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::{ConversationId, Limits, MessageId, UserId};
use crate::protocol::stomp::{self, Command, Item, Side, Version};
use crate::sim::carrier::{Carried, Carrier};
use crate::sim::device::Ctx;
use crate::sim::facts::{Attempt, Dto, Kind, SendNo, SessionNo};
use crate::sim::network::Line;

/// Refusals that a well-behaved client may meet, and whether they say for certain that nothing was done.
const REFUSALS: [(&str, bool); 6] = [
    ("not_participant", true),
    ("blocked", true),
    ("rate_limited", true),
    ("store_busy", true),
    ("draining", true),
    ("store_unavailable", false),
];
/// Faults that a well-behaved client may meet.
const FAULTS: [&str; 4] =
    ["the token has expired", "the token has been revoked", "logins cannot be checked yet", "destination is not yours"];
/// Close codes that a well-behaved client may meet.
const CLOSES: [u16; 7] = [1000, 1008, 1012, 1013, 4408, 4409, 4500];

/// Whether a refusal of this code is certain; `None` when it must not come at all.
pub(super) fn is_certain(code: &str) -> Option<bool> {
    REFUSALS.iter().find(|(known, _)| *known == code).map(|(_, certain)| *certain)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Upgrading,
    Connecting,
    Online,
    /// DISCONNECT was sent, or the server has said its last word.
    Ending,
    /// The handshake was refused: no packets will come.
    Refused,
}

/// What a receipt stands for.
#[derive(Clone, Debug)]
enum Awaited {
    Send(SendNo),
    Subscribe(String),
    Unsubscribe(String),
    Disconnect,
}

/// What the device is told.
#[derive(Debug)]
pub(super) enum News {
    Online,
    /// A subscription is in force.
    Subscribed(String),
    Message {
        subscription: String,
        conversation: ConversationId,
        message: MessageId,
    },
    /// The attempt failed. `again`: it may be tried again.
    Failed {
        send: SendNo,
        again: bool,
    },
    /// The handshake was refused with this status.
    Refused(u16),
    Ended,
}

/// Lifetime: one connection.
pub(super) struct Link {
    pub(super) session: SessionNo,
    pub(super) stage: Stage,
    user: UserId,
    carrier: Carrier,
    stomp: stomp::Decoder,
    pub(super) version: Version,
    receipts: BTreeMap<String, Awaited>,
    next_receipt: u32,
    /// STOMP bytes that go out with the next packet.
    batch: Vec<u8>,
    limits: Limits,
}

/// A frame with its own memory.
struct Owned {
    command: Command,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Owned {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    receipt: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ack {
    id: String,
    client_message_id: Option<String>,
}

impl Link {
    /// Opens the connection: the handshake, and CONNECT behind it when the device does not wait for the 101.
    pub(super) fn begin(ctx: &mut Ctx<'_>, session: SessionNo, user: UserId, token: &str) -> Self {
        let version = ctx.random.pick(&[Version::V12, Version::V12, Version::V11, Version::V10]);
        let in_query = ctx.random.percent(50);
        let in_connect = !in_query || ctx.random.percent(20);
        let query = if in_query { format!("?token={token}") } else { String::new() };
        let name = ctx.random.bits();
        let carrier = Carrier::begin(ctx, &query, name);
        let mut link = Self {
            session,
            stage: if carrier.is_bare() { Stage::Connecting } else { Stage::Upgrading },
            user,
            carrier,
            stomp: stomp::Decoder::new(Side::Client),
            version,
            receipts: BTreeMap::new(),
            next_receipt: 0,
            batch: Vec::new(),
            limits: Limits { frame_bytes: 1 << 20, ..Limits::default() },
        };
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("accept-version", version.text()), ("host", "sim"), ("heart-beat", "0,0")];
        if in_connect {
            headers.push(("Authorization", &authorization));
        }
        link.write(Command::Connect, &headers, None);
        if link.carrier.takes_at_once() && ctx.random.percent(30) {
            link.flush(ctx);
        }
        link
    }

    fn write(&mut self, command: Command, headers: &[(&str, &str)], body: Option<&[u8]>) {
        stomp::encode(&mut self.batch, self.version, command, headers, body);
    }

    /// Sends what was written.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.carrier.send(ctx, &batch);
        }
    }

    pub(super) fn ping(&mut self, ctx: &mut Ctx<'_>, bytes: usize) {
        self.carrier.ping(ctx, bytes);
    }

    /// Whether the loss of the line that brings messages is the end of the link.
    pub(super) fn bring_ended(&mut self, ctx: &mut Ctx<'_>) -> bool {
        self.carrier.bring_ended(ctx)
    }

    fn receipt(&mut self, awaited: Awaited) -> String {
        self.next_receipt += 1;
        let name = format!("r:{}", self.next_receipt);
        self.receipts.insert(name.clone(), awaited);
        name
    }

    pub(super) fn subscribe(&mut self, ctx: &mut Ctx<'_>, id: &str, kind: Kind) {
        let destination = kind.destination(self.user, ctx.random.percent(30));
        self.subscribe_to(ctx, id, kind, destination);
    }

    /// UNSUBSCRIBE and SUBSCRIBE at once, under the same id.
    pub(super) fn resubscribe(&mut self, ctx: &mut Ctx<'_>, id: &str) {
        let Some(sub) = ctx.oracle.sessions[self.session].subs.get(id) else { return };
        let (kind, destination) = (sub.kind, sub.destination.clone());
        self.unsubscribe(ctx, id);
        self.subscribe_to(ctx, id, kind, destination);
    }

    fn subscribe_to(&mut self, ctx: &mut Ctx<'_>, id: &str, kind: Kind, destination: String) {
        ctx.oracle.subscribe(ctx.moment, self.session, id, kind, destination.clone());
        let receipt = self.receipt(Awaited::Subscribe(id.to_owned()));
        self.write(Command::Subscribe, &[("id", id), ("destination", &destination), ("receipt", &receipt)], None);
    }

    pub(super) fn unsubscribe(&mut self, ctx: &mut Ctx<'_>, id: &str) {
        ctx.oracle.unsubscribing(self.session, id);
        let receipt = self.receipt(Awaited::Unsubscribe(id.to_owned()));
        self.write(Command::Unsubscribe, &[("id", id), ("receipt", &receipt)], None);
    }

    pub(super) fn send(&mut self, ctx: &mut Ctx<'_>, number: SendNo) {
        let (echo, with_receipt, named) = (ctx.random.percent(15), ctx.random.percent(85), ctx.random.percent(50));
        let attempt = Attempt { session: Some(self.session), echo, at: ctx.moment.mono };
        ctx.oracle.attempt(number, attempt);
        let send = &ctx.oracle.sends[number];
        let (conversation, content) = (send.conversation, send.content.clone());
        let key_in_header = send.key.clone().filter(|_| named);
        let key_in_body = send.key.as_ref().filter(|_| !named).map(|key| format!(",\"clientMessageId\":\"{key}\""));
        let body = format!("{{\"conversationId\":{conversation},\"content\":\"{content}\"{}}}", key_in_body.unwrap_or_default());
        let destination = if named { format!("/app/conversations/{conversation}/send") } else { "/app/send".to_owned() };
        let receipt = with_receipt.then(|| self.receipt(Awaited::Send(number)));
        let mut headers = vec![("destination", destination.as_str())];
        headers.extend(receipt.as_deref().map(|receipt| ("receipt", receipt)));
        headers.extend(key_in_header.as_deref().map(|key| ("client-message-id", key)));
        if echo {
            headers.push(("echo", "true"));
        }
        self.write(Command::Send, &headers, Some(body.as_bytes()));
    }

    pub(super) fn mark_read(&mut self, conversation: Option<ConversationId>, message: MessageId) {
        let destination = format!("/app/messages/{message}/read");
        let conversation = conversation.map(|id| id.to_string());
        let mut headers = vec![("destination", destination.as_str())];
        headers.extend(conversation.as_deref().map(|id| ("conversation-id", id)));
        self.write(Command::Send, &headers, None);
    }

    pub(super) fn disconnect(&mut self) {
        let receipt = self.receipt(Awaited::Disconnect);
        self.write(Command::Disconnect, &[("receipt", &receipt)], None);
        self.stage = Stage::Ending;
    }

    /// Whether every command has its answer.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Online && self.receipts.is_empty()
    }

    pub(super) fn pending(&self) -> Vec<&String> {
        self.receipts.keys().collect()
    }

    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, line: Line, bytes: &[u8]) -> Vec<News> {
        let mut news = Vec::new();
        if self.stage == Stage::Refused {
            return news;
        }
        for carried in self.carrier.receive(ctx, line, bytes) {
            match carried {
                Carried::Open => {
                    self.stage = Stage::Connecting;
                    self.flush(ctx);
                }
                Carried::Stomp(bytes) => self.decode(ctx, &bytes, &mut news),
                Carried::Close(code) => {
                    if !code.is_some_and(|code| CLOSES.contains(&code)) {
                        ctx.oracle.violate(format!("session {}: closed with {code:?}", self.session));
                    }
                    self.stage = Stage::Ending;
                    news.push(News::Ended);
                }
                Carried::Refused(status) => {
                    if !matches!(status, 401 | 503) {
                        ctx.oracle.violate(format!("session {}: the way in was refused with {status}", self.session));
                    }
                    self.stage = Stage::Refused;
                    news.push(News::Refused(status));
                    return news;
                }
                Carried::Lost => {
                    self.stage = Stage::Ending;
                    news.push(News::Ended);
                }
                Carried::Fault(what) => {
                    ctx.oracle.violate(format!("session {}: cannot be decoded: {what}", self.session));
                }
            }
        }
        news
    }

    fn decode(&mut self, ctx: &mut Ctx<'_>, mut input: &[u8], news: &mut Vec<News>) {
        loop {
            let frame = match self.stomp.next(&mut input, &self.limits) {
                Ok(None) => return,
                Ok(Some(Item::HeartBeat)) => continue,
                Ok(Some(Item::Frame(frame))) => Owned {
                    command: frame.command,
                    headers: frame.headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
                    body: frame.body.to_vec(),
                },
                Err(fault) => {
                    return ctx.oracle.violate(format!("session {}: cannot be decoded: {}", self.session, fault.message));
                }
            };
            if frame.command == Command::Connected {
                self.stomp.set_version(self.version);
            }
            self.take_in(ctx, &frame, news);
        }
    }

    fn take_in(&mut self, ctx: &mut Ctx<'_>, frame: &Owned, news: &mut Vec<News>) {
        match frame.command {
            Command::Connected => {
                if self.stage != Stage::Connecting
                    || frame.header("user-name") != self.user.to_string()
                    || frame.header("version") != self.version.text()
                {
                    ctx.oracle.violate(format!("session {}: CONNECTED {:?}", self.session, frame.headers));
                }
                self.stage = Stage::Online;
                news.push(News::Online);
            }
            Command::Receipt => self.receipted(ctx, frame.header("receipt-id"), news),
            Command::Message => self.message(ctx, frame, news),
            Command::Error => self.error(ctx, frame, news),
            other => ctx.oracle.violate(format!("session {}: a server sent {other:?}", self.session)),
        }
    }

    fn receipted(&mut self, ctx: &mut Ctx<'_>, id: &str, news: &mut Vec<News>) {
        match self.receipts.remove(id) {
            Some(Awaited::Send(number)) => ctx.oracle.acknowledged(number),
            Some(Awaited::Subscribe(id)) => {
                ctx.oracle.subscribed(ctx.moment, self.session, &id);
                news.push(News::Subscribed(id));
            }
            // It may have been subscribed anew meanwhile.
            Some(Awaited::Unsubscribe(id)) => {
                let again = self.receipts.values().any(|awaited| matches!(awaited, Awaited::Subscribe(of) if *of == id));
                if !again {
                    ctx.oracle.unsubscribed(self.session, &id);
                }
            }
            Some(Awaited::Disconnect) if self.receipts.is_empty() => {}
            Some(Awaited::Disconnect) => {
                let what = format!("session {}: DISCONNECT was answered before {:?}", self.session, self.pending());
                ctx.oracle.violate(what);
            }
            None => ctx.oracle.violate(format!("session {}: RECEIPT {id} answers nothing, or twice", self.session)),
        }
    }

    fn message(&mut self, ctx: &mut Ctx<'_>, frame: &Owned, news: &mut Vec<News>) {
        let subscription = frame.header("subscription").to_owned();
        let kind = ctx.oracle.sessions[self.session].subs.get(&subscription).map(|sub| sub.kind);
        let mut body = frame.body.clone();
        match kind {
            Some(Kind::Errors) => match simd_json::serde::from_slice::<Refused>(&mut body) {
                Ok(Refused { code, receipt }) => self.refused(ctx, &code, receipt.as_deref(), news),
                Err(_) => ctx.oracle.violate(format!("session {}: an error that is none", self.session)),
            },
            Some(Kind::Acks) => {
                let ack = simd_json::serde::from_slice::<Ack>(&mut body);
                let Ok(ack) = ack else {
                    return ctx.oracle.violate(format!("session {}: an ack that is none", self.session));
                };
                if let Some(number) = ack.client_message_id.and_then(|key| key[1..].parse::<SendNo>().ok()) {
                    ctx.oracle.acknowledged(number);
                    if ctx.oracle.sends[number].stored.is_none_or(|stored| stored.to_string() != ack.id) {
                        ctx.oracle.violate(format!("session {}: the ack of send {number} has another id", self.session));
                    }
                }
            }
            _ => {
                let Ok(dto) = simd_json::serde::from_slice::<Dto>(&mut body) else {
                    return ctx.oracle.violate(format!("session {}: a message that is none", self.session));
                };
                let heads = (subscription.as_str(), frame.header("destination"), frame.header("message-id"));
                if let Some((conversation, message)) = ctx.oracle.deliver(ctx.moment, self.session, heads, &dto) {
                    news.push(News::Message { subscription, conversation, message });
                }
            }
        }
    }

    /// `{code, receipt?}` on the queue of errors, or an ERROR that stands for it.
    fn refused(&mut self, ctx: &mut Ctx<'_>, code: &str, receipt: Option<&str>, news: &mut Vec<News>) {
        let Some(certain) = is_certain(code) else {
            return ctx.oracle.violate(format!("session {}: refused with {code}", self.session));
        };
        let Some(receipt) = receipt else { return };
        match self.receipts.remove(receipt) {
            Some(Awaited::Send(number)) => {
                ctx.oracle.refused(number, certain);
                let again = !matches!(code, "not_participant" | "blocked");
                news.push(News::Failed { send: number, again });
            }
            _ => ctx.oracle.violate(format!("session {}: {receipt} is refused, and was not asked or answered", self.session)),
        }
    }

    fn error(&mut self, ctx: &mut Ctx<'_>, frame: &Owned, news: &mut Vec<News>) {
        let message = frame.header("message");
        let receipt = Some(frame.header("receipt-id")).filter(|receipt| !receipt.is_empty());
        if let Some((code, _)) = message.split_once(": ").filter(|(code, _)| is_certain(code).is_some()) {
            self.refused(ctx, code, receipt, news);
        } else if !FAULTS.contains(&message) {
            ctx.oracle.violate(format!("session {}: ERROR {message:?}", self.session));
        }
        self.stage = Stage::Ending;
    }

    /// The connection is over: what was not answered may have been done or not.
    pub(super) fn end(self, ctx: &mut Ctx<'_>) -> Vec<SendNo> {
        ctx.oracle.end_session(self.session);
        let unknown = self.receipts.into_values().filter_map(|awaited| match awaited {
            Awaited::Send(number) => Some(number),
            _ => None,
        });
        unknown.collect()
    }
}
