//! Shards in one thread: mail arrives at once or when a test lets it, the store answers at once or when a test lets it,
//! and time passes when a test says so.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::access::origins::Origins;
use crate::access::token::{Claims, Keys};
use crate::client::http::Responses;
use crate::client::{Client as StompClient, Event, Options, Role};
use crate::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use crate::model::{ConnectionId, ConversationId, Limits, Mono, Now, Redacted, ShardId, UserId, Wall};
use crate::session::Policy;
use crate::session::endpoints::Endpoints;
use crate::shard::{Effect, Input, ListenerKind, Mail, Shard, ShardSettings};
use crate::store::accounts::FamilyId;
use crate::store::conversations::CreateConversation;
use crate::store::memory::Memory;
use crate::store::{Failure, Read, Reply, Request, Ticket, Write, log};

pub(super) use super::bytes::{CONNECT, binary_packet, header, http, member, packet, send, upgrade, user_on};
use super::bytes::{brief, line};

const SECRET: &[u8] = b"a secret of more than 32 bytes, for tests only";
const START: Wall = Wall(1_800_000_000 * Wall::TICKS_PER_SECOND);

/// A client, by the order of its opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client(usize);

/// A node of shards and its clients.
pub(super) struct Net {
    pub(super) now: Now,
    pub(super) shards: Vec<Shard>,
    pub(super) store: Memory,
    /// What the store answers instead of carrying a request out; with `Unknown` it is carried out all the same.
    pub(super) failing: Option<Failure>,
    store_held: Option<VecDeque<(usize, Ticket, Request)>>,
    /// Replies to what the store has carried out; whether to reads or to writes.
    replies_held: Option<Vec<(bool, usize, Ticket, Reply)>>,
    mail_held: Option<VecDeque<(usize, ShardId, Mail)>>,
    /// Messages of each append that the store was asked for, by their text.
    pub(super) appends: Vec<String>,
    /// How often the store was asked for a page of history.
    pub(super) pages: usize,
    /// One-time codes that were sent.
    pub(super) codes: Vec<String>,
    /// Shards that said they are drained.
    pub(super) drained: Vec<usize>,
    todo: VecDeque<(usize, Effect)>,
    clients: Vec<Wire>,
    keys: Keys,
}

/// Both ends of one connection.
struct Wire {
    shard: usize,
    id: ConnectionId,
    /// The shard does not want to read.
    paused: bool,
    unread: Vec<u8>,
    /// Bytes that the client's side still takes.
    room: usize,
    received: Vec<u8>,
    end: End,
    upgraded: bool,
    responses: Responses,
    client: StompClient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The server has closed its writing half, or all.
    Shut,
    Closed,
    /// Told by `heard`.
    Told,
}

impl Net {
    pub(super) fn new(shards: u16) -> Self {
        Self::with(shards, |_| ())
    }

    pub(super) fn with(shards: u16, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let policy = Arc::new(Policy {
            limits,
            keys: Keys::hs256(SECRET),
            origins: Origins::parse(["https://app.example.com"]).unwrap(),
            endpoints: Endpoints::messaging("/sockjs.js".into(), true, false),
            fixed_code: None,
            sends_codes: true,
            admin_phones: vec![Redacted::new("+100000".into())],
            sanitize: true,
            retention: None,
            page: true,
        });
        let shard = |id| {
            let seed = [u8::try_from(id).unwrap(); 32];
            Shard::new(ShardSettings { id: ShardId(id), shards, node: 1, epoch: 1, seed, policy: policy.clone() })
        };
        Self {
            now: Now { mono: Mono(1), wall: START },
            shards: (0..shards).map(shard).collect(),
            store: Memory::new(),
            failing: None,
            store_held: None,
            replies_held: None,
            mail_held: None,
            appends: Vec::new(),
            pages: 0,
            codes: Vec::new(),
            drained: Vec::new(),
            todo: VecDeque::new(),
            clients: Vec::new(),
            keys: Keys::hs256(SECRET),
        }
    }

    // The world.

    pub(super) fn hold_store(&mut self) {
        self.store_held.get_or_insert_default();
    }

    pub(super) fn release_store(&mut self) {
        for (shard, ticket, request) in self.store_held.take().unwrap_or_default() {
            self.store(shard, ticket, request);
        }
        self.settle();
    }

    /// From now on the store carries out at once and answers when a test says so.
    pub(super) fn hold_replies(&mut self) {
        self.replies_held.get_or_insert_default();
    }

    /// The store answers reads, or writes, that it was asked for until now.
    pub(super) fn release_replies(&mut self, reads: bool) {
        let held = self.replies_held.as_mut().map(std::mem::take).unwrap_or_default();
        let (due, kept) = held.into_iter().partition(|(is_read, ..)| *is_read == reads);
        self.replies_held = Some(kept);
        for (_, shard, ticket, reply) in due {
            self.input(shard, Input::Stored { ticket, reply });
        }
        self.settle();
    }

    pub(super) fn hold_mail(&mut self) {
        self.mail_held.get_or_insert_default();
    }

    pub(super) fn release_mail(&mut self) {
        for (to, from, mail) in self.mail_held.take().unwrap_or_default() {
            self.input(to, Input::Mail { from, mail });
        }
        self.settle();
    }

    /// Lets time pass, with every deadline on the way.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now.mono.after(duration);
        while let Some(at) = self.shards.iter().filter_map(Shard::next_deadline).min().filter(|at| *at <= until) {
            self.advance(at.max(self.now.mono));
            for shard in 0..self.shards.len() {
                if self.shards[shard].next_deadline().is_some_and(|at| at <= self.now.mono) {
                    self.input(shard, Input::Deadline);
                }
            }
            self.settle();
        }
        self.advance(until);
    }

    fn advance(&mut self, to: Mono) {
        self.now.wall = self.now.wall.after(to.since(self.now.mono));
        self.now.mono = to;
    }

    pub(super) fn drain(&mut self) {
        for shard in 0..self.shards.len() {
            self.input(shard, Input::Drain);
        }
        self.settle();
    }

    pub(super) fn input(&mut self, shard: usize, input: Input<'_>) {
        let mut effects = Vec::new();
        self.shards[shard].handle(self.now, input, &mut effects);
        self.todo.extend(effects.into_iter().map(|effect| (shard, effect)));
    }

    pub(super) fn settle(&mut self) {
        while let Some((shard, effect)) = self.todo.pop_front() {
            self.carry_out(shard, effect);
        }
    }

    fn carry_out(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Flush { connection } => {
                if let Some(at) = self.find(shard, connection) {
                    self.flush(at);
                }
            }
            Effect::Pause { connection } => {
                let wire = self.wire(shard, connection);
                assert!(!wire.paused, "paused twice");
                wire.paused = true;
            }
            Effect::Resume { connection } => {
                let wire = self.wire(shard, connection);
                assert!(wire.paused, "resumed without a pause");
                wire.paused = false;
                let unread = std::mem::take(&mut wire.unread);
                let at = self.find(shard, connection).unwrap();
                self.deliver(at, unread);
            }
            Effect::Shutdown { connection } => {
                let wire = self.wire(shard, connection);
                assert!(wire.end == End::Open, "shut twice");
                wire.end = End::Shut;
            }
            Effect::Close { connection } => {
                let wire = self.wire(shard, connection);
                if wire.end != End::Told {
                    wire.end = End::Closed;
                }
                wire.id.generation = u32::MAX;
            }
            Effect::HandOver { connection, to, handover } => {
                let at = self.find(shard, connection).unwrap();
                let id = ConnectionId { index: at as u32, generation: 1 };
                let wire = &mut self.clients[at];
                (wire.shard, wire.id, wire.paused) = (to.index(), id, false);
                let unread = std::mem::take(&mut wire.unread);
                self.input(to.index(), Input::Adopted { connection: id, handover });
                self.deliver(at, unread);
            }
            Effect::Mail { to, mail } => {
                assert!(to.index() != shard, "mail to itself");
                let from = ShardId(u16::try_from(shard).unwrap());
                match &mut self.mail_held {
                    Some(held) => held.push_back((to.index(), from, mail)),
                    None => self.input(to.index(), Input::Mail { from, mail }),
                }
            }
            Effect::Store { ticket, request } => match &mut self.store_held {
                Some(held) => held.push_back((shard, ticket, request)),
                None => self.store(shard, ticket, request),
            },
            Effect::SendOtp { code, .. } => self.codes.push(code.into_exposed().into()),
            Effect::Drained => self.drained.push(shard),
        }
    }

    fn store(&mut self, shard: usize, ticket: Ticket, request: Request) {
        if let Request::Write(Write::Log(log::Write::Append(append))) = &request {
            let texts: Vec<&str> = append.messages.iter().map(|message| &*message.draft.content).collect();
            self.appends.push(texts.join(","));
        }
        if let Request::Read(Read::Log(log::Read::ReadBefore(_) | log::Read::ReadAfter(_))) = &request {
            self.pages += 1;
        }
        let reply = match self.failing {
            Some(Failure::Unknown) => {
                self.store.apply(&request);
                Reply::Failed(Failure::Unknown)
            }
            Some(failure) => Reply::Failed(failure),
            None => self.store.apply(&request),
        };
        match &mut self.replies_held {
            Some(held) => held.push((request.is_read(), shard, ticket, reply)),
            None => self.input(shard, Input::Stored { ticket, reply }),
        }
    }

    fn find(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        self.clients.iter().position(|wire| wire.shard == shard && wire.id == id)
    }

    fn wire(&mut self, shard: usize, id: ConnectionId) -> &mut Wire {
        let at = self.find(shard, id).expect("an effect names a connection that the shard has");
        &mut self.clients[at]
    }

    fn flush(&mut self, at: usize) {
        loop {
            let Wire { shard, id, room, .. } = self.clients[at];
            let Some(outbox) = self.shards[shard].outbox(id) else { return };
            let mut slices = [IoSlice::new(&[]); 8];
            let count = outbox.slices(&mut slices);
            let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            bytes.truncate(room);
            if outbox.is_empty() {
                return;
            }
            let wire = &mut self.clients[at];
            wire.received.extend_from_slice(&bytes);
            wire.room -= bytes.len();
            let blocked = bytes.is_empty();
            self.input(shard, Input::Written { connection: id, bytes: bytes.len(), blocked });
            if blocked {
                return;
            }
        }
    }

    // Clients.

    pub(super) fn open(&mut self, shard: usize) -> Client {
        self.open_at(shard, ListenerKind::Http)
    }

    pub(super) fn open_at(&mut self, shard: usize, kind: ListenerKind) -> Client {
        let at = self.clients.len();
        let id = ConnectionId { index: at as u32, generation: 0 };
        self.clients.push(Wire {
            shard,
            id,
            paused: false,
            unread: Vec::new(),
            room: usize::MAX,
            received: Vec::new(),
            end: End::Open,
            upgraded: false,
            responses: Responses::default(),
            client: StompClient::upgraded(&Options::default()),
        });
        let peer = Redacted::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.input(shard, Input::Opened { connection: id, peer, kind });
        self.settle();
        Client(at)
    }

    /// The client is gone without a word.
    pub(super) fn lose(&mut self, client: Client) {
        let Wire { shard, id, .. } = self.clients[client.0];
        // A shard that has closed a connection does not hear of it again.
        if self.shards[shard].outbox(id).is_some() {
            self.input(shard, Input::Lost { connection: id });
            self.settle();
        }
    }

    pub(super) fn write(&mut self, client: Client, bytes: impl AsRef<[u8]>) {
        self.deliver(client.0, bytes.as_ref().to_vec());
        self.settle();
    }

    fn deliver(&mut self, at: usize, mut bytes: Vec<u8>) {
        let wire = &mut self.clients[at];
        if wire.paused {
            wire.unread.append(&mut bytes);
        } else if !bytes.is_empty() {
            let (shard, connection) = (wire.shard, wire.id);
            self.input(shard, Input::Received { connection, bytes: &mut bytes });
        }
    }

    /// Frames in one text packet.
    pub(super) fn stomp(&mut self, client: Client, frames: &[&str]) {
        self.write(client, packet(frames));
    }

    /// Sends one frame and checks what comes back.
    pub(super) fn say(&mut self, client: Client, frame: &str, expect: &[&str]) {
        self.stomp(client, &[frame]);
        assert_eq!(self.heard(client), expect, "{frame:?}");
    }

    pub(super) fn check(&mut self, client: Client, expect: &[&str]) {
        assert_eq!(self.heard(client), expect);
    }

    /// The client reads on, `bytes` from now.
    pub(super) fn take(&mut self, client: Client, bytes: usize) {
        self.clients[client.0].room = bytes;
        self.flush(client.0);
        self.settle();
    }

    /// Bytes that wait for a client.
    pub(super) fn queued(&self, client: Client) -> usize {
        let wire = &self.clients[client.0];
        self.shards[wire.shard].outbox(wire.id).map_or(0, crate::shard::Outbox::bytes)
    }

    pub(super) fn is_paused(&self, client: Client) -> bool {
        self.clients[client.0].paused
    }

    pub(super) fn shard_of(&self, client: Client) -> usize {
        self.clients[client.0].shard
    }

    pub(super) fn connection(&self, client: Client) -> ConnectionId {
        self.clients[client.0].id
    }

    /// Whether the answer to the handshake has come.
    pub(super) fn is_upgraded(&self, client: Client) -> bool {
        let wire = &self.clients[client.0];
        wire.upgraded || wire.received.windows(12).any(|window| window == b"HTTP/1.1 101")
    }

    /// The bytes received since the last look, as they came.
    pub(super) fn raw(&mut self, client: Client) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.clients[client.0].received)).into_owned()
    }

    /// The responses, frames and closes received since the last look, each in a line.
    pub(super) fn heard(&mut self, client: Client) -> Vec<String> {
        let wire = &mut self.clients[client.0];
        let mut lines = Vec::new();
        let mut bytes = std::mem::take(&mut wire.received);
        let mut rest = bytes.as_slice();
        while !wire.upgraded
            && let Some(response) = wire.responses.next(&mut rest).expect("the server's responses are sound")
        {
            let body = String::from_utf8_lossy(&response.body).into_owned();
            let body = brief(&body);
            let status = response.status;
            lines.push(if body.is_empty() { status.to_string() } else { format!("{status} {body}") });
            wire.upgraded = response.status == 101;
        }
        let read = bytes.len() - rest.len();
        let mut received = wire.client.receive(Role::Receiver, &mut bytes[read..]);
        loop {
            let (line, is_frame) = match received.next_event().expect("the server's packets and frames are sound") {
                None => break,
                Some(Event::Open) => continue,
                Some(Event::Frame(frame)) => (line(&frame), true),
                Some(Event::HeartBeat) => ("beat".to_owned(), false),
                Some(Event::Ping) => ("ping".to_owned(), false),
                Some(Event::Pong(payload)) => (format!("pong {}", String::from_utf8_lossy(payload)), false),
                Some(Event::Closed { code, .. }) => (format!("close {}", code.unwrap_or(0)), false),
            };
            let binary = if is_frame && received.client().is_binary() { " in binary" } else { "" };
            lines.push(line + binary);
        }
        if matches!(wire.end, End::Shut | End::Closed) {
            wire.end = End::Told;
            lines.push("end".to_owned());
        }
        lines
    }

    // Fixtures.

    /// Of any user; lives an hour.
    pub(super) fn token(&self, user: u64) -> String {
        self.token_with(user, Duration::from_secs(3_600), &[], None)
    }

    pub(super) fn token_with(&self, user: u64, life: Duration, roles: &[&str], family: Option<FamilyId>) -> String {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        let claims = Claims { user: UserId::new(user).unwrap(), roles, expires: self.now.wall.after(life), family };
        self.keys.sign(&claims, self.now.wall)
    }

    /// A client that has sent its upgrade, with this query.
    pub(super) fn upgrade(&mut self, shard: usize, query: &str) -> Client {
        let client = self.open(shard);
        self.write(client, upgrade(query, ""));
        client
    }

    /// A connected client of this user, from shard 0.
    pub(super) fn client(&mut self, user: u64) -> Client {
        let token = self.token(user);
        self.client_with(&token)
    }

    pub(super) fn client_with(&mut self, token: &str) -> Client {
        let client = self.upgrade(0, &format!("?token={token}"));
        self.stomp(client, &[CONNECT]);
        self.check(client, &["101", "CONNECTED 1.2"]);
        client
    }

    /// A client with subscriptions: each destination's last segment is its id.
    pub(super) fn subscriber(&mut self, user: u64, destinations: &[&str]) -> Client {
        let client = self.client(user);
        for destination in destinations {
            self.subscribe(client, destination);
        }
        client
    }

    pub(super) fn subscribe(&mut self, client: Client, destination: &str) {
        let (_, id) = destination.rsplit_once('/').unwrap();
        self.say(client, &format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\nreceipt:s\n\n"), &["RECEIPT s"]);
    }

    /// A conversation that the store has: direct for two users, a group of the first one's for more.
    pub(super) fn conversation(&mut self, id: u64, users: &[u64]) {
        let kind = if users.len() == 2 { ConversationKind::Direct } else { ConversationKind::Group };
        let user = |id: u64| UserId::new(id).unwrap();
        let role = |id: u64| match kind {
            ConversationKind::Group if id == users[0] => ParticipantRole::Admin,
            _ => ParticipantRole::Member,
        };
        let mut participants: Vec<Participant> =
            users.iter().map(|id| Participant { user: user(*id), role: role(*id), joined_at: START }).collect();
        participants.sort_by_key(|participant| participant.user);
        let id = ConversationId::new(id).unwrap();
        let created_by = user(users[0]);
        let conversation = Conversation { id, kind, title: None, created_by, created_at: START, participants };
        self.store.ask(CreateConversation { conversation }).unwrap();
    }

    /// A request over a connection of its own, and the answer.
    pub(super) fn request(&mut self, user: u64, request: &str, body: &str) -> String {
        let client = self.ask(user, request, body);
        self.heard(client).join("|")
    }

    /// A request over a connection of its own, whose answer may come later.
    pub(super) fn ask(&mut self, user: u64, request: &str, body: &str) -> Client {
        let client = self.open(0);
        let token = self.token(user);
        self.write(client, http(request, &format!("Authorization: Bearer {token}\r\n"), body));
        client
    }
}
