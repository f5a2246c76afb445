//! A device's STOMP, in real bytes over any transport, and the answers that a server may give to it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::client::{Client, Error, Event, Options, Output, Role, Transport};
use crate::model::{ConversationId, MessageId, UserId};
use crate::protocol::stomp::{self, Command, Version};
use crate::protocol::websocket::Kind as PacketKind;
use crate::shard::ListenerKind;
use crate::sim::context::{Ctx, Do};
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
pub(super) enum LinkState {
    /// The transport is not open.
    Opening,
    Connecting,
    Online,
    /// DISCONNECT was sent, or the server has said its last word.
    Ending,
    /// The handshake was refused: no packets will come.
    Refused,
}

/// The command that a receipt answers.
#[derive(Clone, Debug)]
enum Awaited {
    Send(SendNo),
    Subscribe(String),
    Unsubscribe(String),
    Disconnect,
}

/// An event for the device.
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
    pub(super) state: LinkState,
    user: UserId,
    client: Client,
    pub(super) version: Version,
    receipts: BTreeMap<String, Awaited>,
    next_receipt: u32,
    /// STOMP bytes that go out with the next packet.
    batch: Vec<u8>,
}

/// An event with its own memory.
enum Heard {
    Open,
    Frame(Owned),
    Closed(Option<u16>),
    Error(Error),
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
        let transport = pick_transport(ctx, in_query);
        let options = Options {
            host: "sim",
            endpoint: if transport == Transport::WebSocket { ctx.random.pick(&["/ws", "/ws/websocket"]) } else { "/ws" },
            query: &query,
            protocols: "v12.stomp, v11.stomp",
            version,
            seed: ctx.random.bits(),
        };
        let mut link = Self {
            session,
            state: if transport == Transport::Tcp { LinkState::Connecting } else { LinkState::Opening },
            user,
            client: Client::new(transport, &options),
            version,
            receipts: BTreeMap::new(),
            next_receipt: 0,
            batch: Vec::new(),
        };
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("accept-version", version.text()), ("host", "sim"), ("heart-beat", "0,0")];
        if in_connect {
            headers.push(("Authorization", &authorization));
        }
        link.write(Command::Connect, &headers, None);
        link.carry_out(ctx);
        // Some do not wait for the answer to the handshake.
        if !transport.is_sockjs() && ctx.random.percent(30) {
            link.flush(ctx);
        }
        link
    }

    fn write(&mut self, command: Command, headers: &[(&str, &str)], body: Option<&[u8]>) {
        stomp::encode(&mut self.batch, self.version, command, headers, body);
    }

    /// Sends the frames that were written: in one piece or several, cut anywhere.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.client.send_messages(pieces(ctx, &batch));
            self.carry_out(ctx);
        }
    }

    /// Carries the client's outputs out.
    fn carry_out(&mut self, ctx: &mut Ctx<'_>) {
        let tcp = self.client.transport() == Transport::Tcp;
        let kind = if tcp { ListenerKind::Stomp } else { ListenerKind::Http };
        while let Some(output) = self.client.next_output() {
            ctx.out.push(match output {
                Output::Open(role) => Do::Open(line_of(role), kind),
                Output::Write(role, bytes) => Do::Send(line_of(role), bytes.to_vec()),
                Output::Close(role) => Do::Close(line_of(role)),
            });
        }
    }

    pub(super) fn ping(&mut self, ctx: &mut Ctx<'_>, bytes: usize) {
        self.client.send_packet(PacketKind::Ping, &vec![b'p'; bytes]);
        self.carry_out(ctx);
    }

    /// Notes the loss of the line that brings messages; true when it ends the link. The outcome of a message on its way is unknown.
    pub(super) fn sender_ended(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let is_over = self.client.disconnected(Role::Sender).is_err();
        self.carry_out(ctx);
        is_over
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
        self.state = LinkState::Ending;
    }

    /// Whether every command has its answer.
    pub(super) fn is_settled(&self) -> bool {
        self.state == LinkState::Online && self.receipts.is_empty()
    }

    pub(super) fn pending(&self) -> Vec<&String> {
        self.receipts.keys().collect()
    }

    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, line: Line, bytes: &[u8]) -> Vec<News> {
        let role = if line == Line::Bring { Role::Sender } else { Role::Receiver };
        let mut news = Vec::new();
        for heard in self.hear(role, bytes) {
            match heard {
                Heard::Open => {
                    self.state = LinkState::Connecting;
                    self.flush(ctx);
                }
                Heard::Frame(frame) => self.take_in(ctx, &frame, &mut news),
                Heard::Closed(code) => {
                    if !code.is_some_and(|code| CLOSES.contains(&code)) {
                        ctx.oracle.violate(format!("session {}: closed with {code:?}", self.session));
                    }
                    self.state = LinkState::Ending;
                    news.push(News::Ended);
                }
                Heard::Error(error) => self.fail(ctx, &error, &mut news),
            }
        }
        self.carry_out(ctx);
        news
    }

    fn hear(&mut self, role: Role, bytes: &[u8]) -> Vec<Heard> {
        let mut bytes = bytes.to_vec();
        let mut received = self.client.receive(role, &mut bytes);
        let mut heard = Vec::new();
        loop {
            heard.push(match received.next_event() {
                Ok(None) => return heard,
                Ok(Some(Event::Open)) => Heard::Open,
                Ok(Some(Event::Frame(frame))) => Heard::Frame(Owned {
                    command: frame.command,
                    headers: frame.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                    body: frame.body.to_vec(),
                }),
                Ok(Some(Event::HeartBeat | Event::Ping | Event::Pong(_))) => continue,
                Ok(Some(Event::Closed { code, .. })) => Heard::Closed(code),
                Err(error) => Heard::Error(error),
            });
        }
    }

    /// The client cannot go on. That is no violation where a server may give up a session or refuse one.
    fn fail(&mut self, ctx: &mut Ctx<'_>, error: &Error, news: &mut Vec<News>) {
        self.state = LinkState::Ending;
        match error {
            Error::SessionLost | Error::Refused { role: Role::Sender, status: 404 | 408 | 503 } => news.push(News::Ended),
            Error::Refused { role: Role::Receiver, status: status @ (401 | 503) } => {
                self.state = LinkState::Refused;
                news.push(News::Refused(*status));
            }
            error => ctx.oracle.violate(format!("session {}: {error}", self.session)),
        }
    }

    fn take_in(&mut self, ctx: &mut Ctx<'_>, frame: &Owned, news: &mut Vec<News>) {
        match frame.command {
            Command::Connected => {
                if self.state != LinkState::Connecting
                    || frame.header("user-name") != self.user.to_string()
                    || frame.header("version") != self.version.text()
                {
                    ctx.oracle.violate(format!("session {}: CONNECTED {:?}", self.session, frame.headers));
                }
                self.state = LinkState::Online;
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
        self.state = LinkState::Ending;
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

fn line_of(role: Role) -> Line {
    match role {
        Role::Receiver => Line::Socket,
        Role::Sender => Line::Bring,
    }
}

/// A listener for plain TCP has no URL that could carry a token.
fn pick_transport(ctx: &mut Ctx<'_>, in_query: bool) -> Transport {
    match ctx.random.below(20) {
        0 if !in_query => Transport::Tcp,
        0..13 => Transport::WebSocket,
        13..16 => Transport::SockJsWebSocket,
        _ => ctx.random.pick(&[Transport::XhrStreaming, Transport::XhrPolling, Transport::EventSource]),
    }
}

/// Pieces that end where characters do, as strings do.
fn pieces<'a>(ctx: &mut Ctx<'_>, batch: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let mut count = if ctx.random.percent(70) { rest.len() } else { ctx.random.between(1, rest.len()) };
        while rest.get(count).is_some_and(|byte| byte & 0xC0 == 0x80) {
            count += 1;
        }
        let (piece, behind) = rest.split_at(count);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
