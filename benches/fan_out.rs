//! The server's own work for a delivery, without the kernel's: `cargo bench --bench fan_out`.
//!
//! 1,000 subscribers of one topic on one shard, driven through the boundary as the pump does it: the SENDs arrive in one
//! read, the store (a map in memory) replies a turn later, then each connection with output is written once, gathering up
//! to 64 frames, to a socket that takes everything. CPU time of the thread for a delivery, medians of five and their
//! spread. `cargo bench -p loadgen` measures the kernel's part, one `send()`, on the same machine.

use std::hint::black_box;
use std::io::IoSlice;
use std::mem::take;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tidings::access::origins::Origins;
use tidings::access::token::{Claims, Keys};
use tidings::client::{Client, Options, Output, Transport};
use tidings::model::message::{Conversation, ConversationKind, Participant, ParticipantRole};
use tidings::model::{ConnectionId, ConversationId, Limits, Mono, Now, Redacted, ShardId, UserId, Wall};
use tidings::protocol::stomp::Command;
use tidings::session::Policy;
use tidings::session::endpoints::Endpoints;
use tidings::shard::{Effect, Input, ListenerKind, Shard, ShardSettings};
use tidings::store::conversations::CreateConversation;
use tidings::store::memory::Memory;
use tidings::store::{Request, Ticket};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SUBSCRIBERS: u32 = 1_000;
const MESSAGES: usize = 1_024;
const ROUNDS: usize = 5;
const CONVERSATION: u64 = 7;
const BODY_BYTES: usize = 128;
/// Frames of one gathering write, as in the pump.
const SLICES_MAX: usize = 64;
const TURN: Duration = Duration::from_micros(100);
/// The first connection; the subscribers' follow.
const SENDER: ConnectionId = ConnectionId { index: 0, generation: 0 };

fn main() {
    // `cargo test` also runs benches, to check that they work: once, and small.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (subscribers, rounds) = if is_bench { (SUBSCRIBERS, ROUNDS) } else { (8, 1) };
    println!(
        "{subscribers} subscribers, one shard, {BODY_BYTES} bytes of JSON: CPU ns a delivery, median of {rounds} (min - max)"
    );
    for in_flight in [1, 64] {
        let mut room = Room::new(subscribers);
        room.exchange(MESSAGES, in_flight);
        let mut each = Vec::new();
        room.count = Count::default();
        for _ in 0..rounds {
            let before = cpu_time();
            room.exchange(MESSAGES, in_flight);
            each.push((cpu_time() - before).as_nanos() as f64 / (MESSAGES as f64 * f64::from(subscribers)));
        }
        each.sort_by(f64::total_cmp);
        let [min, median, max] = [0, each.len() / 2, each.len() - 1].map(|at| each[at]);
        let Count { deliveries, bytes, writes } = room.count;
        assert_eq!(deliveries, rounds * MESSAGES * subscribers as usize, "each message to each subscriber, once");
        println!(
            "{in_flight:>3} in flight: {median:>6.0} ({min:.0} - {max:.0}), {} bytes, {:.1} deliveries in a write",
            bytes / deliveries,
            deliveries as f64 / writes as f64
        );
    }
}

/// The writes to the subscribers.
#[derive(Default)]
struct Count {
    deliveries: usize,
    bytes: usize,
    writes: usize,
}

/// One shard, its store, and connections that take every byte.
struct Room {
    now: Now,
    shard: Shard,
    store: Memory,
    keys: Keys,
    effects: Vec<Effect>,
    /// The store's requests of this turn.
    asked: Vec<(Ticket, Request)>,
    /// Connections to write at the end of this turn.
    dirty: Vec<ConnectionId>,
    /// Frames that the sender received: a RECEIPT for each message, once it sends.
    receipts: usize,
    count: Count,
    /// One SEND, and the buffer that a read fills: a shard unmasks in place.
    send: Vec<u8>,
    scratch: Vec<u8>,
}

impl Room {
    /// All are connected; the subscribers are subscribed, the sender is not.
    fn new(subscribers: u32) -> Self {
        let secret = b"a secret of more than 32 bytes, for a bench only";
        let limits = Limits { messages_per_minute: 1_000_000_000, messages_burst: 1_000_000, ..Limits::default() };
        let policy = Policy {
            limits,
            keys: Keys::hs256(secret),
            origins: Origins::all(),
            endpoints: Endpoints::messaging("/sockjs.js".into(), true, false),
            fixed_code: None,
            sends_codes: false,
            admin_phones: Vec::new(),
            sanitize: true,
            retention: None,
            page: true,
        };
        let settings = ShardSettings { id: ShardId(0), shards: 1, node: 1, epoch: 1, seed: [7; 32], policy: Arc::new(policy) };
        let mut room = Self {
            now: Now { mono: Mono(1), wall: Wall::from_unix_seconds(1_800_000_000) },
            shard: Shard::new(settings),
            store: Memory::new(),
            keys: Keys::hs256(secret),
            effects: Vec::new(),
            asked: Vec::new(),
            dirty: Vec::new(),
            receipts: 0,
            count: Count::default(),
            send: sent(&mut Client::upgraded(&Options::default()), send),
            scratch: Vec::new(),
        };
        room.put_conversation(subscribers);
        for index in 0..=subscribers {
            let connection = ConnectionId { index, generation: 0 };
            room.connect(connection, user(index));
            while room.is_busy() {
                room.turn();
            }
        }
        room
    }

    fn put_conversation(&mut self, subscribers: u32) {
        let mut participants: Vec<_> = (0..=subscribers)
            .map(|index| Participant { user: user(index), role: ParticipantRole::Member, joined_at: self.now.wall })
            .collect();
        participants.sort_by_key(|participant| participant.user);
        let conversation = Conversation {
            id: ConversationId::new(CONVERSATION).expect("in range"),
            kind: ConversationKind::Group,
            title: None,
            created_by: user(0),
            created_at: self.now.wall,
            participants,
        };
        assert!(self.store.ask(CreateConversation { conversation }).is_ok_and(|answer| answer.created));
    }

    fn connect(&mut self, connection: ConnectionId, user: UserId) {
        let peer = Redacted::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.input(Input::Opened { connection, peer, kind: ListenerKind::Http });
        let expires = self.now.wall.after(Duration::from_secs(86_400));
        let token = self.keys.sign(&Claims { user, roles: Vec::new(), expires, family: None }, self.now.wall);
        let query = format!("?token={token}");
        let mut client = Client::new(Transport::WebSocket, &Options { query: &query, ..Options::default() });
        let bytes = sent(&mut client, |client| {
            client.send_frame(Command::Connect, &[("accept-version", "1.2"), ("host", "x")], None);
            if connection != SENDER {
                let topic = format!("/topic/conversation/{CONVERSATION}");
                client.send_frame(Command::Subscribe, &[("id", "sub-0"), ("destination", &topic)], None);
            }
        });
        self.receive(connection, &bytes);
    }

    /// Sends `messages`, with `in_flight` of them at any time, until all have a receipt and were delivered.
    fn exchange(&mut self, messages: usize, in_flight: usize) {
        self.receipts = 0;
        let mut sent = 0;
        while self.receipts < messages {
            let next = (in_flight - (sent - self.receipts)).min(messages - sent);
            sent += next;
            self.scratch.clear();
            for _ in 0..next {
                self.scratch.extend_from_slice(&self.send);
            }
            let mut bytes = take(&mut self.scratch);
            if next > 0 {
                self.input(Input::Received { connection: SENDER, bytes: &mut bytes });
            }
            self.scratch = bytes;
            self.turn();
        }
        assert!(!self.is_busy());
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.input(Input::Received { connection, bytes: &mut bytes.to_vec() });
    }

    fn is_busy(&self) -> bool {
        !self.asked.is_empty() || !self.dirty.is_empty()
    }

    /// The store replies to this turn's requests in the next turn, as they take a commit.
    fn turn(&mut self) {
        self.now = Now { mono: self.now.mono.after(TURN), wall: self.now.wall.after(TURN) };
        if self.shard.next_deadline().is_some_and(|due| due <= self.now.mono) {
            self.input(Input::Deadline);
        }
        self.flush();
        for (ticket, request) in take(&mut self.asked) {
            let reply = self.store.apply(&request);
            self.input(Input::Stored { ticket, reply });
        }
        self.flush();
    }

    fn input(&mut self, input: Input<'_>) {
        self.shard.handle(self.now, input, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Flush { connection } => self.dirty.push(connection),
                Effect::Store { ticket, request } => self.asked.push((ticket, request)),
                other => panic!("unexpected effect: {other:?}"),
            }
        }
    }

    fn flush(&mut self) {
        let mut dirty = take(&mut self.dirty);
        for connection in dirty.drain(..) {
            self.write(connection);
        }
        assert!(self.dirty.is_empty(), "a write queues no other write");
        self.dirty = dirty;
    }

    /// Writes to one connection until its outbox is empty.
    fn write(&mut self, connection: ConnectionId) {
        while let Some(outbox) = self.shard.outbox(connection).filter(|outbox| !outbox.is_empty()) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let frames = outbox.slices(&mut slices);
            let bytes = black_box(&slices[..frames]).iter().map(|slice| slice.len()).sum();
            if connection == SENDER {
                self.receipts += frames;
            } else {
                self.count.deliveries += frames;
                self.count.bytes += bytes;
                self.count.writes += 1;
            }
            self.input(Input::Written { connection, bytes, blocked: false });
        }
    }
}

fn user(index: u32) -> UserId {
    UserId::new(u64::from(index) + 1).expect("in range")
}

/// A SEND with a receipt.
fn send(client: &mut Client) {
    let (open, close) = (r#"{"content":""#, r#""}"#);
    let content = ".".repeat(BODY_BYTES - open.len() - close.len());
    let destination = format!("/app/conversations/{CONVERSATION}/send");
    let headers = [("destination", destination.as_str()), ("content-type", "application/json"), ("receipt", "r")];
    client.send_frame(Command::Send, &headers, Some(format!("{open}{content}{close}").as_bytes()));
}

/// The bytes that a client writes in `act`.
fn sent(client: &mut Client, act: impl FnOnce(&mut Client)) -> Vec<u8> {
    act(client);
    let mut bytes = Vec::new();
    while let Some(output) = client.next_output() {
        if let Output::Write(_, piece) = output {
            bytes.extend_from_slice(piece);
        }
    }
    bytes
}

/// User and system time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec`, which the call fills.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0, "every Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
